//! `#[remote]` on a function: the function, and beside it a type of its name that submits calls.

use crate::docs;
use crate::errors::Errors;
use crate::options::Options;
use crate::params::{Call, FUNCTION, blame, cfgs, companion};
use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{FnArg, ItemFn};

pub fn expand(item: &ItemFn, options: &Options, errors: &mut Errors) -> TokenStream {
    let before = errors.count();
    if let Some(FnArg::Receiver(receiver)) = item.sig.inputs.first() {
        errors.at(
            receiver,
            "a remote function has no `self`: for an actor's methods put `#[remote]` on the whole \
             `impl` block",
        );
    }
    let call = Call::read(&item.sig, FUNCTION, None, errors);
    if errors.count() > before {
        return quote!(#item);
    }
    let generated = generate(item, options, &call);
    quote!(#item #generated)
}

fn generate(item: &ItemFn, options: &Options, call: &Call) -> TokenStream {
    let ItemFn {
        attrs, vis, sig, ..
    } = item;
    let ident = &sig.ident;
    let name = ident.unraw().to_string();
    let cfgs = cfgs(attrs);
    let docs = docs::copy(
        attrs,
        &format!(
            "This type holds the remote side of the function: `{name}::remote(..)` submits a call."
        ),
    );
    let submit_doc = format!("Submits a call of `{name}` and returns at once.");
    let options_doc = format!("Options for the next call of `{name}`, then `.remote(..)`.");
    let options_ty = companion(ident, "options");
    let at = blame(ident.span());
    let (args, tuple) = (call.args(), call.tuple());
    let output = &call.output;
    // The traits are on a type that only this block sees: then a `pub` function of private types
    // is no more of an error than it is without `#[remote]`.
    let task = Ident::new("__MobulaTask", at);
    let entry = entry(item, options, &task);
    let implementation = implementation(item, call, &task);

    quote_spanned! {at=>
        #(#cfgs)*
        #[allow(
            non_camel_case_types,
            dead_code,
            missing_debug_implementations,
            missing_copy_implementations,
        )]
        #docs
        #vis struct #ident {}

        #(#cfgs)*
        #[allow(
            non_camel_case_types,
            dead_code,
            deprecated,
            private_interfaces,
            clippy::too_many_arguments,
        )]
        const _: () = {
            impl #ident {
                #[doc = #submit_doc]
                pub fn remote(#args) -> ::mobula::__private::ObjectRef<#output> {
                    ::mobula::__private::submit::<#task, _>(#tuple)
                }

                #[doc = #options_doc]
                pub fn options() -> #options_ty {
                    #options_ty(::mobula::__private::TaskOptions::new())
                }
            }

            #[doc = #options_doc]
            #[must_use = "options do nothing until `.remote(..)`"]
            pub struct #options_ty(::mobula::__private::TaskOptions);

            ::mobula::__private::task_option_methods!(#options_ty);

            impl #options_ty {
                #[doc = #submit_doc]
                pub fn remote(self, #args) -> ::mobula::__private::ObjectRef<#output> {
                    ::mobula::__private::submit_with::<#task, _>(self.0, #tuple)
                }
            }

            struct #task {}

            #entry
            #implementation
        };
    }
}

/// The registered entry.
fn entry(item: &ItemFn, options: &Options, task: &Ident) -> TokenStream {
    let ident = &item.sig.ident;
    let name = if let Some(name) = options.name() {
        quote!(#name)
    } else {
        let name = ident.unraw().to_string();
        quote!(::core::concat!(::core::module_path!(), "::", #name))
    };
    let line = quote_spanned!(ident.span()=> ::core::line!());
    let constructor = if item.sig.asyncness.is_some() {
        "async_task"
    } else {
        "sync_task"
    };
    let constructor = Ident::new(constructor, blame(ident.span()));
    let defaults = options.defaults(true);
    quote! {
        static __MOBULA_ENTRY: ::mobula::__private::FnEntry =
            ::mobula::__private::FnEntry::#constructor::<#task>(
                #name,
                ::core::file!(),
                #line,
                #defaults,
            );

        ::mobula::__private::inventory::submit! {
            ::mobula::__private::Registration(&__MOBULA_ENTRY)
        }
    }
}

/// `Task` and `SyncTask` or `AsyncTask`.
fn implementation(item: &ItemFn, call: &Call, task: &Ident) -> TokenStream {
    let ident = &item.sig.ident;
    let at = blame(ident.span());
    let (markers, output, result) = (call.markers(), &call.output, call.result());
    let locals = call.locals();
    let (decoded, unpack) = (call.decoded("'_"), call.unpack());
    let body = if item.sig.asyncness.is_some() {
        let outcome = call.outcome(&quote_spanned!(at=> #ident(#(#locals),*).await));
        quote_spanned! {call.place=>
            impl ::mobula::__private::AsyncTask for #task {
                fn call(
                    __args: #decoded,
                ) -> impl ::core::future::Future<Output = #result> + ::core::marker::Send {
                    #unpack
                    async move { #outcome }
                }
            }
        }
    } else {
        let outcome = call.outcome(&quote_spanned!(at=> #ident(#(#locals),*)));
        quote_spanned! {call.place=>
            impl ::mobula::__private::SyncTask for #task {
                fn call(
                    __args: #decoded,
                ) -> #result {
                    #unpack
                    #outcome
                }
            }
        }
    };
    let check = call.check_output();
    quote_spanned! {at=>
        #check

        impl ::mobula::__private::Task for #task {
            type Params = #markers;
            type Output = #output;
            const ENTRY: &'static ::mobula::__private::FnEntry = &__MOBULA_ENTRY;
        }

        #body
    }
}
