//! The options of `#[remote(..)]`: what may be written where, and the `Defaults` it becomes.

use crate::errors::{Errors, show};
use crate::values::{Memory, amount, count, literal, memory, signed, wrong};
use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::{Expr, Lit, LitStr, Meta, spanned::Spanned};

/// What the attribute stands on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Function,
    Actor,
}

impl Target {
    fn plural(self) -> &'static str {
        match self {
            Target::Function => "functions",
            Target::Actor => "actors",
        }
    }

    fn other(self) -> Self {
        match self {
            Target::Function => Target::Actor,
            Target::Actor => Target::Function,
        }
    }
}

/// What an option takes.
#[derive(Clone, Copy)]
enum Kind {
    /// A number that is not negative, fractions allowed.
    Amount,
    /// A `u32` of at least `min`; `why` says what is wrong with less.
    Count { min: u32, why: &'static str },
    /// An `i32`.
    Signed,
    /// Present, or `= true`, or `= false`.
    Flag,
    /// A string that is not empty.
    Text,
    /// Bytes, or a text with a unit.
    Memory,
    /// `resources(name = amount, ..)`.
    Resources,
}

impl Kind {
    fn form(self, name: &str) -> String {
        match self {
            Kind::Amount => format!("{name} = 0.5"),
            Kind::Count { .. } => format!("{name} = 3"),
            Kind::Signed => format!("{name} = -5"),
            Kind::Flag => format!("{name}` or `{name} = true"),
            Kind::Text => format!("{name} = \"..\""),
            Kind::Memory => format!("{name} = \"2G\""),
            Kind::Resources => format!("{name}(license = 1, \"big disk\" = 0.5)"),
        }
    }
}

const ANY: Kind = Kind::Count { min: 0, why: "" };

const FUNCTION: &[(&str, Kind)] = &[
    ("num_cpus", Kind::Amount),
    ("num_gpus", Kind::Amount),
    ("resources", Kind::Resources),
    ("max_retries", ANY),
    ("retry_panics", Kind::Flag),
    ("priority", Kind::Signed),
    ("isolate", Kind::Flag),
    ("memory", Kind::Memory),
    ("name", Kind::Text),
];

const ACTOR: &[(&str, Kind)] = &[
    ("num_cpus", Kind::Amount),
    ("num_gpus", Kind::Amount),
    ("resources", Kind::Resources),
    ("max_restarts", ANY),
    (
        "max_concurrency",
        Kind::Count {
            min: 1,
            why: "with 0 no method could ever run",
        },
    ),
    (
        "max_pending",
        Kind::Count {
            min: 1,
            why: "a mailbox without room takes no call",
        },
    ),
    ("restart_on_panic", Kind::Flag),
    ("isolate", Kind::Flag),
    ("memory", Kind::Memory),
    (
        "checkpoint_every",
        Kind::Count {
            min: 1,
            why: "leave it out to have checkpoints made when the log is long",
        },
    ),
    ("checkpoint_interval", Kind::Amount),
    ("log_bytes", Kind::Memory),
    ("replicas", ANY),
    ("durable_checkpoints", Kind::Flag),
    ("name", Kind::Text),
];

fn known(target: Target) -> &'static [(&'static str, Kind)] {
    match target {
        Target::Function => FUNCTION,
        Target::Actor => ACTOR,
    }
}

fn kind_of(name: &str, target: Target) -> Option<(&'static str, Kind)> {
    known(target)
        .iter()
        .copied()
        .find(|(known, _)| *known == name)
}

enum Value {
    Amount(f64),
    Count(u32),
    Signed(i32),
    Flag(bool),
    Text(LitStr),
    Memory(Memory),
    Resources(Vec<(String, f64)>),
}

