//! What the tests around worker processes share: printed lines, counted attempts, processes that are there or not.
//!
//! Invariant: files are of one test and removed with it. Left out: what is tested.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mobula::{Config, WorkerLine, WorkerOutput};

/// A small node whose workers print to nobody.
pub fn config() -> Config {
    Config::new()
        .num_cpus(2.0)
        .object_store_memory(1 << 27)
        .worker_output(WorkerOutput::Silent)
}

/// What workers printed.
#[derive(Clone, Default)]
pub struct Printed(Arc<Mutex<Vec<WorkerLine>>>);

impl Printed {
    /// Where workers print to it.
    pub fn output(&self) -> WorkerOutput {
        let to = Arc::clone(&self.0);
        WorkerOutput::sink(move |line| to.lock().unwrap().push(line))
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<WorkerLine> {
        self.0.lock().unwrap().clone()
    }

    /// Their texts.
    pub fn texts(&self) -> Vec<String> {
        self.lines().into_iter().map(|l| l.text).collect()
    }
}

/// A folder of one test.
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mobula-workers-{}-{n}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// A file in it, as an argument.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// What a file in it says; nothing while there is none.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Counts a call in a file that all processes share; how many there were before.
pub fn count(file: &str) -> u64 {
    use std::io::Write;
    let mut counts = std::fs::File::options()
        .append(true)
        .create(true)
        .open(file)
        .unwrap();
    counts.write_all(b"x").unwrap();
    counts.metadata().unwrap().len() - 1
}

/// How many were counted.
pub fn counted(file: &str) -> u64 {
    std::fs::metadata(file).map_or(0, |m| m.len())
}

/// Whether a process is there: not one that has ended and only awaits its parent.
pub fn is_there(pid: u32) -> bool {
    std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

/// Sends a signal.
pub fn signal(pid: u32, name: &str) {
    let said = std::process::Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .stderr(std::process::Stdio::null())
        .status();
    drop(said);
}
