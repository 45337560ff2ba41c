//! The rooms of `src/` and who may see whom.
//!
//! Invariant: a file names only its own room and rooms of lower levels; a third-party crate is
//! named only where the table says. Left out: what is inside a room, and the files above all rooms
//! (lib.rs).

use crate::source::{Source, is_word};

/// Where a crate from outside may be named, and why it is there.
pub struct ThirdParty {
    pub name: &'static str,
    pub rooms: &'static [&'static str],
}

/// What files directly in `src/` count as in a table of rooms.
pub const ROOT: &str = "(root)";

/// Module names from the crate root: `["core", "ledger", "free"]`; empty for lib.rs.
fn module(path: &str) -> Vec<&str> {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let mut names: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
    if names
        .last()
        .is_some_and(|last| *last == "mod" || (names.len() == 1 && *last == "lib"))
    {
        names.pop();
    }
    names
}

/// The room of a file; `None` for one above all. `Err` for a folder that the table does not know.
pub fn room<'a>(path: &'a str, levels: &[(&str, u32)]) -> Result<Option<&'a str>, String> {
    let known = |name: &str| levels.iter().any(|(room, _)| *room == name);
    match module(path).first() {
        Some(name) if known(name) => Ok(Some(name)),
        Some(name) if path.matches('/').count() > 1 => Err(format!(
            "{path}:1: `{name}` is no room: give it a level in LEVELS of tests/tidy.rs, or \
             move the file"
        )),
        _ => Ok(None),
    }
}

/// Rooms see lower rooms only.
pub fn check_levels(source: &Source, levels: &[(&str, u32)]) -> Vec<String> {
    let room = match room(&source.path, levels) {
        Ok(Some(room)) => room,
        Ok(None) => return Vec::new(),
        Err(unknown) => return vec![unknown],
    };
    if room == "bin" {
        // A crate of its own: it can see only what the library shows to everyone.
        return Vec::new();
    }
    let level = |name: &str| {
        levels
            .iter()
            .find(|(room, _)| *room == name)
            .map(|(_, level)| *level)
    };
    let own = level(room);
    let mut found = Vec::new();
    for root in ["crate", "mobula"] {
        for (offset, first) in source.firsts(root) {
            let exported = source.before(offset).ends_with("$crate::");
            let problem = match level(first) {
                _ if first == room => continue,
                Some(other) if Some(other) < own => continue,
                Some(other) if Some(other) == own => "is on the same level".to_owned(),
                Some(other) => format!("is above, on level {other}"),
                // A macro for users must name what they can see.
                None if exported => continue,
                // A macro of the library's own, for users' code: rustc puts it at the root.
                None if room == "api" && first.starts_with("__mobula_") => continue,
                None => "is no room (what lib.rs re-exports is above all rooms)".to_owned(),
            };
            found.push(format!(
                "{}: `{room}` names `{root}::{first}`, which {problem}: move what both need to a \
                 lower room, or hand it in from above",
                source.at(offset)
            ));
        }
    }
    for (offset, word) in source.words() {
        let aliased = word == "crate" && source.after(offset, word).starts_with("as ");
        if aliased || (word == "path" && source.before(offset).ends_with("#[")) {
            let what = if aliased {
                "renames `crate`"
            } else {
                "loads a module by #[path]"
            };
            let at = source.at(offset);
            found.push(format!(
                "{at}: {what}, which hides what it imports: use plain paths"
            ));
        }
    }
    found
}

/// `super` does not lead out of a room.
pub fn check_super(source: &Source, levels: &[(&str, u32)]) -> Vec<String> {
    let Ok(Some(room)) = room(&source.path, levels) else {
        return Vec::new();
    };
    let depth = module(&source.path).len();
    let (mut braces, mut inline) = (0usize, Vec::new());
    let mut found = Vec::new();
    let mut scanned = 0;
    let mut words = source.words().peekable();
    let mut opens_module = false;
    while let Some((offset, word)) = words.next() {
        for c in source.code[scanned..offset].chars() {
            match c {
                '{' => {
                    braces += 1;
                    if std::mem::take(&mut opens_module) {
                        inline.push(braces);
                    }
                }
                '}' => {
                    inline.pop_if(|opened| *opened == braces);
                    braces = braces.saturating_sub(1);
                }
                ';' => opens_module = false,
                _ => {}
            }
        }
        scanned = offset + word.len();
        if word == "mod" && source.after(offset, word).starts_with(is_word) {
            opens_module = true;
        }
        if word != "super" || source.after(offset, word).starts_with(')') {
            continue; // `pub(super)` shows, it does not look.
        }
        let mut supers = 1;
        while words.next_if(|(_, next)| *next == "super").is_some() {
            supers += 1;
        }
        if supers >= depth + inline.len() {
            found.push(format!(
                "{}: {supers} times `super` leads out of `{room}`: write the path from `crate`",
                source.at(offset)
            ));
        }
    }
    found
}

