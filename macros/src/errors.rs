//! Collects every problem of one item, and prints types the way their author wrote them.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use std::fmt::Display;

/// All problems found in one item; each becomes a compiler error at its own place.
#[derive(Default)]
pub struct Errors(Option<syn::Error>);

impl Errors {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// Reports `message` at `place`.
    pub fn at(&mut self, place: impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(place, message));
    }

    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |e| e.clone().into_iter().count())
    }

    pub fn into_tokens(self) -> TokenStream {
        self.0.map(|e| e.to_compile_error()).unwrap_or_default()
    }

    #[cfg(test)]
    pub fn messages(&self) -> Vec<String> {
        let all = self.0.clone().into_iter().flatten();
        all.map(|e| e.to_string()).collect()
    }
}

/// Source text of `tokens` with the spacing people write: `&[f32]`, `Vec<u8>`, `Result<A, B>`.
pub fn show(tokens: impl ToTokens) -> String {
    let mut text = String::new();
    write(&mut text, tokens.into_token_stream());
    text
}

fn write(text: &mut String, tokens: TokenStream) {
    for token in tokens {
        let last = text.chars().last().unwrap_or(' ');
        let word = |c: char| c.is_alphanumeric() || c == '_' || c == '"';
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                if last != '&' && word(last) && group.delimiter() == Delimiter::Bracket {
                    text.push(' '); // `&mut [u8]`
                }
                text.push_str(open);
                write(text, group.stream());
                text.push_str(close);
            }
            TokenTree::Punct(punct) => match punct.as_char() {
                c @ (',' | ';') => text.extend([c, ' ']),
                c @ ('+' | '=') => text.extend([' ', c, ' ']),
                '-' => text.push_str(" -"),
                '>' if last == '-' => text.push_str("> "),
                '&' if word(last) => text.push_str(" &"),
                ':' if ["impl", "dyn", "mut"].iter().any(|w| text.ends_with(w)) => {
                    text.push_str(" :");
                }
                c => text.push(c),
            },
            other => {
                if word(last) || last == ')' {
                    text.push(' ');
                }
                text.push_str(&other.to_string());
            }
        }
    }
    text.truncate(text.trim_end().len());
}

#[cfg(test)]
mod tests {
    use super::show;
    use quote::quote;

    #[test]
    fn types_read_as_written() {
        for (tokens, text) in [
            (quote!(&[f32]), "&[f32]"),
            (quote!(&mut [u8; 4]), "&mut [u8; 4]"),
            (quote!(&'a str), "&'a str"),
            (
                quote!(Result<Vec<u8>, my::Error>),
                "Result<Vec<u8>, my::Error>",
            ),
            (quote!(&dyn Fn(u8) -> u8), "&dyn Fn(u8) -> u8"),
            (quote!(impl A + 'static), "impl A + 'static"),
        ] {
            assert_eq!(show(tokens), text);
        }
    }
}
