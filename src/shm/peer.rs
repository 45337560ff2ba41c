//! Who is at the other end of a Unix socket, as the kernel says.
//!
//! Invariant: the answers are the kernel's, taken when the connection was made; nothing the other side
//! sends changes them. Left out: who is welcome.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The option of `getsockopt(2)` that the libc crate lacks; the number is Linux's, and of both
/// architectures.
const SO_PEERPIDFD: libc::c_int = 77;

/// The process that connected, or that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number; 0 if it lives where this process cannot see it (another pid namespace).
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
}

/// Who is at the other end of this socket. A system call.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let mut cred = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    option(socket.as_fd().as_raw_fd(), libc::SO_PEERCRED, &mut cred)?;
    Ok(Peer {
        pid: u32::try_from(cred.pid).unwrap_or(0),
        uid: cred.uid,
    })
}

/// A descriptor of the process at the other end, readable once it has ended. It is that very process,
/// even if it is dead and its number is another's by now. Fails on kernels before 6.5, and when it
/// cannot be seen from here.
pub fn peer_process(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    option(socket.as_fd().as_raw_fd(), SO_PEERPIDFD, &mut fd)?;
    if fd < 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: the kernel made it for us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn option<T: Copy>(socket: libc::c_int, name: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, a plain C struct or int of that size.
    let done = unsafe {
        let to = std::ptr::from_mut(value).cast();
        libc::getsockopt(socket, libc::SOL_SOCKET, name, to, &raw mut len)
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_other_end_is_this_process() {
        let (a, b) = UnixStream::pair().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let pid = std::process::id();
        assert_eq!(peer(&a).unwrap(), Peer { pid, uid });
        assert_eq!(peer(&b).unwrap().pid, pid);
        assert!(peer(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
