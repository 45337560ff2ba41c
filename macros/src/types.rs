//! Reads types: borrows that a remote call can lend, and what cannot cross a call at all.

use crate::errors::show;
use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{GenericArgument, Path, PathArguments, Type};

/// A borrow that a remote call can lend.
pub enum Borrowed<'a> {
    Text,
    Slice(&'a Type),
    InPlace(&'a Type),
}

/// What kind of borrow `ty` is, if it is one.
pub fn borrowed<'a>(ty: &'a Type, what: &str) -> Result<Option<Borrowed<'a>>, String> {
    let Type::Reference(reference) = ty else {
        return Ok(None);
    };
    let target = strip(&reference.elem);
    let shown = show(target);
    if reference.mutability.is_some() {
        let owned = match target {
            Type::Slice(slice) => format!("Vec<{}>", show(&slice.elem)),
            Type::Path(path) if path.path.is_ident("str") => "String".to_owned(),
            _ => shown,
        };
        return Err(format!(
            "a remote {what} cannot change its caller's value through `{}`: take `{owned}` by \
             value and return the changed one",
            show(ty)
        ));
    }
    let kind = match target {
        Type::Path(path) if path.path.is_ident("str") => Borrowed::Text,
        Type::Slice(slice) => Borrowed::Slice(&slice.elem),
        Type::Path(path) if path.qself.is_none() => match archived(&path.path) {
            Some(value) => Borrowed::InPlace(value),
            None if path.path.is_ident("String") => {
                return Err(format!(
                    "a remote {what} borrows text as `&str`, not as `&String`"
                ));
            }
            None if matches!(path.path.segments.last(), Some(last) if last.ident == "Vec") => {
                let slice = shown.replacen("Vec<", "&[", 1);
                let slice = format!("{}]", slice.strip_suffix('>').unwrap_or("&[T"));
                return Err(format!("a remote {what} borrows a `Vec` as `{slice}`"));
            }
            None => {
                return Err(format!(
                    "a remote {what} cannot borrow `{}`: take `{shown}` by value, or \
                     `&Archived<{shown}>` to read it in place from the store",
                    show(ty)
                ));
            }
        },
        Type::TraitObject(_) | Type::ImplTrait(_) => {
            return Err(format!(
                "a remote {what} cannot take `{}`, since what crosses a call must be one known \
                 type: name the concrete type",
                show(ty)
            ));
        }
        _ => {
            return Err(format!(
                "a remote {what} cannot borrow `{}`: take `{shown}` by value",
                show(ty)
            ));
        }
    };
    match &reference.lifetime {
        Some(lifetime) if lifetime.ident != "_" => Err(format!(
            "a remote {what} borrows its arguments for the call alone: leave `{lifetime}` out of \
             `{}`",
            show(ty)
        )),
        _ => Ok(Some(kind)),
    }
}

/// `T` of `Archived<T>`.
fn archived(path: &Path) -> Option<&Type> {
    let last = path
        .segments
        .last()
        .filter(|last| last.ident == "Archived")?;
    match type_args(&last.arguments).as_slice() {
        [only] => Some(only),
        _ => None,
    }
}

fn type_args(arguments: &PathArguments) -> Vec<&Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else {
        return Vec::new();
    };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    types.collect()
}

/// `ty` without parentheses and without the invisible groups that `macro_rules` leave.
pub fn strip(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => strip(&group.elem),
        Type::Paren(paren) => strip(&paren.elem),
        other => other,
    }
}

/// The type arguments of a `Result`; `None` for another type.
pub fn result_args(ty: &Type) -> Option<Vec<&Type>> {
    let Type::Path(path) = strip(ty) else {
        return None;
    };
    let last = path
        .path
        .segments
        .last()
        .filter(|last| last.ident == "Result")?;
    Some(type_args(&last.arguments))
}

/// Why a type cannot cross a call.
pub enum Unfit {
    Reference,
    Trait(&'static str),
    Placeholder,
}

/// Why a type cannot cross a call, if so: it holds a borrow, `impl`, `dyn` or `_`.
pub fn unfit(tokens: TokenStream) -> Option<Unfit> {
    let mut operand = false; // whether an operator may follow, as in `[u8; A & B]`
    for token in tokens {
        match &token {
            TokenTree::Punct(p) if p.as_char() == '&' && !operand => return Some(Unfit::Reference),
            TokenTree::Ident(word) if word == "impl" => return Some(Unfit::Trait("impl Trait")),
            TokenTree::Ident(word) if word == "dyn" => return Some(Unfit::Trait("dyn Trait")),
            TokenTree::Ident(word) if word == "_" => return Some(Unfit::Placeholder),
            TokenTree::Group(group) => {
                if let Some(found) = unfit(group.stream()) {
                    return Some(found);
                }
            }
            _ => {}
        }
        operand = !matches!(&token, TokenTree::Punct(p) if p.as_char() != '>');
    }
    None
}

/// `tokens` with `Self` spelt out, since what is generated lies outside the user's `impl`.
pub fn replace_self(tokens: TokenStream, actor: Option<&Path>) -> TokenStream {
    let Some(actor) = actor else { return tokens };
    let mut replaced = TokenStream::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(ident) if ident == "Self" => {
                let span = ident.span();
                let respanned = actor.to_token_stream().into_iter().map(|mut token| {
                    token.set_span(token.span().located_at(span));
                    token
                });
                let actor: TokenStream = respanned.collect();
                let qualified =
                    matches!(tokens.peek(), Some(TokenTree::Punct(p)) if p.as_char() == ':');
                replaced.extend(if qualified { quote!(<#actor>) } else { actor });
            }
            TokenTree::Group(group) => {
                let inner = replace_self(group.stream(), Some(actor));
                let mut new = proc_macro2::Group::new(group.delimiter(), inner);
                new.set_span(group.span());
                replaced.extend([TokenTree::Group(new)]);
            }
            other => replaced.extend([other]),
        }
    }
    replaced
}
