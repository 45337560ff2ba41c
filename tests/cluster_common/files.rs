//! Files by which processes of a test know of each other.
//!
//! Invariant: what a test made is removed with it. Left out: what is in them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::until;

/// A name of one test's own; nothing is there yet.
fn fresh(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("mobula-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let _ = std::fs::remove_dir_all(&path);
    path
}

/// A folder, which whoever writes there first makes.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new(name: &str) -> Temp {
        Temp(fresh(name))
    }

    /// What is there, by name.
    pub fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).collect();
        paths.sort();
        paths
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A file in which functions [`note`] that they ran.
pub struct Notes(PathBuf);

impl Notes {
    pub fn new(name: &str) -> Notes {
        Notes(fresh(name))
    }

    pub fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    pub fn runs(&self) -> usize {
        std::fs::read(&self.0).map_or(0, |b| b.len())
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Notes that a function runs; the number of earlier ones.
pub fn note(file: &str) -> usize {
    let open = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file);
    let mut open = open.expect("notes can be written");
    open.write_all(b"x").expect("notes can be written");
    open.metadata().expect("it is there").len() as usize - 1
}

/// What holds calls up wherever they run, until it is opened.
pub struct Gate(PathBuf);

impl Gate {
    /// One that is shut.
    pub fn new(name: &str) -> Gate {
        Gate(fresh(name))
    }

    pub fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    pub fn open(&self) {
        std::fs::write(&self.0, b"").expect("a gate can be opened");
    }

    pub fn shut(&self) {
        std::fs::remove_file(&self.0).expect("it was open");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Waits at a gate, by its path.
pub fn pass(gate: &str) {
    let gate = Path::new(gate);
    until("the gate opens", Duration::from_secs(120), || gate.exists());
}