/// Where a crate is named.
fn mentions<'a>(source: &'a Source, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    source
        .words()
        .filter(move |(_, word)| *word == name)
        .filter_map(move |(offset, word)| {
            let before = source.before(offset).trim_end_matches("::");
            let imported = ["use", "extern crate"]
                .iter()
                .any(|word| before.ends_with(word));
            let path = source.after(offset, word).starts_with("::");
            ((imported || path) && source.begins_path(offset)).then_some(offset)
        })
}

/// Crates from outside are named in their rooms only.
pub fn check_third_party(
    source: &Source,
    levels: &[(&str, u32)],
    table: &[ThirdParty],
) -> Vec<String> {
    let Ok(room) = room(&source.path, levels) else {
        return Vec::new();
    };
    let room = room.unwrap_or(ROOT);
    let foreign = table.iter().filter(|entry| !entry.rooms.contains(&room));
    let found = foreign.flat_map(|entry| {
        mentions(source, entry.name).take(1).map(move |offset| {
            format!(
                "{}: `{}` is named in `{room}`, but enters at {:?}: go through that room, or \
                 change THIRD_PARTY in tests/tidy.rs",
                source.at(offset),
                entry.name,
                entry.rooms
            )
        })
    });
    found.collect()
}

/// The table matches the manifest, and every room in it does name the crate.
pub fn check_table(
    manifest: &str,
    sources: &[Source],
    levels: &[(&str, u32)],
    table: &[ThirdParty],
) -> Vec<String> {
    let dependencies = dependencies(manifest);
    let mut found = Vec::new();
    for (line, name) in &dependencies {
        if !table.iter().any(|entry| entry.name == name) {
            found.push(format!(
                "Cargo.toml:{line}: `{name}` has no room: add it to THIRD_PARTY in tests/tidy.rs"
            ));
        }
    }
    for entry in table {
        let name = entry.name;
        if !dependencies
            .iter()
            .any(|(_, dependency)| dependency == name)
        {
            found.push(format!(
                "tests/tidy.rs: `{name}` is no dependency: remove it from THIRD_PARTY"
            ));
        }
        for wanted in entry.rooms {
            let in_room = |source: &&Source| {
                room(&source.path, levels).is_ok_and(|room| room.unwrap_or(ROOT) == *wanted)
            };
            let mut files = sources.iter().filter(in_room);
            if !files.any(|source| mentions(source, name).next().is_some()) {
                found.push(format!(
                    "tests/tidy.rs: nothing in `{wanted}` names `{name}`: remove that room from \
                     THIRD_PARTY"
                ));
            }
        }
    }
    found
}

