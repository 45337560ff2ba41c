//! The socket that clients find: made, guarded against a second server, and removed.
//!
//! Invariant: the file at the path is replaced only if nobody listens there, and removed only if it is
//! still ours; two servers that start at once cannot both have it. Left out: what is said over it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::base::StoreError;

/// Connections that wait to be accepted; the kernel lowers it to what it allows.
const BACKLOG: i32 = 4096;

/// How long another server may take to open its door in the same folder.
const PATIENCE: Duration = Duration::from_secs(5);

/// A listening socket and its file.
pub struct Door {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and number of the file.
    file: (u64, u64),
}

impl Door {
    /// Listens at `path`, which only this user may connect to unless `others` may.
    pub fn open(path: &Path, others: bool) -> Result<Door, StoreError> {
        let os = |what: &str, e: io::Error| StoreError::Os {
            what: format!("{what} the socket {}", path.display()),
            source: Arc::new(e),
        };
        let address = SocketAddrUnix::new(path).map_err(|e| os("naming", e.into()))?;
        let socket = socket().map_err(|e| os("making", e))?;
        // Of a socket without a file this is the mode of the file to come.
        let mode = if others { 0o666 } else { 0o600 };
        rustix::fs::fchmod(&socket, Mode::from_bits_truncate(mode))
            .map_err(|e| os("protecting", e.into()))?;
        let _lock = lock_folder(path).map_err(|e| os("locking the folder of", e))?;
        match rustix::net::bind(&socket, &address) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => {
                if answers(path, &address).map_err(|e| os("looking at", e))? {
                    return Err(StoreError::InUse {
                        path: path.to_owned(),
                    });
                }
                fs::remove_file(path).map_err(|e| os("removing", e))?;
                rustix::net::bind(&socket, &address).map_err(|e| os("binding", e.into()))?;
            }
            Err(e) => return Err(os("binding", e.into())),
        }
        rustix::net::listen(&socket, BACKLOG).map_err(|e| os("listening at", e.into()))?;
        let file = file_of(path).map_err(|e| os("looking at", e))?;
        Ok(Door {
            socket,
            path: path.to_owned(),
            file,
        })
    }

    /// The next connection, if one waits.
    pub fn accept(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(rustix::net::accept_with(&self.socket, flags)?)
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if file_of(&self.path).is_ok_and(|file| file == self.file) {
            // Left behind, it is a stale file that the next server replaces.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

fn file_of(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Whether a server listens there. Fails if the file is no socket.
fn answers(path: &Path, address: &SocketAddrUnix) -> io::Result<bool> {
    use std::os::unix::fs::FileTypeExt;
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let why = "there is a file of this name, which is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    match rustix::net::connect(socket()?, address) {
        Err(Errno::CONNREFUSED) => Ok(false),
        // Taken, or a queue too long to take another: somebody listens.
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// Keeps other servers of this folder from looking and binding meanwhile.
fn lock_folder(path: &Path) -> io::Result<OwnedFd> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty())?;
    let since = Instant::now();
    loop {
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if since.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => return Err(e.into()),
            Ok(()) => return Ok(folder),
        }
    }
}
