//! `#[remote]` on a struct or enum: the state of an actor, with its archive and its defaults.

use crate::errors::{Errors, show};
use crate::options::Options;
use crate::params::{blame, cfgs};
use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Attribute, Generics, Item, Meta};

pub fn expand(item: &Item, options: &Options, errors: &mut Errors) -> TokenStream {
    let (ident, generics, attrs) = match item {
        Item::Struct(item) => (&item.ident, &item.generics, &item.attrs),
        Item::Enum(item) => (&item.ident, &item.generics, &item.attrs),
        _ => return quote!(#item),
    };
    if !generics.params.is_empty() || generics.where_clause.is_some() {
        generic_actor(ident, generics, errors);
        return quote!(#item);
    }
    let derives = derives(attrs);
    let cfgs = cfgs(attrs);
    let defaults = options.defaults(false);
    quote_spanned! {blame(ident.span())=>
        #derives
        #item

        #(#cfgs)*
        impl #ident {
            #[doc(hidden)]
            pub const __MOBULA_DEFAULTS: ::mobula::__private::Defaults = #defaults;
        }
    }
}

/// `#[value]`: the archive alone.
pub fn expand_value(args: TokenStream, tokens: &TokenStream) -> TokenStream {
    let mut errors = Errors::new();
    if !args.is_empty() {
        errors.at(args, "`#[value]` takes no options");
    }
    let derives = match syn::parse2::<Item>(tokens.clone()) {
        Ok(Item::Struct(item)) => derives(&item.attrs),
        Ok(Item::Enum(item)) => derives(&item.attrs),
        Ok(other) => {
            let message = format!(
                "`#[value]` cannot stand on {}: put it on a struct or an enum",
                describe(&other)
            );
            errors.at(head(&other), message);
            None
        }
        Err(error) => {
            errors.push(error);
            None
        }
    };
    let errors = errors.into_tokens();
    quote!(#derives #tokens #errors)
}

/// The derives of the archive, unless `attrs` have their own.
fn derives(attrs: &[Attribute]) -> Option<TokenStream> {
    (!attrs.iter().any(derives_archive)).then(|| {
        let own_path = attrs.iter().any(names_rkyv_crate);
        let path = (!own_path).then(|| quote!(#[rkyv(crate = ::mobula::rkyv)]));
        quote! {
            #[derive(
                ::mobula::rkyv::Archive,
                ::mobula::rkyv::Serialize,
                ::mobula::rkyv::Deserialize,
            )]
            #path
        }
    })
}

/// Reports that an actor is generic.
pub fn generic_actor(place: impl ToTokens, generics: &Generics, errors: &mut Errors) {
    let name = show(&place);
    let name = name.split('<').next().unwrap_or(&name);
    let place = if generics.params.is_empty() {
        place.into_token_stream()
    } else {
        quote!(#generics)
    };
    errors.at(
        place,
        format!(
            "an actor's type cannot be generic, since each is registered once under its name: \
             write one concrete type per use of `{name}`, holding it as a field"
        ),
    );
}

fn derives_archive(attr: &Attribute) -> bool {
    let Meta::List(list) = &attr.meta else {
        return false;
    };
    attr.path().is_ident("derive") && has_word(list.tokens.clone(), "Archive")
}

fn names_rkyv_crate(attr: &Attribute) -> bool {
    let Meta::List(list) = &attr.meta else {
        return false;
    };
    attr.path().is_ident("rkyv") && has_word(list.tokens.clone(), "crate")
}

fn has_word(tokens: TokenStream, word: &str) -> bool {
    tokens
        .into_iter()
        .any(|token| matches!(token, TokenTree::Ident(ident) if ident == word))
}

/// What `item` is, for a message.
pub fn describe(item: &Item) -> &'static str {
    match item {
        Item::Mod(_) => "a module",
        Item::Trait(_) | Item::TraitAlias(_) => "a trait",
        Item::Const(_) => "a constant",
        Item::Static(_) => "a static",
        Item::Union(_) => "a union",
        Item::Type(_) => "a type alias",
        Item::Use(_) => "an import",
        Item::Macro(_) => "a macro",
        Item::ExternCrate(_) | Item::ForeignMod(_) => "an extern item",
        Item::Fn(_) => "a function",
        Item::Impl(_) => "an `impl` block",
        _ => "this item",
    }
}

/// Where to report a problem with the whole of `item`: its name where it has one.
pub fn head(item: &Item) -> TokenStream {
    let ident: Option<&Ident> = match item {
        Item::Mod(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::Const(item) => Some(&item.ident),
        Item::Static(item) => Some(&item.ident),
        Item::Union(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        _ => None,
    };
    ident.map_or_else(|| quote!(#item), |ident| quote!(#ident))
}
