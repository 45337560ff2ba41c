//! What a launcher writes down about itself, so that `stop` ends exactly what was started, and others find it.
//!
//! Invariant: a process is known by its number, the moment of its start and the boot of its machine; no other is ever ended in
//! its place. The file is whole or not there, and in a folder that only its user can enter. Left out: starting.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::cache::hex;
use crate::link::sha256;

/// A process that can be told from a later one of the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks since the boot.
    pub start: u64,
}

/// When the process of this number started.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields = stat.rsplit_once(')')?.1;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Which boot of which machine this is.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The same number for those who see the same processes.
pub fn host() -> u64 {
    let pids = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let hash = sha256(format!("{} {} {name}", boot(), pids.display()).as_bytes());
    u64::from_le_bytes(hash[..8].try_into().expect("8 of 32 bytes"))
}

impl Process {
    /// The process of this number, if there is one.
    pub fn of(pid: u32) -> Option<Process> {
        Some(Process {
            pid,
            start: start_of(pid)?,
        })
    }

    /// Holds on to it, if it is still the same.
    fn hold(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let held = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Only now: the number cannot become another's without this being seen.
        (start_of(self.pid) == Some(self.start)).then_some(held)
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.hold()
            .is_some_and(|held| !has_ended(&held, Duration::ZERO))
    }

    /// Asks it to end, and ends it after `patience`. False: it did not run any more.
    pub fn end(&self, patience: Duration) -> bool {
        let Some(held) = self.hold() else {
            return false;
        };
        if !patience.is_zero() {
            let _ = pidfd_send_signal(&held, Signal::TERM);
            if has_ended(&held, patience) {
                return true;
            }
        }
        let _ = pidfd_send_signal(&held, Signal::KILL);
        has_ended(&held, Duration::from_secs(5));
        true
    }
}