impl ToTokens for Value {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Value::Amount(v) => v.to_tokens(tokens),
            Value::Count(v) => v.to_tokens(tokens),
            Value::Signed(v) => v.to_tokens(tokens),
            Value::Flag(v) => v.to_tokens(tokens),
            Value::Text(v) => v.to_tokens(tokens),
            Value::Memory(v) => v.to_tokens(tokens),
            Value::Resources(all) => {
                let all = all.iter().map(|(name, amount)| quote!((#name, #amount)));
                tokens.extend(quote!(&[#(#all),*]));
            }
        }
    }
}

/// The options one attribute gives.
#[derive(Default)]
pub struct Options(Vec<(&'static str, Value)>);

impl Options {
    /// Reads the tokens between the attribute's parentheses; what is wrong goes to `errors`, the
    /// rest is kept.
    pub fn parse(tokens: TokenStream, target: Target, errors: &mut Errors) -> Self {
        let mut options = Self::default();
        let mut seen = Vec::new();
        for part in split_at_commas(tokens) {
            match syn::parse2::<Meta>(part.clone()) {
                Ok(meta) => {
                    if let Err(error) = options.read(&meta, target, &mut seen, errors) {
                        errors.push(error);
                    }
                }
                Err(_) => errors.at(
                    &part,
                    format!("cannot read this option: write {}", forms(target)),
                ),
            }
        }
        if target == Target::Function {
            options.check_memory(errors);
        }
        options
    }

    /// A function says all in one attribute; what an actor's two say together is checked with its entry.
    fn check_memory(&self, errors: &mut Errors) {
        let isolates = |(name, value): &(&str, Value)| {
            *name == "isolate" && matches!(value, Value::Flag(true))
        };
        let bound = self.0.iter().find_map(|(_, value)| match value {
            Value::Memory(memory) => Some(memory),
            _ => None,
        });
        if let Some(memory) = bound.filter(|_| !self.0.iter().any(isolates)) {
            errors.at(
                memory.place(),
                "`memory` bounds the worker process of a call that runs in one: add `isolate`",
            );
        }
    }

    fn read(
        &mut self,
        meta: &Meta,
        target: Target,
        seen: &mut Vec<String>,
        errors: &mut Errors,
    ) -> syn::Result<()> {
        let path = meta.path();
        let written = show(path);
        let Some((name, kind)) = kind_of(&written, target) else {
            return Err(syn::Error::new_spanned(path, unknown(&written, target)));
        };
        if seen.contains(&written) {
            let message = format!("option `{name}` is given twice");
            return Err(syn::Error::new_spanned(path, message));
        }
        seen.push(written);
        let value = match (kind, meta) {
            (Kind::Flag, Meta::Path(_)) => Value::Flag(true),
            (Kind::Resources, Meta::List(list)) => resources(&list.tokens, list.span(), errors)?,
            (Kind::Amount, Meta::NameValue(v)) => Value::Amount(amount(&v.value, name)?),
            (Kind::Count { min, why }, Meta::NameValue(v)) => {
                Value::Count(count(&v.value, name, min, why)?)
            }
            (Kind::Signed, Meta::NameValue(v)) => Value::Signed(signed(&v.value, name)?),
            (Kind::Flag, Meta::NameValue(v)) => match literal(&v.value) {
                Some((false, Lit::Bool(flag))) => Value::Flag(flag.value),
                _ => return Err(wrong(&v.value, name, "`true` or `false`")),
            },
            (Kind::Text, Meta::NameValue(v)) => match literal(&v.value) {
                Some((false, Lit::Str(text))) if !text.value().trim().is_empty() => {
                    Value::Text(text.clone())
                }
                Some((false, Lit::Str(_))) => {
                    return Err(syn::Error::new_spanned(&v.value, "this name is empty"));
                }
                _ => return Err(wrong(&v.value, name, "a string literal")),
            },
            (Kind::Memory, Meta::NameValue(v)) => Value::Memory(memory(&v.value, name)?),
            _ => {
                let message = format!("write this option as `{}`", kind.form(name));
                return Err(syn::Error::new_spanned(meta, message));
            }
        };
        self.0.push((name, value));
        Ok(())
    }

    /// The given name.
    pub fn name(&self) -> Option<&LitStr> {
        self.0.iter().find_map(|(_, value)| match value {
            Value::Text(text) => Some(text),
            _ => None,
        })
    }

    /// The `Defaults` of these options. A function's name is no default but its registered name,
    /// so it is left out `without_name`.
    pub fn defaults(&self, without_name: bool) -> TokenStream {
        let given = self
            .0
            .iter()
            .filter(|(name, _)| !(without_name && *name == "name"));
        let fields: Vec<_> = given
            .map(|(name, value)| {
                let field = format_ident!("{name}");
                if matches!(value, Value::Resources(_)) {
                    quote!(#field: #value)
                } else {
                    quote!(#field: ::core::option::Option::Some(#value))
                }
            })
            .collect();
        if fields.is_empty() {
            return quote!(::mobula::__private::Defaults::NONE);
        }
        quote! {
            ::mobula::__private::Defaults { #(#fields,)* ..::mobula::__private::Defaults::NONE }
        }
    }
}

fn split_at_commas(tokens: TokenStream) -> Vec<TokenStream> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    tokens
        .split(|token| matches!(token, TokenTree::Punct(p) if p.as_char() == ','))
        .filter(|part| !part.is_empty())
        .map(|part| part.iter().cloned().collect())
        .collect()
}

/// Reads `name = 1.0, "odd name" = 2`; all its problems but the last go to `errors` directly.
fn resources(
    tokens: &TokenStream,
    whole: proc_macro2::Span,
    errors: &mut Errors,
) -> syn::Result<Value> {
    let mut all: Vec<(String, f64)> = Vec::new();
    let parts = split_at_commas(tokens.clone());
    if parts.is_empty() {
        let message = "name at least one resource: `resources(license = 1)`";
        return Err(syn::Error::new(whole, message));
    }
    for part in parts {
        match resource(&part) {
            Ok((name, key, _)) if all.iter().any(|(other, _)| *other == name) => {
                errors.at(key, format!("resource `{name}` is given twice"));
            }
            Ok((name, _, amount)) => all.push((name, amount)),
            Err(error) => errors.push(error),
        }
    }
    Ok(Value::Resources(all))
}

fn resource(part: &TokenStream) -> syn::Result<(String, TokenTree, f64)> {
    let malformed = "a resource is written `name = 1.0` or `\"odd name\" = 1.0`";
    let mut rest = part.clone().into_iter();
    let key = rest
        .next()
        .ok_or_else(|| syn::Error::new_spanned(part, malformed))?;
    let name = match (&key, syn::parse2::<LitStr>(key.to_token_stream())) {
        (TokenTree::Ident(ident), _) => syn::ext::IdentExt::unraw(ident).to_string(),
        (_, Ok(text)) => text.value(),
        _ => return Err(syn::Error::new_spanned(part, malformed)),
    };
    if !matches!(rest.next(), Some(TokenTree::Punct(p)) if p.as_char() == '=') {
        return Err(syn::Error::new_spanned(part, malformed));
    }
    if name.trim().is_empty() {
        return Err(syn::Error::new_spanned(
            key,
            "this resource's name is empty",
        ));
    }
    let value = syn::parse2::<Expr>(rest.collect())
        .map_err(|_| syn::Error::new_spanned(part, malformed))?;
    let amount = amount(&value, &name)?;
    Ok((name, key, amount))
}

fn forms(target: Target) -> String {
    let forms = known(target)
        .iter()
        .map(|(name, kind)| format!("`{}`", kind.form(name)));
    forms.collect::<Vec<_>>().join(", ")
}

fn unknown(written: &str, target: Target) -> String {
    let names: Vec<_> = known(target)
        .iter()
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    let list = format!("The options here are: {}", names.join(", "));
    if kind_of(written, target.other()).is_some() {
        return format!(
            "`{written}` is an option of {}, not of {}. {list}",
            target.other().plural(),
            target.plural()
        );
    }
    match closest(written, known(target).iter().map(|(name, _)| *name)) {
        Some(name) => format!("unknown option `{written}`; did you mean `{name}`? {list}"),
        None => format!("unknown option `{written}`. {list}"),
    }
}

/// The name most like `written`, if any is close.
fn closest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = names.map(|name| (distance(written, name), name)).min()?;
    (near.0 <= (near.1.len() / 3).max(2)).then_some(near.1)
}

/// Levenshtein's distance: insertions, deletions and replacements of one character.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
