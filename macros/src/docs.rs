//! The documentation of generated items: the user's own, without its code blocks.

use quote::quote;
use syn::{Attribute, Expr, Lit, Meta};

/// The text of the doc comments in `attrs`, followed by `more`, as one `#[doc]` attribute.
///
/// Code blocks are left out: the user's item keeps them, and a copy would run each doctest twice.
pub fn copy(attrs: &[Attribute], more: &str) -> proc_macro2::TokenStream {
    let own = attrs
        .iter()
        .filter(|attr| attr.path().is_ident("doc"))
        .filter_map(text);
    let own = own.collect::<Vec<_>>().join("\n");
    let mut kept = prose(&own);
    if !kept.is_empty() && !more.is_empty() {
        kept.push_str("\n\n");
    }
    kept.push_str(more);
    quote!(#[doc = #kept])
}

fn text(attr: &Attribute) -> Option<String> {
    match &attr.meta {
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(lit) => match &lit.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

fn prose(text: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        let bare = line.trim_start();
        let marker = ["```", "~~~"]
            .into_iter()
            .find(|marker| bare.starts_with(marker));
        match (fence, marker) {
            (None, Some(_)) => fence = marker,
            (Some(open), Some(close)) if open == close => fence = None,
            (Some(_), _) => {}
            (None, None) if matches!(bare.trim_end(), "# Example" | "# Examples") => {}
            (None, None) if line.starts_with("     ") || line.starts_with('\t') => kept.push(bare),
            (None, None) => kept.push(line.trim_end()),
        }
    }
    kept.join("\n").trim_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::prose;

    #[test]
    fn code_blocks_stay_behind() {
        let text = " Adds.\n\n # Examples\n\n ```\n add(1);\n ```\n\n See also.";
        assert_eq!(prose(text), " Adds.\n\n\n\n See also.");
        assert_eq!(prose(" a\n\n     let x = 1;"), " a\n\nlet x = 1;");
        assert_eq!(prose(""), "");
    }
}
