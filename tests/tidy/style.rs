//! The rules inside a file: purity of `core`, notes on `unsafe`, openings, lengths, machine paths.
//!
//! Invariant: a rule looks at one file (or at a list it is given) and answers with messages that
//! name file and line and say what to do. Left out: which files there are.

use crate::source::{Source, is_word};

/// Lines above an `unsafe` in which its SAFETY note may stand.
const NOTE_LINES: usize = 6;

/// Words that bring a clock, a thread, randomness, a lock or waiting into a decision.
const IMPURE: &[&str] = &[
    "Instant",
    "SystemTime",
    "thread_local",
    "rand",
    "async",
    "await",
    "tokio",
    "parking_lot",
    "Mutex",
    "RwLock",
    "Condvar",
    "Barrier",
    "Once",
    "OnceLock",
    "LazyLock",
    "mpsc",
    "RandomState",
    "HashMap",
    "HashSet",
    "println",
    "eprintln",
    "unsafe",
];

/// What `core` does not take from `std`.
const IMPURE_STD: &[&str] = &["thread", "fs", "net", "process", "env", "io", "os"];

/// Decisions are pure: no clocks, threads, randomness, locks, IO or async in `core`.
pub fn check_core(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/core/") && source.path != "src/core.rs" {
        return Vec::new();
    }
    let words = source.words().filter(|(_, word)| {
        IMPURE.contains(word) || (word.starts_with("Atomic") && word.len() > "Atomic".len())
    });
    let modules = source
        .firsts("std")
        .into_iter()
        .filter(|(_, first)| IMPURE_STD.contains(first));
    let message = |(offset, word): (usize, &str)| {
        format!(
            "{}: `{word}` in `core`, where decisions are pure: hand its value in with the event, \
             or move this to the driver (a BTreeMap for a HashMap, whose order is random)",
            source.at(offset)
        )
    };
    words.chain(modules).map(message).collect()
}

/// `unsafe` stands in rooms and files that may have it, and each says why it is sound.
pub fn check_unsafe(source: &Source, rooms: &[&str], files: &[(&str, &str)]) -> Vec<String> {
    let inside = source.path.strip_prefix("src/").unwrap_or(&source.path);
    let room = inside.split(['/', '.']).next().unwrap_or(inside);
    let allowed = rooms.contains(&room) || files.iter().any(|(file, _)| *file == inside);
    let mut found = Vec::new();
    for (offset, word) in source.words().filter(|(_, word)| *word == "unsafe") {
        let at = source.at(offset);
        if !allowed && found.is_empty() {
            found.push(format!(
                "{at}: `unsafe` outside {rooms:?}: use what those rooms offer, or add the file \
                 with its reason to UNSAFE_FILES in tests/tidy.rs"
            ));
        }
        match kind(source.after(offset, word)) {
            Unsafe::Type => {}
            Unsafe::Function if inherited(source, offset) => {}
            Unsafe::Function => {
                if !docs_above(source, offset).contains("# Safety") {
                    found.push(format!(
                        "{at}: `unsafe fn` without `# Safety` in its docs: say what the caller \
                         must uphold"
                    ));
                }
            }
            Unsafe::Other => {
                if !noted(source, offset) {
                    found.push(format!(
                        "{at}: `unsafe` without a SAFETY comment within {NOTE_LINES} lines above: \
                         say why it is sound"
                    ));
                }
            }
        }
    }
    found
}

/// What is listed as having `unsafe` still does.
pub fn check_unsafe_list(sources: &[Source], files: &[(&str, &str)]) -> Vec<String> {
    let stale = files.iter().filter(|(file, _)| {
        let listed = |source: &&Source| source.path.strip_prefix("src/") == Some(file);
        !sources
            .iter()
            .find(listed)
            .is_some_and(|s| s.words().any(|(_, word)| word == "unsafe"))
    });
    let message = |(file, _): &(&str, &str)| {
        format!(
            "tests/tidy.rs: src/{file} does not exist or has no `unsafe`: remove it from \
             UNSAFE_FILES"
        )
    };
    stale.map(message).collect()
}

enum Unsafe {
    /// A function's declaration.
    Function,
    /// The type of a function pointer.
    Type,
    /// A block, an impl, a trait, an attribute, a block of extern items.
    Other,
}

