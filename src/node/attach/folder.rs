//! The folder in which the programs of one user leave their sockets.
//!
//! Invariant: a folder is used only if it is a real folder, belongs to this user, and nobody else can enter it; a socket
//! is removed only if nobody listens on it and nobody is about to. Left out: talking.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::AttachError;

/// A socket that is younger may not be listened on yet.
const YOUNG: Duration = Duration::from_secs(10);

/// How long to wait for a place in the line of those whom a program has not let in yet.
const SHORT: Duration = Duration::from_millis(20);

/// This process's user.
pub(super) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Where sockets may be, the preferred place first. A program and whoever looks for it may have been started with
/// different environments, so both are looked through.
///
/// `MOBULA_ATTACH_DIR`, if it is a whole path, names the only place instead: for containers that share a folder, and for tests that see their own.
pub(in crate::node) fn places() -> Vec<PathBuf> {
    let only = std::env::var_os("MOBULA_ATTACH_DIR").map(PathBuf::from);
    if let Some(only) = only.filter(|p| p.is_absolute()) {
        return vec![only];
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .map(|p| p.join("mobula"));
    let shared = PathBuf::from(format!("/tmp/mobula-{}", user()));
    runtime.into_iter().chain([shared]).collect()
}

/// Makes the folder if there is none, and checks it.
pub(in crate::node) fn prepare(path: &Path) -> Result<(), AttachError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(AttachError::Folder {
                path: path.to_owned(),
                why: format!("cannot be made: {e}"),
            });
        }
        _ => {}
    }
    check(path)
}

/// Whether the folder is this user's alone.
pub(super) fn check(path: &Path) -> Result<(), AttachError> {
    let folder = |why: String| {
        Err(AttachError::Folder {
            path: path.to_owned(),
            why,
        })
    };
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) => return folder(format!("cannot be looked at: {e}")),
    };
    if !meta.is_dir() {
        return folder("is not a folder; remove it".to_owned());
    }
    if meta.uid() != user() {
        return folder(format!(
            "belongs to user {}, not to user {}; somebody else made it, so it is not used",
            meta.uid(),
            user()
        ));
    }
    if meta.mode() & 0o077 != 0 {
        return folder(format!(
            "can be entered by others (mode {:o}); chmod 700 makes it safe",
            meta.mode() & 0o777
        ));
    }
    Ok(())
}

/// What is wrong with the preferred place, if none that there is can be used: programs may run then and not be found.
pub(super) fn trouble(places: &[PathBuf]) -> Option<AttachError> {
    let there = places.iter().filter(|p| fs::symlink_metadata(p).is_ok());
    let mut checked = there.map(|place| check(place).err());
    let first = checked.next()??;
    checked.all(|wrong| wrong.is_some()).then_some(first)
}

/// A socket in a folder.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    pub(super) pid: u32,
    pub(super) path: PathBuf,
    pub(super) since: SystemTime,
}

/// The sockets in a folder; none if it cannot be trusted.
pub(super) fn sockets(folder: &Path) -> Vec<Socket> {
    if check(folder).is_err() {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let pid = pid_of(&path)?;
            let since = fs::symlink_metadata(&path).ok()?.modified().ok()?;
            Some(Socket { pid, path, since })
        })
        .collect()
}

/// The name of a program's socket. Process ids are not unique where containers share a folder: then `more` tells apart.
pub(super) fn name(pid: u32, more: u32) -> String {
    match more {
        0 => format!("{pid}.sock"),
        n => format!("{pid}-{n}.sock"),
    }
}

fn pid_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?.strip_suffix(".sock")?;
    name.split('-').next()?.parse().ok()
}

/// Connects; [`WouldBlock`](io::ErrorKind::WouldBlock) if within `patience` the line of those who wait to be let in has no
/// place, as when a program is stopped and others have tried long enough. An ordinary connect waits forever then.
pub(super) fn open(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let to = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &to))?;
    Ok(UnixStream::from(socket))
}

/// Whether somebody listens there; removes a socket on which nobody will again.
pub(super) fn is_heard(socket: &Socket) -> bool {
    match connect(socket) {
        Ok(_) => true,
        Err(e) => e.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Connects without much waiting, or removes a socket that nobody will listen on again.
pub(super) fn connect(socket: &Socket) -> io::Result<UnixStream> {
    let connected = open(&socket.path, SHORT);
    if let Err(e) = &connected
        && e.kind() == io::ErrorKind::ConnectionRefused
        && is_stale(socket)
    {
        // Somebody else may sweep at the same time.
        let _ = fs::remove_file(&socket.path);
    }
    connected
}

/// Removes what dead programs left.
pub(super) fn sweep(folder: &Path) {
    for socket in sockets(folder) {
        if is_stale(&socket) {
            drop(connect(&socket));
        }
    }
}

/// Whether its program is gone, as far as can be told without asking it.
fn is_stale(socket: &Socket) -> bool {
    let old = socket.since.elapsed().is_ok_and(|age| age > YOUNG);
    let alive = i32::try_from(socket.pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
    old || !alive
}
