//! Reads the values of options, each error at its value.

use crate::errors::show;
use proc_macro2::TokenStream;
use quote::{ToTokens, quote_spanned};
use syn::{Expr, ExprUnary, Lit, LitInt, LitStr, UnOp};

/// The sign and the literal of `value`, if it is one.
pub fn literal(value: &Expr) -> Option<(bool, &Lit)> {
    match value {
        // `-1` may come as one literal: `Meta` reads a value that way.
        Expr::Lit(lit) => Some((show(&lit.lit).trim_start().starts_with('-'), &lit.lit)),
        Expr::Group(group) => literal(&group.expr),
        Expr::Unary(ExprUnary {
            op: UnOp::Neg(_),
            expr,
            ..
        }) => match literal(expr)? {
            (false, lit @ (Lit::Int(_) | Lit::Float(_))) => Some((true, lit)),
            _ => None,
        },
        _ => None,
    }
}

/// `value` is not what option `name` takes.
pub fn wrong(value: &Expr, name: &str, expected: &str) -> syn::Error {
    let message = format!("`{name}` takes {expected}, not `{}`", show(value));
    syn::Error::new_spanned(value, message)
}

/// A finite number that is not negative.
pub fn amount(value: &Expr, name: &str) -> syn::Result<f64> {
    let number = match literal(value) {
        Some((_, Lit::Int(lit))) => lit.base10_parse::<f64>(),
        Some((_, Lit::Float(lit))) => lit.base10_parse::<f64>(),
        _ => return Err(wrong(value, name, "a number, like `2` or `0.5`")),
    };
    match (number, literal(value)) {
        (Ok(number), _) if !number.is_finite() => Err(syn::Error::new_spanned(
            value,
            format!("`{name}` must be a finite number"),
        )),
        (Ok(number), Some((true, _))) if number != 0.0 => Err(syn::Error::new_spanned(
            value,
            format!("`{name}` cannot be negative"),
        )),
        (Ok(number), _) => Ok(number),
        (Err(_), _) => Err(wrong(value, name, "a number, like `2` or `0.5`")),
    }
}

/// A `u32` of at least `min`; `why` says what is wrong with less.
pub fn count(value: &Expr, name: &str, min: u32, why: &str) -> syn::Result<u32> {
    let Some((negative, Lit::Int(lit))) = literal(value) else {
        return Err(wrong(value, name, "a whole number"));
    };
    if negative {
        return Err(syn::Error::new_spanned(
            value,
            format!("`{name}` cannot be negative"),
        ));
    }
    let Ok(number) = lit.base10_parse::<u32>() else {
        let message = format!("`{name}` is at most {}", u32::MAX);
        return Err(syn::Error::new_spanned(value, message));
    };
    if number < min {
        let message = format!("`{name}` must be at least {min}: {why}");
        return Err(syn::Error::new_spanned(value, message));
    }
    Ok(number)
}

/// An `i32`.
pub fn signed(value: &Expr, name: &str) -> syn::Result<i32> {
    let Some((negative, Lit::Int(lit))) = literal(value) else {
        return Err(wrong(value, name, "a whole number, like `5` or `-5`"));
    };
    let size = lit
        .base10_digits()
        .trim_start_matches('-')
        .parse::<i64>()
        .ok();
    let number = size.map(|size| if negative { -size } else { size });
    number.and_then(|n| i32::try_from(n).ok()).ok_or_else(|| {
        let message = format!("`{name}` lies between {} and {}", i32::MIN, i32::MAX);
        syn::Error::new_spanned(value, message)
    })
}

/// An amount of memory.
pub enum Memory {
    Bytes(LitInt, u64),
    /// Read by the compiler through the library's one reader of such texts; what is wrong is an error at the text.
    Text(LitStr),
}

impl Memory {
    /// Where it is written.
    pub fn place(&self) -> &dyn ToTokens {
        match self {
            Memory::Bytes(lit, _) => lit,
            Memory::Text(lit) => lit,
        }
    }
}

impl ToTokens for Memory {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Memory::Bytes(_, bytes) => bytes.to_tokens(tokens),
            Memory::Text(lit) => tokens.extend(quote_spanned! {lit.span()=>
                match ::mobula::__private::parse_bytes(#lit) {
                    ::core::result::Result::Ok(__bytes) => __bytes,
                    ::core::result::Result::Err(__why) => {
                        ::core::panic!("{}", __why.describe())
                    }
                }
            }),
        }
    }
}

/// Bytes, more than none, or a text.
pub fn memory(value: &Expr, name: &str) -> syn::Result<Memory> {
    let lit = match literal(value) {
        Some((false, Lit::Str(text))) => return Ok(Memory::Text(text.clone())),
        Some((false, Lit::Int(lit))) => lit,
        Some((true, Lit::Int(_) | Lit::Float(_))) => {
            let message = format!("`{name}` cannot be negative");
            return Err(syn::Error::new_spanned(value, message));
        }
        _ => return Err(wrong(value, name, "bytes or a text like `\"2G\"`")),
    };
    match lit.base10_parse::<u64>() {
        Ok(bytes) if bytes > 0 && i64::try_from(bytes).is_ok() => {
            Ok(Memory::Bytes(lit.clone(), bytes))
        }
        Ok(0) => Err(syn::Error::new_spanned(
            value,
            format!("`{name}` must be more than 0 bytes"),
        )),
        _ => Err(syn::Error::new_spanned(
            value,
            format!("`{name}` is less than 8 EiB"),
        )),
    }
}
