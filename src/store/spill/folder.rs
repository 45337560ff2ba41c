//! The folder of one store's spilled objects, and what dead processes left behind.
//!
//! A folder is named after its process (`mobula-spill-<pid>-<start>-<n>`) and holds a file that the
//! process keeps locked: the lock ends with the process, however that ends. Invariant: a folder is
//! removed only by its own process or when its owner is proven dead: it is this user's, its lock can
//! be had, and no process of that number and start runs. Left out: what is in the files.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};

const PREFIX: &str = "mobula-spill-";
const OWNER: &str = "owner";
/// A folder without an owner's file may be just being made.
const SETTLED: Duration = Duration::from_secs(60);

/// A folder that is ours while this lives.
pub struct Folder {
    path: PathBuf,
    _owner: File,
}

impl Folder {
    /// Makes one inside `parent`, which is made too if it is not there.
    pub fn create(parent: &Path) -> io::Result<Folder> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        std::fs::create_dir_all(parent)?;
        let (pid, start) = (std::process::id(), start_of("self").unwrap_or(0));
        loop {
            let n = COUNT.fetch_add(1, Relaxed);
            let path = parent.join(format!("{PREFIX}{pid}-{start}-{n}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e),
            }
            let owned = own(&path);
            if owned.is_err() {
                let _ = std::fs::remove_dir_all(&path);
            }
            return Ok(Folder {
                _owner: owned?,
                path,
            });
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn own(folder: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.join(OWNER))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// A dead process's folder, locked so that nobody else removes it at the same time.
pub struct Dead {
    path: PathBuf,
    _owner: Option<File>,
}

impl Dead {
    /// Removes it. May take a while for much.
    pub fn remove(self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// What dead processes of this user left in `parent`. Reads the folder once.
pub fn dead(parent: &Path) -> Vec<Dead> {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    let ours = rustix::process::geteuid().as_raw();
    let named = entries.flatten().filter_map(|entry| {
        let (pid, start) = parse(&entry.file_name())?;
        Some((entry.path(), pid, start))
    });
    named
        .filter_map(|(path, pid, start)| {
            let meta = std::fs::symlink_metadata(&path).ok()?;
            if !meta.is_dir() || meta.uid() != ours || runs(pid, start) {
                return None;
            }
            let owner = OpenOptions::new()
                .write(true)
                .custom_flags(OFlags::NOFOLLOW.bits() as i32)
                .open(path.join(OWNER));
            let owner = match owner {
                Ok(file) => {
                    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
                    Some(file)
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let age = meta.modified().ok()?.elapsed().unwrap_or_default();
                    if age < SETTLED {
                        return None;
                    }
                    None
                }
                Err(_) => return None,
            };
            Some(Dead {
                path,
                _owner: owner,
            })
        })
        .collect()
}

/// Process and its start from a folder's name.
fn parse(name: &OsStr) -> Option<(u32, u64)> {
    let mut parts = name.to_str()?.strip_prefix(PREFIX)?.split('-');
    let pid = parts.next()?.parse().ok()?;
    let start = parts.next()?.parse().ok()?;
    parts.next()?.parse::<u32>().ok()?;
    parts.next().is_none().then_some((pid, start))
}

fn runs(pid: u32, start: u64) -> bool {
    start_of(&pid.to_string()) == Some(start)
}

/// When the process started, in ticks since the machine did.
fn start_of(pid: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, but ends with the last parenthesis; the start is field 22.
    let rest = stat.rsplit_once(')')?.1;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Where to spill unless told: a folder for temporary files that is not in memory.
pub fn usual() -> Result<PathBuf, String> {
    let places = [PathBuf::from("/var/tmp"), std::env::temp_dir()];
    let place = places.iter().find(|p| p.is_dir() && !in_memory(p));
    place.cloned().ok_or_else(|| {
        let names = places.map(|p| p.display().to_string()).join(" and ");
        format!("{names} are in memory or missing: name a folder on disk with Config::spill")
    })
}

/// Whether what is written there takes memory.
fn in_memory(path: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    rustix::fs::statfs(path).is_ok_and(|s| matches!(s.f_type as u64 & 0xffff_ffff, TMPFS | RAMFS))
}

/// Bytes that this user may still write there, less what is to stay for others.
pub fn left(path: &Path) -> io::Result<u64> {
    let fs = rustix::fs::statvfs(path)?;
    let keep = (fs.f_blocks.saturating_mul(fs.f_frsize) / 50).min(1 << 30);
    Ok(fs.f_bavail.saturating_mul(fs.f_frsize).saturating_sub(keep))
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    fn temp(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("mobula-test-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn names_are_read_exactly() {
        let parse = |name: &str| parse(OsStr::new(name));
        assert_eq!(parse("mobula-spill-12-345-0"), Some((12, 345)));
        for no in [
            "mobula-spill-12-345",
            "mobula-spill-12-345-0-1",
            "mobula-spill--345-0",
            "mobula-spill-x-345-0",
            "other-12-345-0",
            "mobula-spill-12-345-0.bak",
        ] {
            assert_eq!(parse(no), None, "{no}");
        }
    }

    #[test]
    fn only_the_dead_are_swept() {
        let parent = temp("sweep");
        let live = Folder::create(&parent).unwrap();
        let other = Folder::create(&parent).unwrap();
        assert_ne!(live.path(), other.path());
        assert!(dead(&parent).is_empty(), "both are ours");
        // Dead: nobody runs under that number since then, and nobody holds the lock.
        let gone = parent.join(format!("{PREFIX}{}-1-0", std::process::id()));
        std::fs::create_dir(&gone).unwrap();
        assert!(dead(&parent).is_empty(), "it may be just being made");
        std::fs::write(gone.join("0.seg"), b"rest").unwrap();
        let lock = own(&gone).unwrap();
        assert!(dead(&parent).is_empty(), "somebody holds its lock");
        drop(lock);
        // What is not ours to judge stays.
        std::fs::create_dir(parent.join("mobula-spill-1")).unwrap();
        std::fs::write(parent.join(format!("{PREFIX}1-1-1")), b"a file").unwrap();
        let found = dead(&parent);
        assert_eq!(found.len(), 1);
        assert!(dead(&parent).is_empty(), "one sweeper at a time");
        found.into_iter().for_each(Dead::remove);
        assert!(!gone.exists() && live.path().exists() && parent.join("mobula-spill-1").exists());
        let at = live.path().to_owned();
        drop(live);
        assert!(!at.exists());
        drop(other);
        std::fs::remove_dir_all(&parent).unwrap();
    }

    #[test]
    fn memory_is_not_disk() {
        if Path::new("/dev/shm").is_dir() {
            assert!(in_memory(Path::new("/dev/shm")));
        }
        assert!(!in_memory(Path::new("/proc")));
        assert!(left(Path::new("/")).is_ok());
    }
}
