//! Reads signatures: which kind each parameter is, what the call gives, and what cannot cross a
//! remote call at all.

use crate::errors::{Errors, show};
use crate::types::{Borrowed, Unfit, borrowed, replace_self, result_args, strip, unfit};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, FnArg, Lifetime, Pat, PatType, Path, ReturnType, Signature, Type};

/// What a signature is of, for messages.
pub const FUNCTION: &str = "function";
pub const METHOD: &str = "method";
pub const CONSTRUCTOR: &str = "constructor";

/// The most parameters a remote call takes: `Params` is implemented for tuples up to this.
const MAX_PARAMS: usize = 12;

/// One parameter of a remote call.
pub struct Param {
    pub name: Ident,
    /// `impl Arg<..>`: what callers pass.
    arg: TokenStream,
    /// `Owned<T>`, `Slice<E>`, `Text` or `InPlace<T>`: how it travels and arrives.
    marker: TokenStream,
}

/// A signature that a remote call can have.
pub struct Call {
    params: Vec<Param>,
    pub output: TokenStream,
    fallible: bool,
    error_span: Span,
    /// Where to report that the parameters as a whole cannot cross a call. The compiler reports
    /// one cause once per place, so everything that needs them is put there.
    pub place: Span,
}

/// A span for code of ours that should be blamed on `place`: located there, resolved here.
pub fn blame(place: Span) -> Span {
    Span::call_site().located_at(place)
}

/// The attributes of `attrs` that are `#[cfg(..)]`: what is generated must vanish with the item.
pub fn cfgs(attrs: &[Attribute]) -> Vec<&Attribute> {
    attrs
        .iter()
        .filter(|attr| attr.path().is_ident("cfg"))
        .collect()
}

impl Call {
    /// Reads `sig`; `what` names it in messages, `actor` is what `Self`
    /// stands for in it. Problems go to `errors`; the result is usable only if there were none.
    pub fn read(sig: &Signature, what: &str, actor: Option<&Path>, errors: &mut Errors) -> Self {
        check_qualifiers(sig, what, errors);
        let typed: Vec<&PatType> = sig
            .inputs
            .iter()
            .filter_map(|input| match input {
                FnArg::Typed(typed) => Some(typed),
                FnArg::Receiver(_) => None,
            })
            .collect();
        if let Some(extra) = typed.get(MAX_PARAMS) {
            errors.at(
                extra,
                format!(
                    "a remote {what} takes at most {MAX_PARAMS} parameters, `{}` has {}: gather \
                     some in a struct",
                    sig.ident,
                    typed.len()
                ),
            );
        }
        let params = name_all(&typed)
            .into_iter()
            .zip(&typed)
            .filter_map(|(name, typed)| read_param(name, typed, what, actor, errors))
            .collect();
        let place = match typed.as_slice() {
            [only] => only.ty.span(),
            _ => sig.paren_token.span.join(),
        };
        let place = blame(place);
        let (output, fallible, error_span) = read_output(&sig.output, what, actor, errors);
        Self {
            params,
            output,
            fallible,
            error_span,
            place,
        }
    }

