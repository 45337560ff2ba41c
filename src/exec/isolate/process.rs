//! One worker process, as the node sees it.
//!
//! Invariant: a lane is used by one thread at a time. After [`Process::dead`] says so nothing comes from it any more but
//! what it had sent whole. Left out: who uses which worker (`pool`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::hello::{VARIABLE, Welcome};
use crate::base::Exit;
use crate::core::Spin;
use crate::shm::{Aligned, Lanes, Receiver, Sender};
use crate::store::Store;

/// Lanes of one worker: so many calls of one actor can run side by side.
pub const LANES: usize = 16;

/// One thread's way to a worker and back.
pub struct Lane {
    pub sender: Sender,
    pub receiver: Receiver,
    pub frame: Aligned,
    pub out: super::frame::Writer,
    pub spin: Spin,
}

/// A worker process.
pub struct Process {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// The other end is the worker's; closed when the node ends.
    pub socket: OwnedFd,
    lanes: Arc<Lanes>,
    free: Mutex<Vec<Lane>>,
    freed: Condvar,
    child: Mutex<Child>,
    dead: AtomicBool,
    exit: OnceLock<Exit>,
}

impl Process {
    /// Starts one: a system call or two until the new process exists; it says that it is ready some milliseconds later.
    pub fn start(store: &Store, registry: u64) -> io::Result<Process> {
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let lanes = Lanes::create(LANES)?;
        let welcome = Welcome {
            registry,
            arena: rustix::fs::fstat(store.file())?.st_size.cast_unsigned(),
            grain: store.grain(),
            lanes: LANES as u32,
        };
        // It waits in the socket until the worker asks.
        welcome.send(socket.as_fd(), store.file(), lanes.file())?;
        // The file that runs now, also if another has taken its place in its folder.
        let child = Command::new("/proc/self/exe")
            .arg0("mobula-worker")
            .env(VARIABLE, "1")
            .stdin(Stdio::from(theirs))
            .spawn()?;
        let pid = Pid::from_child(&child);
        // Not reaped yet, so the number is still its own.
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let free = (0..LANES)
            .rev()
            .filter_map(|i| lanes.ends(i))
            .map(|(sender, receiver)| Lane {
                sender,
                receiver,
                frame: Aligned::default(),
                out: super::frame::Writer::default(),
                spin: Spin::new(),
            })
            .collect();
        Ok(Process {
            pid: child.id(),
            pidfd,
            socket,
            lanes,
            free: Mutex::new(free),
            freed: Condvar::new(),
            child: Mutex::new(child),
            dead: AtomicBool::new(false),
            exit: OnceLock::new(),
        })
    }

    /// A lane that nobody uses; waits for one if there is none.
    pub fn lane(&self) -> Lane {
        let mut free = self.free.lock();
        loop {
            if let Some(lane) = free.pop() {
                return lane;
            }
            self.freed.wait(&mut free);
        }
    }

    /// Gives it back.
    pub fn give_back(&self, lane: Lane) {
        self.free.lock().push(lane);
        self.freed.notify_all();
    }

    /// Whether it has ended.
    pub fn dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Waits until it has ended.
    pub fn wait_for_death(&self) {
        let mut free = self.free.lock();
        while !self.dead() {
            self.freed.wait(&mut free);
        }
    }

    /// How it ended; unknown while it has not.
    pub fn exit(&self) -> Exit {
        self.exit.get().copied().unwrap_or(Exit::Unknown)
    }

    /// Ends it now. Its death is seen a little later.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// It has ended: finds out how, and tells whoever waits for it.
    pub fn bury(&self) {
        let exit = match self.child.lock().wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            },
            // The program has arranged that its children vanish unseen.
            Err(_) => Exit::Unknown,
        };
        let _ = self.exit.set(exit);
        let free = self.free.lock();
        self.dead.store(true, Ordering::SeqCst);
        drop(free);
        self.freed.notify_all();
        self.lanes.wake_receivers();
    }
}
