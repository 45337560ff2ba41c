//! `#[remote]` on an `impl` block: the block, and beside it the actor's entry, its constructor
//! and the methods of its handle.

use crate::docs;
use crate::errors::{Errors, show};
use crate::method::receiver;
use crate::options::Options;
use crate::params::{CONSTRUCTOR, Call, blame, cfgs, companion};
use crate::state;
use crate::types::result_args;
use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{ImplItem, ImplItemFn, ItemImpl, Path, PathArguments, ReturnType, Type, Visibility};

/// Names of associated functions that `#[remote]` adds to the actor's type.
const ADDED: &[&str] = &["remote", "options", "named"];

pub fn expand(item: &ItemImpl, options: &Options, errors: &mut Errors) -> TokenStream {
    let Some(path) = actor_path(item, errors) else {
        return quote!(#item);
    };
    let actor = Actor::new(path, item);
    let functions = item.items.iter().filter_map(|item| match item {
        ImplItem::Fn(function) => Some(function),
        _ => None,
    });
    let mut constructor = None;
    let mut methods = TokenStream::new();
    let (mut found_new, mut clash) = (false, false);
    for function in functions {
        let name = function.sig.ident.unraw().to_string();
        let public = !matches!(function.vis, Visibility::Inherited);
        if ADDED.contains(&name.as_str()) {
            clash = true;
            errors.at(
                &function.sig.ident,
                format!(
                    "`#[remote]` adds a function `{name}` of its own to `{}`: give this one \
                     another name",
                    actor.name
                ),
            );
        } else if name == "new" {
            found_new = true;
            constructor = actor
                .read_new(function, errors)
                .map(|call| (function, call));
        } else if let (true, Some(receiver)) = (public, receiver(function)) {
            methods.extend(actor.method(function, receiver, &name, errors));
        }
    }
    if !found_new {
        errors.at(
            path,
            format!(
                "an actor needs `pub fn new(..) -> Self` in this block: `{0}::remote(..)` calls \
                 it. An actor has one `#[remote] impl` block; further methods that are not called \
                 remotely go to a plain one",
                actor.name
            ),
        );
    }
    let generated = constructor
        .filter(|_| !clash)
        .map(|(function, call)| actor.generate(function, &call, options, &methods));
    quote!(#item #generated)
}

/// The actor's type, if `item` is an `impl` block that can be an actor's.
fn actor_path<'a>(item: &'a ItemImpl, errors: &mut Errors) -> Option<&'a Path> {
    let before = errors.count();
    if let Some((_, path, _)) = &item.trait_ {
        errors.at(
            path,
            "`#[remote]` stands on an actor's own `impl` block, not on that of a trait: write an \
             inherent method that calls the trait's",
        );
    }
    if let Some(token) = item.unsafety {
        errors.at(token, "a remote `impl` block cannot be unsafe");
    }
    if !item.generics.params.is_empty() || item.generics.where_clause.is_some() {
        state::generic_actor(&item.self_ty, &item.generics, errors);
    }
    let path = match &*item.self_ty {
        Type::Path(ty) if ty.qself.is_none() => Some(&ty.path),
        other => {
            errors.at(
                other,
                "an actor is a struct or an enum of this crate: name it here",
            );
            None
        }
    };
    let generic = |path: &&Path| {
        path.segments
            .last()
            .is_some_and(|last| !matches!(last.arguments, PathArguments::None))
    };
    if let (Some(path), true) = (path.filter(generic), errors.count() == before) {
        state::generic_actor(path, &item.generics, errors);
    }
    path.filter(|_| errors.count() == before)
}

/// The actor of an `impl` block.
pub struct Actor<'a> {
    pub path: &'a Path,
    item: &'a ItemImpl,
    name: String,
    options_ty: Ident,
    pub methods_ty: Ident,
}

impl<'a> Actor<'a> {
    fn new(path: &'a Path, item: &'a ItemImpl) -> Self {
        let ident = path.segments.last().map_or_else(
            || Ident::new("Actor", Span::call_site()),
            |last| last.ident.clone(),
        );
        Self {
            path,
            item,
            name: ident.unraw().to_string(),
            options_ty: companion(&ident, "options"),
            methods_ty: companion(&ident, "methods"),
        }
    }