    /// `a: impl Arg<u64>, v: impl Arg<Vec<f32>>`
    pub fn args(&self) -> TokenStream {
        let args = self
            .params
            .iter()
            .map(|Param { name, arg, .. }| quote!(#name: #arg));
        quote!(#(#args),*)
    }

    /// `(a, v,)`
    pub fn tuple(&self) -> TokenStream {
        let names = self.params.iter().map(|param| &param.name);
        quote!((#(#names,)*))
    }

    /// `(Owned<u64>, Slice<f32>,)`
    pub fn markers(&self) -> TokenStream {
        let markers = self.params.iter().map(|param| &param.marker);
        quote_spanned!(self.place=> (#(#markers,)*))
    }

    /// The type of the arguments as they arrive: `(u64, &'_ [f32])`.
    pub fn decoded(&self, lifetime: &str) -> TokenStream {
        let lifetime = Lifetime::new(lifetime, self.place);
        quote_spanned! {self.place=>
            <Self::Params as ::mobula::__private::Params>::Decoded<#lifetime>
        }
    }

    /// Takes `__args` apart into the `locals`.
    pub fn unpack(&self) -> TokenStream {
        let locals = self.locals();
        quote_spanned!(self.place=> let (#(#locals,)*) = __args;)
    }

    /// Names for the arguments inside generated bodies, out of reach of the user's own.
    pub fn locals(&self) -> Vec<Ident> {
        (0..self.params.len())
            .map(|i| Ident::new(&format!("__arg{i}"), Span::mixed_site()))
            .collect()
    }

    /// A check that says plainly when the output is not a value. Without it the first complaint is about what
    /// values are made of.
    pub fn check_output(&self) -> TokenStream {
        let output = &self.output;
        quote_spanned! {blame(output.span())=>
            const _: fn() = ::mobula::__private::is_value::<#output>;
        }
    }

    /// The `Result<Output, Failure>` of `call`.
    pub fn outcome(&self, call: &TokenStream) -> TokenStream {
        if !self.fallible {
            return quote!(::core::result::Result::Ok(#call));
        }
        let error = Ident::new("__error", Span::mixed_site());
        let failure = quote_spanned!(blame(self.error_span)=>
            ::mobula::__private::failure(#error)
        );
        quote! {
            match #call {
                ::core::result::Result::Ok(__value) => ::core::result::Result::Ok(__value),
                ::core::result::Result::Err(#error) => ::core::result::Result::Err(#failure),
            }
        }
    }

    /// The type that `call` returns: `Result<Output, Failure>`.
    pub fn result(&self) -> TokenStream {
        let output = &self.output;
        quote_spanned!(self.place=> ::core::result::Result<#output, ::mobula::__private::Failure>)
    }
}

fn check_qualifiers(sig: &Signature, what: &str, errors: &mut Errors) {
    let name = &sig.ident;
    if let Some(token) = sig.unsafety {
        errors.at(
            token,
            format!(
                "a remote {what} cannot be unsafe: a caller far away cannot uphold its contract; \
                 wrap it in a safe one"
            ),
        );
    }
    if let Some(abi) = &sig.abi {
        errors.at(
            abi,
            format!("a remote {what} has Rust's own ABI: wrap `{name}` in a plain one"),
        );
    }
    if let Some(variadic) = &sig.variadic {
        errors.at(
            variadic,
            format!("a remote {what} cannot be variadic: take a `Vec`"),
        );
    }
    let generics = &sig.generics;
    if generics
        .params
        .iter()
        .any(|p| !matches!(p, syn::GenericParam::Lifetime(_)))
    {
        errors.at(
            generics,
            match what {
                FUNCTION => format!(
                    "a remote function cannot be generic, since each is registered once under its \
                     name: leave `{name}` plain, and write a concrete `#[remote]` function per \
                     type that calls it"
                ),
                _ => format!(
                    "a remote {what} cannot be generic, since each is registered once under its \
                     name: write a concrete one per type, which may call a generic function"
                ),
            },
        );
    } else if !generics.params.is_empty() {
        errors.at(
            generics,
            format!(
                "a remote {what} has no lifetime parameters: leave them out, `&str`, `&[T]` and \
                 `&Archived<T>` need none"
            ),
        );
    }
    if let Some(clause) = &generics.where_clause {
        errors.at(
            clause,
            format!("a remote {what} is concrete and needs no `where` clause"),
        );
    }
}

/// The parameters' names; patterns get fresh ones.
fn name_all(typed: &[&PatType]) -> Vec<Ident> {
    let own: Vec<Option<&Ident>> = typed
        .iter()
        .map(|typed| match &*typed.pat {
            Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => Some(&pat.ident),
            _ => None,
        })
        .collect();
    let fresh = |i: usize, pat: &Pat| {
        let mut name = format!("arg{i}");
        while own.iter().flatten().any(|other| **other == name) {
            name.push('_');
        }
        Ident::new(&name, blame(pat.span()))
    };
    let name = |(i, own): (usize, Option<&Ident>)| match own {
        Some(ident) => ident.clone(),
        None => fresh(i, &typed[i].pat),
    };
    own.iter().copied().enumerate().map(name).collect()
}

fn read_param(
    name: Ident,
    typed: &PatType,
    what: &str,
    actor: Option<&Path>,
    errors: &mut Errors,
) -> Option<Param> {
    for attr in cfgs(&typed.attrs) {
        errors.at(
            attr,
            format!(
                "a parameter of a remote {what} cannot have a `cfg`: put it on the whole {what}"
            ),
        );
    }
    let ty = strip(&typed.ty);
    let span = blame(ty.span());
    let (kind, inner) = match borrowed(ty, what) {
        Ok(Some(Borrowed::Text)) => {
            let arg = quote_spanned!(span=> impl ::mobula::__private::Arg<::std::string::String>);
            let marker = quote_spanned!(span=> ::mobula::__private::Text);
            return Some(Param { name, arg, marker });
        }
        Ok(Some(Borrowed::Slice(element))) => ("Slice", element),
        Ok(Some(Borrowed::InPlace(value))) => ("InPlace", value),
        Ok(None) => ("Owned", ty),
        Err(message) => {
            errors.at(ty, message);
            return None;
        }
    };
    if let Some(problem) = unfit(inner.to_token_stream()) {
        let message = match problem {
            Unfit::Reference => format!(
                "a remote {what} cannot take a borrow inside `{}`: own what it borrows, like \
                 `String` for `&str` and `Vec<T>` for `&[T]`",
                show(ty)
            ),
            Unfit::Trait(word) => format!(
                "a remote {what} cannot take `{word}`, since what crosses a call must be one known \
                 type: name the concrete type instead of `{}`",
                show(ty)
            ),
            Unfit::Placeholder => "name the type: a signature cannot have `_`".to_owned(),
        };
        errors.at(ty, message);
        return None;
    }
    let inner = replace_self(inner.to_token_stream(), actor);
    let kind = Ident::new(kind, span);
    let value = if kind == "Slice" {
        quote_spanned!(span=> ::std::vec::Vec<#inner>)
    } else {
        inner.clone()
    };
    let arg = quote_spanned!(span=> impl ::mobula::__private::Arg<#value>);
    let marker = quote_spanned!(span=> ::mobula::__private::#kind<#inner>);
    Some(Param { name, arg, marker })
}

fn read_output(
    output: &ReturnType,
    what: &str,
    actor: Option<&Path>,
    errors: &mut Errors,
) -> (TokenStream, bool, Span) {
    let ReturnType::Type(_, ty) = output else {
        return (quote!(()), false, Span::call_site());
    };
    let ty = strip(ty);
    let (value, fallible) = match result_args(ty).as_deref() {
        Some([value, ..]) => (*value, true),
        Some([]) => {
            errors.at(
                ty,
                format!(
                    "a remote {what} must show what it gives: spell `Result<T, E>` instead of the \
                     alias `{}`",
                    show(ty)
                ),
            );
            (ty, false)
        }
        None => (ty, false),
    };
    if let Type::Never(never) = value {
        errors.at(
            never,
            format!("a remote {what} returns: its caller waits for the result"),
        );
    }
    if let Some(problem) = unfit(value.to_token_stream()) {
        let message = match problem {
            Unfit::Reference => format!(
                "a remote {what} cannot return a borrow: return an owned value instead of `{}`{}",
                show(value),
                if what == METHOD {
                    ", or move it to a plain `impl` block"
                } else {
                    ""
                }
            ),
            Unfit::Trait(word) => format!(
                "a remote {what} cannot return `{word}` yet: name the concrete type, or collect \
                 into a `Vec`"
            ),
            Unfit::Placeholder => "name the type: a signature cannot have `_`".to_owned(),
        };
        errors.at(value, message);
    }
    let error_span = match strip(ty) {
        Type::Path(path) => path.path.segments.last().map_or(ty.span(), Spanned::span),
        _ => ty.span(),
    };
    (
        replace_self(value.to_token_stream(), actor),
        fallible,
        error_span,
    )
}

/// `{ident}_{suffix}`: a type of ours that no type of the user's is likely to be called.
pub fn companion(ident: &Ident, suffix: &str) -> Ident {
    format_ident!("{}_{suffix}", ident, span = blame(ident.span()))
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
