//! The shape of the project, checked: which room sees which, where clocks, `unsafe` and crates from
//! outside may be, how files open and how long they are.
//!
//! Invariant: every rule is a function from sources to messages, with a test beside it which shows
//! that it can fail. The tables below are the only thing to edit when a room, a crate or an
//! `unsafe` moves. Left out: what rustc and clippy check.

#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/style.rs"]
mod style;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rooms::{ROOT, ThirdParty};
use source::Source;

/// The rooms of `src/` and their levels. A file sees its own room and lower levels.
const LEVELS: &[(&str, u32)] = &[
    ("base", 0),
    ("value", 1),
    ("core", 1),
    ("shm", 1),
    ("trace", 1),
    ("store", 2),
    ("wire", 2),
    ("link", 3),
    ("control", 3),
    ("exec", 4),
    ("node", 5),
    ("dashboard", 5),
    ("api", 6),
    ("rl", 7),
    ("bin", 7),
    ("capi", 7),
];

/// Where each crate from outside enters. `ROOT` is lib.rs.
const THIRD_PARTY: &[ThirdParty] = &[
    ThirdParty {
        name: "aws_lc_rs",
        rooms: &["link"],
    },
    ThirdParty {
        name: "axum",
        rooms: &["dashboard"],
    },
    ThirdParty {
        name: "candle_core",
        rooms: &["rl"],
    },
    ThirdParty {
        name: "clap",
        rooms: &["bin"],
    },
    ThirdParty {
        name: "clap_complete",
        rooms: &["bin"],
    },
    ThirdParty {
        name: "comfy_table",
        rooms: &["bin"],
    },
    ThirdParty {
        name: "bytes",
        rooms: &["core", "store", "link"],
    },
    ThirdParty {
        name: "crossbeam_deque",
        rooms: &["exec"],
    },
    ThirdParty {
        name: "etcd_client",
        rooms: &["control"],
    },
    ThirdParty {
        name: "foca",
        rooms: &["core"],
    },
    ThirdParty {
        name: "futures_util",
        rooms: &["dashboard"],
    },
    ThirdParty {
        name: "hyper",
        rooms: &["dashboard"],
    },
    ThirdParty {
        name: "hyper_util",
        rooms: &["dashboard"],
    },
    ThirdParty {
        name: "indicatif",
        rooms: &["bin"],
    },
    ThirdParty {
        name: "inventory",
        rooms: &["exec", "node", "api"],
    },
    ThirdParty {
        name: "libc",
        rooms: &["shm", "exec"],
    },
    ThirdParty {
        name: "loom",
        rooms: &["shm", "store", "exec"],
    },
    ThirdParty {
        name: "mobula_macros",
        rooms: &["api", "rl", ROOT],
    },
    ThirdParty {
        name: "gym_rs",
        rooms: &["rl"],
    },
    ThirdParty {
        name: "mujoco_rs",
        rooms: &["rl"],
    },
    ThirdParty {
        name: "object_store",
        rooms: &["store"],
    },
    ThirdParty {
        name: "parking_lot",
        rooms: &["shm", "store", "link", "control", "exec", "node", "api"],
    },
    ThirdParty {
        name: "rand_core",
        rooms: &["core"],
    },
    ThirdParty {
        name: "redb",
        rooms: &["control"],
    },
    ThirdParty {
        name: "quinn",
        rooms: &["link"],
    },
    ThirdParty {
        name: "rcgen",
        rooms: &["link"],
    },
    ThirdParty {
        name: "rkyv",
        rooms: &["value", "store", "exec", "api", "rl", ROOT],
    },
    ThirdParty {
        name: "rustls",
        rooms: &["link"],
    },
    ThirdParty {
        name: "rustix",
        rooms: &["shm", "store", "link", "exec", "node", "trace", "rl", "bin"],
    },
    ThirdParty {
        name: "serde",
        rooms: &["base", "node", "dashboard", "rl", "bin"],
    },
    ThirdParty {
        name: "serde_json",
        rooms: &["trace", "node", "dashboard", "rl", "bin"],
    },
    ThirdParty {
        name: "signal_hook",
        rooms: &["bin"],
    },
    ThirdParty {
        name: "socket2",
        rooms: &["link"],
    },
    ThirdParty {
        name: "thiserror",
        rooms: &["base", "value", "link", "control", "api", "rl"],
    },
    ThirdParty {
        name: "tracing_chrome",
        rooms: &["api"],
    },
    ThirdParty {
        name: "tracing_core",
        rooms: &["api"],
    },
    ThirdParty {
        name: "tracing_subscriber",
        rooms: &["api"],
    },
    ThirdParty {
        name: "tokio",
        rooms: &["store", "link", "control", "exec", "dashboard"],
    },
    ThirdParty {
        name: "url",
        rooms: &["store"],
    },
    ThirdParty {
        name: "webpki",
        rooms: &["link"],
    },
    ThirdParty {
        name: "xxhash_rust",
        rooms: &["store"],
    },
];

