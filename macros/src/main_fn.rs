//! `#[mobula::main]`: a node around `main`.

use crate::errors::Errors;
use crate::params::blame;
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{ItemFn, spanned::Spanned};

pub fn expand(args: TokenStream, tokens: &TokenStream) -> TokenStream {
    let mut errors = Errors::new();
    let Ok(item) = syn::parse2::<ItemFn>(tokens.clone()) else {
        errors.at(
            tokens,
            "`#[mobula::main]` stands on a function: `fn main()` or `async fn main()`",
        );
        let errors = errors.into_tokens();
        return quote!(#tokens #errors);
    };
    let sig = &item.sig;
    if !args.is_empty() {
        errors.at(
            args,
            "`#[mobula::main]` takes no options: for a configured node call \
             `mobula::Config::new()..init()` at the top of a plain `main`",
        );
    }
    if !sig.inputs.is_empty() {
        errors.at(
            &sig.inputs,
            "`main` takes no arguments: read `std::env::args()`",
        );
    }
    if !sig.generics.params.is_empty() || sig.generics.where_clause.is_some() {
        errors.at(&sig.generics, "`main` cannot be generic");
    }
    if let Some(token) = sig.unsafety {
        errors.at(token, "`main` cannot be unsafe");
    }
    if let Some(abi) = &sig.abi {
        errors.at(abi, "`#[mobula::main]` needs a plain Rust function");
    }
    if errors.count() > 0 {
        // The error stands for the function; an `async fn main` beside it would be a second one.
        let errors = errors.into_tokens();
        let ident = &sig.ident;
        return quote!(fn #ident() {} #errors);
    }
    let ItemFn {
        attrs, vis, block, ..
    } = &item;
    let (asyncness, ident, output) = (&sig.asyncness, &sig.ident, &sig.output);
    let run = asyncness.map_or_else(
        || quote!(#ident()),
        |token| quote_spanned!(blame(token.span())=> ::mobula::__private::block_on(#ident())),
    );
    quote! {
        #(#attrs)*
        #vis fn #ident() #output {
            #asyncness fn #ident() #output #block

            let _mobula = match ::mobula::init() {
                ::core::result::Result::Ok(node) => node,
                ::core::result::Result::Err(error) => {
                    ::std::eprintln!("error: the mobula node did not start: {error}");
                    ::std::process::exit(1)
                }
            };
            #run
        }
    }
}