    /// `concat!(module_path!(), "::Counter<suffix>")`
    pub fn entry_name(&self, suffix: &str) -> TokenStream {
        let name = format!("::{}{suffix}", self.name);
        quote!(::core::concat!(::core::module_path!(), #name))
    }

    fn read_new(&self, function: &ImplItemFn, errors: &mut Errors) -> Option<Call> {
        let before = errors.count();
        let sig = &function.sig;
        if matches!(function.vis, Visibility::Inherited) {
            errors.at(
                &sig.ident,
                format!("`new` must be `pub`: `{}::remote(..)` calls it", self.name),
            );
        }
        if let Some(token) = sig.asyncness {
            errors.at(
                token,
                "an actor's `new` cannot be async: create what it needs in an async method that \
                 is called first",
            );
        }
        if let Some(receiver) = receiver(function) {
            errors.at(
                receiver,
                "an actor's `new` creates the actor, so it cannot take `self`",
            );
        }
        let call = Call::read(sig, CONSTRUCTOR, Some(self.path), errors);
        let gives = match &sig.output {
            ReturnType::Type(_, ty) => Some(
                result_args(ty)
                    .and_then(|args| args.first().copied())
                    .unwrap_or(ty),
            ),
            ReturnType::Default => None,
        };
        let own = |ty: &&Type| {
            let ty = show(ty);
            ty == "Self" || ty == show(self.path) || ty == self.name
        };
        if errors.count() == before && gives.is_none_or(|ty| !own(&ty)) {
            let place = gives.map_or_else(|| sig.ident.to_token_stream(), |ty| quote!(#ty));
            errors.at(
                place,
                "an actor's `new` returns `Self` or `Result<Self, E>`",
            );
        }
        (errors.count() == before).then_some(call)
    }

    fn generate(
        &self,
        new: &ImplItemFn,
        call: &Call,
        options: &Options,
        methods: &TokenStream,
    ) -> TokenStream {
        let Self {
            path,
            options_ty,
            methods_ty,
            name,
            ..
        } = self;
        let cfgs = cfgs(&self.item.attrs);
        let vis = &new.vis;
        let at = blame(new.sig.ident.span());
        let (args, tuple) = (call.args(), call.tuple());
        let remote_doc = docs::copy(
            &new.attrs,
            &format!("Creates a `{name}` actor and returns its handle at once."),
        );
        let options_doc = format!("Options for the next `{name}` actor, then `.remote(..)`.");
        let named_doc = format!("The handle of the `{name}` actor registered as `name`.");
        let entry = self.entry(new, call, options);
        quote_spanned! {at=>
            #(#cfgs)*
            #[allow(
                non_camel_case_types,
                dead_code,
                deprecated,
                private_interfaces,
                clippy::too_many_arguments,
            )]
            const _: () = {
                impl #path {
                    #remote_doc
                    #vis fn remote(#args) -> ::mobula::__private::Handle<#path> {
                        ::mobula::__private::create::<#path, _>(#tuple)
                    }

                    #[doc = #options_doc]
                    #vis fn options() -> #options_ty {
                        #options_ty(::mobula::__private::ActorOptions::new())
                    }

                    #[doc = #named_doc]
                    #[doc = ""]
                    #[doc = "# Errors"]
                    #[doc = ""]
                    #[doc = "When no actor of that name and type is registered."]
                    #vis fn named(
                        name: &str,
                    ) -> ::mobula::__private::Result<::mobula::__private::Handle<#path>> {
                        ::mobula::__private::named::<#path>(name)
                    }
                }

                #[doc = #options_doc]
                #[must_use = "options do nothing until `.remote(..)`"]
                pub struct #options_ty(::mobula::__private::ActorOptions);

                ::mobula::__private::actor_option_methods!(#options_ty);

                impl #options_ty {
                    #remote_doc
                    #vis fn remote(self, #args) -> ::mobula::__private::Handle<#path> {
                        ::mobula::__private::create_with::<#path, _>(self.0, #tuple)
                    }

                    #remote_doc
                    #[doc = ""]
                    #[doc = "# Errors"]
                    #[doc = ""]
                    #[doc = "When the actor cannot be created as asked, as when its name is taken."]
                    #vis fn try_remote(
                        self,
                        #args
                    ) -> ::mobula::__private::Result<::mobula::__private::Handle<#path>> {
                        ::mobula::__private::try_create_with::<#path, _>(self.0, #tuple)
                    }
                }

                #[doc = "The methods of the actor's handle."]
                pub struct #methods_ty(::mobula::__private::RawHandle);

                impl ::mobula::__private::ActorMethods for #methods_ty {
                    fn from_raw(raw: ::mobula::__private::RawHandle) -> Self {
                        #methods_ty(raw)
                    }

                    fn raw(&self) -> &::mobula::__private::RawHandle {
                        &self.0
                    }
                }

                #entry
                #methods
            };
        }
    }

    /// `Actor`, its entry and its registration.
    fn entry(&self, new: &ImplItemFn, call: &Call, options: &Options) -> TokenStream {
        let Self {
            path, methods_ty, ..
        } = self;
        let ident = &new.sig.ident;
        let at = blame(ident.span());
        let (name, defaults) = (self.entry_name(""), options.defaults(false));
        let (markers, locals) = (call.markers(), call.locals());
        let (decoded, unpack) = (call.decoded("'_"), call.unpack());
        let outcome = call.outcome(&quote_spanned!(at=> <#path>::#ident(#(#locals),*)));
        let line = quote_spanned!(self.item.impl_token.span=> ::core::line!());
        let construct = quote_spanned! {call.place=>
            fn construct(
                __args: #decoded,
            ) -> ::core::result::Result<#path, ::mobula::__private::Failure> {
                #unpack
                #outcome
            }
        };
        let check = quote_spanned! {self.item.self_ty.span()=>
            const _: () = ::core::assert!(
                !(#defaults).over(<#path>::__MOBULA_DEFAULTS).memory_without_isolate(),
                "`memory` bounds the worker process of an actor that lives in one: add `isolate`",
            );
        };
        quote_spanned! {at=>
            #check

            #[allow(unused_imports)]
            use ::mobula::__private::{DefaultsFallback as _, NotSaved as _};

            static __MOBULA_ACTOR: ::mobula::__private::ActorEntry =
                ::mobula::__private::ActorEntry::new::<#path>(
                    #name,
                    ::core::file!(),
                    #line,
                    <#path>::__MOBULA_DEFAULTS,
                    #defaults,
                )
                .keeping(<::mobula::__private::Saved<#path>>::KEEP);

            impl ::mobula::__private::Actor for #path {
                type Methods = #methods_ty;
                type Params = #markers;
                const ENTRY: &'static ::mobula::__private::ActorEntry = &__MOBULA_ACTOR;

                #construct
            }

            ::mobula::__private::inventory::submit! {
                ::mobula::__private::ActorRegistration(&__MOBULA_ACTOR)
            }
        }
    }
}
