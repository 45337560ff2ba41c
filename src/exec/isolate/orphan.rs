//! The end of a worker whose node is gone.
//!
//! A thread of the worker waits on two things. Its socket: the kernel closes the node's end with the node's process, however
//! that ends, and the node closes it when it is done. And the node's process itself, by a pidfd: a child that the node's
//! program forked and that runs on would hold the socket open. A node that is only stopped is waited for.
//!
//! A death signal (`PR_SET_PDEATHSIG`) is not used: it comes when the *thread* that started the worker ends, it can be lost
//! between `fork` and its setting, and it reaches the worker alone, not what the worker started. A worker that is itself
//! stopped cannot watch; the kernel sends a stopped process group SIGHUP and SIGCONT when it becomes an orphan.
//!
//! Invariant: the worker's process group, which is all that it started and that did not leave it, ends with it.
//! Left out: what a worker does while there is a node (`serve`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{PidfdFlags, Signal};

/// The process of the node.
pub struct Node(Option<OwnedFd>);

impl Node {
    /// Of the node at the other end of this socket. Ends this process if that is gone.
    pub fn of(socket: BorrowedFd<'_>) -> Node {
        let Ok(peer) = rustix::net::sockopt::socket_peercred(socket) else {
            return Node(None);
        };
        let Ok(pidfd) = rustix::process::pidfd_open(peer.pid, PidfdFlags::empty()) else {
            // Where there are no pidfds the socket is what is left.
            return Node(None);
        };
        // The number may have been another's by now, but not if the parent has it still.
        if rustix::process::getppid() != Some(peer.pid) {
            end();
        }
        Node(Some(pidfd))
    }

    /// Waits until the socket has something to read. Ends this process when the node is gone.
    pub fn await_news(&self, socket: BorrowedFd<'_>) {
        let mut waited = vec![PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        if let Some(node) = &self.0 {
            waited.push(PollFd::from_borrowed_fd(node.as_fd(), PollFlags::IN));
        }
        match rustix::event::poll(&mut waited, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => end(),
        }
        if waited.get(1).is_some_and(|node| !node.revents().is_empty()) {
            end();
        }
    }
}

/// Ends this worker now, with all it started. Nothing of the program's runs any more: it might not end.
pub fn end() -> ! {
    let own = rustix::process::getpid();
    if rustix::process::getpgrp() == own {
        let _ = rustix::process::kill_process_group(own, Signal::KILL);
    }
    let _ = rustix::process::kill_process(own, Signal::KILL);
    // Not reached: the signal is there before the call returns.
    std::process::abort()
}
