//! The remote methods of an actor: markers and entries for the node, functions for the handle.

use crate::actor::Actor;
use crate::docs;
use crate::errors::Errors;
use crate::params::{Call, METHOD, blame, cfgs};
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote_spanned};
use syn::{FnArg, ImplItemFn, Receiver, Type};

/// Names of the handle's own methods, which would hide an actor's.
const ON_HANDLE: &[&str] = &[
    "stop", "kill", "restart", "id", "clone", "is_alive", "pending", "remote", "options", "named",
];

/// How a method takes its actor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Shared,
    Exclusive,
    Consuming,
}

/// The `self` of `function`.
pub fn receiver(function: &ImplItemFn) -> Option<&Receiver> {
    match function.sig.inputs.first() {
        Some(FnArg::Receiver(receiver)) => Some(receiver),
        _ => None,
    }
}

/// How `receiver` takes the actor; `None` for `Arc<Self>` and its like.
fn access(receiver: &Receiver) -> Option<Access> {
    if receiver
        .lifetime()
        .is_some_and(|lifetime| lifetime.ident != "_")
    {
        return None;
    }
    match &*receiver.ty {
        Type::Path(path) if path.path.is_ident("Self") => Some(Access::Consuming),
        Type::Reference(reference) => match &*reference.elem {
            Type::Path(path) if path.path.is_ident("Self") => {
                let exclusive = reference.mutability.is_some();
                Some(if exclusive {
                    Access::Exclusive
                } else {
                    Access::Shared
                })
            }
            _ => None,
        },
        _ => None,
    }
}

impl Actor<'_> {
    /// One remote method: its marker, entry, implementation and place on the handle, in a block
    /// of their own that vanishes with the method's `cfg`.
    pub fn method(
        &self,
        function: &ImplItemFn,
        receiver: &Receiver,
        name: &str,
        errors: &mut Errors,
    ) -> TokenStream {
        let before = errors.count();
        let sig = &function.sig;
        if ON_HANDLE.contains(&name) {
            errors.at(
                &sig.ident,
                format!(
                    "`{name}` is a method of every actor's handle and would hide this one: give \
                     it another name, or make it private"
                ),
            );
        }
        let access = access(receiver);
        if access.is_none() {
            errors.at(
                receiver,
                "a remote method takes `&self`, `&mut self` or `self`, since the node owns the \
                 actor: use one of these, or make the method private",
            );
        }
        if let (Some(Access::Consuming), Some(token)) = (access, sig.asyncness) {
            errors.at(
                token,
                "a method that consumes its actor cannot be async: take `&mut self`, or leave \
                 `async` out",
            );
        }
        let call = Call::read(sig, METHOD, Some(self.path), errors);
        match access {
            Some(access) if errors.count() == before => {
                self.generate_method(function, access, name, &call)
            }
            _ => TokenStream::new(),
        }
    }

    fn generate_method(
        &self,
        function: &ImplItemFn,
        access: Access,
        name: &str,
        call: &Call,
    ) -> TokenStream {
        let Self {
            path, methods_ty, ..
        } = self;
        let ImplItemFn {
            attrs, vis, sig, ..
        } = function;
        let ident = &sig.ident;
        let at = blame(ident.span());
        let marker = format_ident!("__mobula_{name}", span = at);
        let kind = Kind::of(access, sig.asyncness.is_some());
        let (trait_name, constructor) = (
            Ident::new(kind.trait_name, at),
            Ident::new(kind.constructor, at),
        );
        let entry_name = self.entry_name(&format!("::{name}"));
        let line = quote_spanned!(ident.span()=> ::core::line!());
        let (args, tuple) = (call.args(), call.tuple());
        let (markers, output) = (call.markers(), &call.output);
        let body = self.body(ident, access, sig.asyncness.is_some(), call);
        let check = call.check_output();
        let cfgs = cfgs(attrs);
        let docs = docs::copy(attrs, "Submits the call and returns at once.");
        quote_spanned! {at=>
            #(#cfgs)*
            const _: () = {
                struct #marker {}

                #check

                static __MOBULA_ENTRY: ::mobula::__private::FnEntry =
                    ::mobula::__private::FnEntry::#constructor::<#marker>(
                        #entry_name,
                        ::core::file!(),
                        #line,
                    );

                impl ::mobula::__private::Method for #marker {
                    type Actor = #path;
                    type Params = #markers;
                    type Output = #output;
                    const ENTRY: &'static ::mobula::__private::FnEntry = &__MOBULA_ENTRY;
                }

                impl ::mobula::__private::#trait_name for #marker { #body }

                impl #methods_ty {
                    #docs
                    #vis fn #ident(
                        &self,
                        #args
                    ) -> ::mobula::__private::ObjectRef<#output> {
                        ::mobula::__private::call::<#marker, _>(&self.0, #tuple)
                    }
                }

                ::mobula::__private::inventory::submit! {
                    ::mobula::__private::Registration(&__MOBULA_ENTRY)
                }
            };
        }
    }

    /// `fn call(..)` of the method's trait.
    fn body(&self, ident: &Ident, access: Access, is_async: bool, call: &Call) -> TokenStream {
        let path = self.path;
        let at = blame(ident.span());
        let (locals, result) = (call.locals(), call.result());
        let (decoded, unpack) = (
            call.decoded(if is_async { "'a" } else { "'_" }),
            call.unpack(),
        );
        let lifetime = is_async.then(|| quote_spanned!(at=> 'a));
        let this = match access {
            Access::Shared => quote_spanned!(at=> &#lifetime #path),
            Access::Exclusive => quote_spanned!(at=> &#lifetime mut #path),
            Access::Consuming => quote_spanned!(at=> #path),
        };
        let invoked = quote_spanned!(at=> <#path>::#ident(__this, #(#locals),*));
        if is_async {
            let outcome = call.outcome(&quote_spanned!(at=> #invoked.await));
            return quote_spanned! {call.place=>
                fn call<'a>(
                    __this: #this,
                    __args: #decoded,
                ) -> impl ::core::future::Future<Output = #result> + ::core::marker::Send + 'a {
                    #unpack
                    async move { #outcome }
                }
            };
        }
        let outcome = call.outcome(&invoked);
        quote_spanned! {call.place=>
            fn call(
                __this: #this,
                __args: #decoded,
            ) -> #result {
                #unpack
                #outcome
            }
        }
    }
}

/// The runtime's trait for a method, and the constructor of its entry.
struct Kind {
    trait_name: &'static str,
    constructor: &'static str,
}

impl Kind {
    fn of(access: Access, is_async: bool) -> Self {
        let (trait_name, constructor) = match (access, is_async) {
            (Access::Shared, false) => ("SharedMethod", "shared_method"),
            (Access::Exclusive, false) => ("ExclusiveMethod", "exclusive_method"),
            (Access::Consuming, _) => ("ConsumingMethod", "consuming_method"),
            (Access::Shared, true) => ("AsyncSharedMethod", "async_shared_method"),
            (Access::Exclusive, true) => ("AsyncExclusiveMethod", "async_exclusive_method"),
        };
        Self {
            trait_name,
            constructor,
        }
    }
}
