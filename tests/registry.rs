//! What is remote is registered: in modules that nobody uses, in libraries whose functions nobody calls,
//! with and without link-time optimization. Two items of one name are refused.
//!
//! The programs are built by cargo in a folder of their own. The optimized build compiles every
//! dependency again, so it runs only where `MOBULA_TEST_LTO=1` is set, as `.ci/run` does.
//! Left out: what is registered under which name, which the macros' tests pin.

#[path = "../src/base/skip.rs"]
mod skip;

use std::path::{Path, PathBuf};
use std::process::Command;

use mobula::remote;

#[remote]
fn in_the_test_itself() -> u64 {
    1
}

mod nobody_uses_this {
    use mobula::remote;

    #[remote]
    fn lonely() -> u64 {
        2
    }

    #[remote]
    struct Hermit;

    #[remote]
    impl Hermit {
        pub fn new() -> Self {
            Hermit
        }

        pub fn greet(&self) {}
    }
}

#[test]
fn a_test_program_registers_its_own() {
    let registered = mobula::registry();
    let find = |name: &str| {
        let found: Vec<_> = registered.iter().filter(|item| item.name == name).collect();
        assert_eq!(found.len(), 1, "{name} is registered once: {registered:#?}");
        found[0]
    };
    assert!(!find("registry::in_the_test_itself").actor);
    assert!(!find("registry::nobody_uses_this::lonely").actor);
    assert!(find("registry::nobody_uses_this::Hermit").actor);
    assert!(!find("registry::nobody_uses_this::Hermit::greet").actor);
    assert!(
        find("registry::in_the_test_itself")
            .file
            .ends_with("tests/registry.rs")
    );
    assert!(registered.is_sorted_by(|a, b| a.name <= b.name));
}

/// What `registry-app` prints, whatever it was built with.
const OF_THE_LIBRARY: &[&str] = &[
    "call registry_dep::double",
    "call registry_dep::triple",
    "call registry_dep::unused::forgotten",
    "actor registry_dep::unused::Tally",
    "call registry_dep::unused::Tally::add",
    "double(21) = 42",
    "triple(14) = 42 elsewhere",
];

#[test]
fn a_library_registers_what_nobody_calls() {
    prints_all(&run(&build("dev"), "registry-app"));
}

#[test]
fn link_time_optimization_drops_nothing() {
    if std::env::var_os("MOBULA_TEST_LTO").is_none_or(|v| v != "1") {
        return skip::skipped("the build with link-time optimization runs with MOBULA_TEST_LTO=1");
    }
    prints_all(&run(&build("registry-lto"), "registry-app"));
}

#[test]
fn two_of_one_name_are_refused_at_the_start() {
    let printed = run(&build("dev"), "twice");
    assert!(printed.contains("`area`"), "{printed}");
    assert_eq!(
        printed.matches("twice.rs:").count(),
        2,
        "names both places: {printed}"
    );
}

fn prints_all(printed: &str) {
    for line in OF_THE_LIBRARY {
        let found = printed.lines().filter(|l| l == line).count();
        assert_eq!(found, 1, "`{line}` is printed once in:\n{printed}");
    }
}

/// Builds the programs and returns the folder that they are in. Two tests may do so at once: cargo
/// makes one wait for the other.
fn build(profile: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("registry");
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--offline",
            "--package",
            "registry-app",
            "--profile",
            profile,
        ])
        .arg("--target-dir")
        .arg(&folder)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "the programs do not build:\n{said}");
    folder.join(if profile == "dev" { "debug" } else { profile })
}

fn run(folder: &Path, program: &str) -> String {
    let ran = Command::new(folder.join(program))
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success(),
        "{program} ended with {}: {said}",
        ran.status
    );
    String::from_utf8_lossy(&ran.stdout).into_owned()
}
