//! A Rust file split into its code and its comments, enough to find words and paths without a
//! parser.
//!
//! Invariant: `code` and `comments` have the text's length and line breaks, with spaces in place of
//! what is not theirs, so an offset means the same in all three. Strings and characters are blank
//! in both. Left out: macros are read as if they were code, which is what the rules want.

/// One file.
pub struct Source {
    /// Relative to the project, with `/`.
    pub path: String,
    pub text: String,
    pub code: String,
    pub comments: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let (code, comments) = split(text);
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            comments,
        }
    }

    /// `file:line` of an offset.
    pub fn at(&self, offset: usize) -> String {
        format!("{}:{}", self.path, self.line(offset) + 1)
    }

    /// The line of an offset, from 0.
    pub fn line(&self, offset: usize) -> usize {
        self.code.as_bytes()[..offset]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
    }

    /// The identifiers and keywords of the code, with their offsets.
    pub fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        words(&self.code)
    }

    /// The code behind a word, without leading white space.
    pub fn after(&self, offset: usize, word: &str) -> &str {
        self.code[offset + word.len()..].trim_start()
    }

    /// The code before an offset, without trailing white space.
    pub fn before(&self, offset: usize) -> &str {
        self.code[..offset].trim_end()
    }

    /// Whether the word there begins a path: `rkyv` in `rkyv::x` and `::rkyv::x`, not in `a::rkyv`.
    pub fn begins_path(&self, offset: usize) -> bool {
        match self.before(offset).strip_suffix("::") {
            Some(before) => !before
                .trim_end()
                .ends_with(|c: char| is_word(c) || c == '>'),
            None => !self.before(offset).ends_with('.'),
        }
    }

    /// What the paths that begin with `root` name first: `a` and `b` in `root::{a::x, b}`.
    pub fn firsts(&self, root: &str) -> Vec<(usize, &str)> {
        let mut found = Vec::new();
        for (offset, word) in self.words() {
            if word != root || !self.begins_path(offset) {
                continue;
            }
            let Some(tail) = self.after(offset, word).strip_prefix("::") else {
                continue;
            };
            let tail = tail.trim_start();
            let start = self.code.len() - tail.len();
            if tail.starts_with('{') {
                found.extend(group(tail).map(|(at, first)| (start + at, first)));
            } else if let Some((at, first)) = first_name(tail) {
                found.push((start + at, first));
            }
        }
        found
    }
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest + code[rest..].find(is_word)?;
        let len = code[start..]
            .find(|c| !is_word(c))
            .unwrap_or(code.len() - start);
        rest = start + len;
        Some((start, &code[start..rest]))
    })
}

/// The name at the beginning, or the `*` of a glob.
fn first_name(code: &str) -> Option<(usize, &str)> {
    let at = code.len() - code.trim_start().len();
    let name = &code[at..];
    if name.starts_with('*') {
        return Some((at, "*"));
    }
    let len = name.find(|c| !is_word(c)).unwrap_or(name.len());
    (len > 0).then(|| (at, &name[..len]))
}

/// The first names of `{a::b, c::{d, e}, f}`.
fn group(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let (mut depth, mut parts, mut start) = (0, Vec::new(), 1);
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (c == ',' && depth == 1) || depth == 0 {
            parts.push(start..at);
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    parts.into_iter().filter_map(move |part| {
        let (at, name) = first_name(&code[part.clone()])?;
        Some((part.start + at, name))
    })
}

/// The code alone and the comments alone.
fn split(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let blank = |b: &u8| if *b == b'\n' { b'\n' } else { b' ' };
    let mut code: Vec<u8> = bytes.iter().map(blank).collect();
    let mut comments = code.clone();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let (len, kind) = token(rest, text[..at].chars().next_back());
        match kind {
            Kind::Code => code[at..at + len].copy_from_slice(&bytes[at..at + len]),
            Kind::Comment => comments[at..at + len].copy_from_slice(&bytes[at..at + len]),
            Kind::Literal => {}
        }
        at += len;
    }
    let string = |bytes| String::from_utf8(bytes).expect("whole tokens are copied");
    (string(code), string(comments))
}

enum Kind {
    Code,
    Comment,
    Literal,
}

/// The length and kind of the token at the beginning of `rest`; code goes by single characters.
fn token(rest: &str, before: Option<char>) -> (usize, Kind) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), Kind::Comment);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), Kind::Comment);
    }
    let first = rest.chars().next().map_or(1, char::len_utf8);
    if !before.is_some_and(is_word)
        && let Some(len) = raw_string(rest)
    {
        return (len, Kind::Literal);
    }
    match rest.as_bytes()[0] {
        b'"' => (quoted(rest, b'"'), Kind::Literal),
        b'\'' if is_char(rest) => (quoted(rest, b'\''), Kind::Literal),
        _ => (first, Kind::Code),
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest.as_bytes()[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.as_bytes()[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// `r"..."`, `r#"..."#` and the same of bytes and C strings.
fn raw_string(rest: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| {
        rest.strip_prefix(prefix)
            .is_some_and(|tail| tail.starts_with(['"', '#']))
    })?;
    let tail = &rest[prefix.len()..];
    let hashes = tail.len() - tail.trim_start_matches('#').len();
    let body = tail[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let len = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(prefix.len() + hashes + 1 + len)
}

fn quoted(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A character, not a lifetime: `'a'` and `'\n'`, not `'a`.
fn is_char(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        let text = "let a = \"crate::x \\\" y\"; // crate::b\n\
                    /* c /* d */ e */ r#\"f \" g\"# 'h' '\\'' br\"k\" i";
        let source = Source::new("x.rs", text);
        let words: Vec<_> = source.words().map(|(_, word)| word).collect();
        assert_eq!(words, ["let", "a", "i"]);
        assert!(source.comments.contains("crate::b") && source.comments.contains("c /* d */ e"));
        assert!(!source.comments.contains('f'));
        assert_eq!(
            (source.code.len(), source.comments.len()),
            (text.len(), text.len())
        );
        assert_eq!(source.at(text.len() - 1), "x.rs:2");
    }

    #[test]
    fn lifetimes_and_raw_names_are_code() {
        let source = Source::new("x.rs", "fn f<'a>(r#type: &'a str) -> bar\"s\" {}");
        let words: Vec<_> = source.words().map(|(_, word)| word).collect();
        assert_eq!(words, ["fn", "f", "a", "r", "type", "a", "str", "bar"]);
    }

    #[test]
    fn paths_name_their_first_part() {
        let text =
            "use crate::{a, b::{c, d}, e as f,\n  g::*};\nx(crate :: h::i); crate::*; y::crate_::j";
        let source = Source::new("x.rs", text);
        let firsts: Vec<_> = source
            .firsts("crate")
            .iter()
            .map(|(_, first)| *first)
            .collect();
        assert_eq!(firsts, ["a", "b", "e", "g", "h", "*"]);
        assert_eq!(source.at(source.firsts("crate")[3].0), "x.rs:2");
        let source = Source::new(
            "x.rs",
            "rkyv::a(); ::rkyv::b(); crate::value::rkyv::c(); x.rkyv::d",
        );
        let firsts: Vec<_> = source
            .firsts("rkyv")
            .iter()
            .map(|(_, first)| *first)
            .collect();
        assert_eq!(firsts, ["a", "b"]);
    }
}