fn kind(after: &str) -> Unsafe {
    let after = after.strip_prefix("extern").map_or(after, str::trim_start);
    let Some(tail) = after.strip_prefix("fn") else {
        return Unsafe::Other;
    };
    match tail.trim_start().starts_with(is_word) {
        true => Unsafe::Function,
        false if tail.starts_with(is_word) => Unsafe::Other,
        false => Unsafe::Type,
    }
}

/// Whether a function is a trait's, whose docs say what is to be upheld. By rustfmt's indentation:
/// the nearest item above that is indented less holds it.
fn inherited(source: &Source, offset: usize) -> bool {
    let lines: Vec<&str> = source.code.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let line = source.line(offset);
    let own = indent(lines[line]);
    let above = (0..line).rev().filter(|at| !lines[*at].trim().is_empty());
    let outer: Vec<usize> = above.filter(|at| indent(lines[*at]) < own).collect();
    let item = |at: &usize| {
        let first = lines[*at].trim_start().split(|c| !is_word(c)).next();
        matches!(
            first,
            Some("impl" | "unsafe" | "trait" | "pub" | "mod" | "fn" | "const")
        )
    };
    let (Some(end), Some(start)) = (outer.first(), outer.iter().copied().find(item)) else {
        return false;
    };
    let header = lines[start..=*end].join(" ");
    let header = header.trim_start().trim_start_matches("unsafe ");
    header.starts_with("impl") && header.contains(" for ")
}

/// The comments directly above the item that an offset is in, attributes skipped.
fn docs_above(source: &Source, offset: usize) -> String {
    let line = source.line(offset);
    let code = source.code.lines().map(str::trim).collect::<Vec<_>>();
    let comments = source.comments.lines().map(str::trim).collect::<Vec<_>>();
    let above = (0..line).rev().take_while(|at| {
        let is_attribute = code[*at].starts_with("#[") || code[*at].ends_with(")]");
        (code[*at].is_empty() && !comments[*at].is_empty()) || is_attribute
    });
    above.map(|at| comments[at]).collect::<Vec<_>>().join("\n")
}

fn noted(source: &Source, offset: usize) -> bool {
    let line = source.line(offset);
    let comments: Vec<&str> = source.comments.lines().collect();
    comments[line.saturating_sub(NOTE_LINES)..=line]
        .iter()
        .any(|l| l.contains("SAFETY"))
}

/// A file says first what it is for.
pub fn check_opening(source: &Source) -> Vec<String> {
    if source.text.starts_with("//!") {
        return Vec::new();
    }
    vec![format!(
        "{}:1: does not open with `//!`: say what the file is for, its invariant, what it \
         leaves out",
        source.path
    )]
}

/// A file holds one idea, so it is short.
pub fn check_length(source: &Source, limit: usize) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= limit {
        return Vec::new();
    }
    let path = &source.path;
    vec![format!(
        "{path}:{limit}: {lines} lines, more than {limit}: split it by its ideas"
    )]
}

