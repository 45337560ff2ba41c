//! Executables that came from elsewhere, each under the hash of its bytes.
//!
//! Invariant: what is run under a hash had that hash when it was looked up; a file is there whole or not at all. At most
//! [`KEPT`] that no job uses are kept, the latest used. Left out: carrying them here.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::link::{Landing, LinkError, sha256};

/// So many that no job uses.
const KEPT: usize = 8;
/// An executable has at most so many bytes.
pub const MAX_LEN: u64 = 4 << 30;

/// See the module.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// A hash as it is written.
pub fn hex(hash: &[u8]) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

impl Cache {
    /// In this folder, which is made.
    pub fn open(folder: &Path) -> io::Result<Cache> {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let cache = Cache {
            folder: folder.to_owned(),
        };
        // What a crash left half written.
        for entry in fs::read_dir(folder)?.flatten() {
            if entry.path().extension().is_some_and(|e| e == "part") {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(cache)
    }

    fn path(&self, hash: &[u8; 32]) -> PathBuf {
        self.folder.join(hex(hash))
    }

    /// Where it is, if it is there and still what it was; marks it as used.
    pub fn find(&self, hash: &[u8; 32]) -> Option<PathBuf> {
        let path = self.path(hash);
        let bytes = fs::read(&path).ok()?;
        if sha256(&bytes) != *hash {
            let _ = fs::remove_file(&path);
            return None;
        }
        let file = fs::File::open(&path).ok()?;
        let _ = file.set_modified(SystemTime::now());
        Some(path)
    }

    /// A place for the bytes of an executable that comes under this number.
    pub fn receive(&self, transfer: u64, len: u64) -> io::Result<Part> {
        let path = self.folder.join(format!("{transfer:016x}.part"));
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o500)
            .open(&path)?;
        file.set_len(len)?;
        Ok(Part {
            file: Some(file),
            path,
            failed: None,
        })
    }

    /// Takes it in, if it has the hash.
    pub fn keep(&self, mut part: Part, hash: &[u8; 32]) -> Result<PathBuf, String> {
        if let Some(why) = part.failed.take() {
            return Err(format!("the executable cannot be written here: {why}"));
        }
        // Closed for writing before anybody runs it.
        part.file = None;
        let found = fs::read(&part.path)
            .map(|bytes| sha256(&bytes))
            .map_err(|e| format!("the executable cannot be read back: {e}"))?;
        if found != *hash {
            return Err(format!(
                "the executable that came has the hash {}, not {}: it is not run",
                hex(&found),
                hex(hash)
            ));
        }
        let path = self.path(hash);
        fs::rename(&part.path, &path).map_err(|e| format!("the executable cannot be kept: {e}"))?;
        Ok(path)
    }

    /// Removes the oldest beyond the bound, but for those that are used.
    pub fn trim(&self, used: impl Fn(&Path) -> bool) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let mut idle: Vec<(SystemTime, PathBuf)> = entries
            .flatten()
            .map(|e| e.path())
            .filter(|path| path.extension().is_none() && !used(path))
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        idle.sort();
        for (_, path) in idle.iter().rev().skip(KEPT) {
            let _ = fs::remove_file(path);
        }
    }
}

/// A file that is being filled; gone if it is dropped.
#[derive(Debug)]
pub struct Part {
    file: Option<fs::File>,
    path: PathBuf,
    failed: Option<io::Error>,
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes what comes into the file, and hands it on at the end.
pub struct Lander<F: FnOnce(Result<Part, LinkError>) + Send> {
    part: Part,
    done: F,
}

impl<F: FnOnce(Result<Part, LinkError>) + Send> Lander<F> {
    /// Into this file.
    pub fn new(part: Part, done: F) -> Lander<F> {
        Lander { part, done }
    }
}

impl<F: FnOnce(Result<Part, LinkError>) + Send> Landing for Lander<F> {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        if let Some(file) = &self.part.file
            && self.part.failed.is_none()
            && let Err(e) = file.write_all_at(bytes, offset)
        {
            self.part.failed = Some(e);
        }
    }

    fn finish(self: Box<Self>, outcome: Result<(), LinkError>) {
        let Lander { part, done } = *self;
        done(outcome.map(|()| part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("mobula-cache-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn put(cache: &Cache, number: u64, bytes: &[u8], hash: [u8; 32]) -> Result<PathBuf, String> {
        let part = cache.receive(number, bytes.len() as u64).unwrap();
        let (send, got) = std::sync::mpsc::channel();
        let mut lander = Lander::new(part, move |outcome| send.send(outcome).unwrap());
        let (a, b) = bytes.split_at(bytes.len() / 2);
        lander.write(a.len() as u64, b);
        lander.write(0, a);
        Box::new(lander).finish(Ok(()));
        cache.keep(got.recv().unwrap().unwrap(), &hash)
    }

    #[test]
    fn what_came_whole_is_found_and_runs() {
        let folder = folder("whole");
        let cache = Cache::open(&folder).unwrap();
        let program = b"#!/bin/sh\nexit 7\n";
        let path = put(&cache, 1, program, sha256(program)).unwrap();
        assert_eq!(cache.find(&sha256(program)), Some(path.clone()));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o500
        );
        // Tampered with: it is not what it was.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(&path, b"#!/bin/sh\nexit 8\n").unwrap();
        assert_eq!(cache.find(&sha256(program)), None);
        assert!(!path.exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn another_hash_is_refused_and_leaves_nothing() {
        let folder = folder("other");
        let cache = Cache::open(&folder).unwrap();
        let why = put(&cache, 1, b"abc", sha256(b"abd")).unwrap_err();
        assert!(
            why.contains("has the hash ba7816bf") && why.contains("it is not run"),
            "{why}"
        );
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_oldest_that_nobody_uses_go() {
        let folder = folder("old");
        let cache = Cache::open(&folder).unwrap();
        let mut paths = Vec::new();
        for i in 0..12u8 {
            let path = put(&cache, i.into(), &[i], sha256(&[i])).unwrap();
            let file = fs::File::open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(i.into()))
                .unwrap();
            paths.push(path);
        }
        cache.trim(|path| path == paths[0]);
        let left: Vec<bool> = paths.iter().map(|p| p.exists()).collect();
        assert_eq!(left, [vec![true], vec![false; 3], vec![true; 8]].concat());
        fs::remove_dir_all(folder).unwrap();
    }
}