/// Rooms in which any file may have `unsafe`.
const UNSAFE_ROOMS: &[&str] = &["shm", "value"];

/// Other files under `src/` that may have `unsafe`, and why they need it.
const UNSAFE_FILES: &[(&str, &str)] = &[
    (
        "base/hostile.rs",
        "an allocator that counts, for tests and fuzz targets",
    ),
    (
        "capi/mod.rs",
        "pointers from other languages, and names that they can find",
    ),
    (
        "exec/actor/create.rs",
        "puts the constructor's call into a cell that nobody else drains yet",
    ),
    (
        "exec/actor/life.rs",
        "makes, hands over and drops states whose types only the entry knows",
    ),
    (
        "exec/actor/mailbox.rs",
        "a list of records whose links only its owner follows",
    ),
    (
        "exec/actor/mod.rs",
        "the counted cell, and what its run lock guards",
    ),
    (
        "exec/actor/roll.rs",
        "follows the roll's pointers to living actors, under its lock",
    ),
    ("exec/actor/run.rs", "takes records off the mailbox"),
    (
        "exec/actor/run/perform.rs",
        "runs claimed records with the state",
    ),
    (
        "exec/call.rs",
        "reads archived arguments and results out of records",
    ),
    (
        "exec/far/parcel.rs",
        "takes arguments and values out of records, and puts them into others",
    ),
    (
        "exec/far/proxy.rs",
        "follows pointers to records that it does not hold, under a lock that their freeing takes first",
    ),
    (
        "exec/far/take.rs",
        "looks at the arguments of calls that wait, and puts outcomes into claimed records",
    ),
    (
        "exec/cell.rs",
        "the record: counts and bytes in one block of memory",
    ),
    (
        "exec/cell/tests.rs",
        "makes records and claims them by hand",
    ),
    (
        "exec/executor.rs",
        "tells the system how exact an executor's timers are to be",
    ),
    (
        "exec/engine.rs",
        "gives the queue its count of a record; walks arguments",
    ),
    (
        "exec/entry.rs",
        "runs a function on arguments whose types only its constructor knows",
    ),
    (
        "exec/futures.rs",
        "a future that borrows from the record it keeps alive",
    ),
    (
        "exec/isolate/driver.rs",
        "reads a claimed record's arguments, and puts its value, for a process that runs it",
    ),
    (
        "exec/moves.rs",
        "an object that leaves memory says in which record it lies",
    ),
    (
        "exec/isolate/serve.rs",
        "makes records of what the node sent, runs them, and reads arguments in the node's memory",
    ),
    (
        "exec/isolate/takeover.rs",
        "a constructor, and those behind it in the executable's own list",
    ),
    (
        "exec/local.rs",
        "what a thread keeps, reached without a borrow check on the call path",
    ),
    ("exec/loom_tests/actors.rs", "nodes of the mailbox's models"),
    ("exec/loom_tests/calls.rs", "waiters of the record's models"),
    (
        "exec/mail.rs",
        "a list of nodes that many push to and one takes",
    ),
    (
        "exec/memory.rs",
        "blocks for records, recycled through magazines",
    ),
    (
        "exec/params.rs",
        "reads archived arguments as the types that they were written as",
    ),
    (
        "exec/payload.rs",
        "a record's body: arguments, then an outcome, as its tag says",
    ),
    (
        "exec/pin.rs",
        "reads what it has pinned; walks a claimed call's arguments",
    ),
    (
        "exec/phase.rs",
        "a list of waiters under a lock of one byte",
    ),
    (
        "exec/settle.rs",
        "puts errors into claimed records and takes their waiters apart",
    ),
    (
        "exec/stack.rs",
        "asks the system where a thread's stack ends",
    ),
    ("exec/sync.rs", "unlocks the lock of one byte"),
    (
        "exec/tasks.rs",
        "runs functions and methods on what the record holds",
    ),
    (
        "exec/wait.rs",
        "looks at the call that runs on this thread, which its frame keeps alive",
    ),
    ("exec/waiter.rs", "links of a record's list of waiters"),
    (
        "rl/simd.rs",
        "runs loops that were compiled for instructions which it found the machine to have",
    ),
    (
        "store/client/memory.rs",
        "reads what the server pinned, writes what it lent, and archives that were checked",
    ),
    ("trace/ticks.rs", "reads the processor's counter of time"),
    (
        "store/kept.rs",
        "an object in a box that the arena's books point to",
    ),
    (
        "store/mod.rs",
        "frees extents for the objects that own them",
    ),
    ("trace/ticks.rs", "reads the processor's counter of time"),
    (
        "store/object.rs",
        "turns an extent of the arena into slices",
    ),
    (
        "store/spill/mod.rs",
        "takes memory over from objects that it has moved to disk",
    ),
    (
        "store/stored.rs",
        "an object that is found through the arena's books, in memory or on disk",
    ),
    ("store/word.rs", "the cells of its loom models"),
];

