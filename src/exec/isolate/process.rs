//! One worker process, as the node sees it.
//!
//! Invariant: a lane is used by one thread at a time. After [`Process::dead`] says so nothing comes from it any more but
//! what it had sent whole. Left out: who uses which worker (`pool`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::super::actor::ActorRef;
use super::care::Care;
use super::hello::{VARIABLE, Welcome};
use super::output::Output;
use super::watched::Watched;
use crate::base::Exit;
use crate::core::Patience;
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
    pub patience: Patience,
    /// Which it is.
    pub number: usize,
    /// The worker serves it.
    open: bool,
}

/// A worker process.
pub struct Process {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// The other end is the worker's; closed when the node ends.
    pub socket: OwnedFd,
    lanes: Arc<Lanes>,
    free: Mutex<Vec<Lane>>,
    /// The calls that the lanes are used for.
    running: Mutex<[u64; LANES]>,
    /// The actor whose state it holds.
    actor: Mutex<Option<ActorRef>>,
    /// It was told to end.
    doomed: AtomicBool,
    freed: Condvar,
    dead: AtomicBool,
    /// What else is known of it.
    pub watched: Watched,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker process {}", self.pid)
    }
}

impl Process {
    /// Starts one: a system call or two until the new process exists; it says that it is ready some milliseconds later.
    pub(crate) fn start(store: &Store, output: &Output, registry: u64) -> io::Result<Process> {
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
        let mut child = Command::new("/proc/self/exe")
            .arg0("mobula-worker")
            .env(VARIABLE, "1")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, which what it starts is of too: it ends as one. And an interrupt at the terminal is the
            // driver's to answer.
            .process_group(0)
            .spawn()?;
        let made = Process::of(&mut child, output, socket, lanes);
        if made.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        made
    }

    /// What a new process is to be known by.
    fn of(
        child: &mut Child,
        output: &Output,
        socket: OwnedFd,
        lanes: Arc<Lanes>,
    ) -> io::Result<Process> {
        let pid = Pid::from_child(child);
        let pipes = child.stdout.take().zip(child.stderr.take());
        let (stdout, stderr) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        // Not reaped yet, so the number is still its own.
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let free = (0..LANES)
            .rev()
            .filter_map(|number| Some((number, lanes.ends(number)?)))
            .map(|(number, (sender, receiver))| Lane {
                sender,
                receiver,
                frame: Aligned::default(),
                out: super::frame::Writer::default(),
                patience: Patience::new(),
                number,
                open: number == 0,
            })
            .collect();
        Ok(Process {
            pid: child.id(),
            pidfd,
            socket,
            lanes,
            free: Mutex::new(free),
            running: Mutex::new([0; LANES]),
            actor: Mutex::new(None),
            doomed: AtomicBool::new(false),
            freed: Condvar::new(),
            dead: AtomicBool::new(false),
            watched: Watched::new(pid, output, (stdout.into(), stderr.into()))?,
        })
    }

    /// A lane that nobody uses, for this call; waits for one if there is none.
    pub fn lane(&self, call: u64) -> Lane {
        let mut free = self.free.lock();
        let mut lane = loop {
            match free.pop() {
                Some(lane) => break lane,
                None => self.freed.wait(&mut free),
            }
        };
        drop(free);
        if !std::mem::replace(&mut lane.open, true) {
            // One byte in a socket that nothing else is sent to; a dead worker is seen by whoever waits for an answer.
            let flags = rustix::net::SendFlags::NOSIGNAL;
            let _ = rustix::net::send(&self.socket, &[lane.number as u8], flags);
        }
        self.running.lock()[lane.number] = call;
        lane
    }

    /// Gives it back.
    pub fn give_back(&self, lane: Lane) {
        self.running.lock()[lane.number] = 0;
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
        self.watched.exit()
    }

    /// Tells a call that it was cancelled, if it runs here.
    pub fn tell_cancelled(&self, call: u64) {
        let running = self.running.lock();
        if let Some(lane) = running.iter().position(|c| *c == call) {
            self.lanes.note(lane, call as u32);
        }
    }

    /// Whether it should not get another call.
    pub fn is_spent(&self) -> bool {
        self.dead() || self.doomed.load(Ordering::Acquire)
    }

    /// It holds this actor's state from now on.
    pub fn host(&self, actor: &ActorRef) {
        *self.actor.lock() = Some(actor.clone());
    }

    /// The actor whose state it holds, which it no longer does.
    pub fn unhost(&self) -> Option<ActorRef> {
        self.actor.lock().take()
    }

    /// Ends it now. Its death is seen a little later.
    pub fn kill(&self) {
        self.doomed.store(true, Ordering::Release);
        self.watched.kill_group();
        // It may have left its group.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// It has ended: finds out how, and tells whoever waits for it.
    pub fn bury(&self, care: &Care) {
        let ours = self.doomed.load(Ordering::Acquire);
        self.watched.bury(care, self.pidfd.as_fd(), ours);
        let free = self.free.lock();
        self.dead.store(true, Ordering::SeqCst);
        drop(free);
        self.freed.notify_all();
        self.lanes.wake_receivers();
    }
}