/// Nothing names a folder of the machine it was written on.
pub fn check_machine_paths(path: &str, text: &str, folders: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for folder in folders {
            // `/home/me/work/` and `../work/` are other folders: the path must begin here.
            let begins = |(start, _): (usize, &str)| {
                let before = line[..start].chars().next_back();
                !before.is_some_and(|c| is_word(c) || "./-~}$*".contains(c))
            };
            if line.match_indices(folder).any(begins) {
                found.push(format!(
                    "{path}:{}: names {folder} of one machine: use a relative path or a temporary \
                     folder",
                    at + 1
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(text: &str) -> Vec<String> {
        check_core(&Source::new("src/core/a.rs", text))
    }

    #[test]
    fn core_is_pure() {
        let good =
            "use std::time::Duration; use std::sync::Arc; // no Mutex, no async\nfn spin() {}";
        assert!(core(good).is_empty());
        for bad in [
            "use std::time::Instant;",
            "std::time::SystemTime::now()",
            "use std::{fmt, thread};",
            "std::thread::sleep(x)",
            "rand::random()",
            "async fn f() {}",
            "f().await",
            "tokio::spawn(f)",
            "parking_lot::Mutex::new(1)",
            "use std::sync::Mutex;",
            "AtomicU64::new(1)",
            "std::fs::read(p)",
            "HashMap::new()",
            "unsafe { f() }",
        ] {
            let found = core(&format!("\n{bad}"));
            assert!(
                !found.is_empty() && found[0].starts_with("src/core/a.rs:2: "),
                "{bad}: {found:?}"
            );
        }
        assert!(check_core(&Source::new("src/exec/a.rs", "use std::thread;")).is_empty());
    }

    fn notes(text: &str) -> Vec<String> {
        check_unsafe(
            &Source::new("src/exec/a.rs", text),
            &["shm"],
            &[("exec/a.rs", "why")],
        )
    }

    #[test]
    fn unsafe_stands_where_it_may() {
        let noted = "// SAFETY: x\nunsafe { f() }";
        let check = |path: &str| {
            check_unsafe(&Source::new(path, noted), &["shm"], &[("exec/a.rs", "why")]).len()
        };
        assert_eq!((check("src/shm/a.rs"), check("src/exec/a.rs")), (0, 0));
        assert_eq!(
            (
                check("src/exec/b.rs"),
                check("src/core/a.rs"),
                check("src/lib.rs")
            ),
            (1, 1, 1)
        );
        let words = "#![deny(unsafe_code)] // unsafe\nlet s = \"unsafe\";";
        assert!(check_unsafe(&Source::new("src/lib.rs", words), &[], &[]).is_empty());
    }

    #[test]
    fn every_unsafe_says_why_it_is_sound() {
        assert!(notes("// SAFETY: x\n#[inline]\nlet a = unsafe { f() };").is_empty());
        assert!(notes("let a = unsafe { f() }; // SAFETY: x").is_empty());
        assert!(notes("// SAFETY: x\nunsafe impl Send for A {}").is_empty());
        for bad in [
            "unsafe { f() }",
            "// safe, really\nunsafe impl Send for A {}",
            "// SAFETY: too far\n\n\n\n\n\n\nunsafe { f() }",
            "let s = \"SAFETY\"; unsafe { f() }",
            "#[unsafe(no_mangle)]\nfn f() {}",
        ] {
            let found = notes(bad);
            assert!(
                found.len() == 1 && found[0].contains("SAFETY comment"),
                "{bad}: {found:?}"
            );
        }
    }

    #[test]
    fn every_unsafe_fn_documents_what_to_uphold() {
        assert!(
            notes("/// Does.\n///\n/// # Safety\n/// x\n#[inline]\npub unsafe fn f() {}")
                .is_empty()
        );
        assert!(notes("struct A { f: unsafe fn(u8), g: unsafe extern \"C\" fn() }").is_empty());
        assert!(
            notes("unsafe impl T for A {\n    unsafe fn f() {}\n}")[0].contains("SAFETY comment")
        );
        assert!(
            notes("impl T for A {\n    unsafe fn f() {}\n}").is_empty(),
            "the trait says it"
        );
        for bad in [
            "/// Does.\npub unsafe fn f() {}",
            "impl A {\n    pub unsafe fn f() {}\n}",
            "/// # Safety\nfn g() {}\nunsafe fn f() {}",
            "unsafe extern \"C\" fn f() {}",
        ] {
            assert!(notes(bad).iter().any(|m| m.contains("`# Safety`")), "{bad}");
        }
    }

    #[test]
    fn the_list_of_unsafe_files_is_current() {
        let sources = [
            Source::new("src/exec/a.rs", "unsafe {}"),
            Source::new("src/exec/b.rs", "// unsafe"),
        ];
        let list = [("exec/a.rs", ""), ("exec/b.rs", ""), ("exec/c.rs", "")];
        assert_eq!(check_unsafe_list(&sources, &list).len(), 2);
        assert!(check_unsafe_list(&sources, &[]).is_empty());
    }

    #[test]
    fn files_open_with_their_purpose_and_are_short() {
        assert!(check_opening(&Source::new("a.rs", "//! For this.\n")).is_empty());
        assert_eq!(
            check_opening(&Source::new("a.rs", "// For this.\n//! Late.\n")).len(),
            1
        );
        assert!(check_length(&Source::new("a.rs", "x\nx\n"), 2).is_empty());
        assert_eq!(check_length(&Source::new("a.rs", "x\nx\nx"), 2).len(), 1);
    }

    #[test]
    fn folders_of_one_machine_are_found() {
        let check = |text: &str| check_machine_paths("a.md", text, &["/attic/"]).len();
        for bad in ["cd /attic/x", "\"/attic/x\"", "path=/attic/x", "(/attic/x)"] {
            assert_eq!(check(bad), 1, "{bad}");
        }
        for good in [
            "/home/me/attic/x",
            "../attic/x",
            "$HOME/attic/x",
            "https://a.b/attic/x",
            "/attics/",
        ] {
            assert_eq!(check(good), 0, "{good}");
        }
    }
}