/// No file of the library or of the macros is longer.
const MAX_LINES: usize = 600;

/// No file of tests is longer: a list of cases stays readable for longer than code.
const MAX_TEST_LINES: usize = 900;

/// Folders of the machines that this was written on; in halves, so that this file does not name
/// them.
const MACHINE_FOLDERS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/fa", "rm/"),
];

#[test]
fn rooms_see_lower_rooms_only() {
    let sources = sources(&["src"]);
    let supers = sources
        .iter()
        .flat_map(|source| rooms::check_super(source, LEVELS));
    tidy(
        sources
            .iter()
            .flat_map(|source| rooms::check_levels(source, LEVELS))
            .chain(supers),
    );
}

#[test]
fn crates_from_outside_enter_at_their_rooms() {
    let sources = sources(&["src"]);
    let manifest = fs::read_to_string(project().join("Cargo.toml")).expect("the manifest is there");
    let table = rooms::check_table(&manifest, &sources, LEVELS, THIRD_PARTY);
    let foreign = |source| rooms::check_third_party(source, LEVELS, THIRD_PARTY);
    tidy(sources.iter().flat_map(foreign).chain(table));
}

#[test]
fn core_is_pure() {
    tidy(sources(&["src"]).iter().flat_map(style::check_core));
}

#[test]
fn unsafe_stands_where_it_may_and_says_why() {
    let sources = sources(&["src"]);
    let check = |source| style::check_unsafe(source, UNSAFE_ROOMS, UNSAFE_FILES);
    let stale = style::check_unsafe_list(&sources, UNSAFE_FILES);
    tidy(sources.iter().flat_map(check).chain(stale));
}

#[test]
fn files_open_with_their_purpose() {
    let sources = sources(&["src", "macros/src", "examples", "benches", "tests"]);
    tidy(sources.iter().flat_map(style::check_opening));
}

#[test]
fn files_are_short() {
    let code = sources(&["src", "macros/src"]);
    let tests = sources(&["tests"]);
    let code = code
        .iter()
        .flat_map(|source| style::check_length(source, MAX_LINES));
    let tests = tests
        .iter()
        .flat_map(|source| style::check_length(source, MAX_TEST_LINES));
    tidy(code.chain(tests));
}

#[test]
fn nothing_names_a_folder_of_one_machine() {
    let mut found = Vec::new();
    for path in project_files() {
        let name = relative(&path);
        // Binary files are no text, and the lock file is cargo's.
        if name != "Cargo.lock"
            && let Ok(text) = fs::read_to_string(&path)
        {
            found.extend(style::check_machine_paths(&name, &text, MACHINE_FOLDERS));
        }
    }
    tidy(found);
}

#[test]
fn the_walk_finds_the_files() {
    let sources = sources(&["src", "tests"]);
    for path in ["src/lib.rs", "src/core/ledger/free.rs", "tests/tidy.rs"] {
        assert!(
            sources.iter().any(|source| source.path == path),
            "{path} was not found"
        );
    }
    assert!(
        project_files()
            .iter()
            .any(|path| path.ends_with("Cargo.toml"))
    );
}

/// Fails with every message at once.
fn tidy(found: impl IntoIterator<Item = String>) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "not tidy:\n{}\n", found.join("\n"));
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(project())
        .unwrap_or(path)
        .to_string_lossy()
        .replace('\\', "/")
}

/// The Rust files of these folders, by path.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in folders {
        walk(&project().join(folder), &mut paths);
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a source is readable text");
        Source::new(&relative(path), &text)
    };
    paths.iter().map(read).collect()
}

/// All files that git has or would take; without git, all but build output and hidden folders.
fn project_files() -> Vec<PathBuf> {
    let git = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(project())
        .output();
    if let Ok(listed) = git
        && listed.status.success()
        && !listed.stdout.is_empty()
    {
        let names = String::from_utf8_lossy(&listed.stdout);
        return names
            .split('\0')
            .filter(|n| !n.is_empty())
            .map(|n| project().join(n))
            .collect();
    }
    let mut paths = Vec::new();
    walk(project(), &mut paths);
    paths
}

fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if !path.is_dir() {
            out.push(path);
        } else if name != "target" && !name.to_string_lossy().starts_with('.') {
            walk(&path, out);
        }
    }
}