/// What a manifest depends on, as names in code, with lines; dev-dependencies excluded.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut listing = false;
    for (at, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            listing = section == "dependencies"
                || (section.starts_with("target.") && section.ends_with(".dependencies"));
        } else if listing
            && !line.starts_with('#')
            && let Some((name, _)) = line.split_once(['=', '.'])
        {
            found.push((at + 1, name.trim().replace('-', "_")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVELS: &[(&str, u32)] = &[
        ("base", 0),
        ("core", 1),
        ("shm", 1),
        ("exec", 4),
        ("bin", 7),
    ];

    fn levels(path: &str, text: &str) -> Vec<String> {
        check_levels(&Source::new(path, text), LEVELS)
    }

    #[test]
    fn a_room_sees_itself_and_lower_rooms() {
        let good =
            "use crate::base::Units; use crate::{core::x, shm}; // crate::api\nstruct crate_;";
        assert!(levels("src/exec/a.rs", good).is_empty());
        assert!(
            levels(
                "src/exec.rs",
                "use crate::exec::a; fn f() -> std::fmt::Result {}"
            )
            .is_empty()
        );
        assert!(levels("src/lib.rs", "pub use crate::exec::x;").is_empty());
        assert!(levels("src/bin/mobula.rs", "use mobula::exec;").is_empty());
    }

    #[test]
    fn a_room_does_not_see_higher_or_neighbouring_rooms() {
        let up = levels("src/core/a.rs", "\nuse crate::{base, exec::x};");
        assert_eq!(up.len(), 1);
        assert!(
            up[0].starts_with("src/core/a.rs:2: `core` names `crate::exec`"),
            "{up:?}"
        );
        for text in [
            "use crate::shm;",
            "fn f() { crate::shm::g() }",
            "use mobula::shm::x;",
        ] {
            assert!(
                levels("src/core/a.rs", text)[0].contains("same level"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_lib_re_exports_is_above_all_rooms() {
        assert_eq!(levels("src/exec/a.rs", "use crate::Error;").len(), 1);
        assert_eq!(levels("src/exec/a.rs", "use crate::*;").len(), 1);
        assert_eq!(levels("src/exec/a.rs", "use crate::{self as c};").len(), 1);
        assert!(
            levels(
                "src/exec/a.rs",
                "macro_rules! m { () => { $crate::__private::f() } }"
            )
            .len()
                < 2
        );
        assert_eq!(
            levels(
                "src/base/a.rs",
                "macro_rules! m { () => { $crate::exec::f() } }"
            )
            .len(),
            1
        );
    }

    #[test]
    fn imports_are_not_hidden() {
        assert_eq!(levels("src/core/a.rs", "use crate as c;").len(), 1);
        assert_eq!(
            levels("src/core/a.rs", "#[path = \"../exec/b.rs\"]\nmod b;").len(),
            1
        );
    }

    #[test]
    fn an_unknown_folder_is_no_room() {
        assert!(levels("src/attic/a.rs", "")[0].contains("`attic` is no room"));
    }

    #[test]
    fn super_stays_in_the_room() {
        let check = |path: &str, text: &str| check_super(&Source::new(path, text), LEVELS).len();
        assert_eq!(check("src/core/mod.rs", "use super::exec;"), 1);
        assert_eq!(
            check(
                "src/core/mod.rs",
                "pub(super) fn f() {} mod t { use super::f; }"
            ),
            0
        );
        assert_eq!(check("src/core/a.rs", "use super::b;"), 0);
        assert_eq!(check("src/core/a.rs", "use super::super::exec;"), 1);
        assert_eq!(
            check(
                "src/core/a.rs",
                "mod t { use super::super::b; } use super::b;"
            ),
            0
        );
        assert_eq!(
            check(
                "src/core/a.rs",
                "mod t { fn f() {} } use super :: super::exec;"
            ),
            1
        );
        assert_eq!(check("src/core/a/b.rs", "use super::super::c;"), 0);
        assert_eq!(
            check("src/core/a/b.rs", "fn f() { super::super::super::exec() }"),
            1
        );
    }

    const TABLE: &[ThirdParty] = &[
        ThirdParty {
            name: "rustix",
            rooms: &["shm", ROOT],
        },
        ThirdParty {
            name: "some_crate",
            rooms: &["exec"],
        },
    ];

    #[test]
    fn a_crate_is_named_in_its_rooms_only() {
        let check = |path: &str, text: &str| {
            check_third_party(&Source::new(path, text), LEVELS, TABLE).len()
        };
        assert_eq!(
            check("src/shm/a.rs", "use rustix::fs; rustix::mm::mmap();"),
            0
        );
        assert_eq!(check("src/lib.rs", "pub use rustix;"), 0);
        for text in [
            "use rustix::fs;",
            "::rustix::x()",
            "use rustix as r;",
            "extern crate rustix;",
        ] {
            assert_eq!(check("src/core/a.rs", text), 1, "{text}");
        }
        assert_eq!(
            check(
                "src/core/a.rs",
                "let rustix = 1; // rustix::fs\n\"rustix::x\""
            ),
            0
        );
    }

    #[test]
    fn the_table_matches_the_manifest_and_the_code() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\n# why\nrustix = \"1\"\n\
                        some-crate.workspace = true\n[dev-dependencies]\nproptest = \"1\"\n\
                        [target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n";
        let sources = [
            Source::new("src/shm/a.rs", "use rustix::fs;"),
            Source::new("src/lib.rs", "pub use rustix;"),
        ];
        let found = check_table(manifest, &sources, LEVELS, TABLE);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("Cargo.toml:10: `libc` has no room"),
            "{found:?}"
        );
        assert!(
            found[1].contains("nothing in `exec` names `some_crate`"),
            "{found:?}"
        );
        let found = check_table("[dependencies]\n", &sources, LEVELS, &TABLE[..1]);
        assert!(found[0].contains("`rustix` is no dependency"), "{found:?}");
    }
}
