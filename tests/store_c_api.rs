//! The store from other languages: a C program, and Python through ctypes, over one served store.
//!
//! The library is built by cargo as the header says, once, but with the features of these tests, whose
//! dependencies are built already. Without a C compiler or Python the test of it says so and passes;
//! `MOBULA_TEST_PYTHON` names another Python, such as one with numpy. Left out: what the library does
//! (`store_exchange`).

#[path = "store_common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::skip::skipped;
use common::{LONG, Scene};
use mobula::store::ObjectId;

fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn good(what: &str, output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{what}: {}\n{said}\n{complained}",
        output.status
    );
    said
}

/// Builds the library of the header's functions, and says where it is.
fn library() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .current_dir(source(""))
        .args([
            "rustc",
            "--lib",
            "--package",
            "mobula",
            "--features",
            "full",
        ])
        .args([
            "--crate-type",
            "cdylib",
            "--message-format",
            "json",
            "--quiet",
        ])
        .output()
        .expect("cargo runs");
    let said = good("building the library", &output);
    let path = said.split('"').find(|text| text.ends_with("/libmobula.so"));
    PathBuf::from(path.expect("cargo names what it built"))
}

#[test]
fn c_and_python_share_objects_with_rust() {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    if Command::new(&compiler).arg("--version").output().is_err() {
        return skipped("there is no C compiler");
    }
    let library = library();
    let scene = Scene::new(64 << 20);
    let client = scene.client();
    client
        .put_bytes(ObjectId::from_name("from rust"), b"from rust")
        .unwrap();

    let program = scene.folder.join("program");
    let built = Command::new(&compiler)
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(source("include"))
        .arg(source("tests/store_c_api/program.c"))
        .arg(&library)
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap();
    good("compiling the C program", &built);
    let folder = library.parent().expect("a file is in a folder");
    let ran = Command::new(&program)
        .arg(scene.socket())
        .env("LD_LIBRARY_PATH", folder)
        .output()
        .unwrap();
    assert!(good("the C program", &ran).contains("c: good"));
    numbers(&scene, "from c", 0.5);

    let python = std::env::var("MOBULA_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if Command::new(&python).arg("--version").output().is_err() {
        return skipped("there is no Python");
    }
    let ran = Command::new(&python)
        .arg(source("tests/store_c_api/program.py"))
        .args([library.as_os_str(), scene.socket().as_os_str()])
        .output()
        .unwrap();
    let said = good("the Python program", &ran);
    print!("{said}");
    if said.contains("without numpy") {
        skipped("numpy is not there, so the array was read in place by ctypes alone");
    }
    numbers(&scene, "from python", 3.0);
}

/// The million numbers that a program put there.
fn numbers(scene: &Scene, name: &str, factor: f64) {
    let object = scene
        .client()
        .get(ObjectId::from_name(name), Some(LONG))
        .unwrap();
    assert_eq!(object.len(), 8_000_000);
    for (i, bytes) in object.chunks_exact(8).enumerate() {
        let number = f64::from_le_bytes(bytes.try_into().unwrap());
        assert_eq!(number, i as f64 * factor, "{name}, number {i}");
    }
}