/// Waits for the end of a process.
pub fn has_ended(held: &OwnedFd, within: Duration) -> bool {
    let until = Instant::now() + within;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(held, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// A launcher, as it wrote itself down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its process.
    pub launcher: Process,
    /// Where it is reached.
    pub address: SocketAddr,
    /// The folder that it keeps things in.
    pub dir: PathBuf,
    /// What it joined; itself, if it lets others in.
    pub head: SocketAddr,
    /// What lets others in.
    pub token: String,
    /// The nodes that it started.
    pub nodes: Vec<Process>,
}

/// The file of the launcher of this folder.
fn file_of(place: &Path, dir: &Path) -> PathBuf {
    let hash = sha256(dir.as_os_str().as_encoded_bytes());
    place.join(format!("launcher-{}", hex(&hash[..8])))
}

impl Recorded {
    fn text(&self) -> String {
        let mut text = format!(
            "mobula launcher 1\nboot {}\nlauncher {} {}\naddress {}\nhead {}\ntoken {}\ndir {}\n",
            boot(),
            self.launcher.pid,
            self.launcher.start,
            self.address,
            self.head,
            self.token,
            self.dir.display()
        );
        for node in &self.nodes {
            text += &format!("node {} {}\n", node.pid, node.start);
        }
        text
    }

    pub(super) fn parse(text: &str) -> Option<Recorded> {
        let mut lines = text.lines();
        if lines.next()? != "mobula launcher 1" || lines.next()?.strip_prefix("boot ")? != boot() {
            return None; // of another boot: its processes are gone
        }
        let process = |text: &str| {
            let (pid, start) = text.split_once(' ')?;
            Some(Process {
                pid: pid.parse().ok()?,
                start: start.parse().ok()?,
            })
        };
        Some(Recorded {
            launcher: process(lines.next()?.strip_prefix("launcher ")?)?,
            address: lines.next()?.strip_prefix("address ")?.parse().ok()?,
            head: lines.next()?.strip_prefix("head ")?.parse().ok()?,
            token: lines.next()?.strip_prefix("token ")?.to_owned(),
            dir: lines.next()?.strip_prefix("dir ")?.into(),
            nodes: lines
                .map(|l| process(l.strip_prefix("node ")?))
                .collect::<Option<_>>()?,
        })
    }

    /// What is written of one.
    #[cfg(any(test, fuzzing))]
    pub(super) fn sample() -> String {
        let recorded = Recorded {
            launcher: Process { pid: 1, start: 2 },
            address: ([127, 0, 0, 1], 7677).into(),
            head: ([127, 0, 0, 1], 7677).into(),
            token: "mobula1-x".into(),
            dir: "/a".into(),
            nodes: vec![Process { pid: 3, start: 4 }],
        };
        recorded.text()
    }

    /// Writes it down.
    pub fn write(&self, place: &Path) -> std::io::Result<()> {
        let path = file_of(place, &self.dir);
        let new = path.with_extension("new");
        let _ = fs::remove_file(&new);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(self.text().as_bytes())?;
        fs::rename(new, path)
    }

    /// Forgets it.
    pub fn remove(&self, place: &Path) {
        let _ = fs::remove_file(file_of(place, &self.dir));
    }

    /// That of a folder.
    pub fn read(place: &Path, dir: &Path) -> Option<Recorded> {
        Recorded::parse(&fs::read_to_string(file_of(place, dir)).ok()?)
    }

    /// All in a place, those of them that do not run any more too.
    pub fn all(place: &Path) -> Vec<Recorded> {
        let Ok(entries) = fs::read_dir(place) else {
            return Vec::new();
        };
        let names = entries.flatten().map(|e| e.path());
        let ours = names.filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("launcher-") && path.extension().is_none()
        });
        ours.filter_map(|path| Recorded::parse(&fs::read_to_string(path).ok()?))
            .collect()
    }

    /// Ends the launcher and the nodes that it started; how many processes those were.
    pub fn end(&self, place: &Path, patience: Duration) -> usize {
        let mut ended = usize::from(self.launcher.end(patience));
        // It may have written more since.
        let now = Recorded::read(place, &self.dir);
        for node in self
            .nodes
            .iter()
            .chain(now.iter().flat_map(|now| &now.nodes))
        {
            ended += usize::from(node.end(Duration::ZERO));
        }
        self.remove(place);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(dir: &str) -> Recorded {
        Recorded {
            launcher: Process { pid: 1, start: 2 },
            address: ([127, 0, 0, 1], 7677).into(),
            head: ([127, 0, 0, 1], 7677).into(),
            token: "mobula1-x".into(),
            dir: dir.into(),
            nodes: vec![Process { pid: 3, start: 4 }],
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let place = std::env::temp_dir().join(format!("mobula-state-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let (one, two) = (recorded("/a"), recorded("/b"));
        one.write(&place).unwrap();
        two.write(&place).unwrap();
        assert_eq!(Recorded::read(&place, Path::new("/a")), Some(one.clone()));
        let mut all = Recorded::all(&place);
        all.sort_by(|a, b| a.dir.cmp(&b.dir));
        assert_eq!(all, [one.clone(), two]);
        one.remove(&place);
        assert_eq!(Recorded::read(&place, Path::new("/a")), None);
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn what_is_damaged_or_of_another_boot_is_nothing() {
        let text = recorded("/a").text();
        assert_eq!(Recorded::parse(&text), Some(recorded("/a")));
        assert_eq!(Recorded::parse(&text.replace("boot ", "boot x")), None);
        assert_eq!(Recorded::parse(&text.replace("node 3 4", "node 3")), None);
        assert_eq!(Recorded::parse(""), None);
    }

    #[test]
    fn only_the_process_that_was_meant_is_ended() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        let other = Process {
            start: process.start + 1,
            ..process
        };
        assert!(process.runs() && !other.runs());
        assert!(
            !other.end(Duration::from_secs(1)),
            "another process of that number is left alone"
        );
        assert!(child.try_wait().unwrap().is_none());
        assert!(process.end(Duration::from_secs(5)));
        child.wait().unwrap();
        assert!(!process.end(Duration::ZERO));
    }
}
