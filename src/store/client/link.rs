//! One connection, shared by the threads of a client without a thread of its own.
//!
//! Each caller posts its request and waits for its answer. One of the waiting reads the socket and
//! hands the others what is theirs; when it has its own answer, another takes its place. Invariants: an
//! answer goes to exactly one waiter; once the connection is broken every call, pending or later,
//! fails at once; the socket stays open while anything of the store is in use here, since its end
//! tells the server that nothing is. Left out: what answers mean.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::events::Channel;
use super::greet::Greeted;
use crate::base::StoreError;
use crate::shm::{Attached, Peer};
use crate::store::proto::{Answer, Frames, Message, Request};
use crate::store::socket;

/// How long a waiting thread looks for its answer before it sleeps. A server that is awake answers
/// sooner; waking a sleeping thread costs several times as much.
const SPIN: Duration = Duration::from_micros(20);

/// A connection.
pub struct Link {
    pub path: PathBuf,
    pub attached: Arc<Attached>,
    pub server: Peer,
    /// The process that connected.
    pid: u32,
    socket: OwnedFd,
    seq: AtomicU64,
    state: Mutex<State>,
    /// An answer came, or nobody reads.
    turn: Condvar,
    outgoing: Mutex<Outgoing>,
    /// Held while the server is told whether this client wants events, so that what it is told last
    /// is what holds.
    pub subscribing: Mutex<()>,
}

/// What the threads share.
pub struct State {
    pending: HashMap<u64, Slot>,
    /// Taken by the thread that reads.
    inbox: Option<Frames>,
    broken: Option<StoreError>,
    pub channels: Vec<Weak<Channel>>,
}

enum Slot {
    Waiting(Option<Waker>),
    Ready(Answer),
    /// Nobody wants the answer; an object in it is to be released.
    Abandoned,
}

#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl Link {
    pub fn new(path: &Path, greeted: Greeted) -> Link {
        Link {
            path: path.to_owned(),
            attached: Arc::new(greeted.attached),
            server: greeted.server,
            pid: std::process::id(),
            socket: greeted.socket,
            seq: AtomicU64::new(0),
            state: Mutex::new(State {
                pending: HashMap::new(),
                inbox: Some(greeted.frames),
                broken: None,
                channels: Vec::new(),
            }),
            turn: Condvar::new(),
            outgoing: Mutex::default(),
            subscribing: Mutex::default(),
        }
    }

    /// Asks, and waits for the answer; until `patience` is over, if it is given.
    pub fn call(
        &self,
        request: Request<'_>,
        patience: Option<Duration>,
    ) -> Result<Answer, StoreError> {
        let seq = self.ask(request)?;
        self.finish_sending()?;
        let until = patience.and_then(|p| Instant::now().checked_add(p));
        let answer = self.drive(until, |state| state.take(seq))?;
        answer.ok_or_else(|| {
            self.abandon(seq);
            self.gone("it does not answer")
        })
    }

    /// Posts a request that is answered under the number returned.
    pub fn ask(&self, request: Request<'_>) -> Result<u64, StoreError> {
        let seq = self.seq.fetch_add(1, Relaxed) + 1;
        self.sound()?;
        self.state.lock().pending.insert(seq, Slot::Waiting(None));
        let posted = self.post(seq, request);
        if posted.is_err() {
            self.state.lock().pending.remove(&seq);
        }
        posted.map(|()| seq)
    }

    /// Sends a request that is not answered. Failing that, the connection is broken and the server
    /// has taken back what this was about, or will.
    pub fn tell(&self, request: Request<'_>) {
        if self.sound().is_ok() && self.post(0, request).is_ok() {
            let _ = self.finish_sending();
        }
    }

    /// Nobody waits for this answer any more.
    pub fn abandon(&self, seq: u64) {
        let mut state = self.state.lock();
        match state.pending.remove(&seq) {
            Some(Slot::Waiting(_)) => {
                state.pending.insert(seq, Slot::Abandoned);
                drop(state);
                self.tell(Request::Cancel { get: seq });
            }
            Some(Slot::Ready(Answer::Found { serial, .. })) => {
                drop(state);
                self.tell(Request::Release { serial });
            }
            _ => {}
        }
    }

    /// Fails if nothing can be asked any more.
    pub fn sound(&self) -> Result<(), StoreError> {
        if std::process::id() != self.pid {
            return Err(StoreError::Forked {
                connected: self.pid,
            });
        }
        match &self.state.lock().broken {
            Some(broken) => Err(broken.clone()),
            None => Ok(()),
        }
    }

    /// The state, to be looked at between messages.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The connection's socket once more, for a reader of another kind.
    #[cfg(feature = "async")]
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Reads messages, or waits while another thread does, until `done` says what it looks for.
    /// `None` if that takes until the deadline.
    pub fn drive<T>(
        &self,
        until: Option<Instant>,
        mut done: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let mut state = self.state.lock();
        loop {
            if let Some(found) = done(&mut state) {
                return Ok(Some(found));
            }
            if let Some(broken) = &state.broken {
                return Err(broken.clone());
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return Ok(None);
            }
            let Some(mut inbox) = state.inbox.take() else {
                match until {
                    None => self.turn.wait(&mut state),
                    Some(until) => {
                        self.turn.wait_until(&mut state, until);
                    }
                }
                continue;
            };
            drop(state);
            let read = self.await_bytes(&mut inbox, until);
            state = self.sort(inbox, read);
        }
    }

    /// Reads what is there, without waiting; for a reader of another kind. False if another thread
    /// is at it.
    pub fn read_some(&self) -> io::Result<bool> {
        let mut state = self.state.lock();
        let Some(mut inbox) = state.inbox.take() else {
            return Ok(false);
        };
        drop(state);
        let read = self.receive(&mut inbox);
        let blocked = matches!(&read, Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        drop(self.sort(inbox, if blocked { Ok(()) } else { read }));
        if blocked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(true)
    }

    /// Hands out the messages of the inbox and gives the reading back.
    fn sort(&self, mut inbox: Frames, read: io::Result<()>) -> MutexGuard<'_, State> {
        let mut release = Vec::new();
        let mut state = self.state.lock();
        loop {
            let frame = match inbox.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(long) => {
                    self.break_off(&mut state, &format!("it sent a frame of {} bytes", long.0));
                    break;
                }
            };
            match Message::decode(frame) {
                Ok(message) => self.dispatch(&mut state, message, &mut release),
                Err(malformed) => self.break_off(&mut state, &malformed.0),
            }
        }
        if let Err(e) = read {
            self.break_off(&mut state, &e);
        }
        state.inbox = Some(inbox);
        self.turn.notify_all();
        if release.is_empty() {
            return state;
        }
        drop(state);
        for serial in release {
            self.tell(Request::Release { serial });
        }
        self.state.lock()
    }

    fn dispatch(&self, state: &mut State, message: Message, release: &mut Vec<u64>) {
        match message {
            Message::Answer(seq, answer) => match state.pending.remove(&seq) {
                Some(Slot::Waiting(waker)) => {
                    state.pending.insert(seq, Slot::Ready(answer));
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
                Some(Slot::Abandoned) => {
                    if let Answer::Found { serial, .. } = answer {
                        release.push(serial);
                    }
                }
                _ => self.break_off(state, &"it answered what was not asked"),
            },
            Message::Closing { why } => self.break_off(state, &why),
            event => state.channels.retain(|channel| match channel.upgrade() {
                Some(channel) => {
                    channel.push(&event);
                    true
                }
                None => false,
            }),
        }
    }

    /// Ends the use of the connection, for the first reason there is.
    fn break_off(&self, state: &mut State, why: &dyn std::fmt::Display) {
        if state.broken.is_none() {
            state.broken = Some(self.gone(why));
        }
        for slot in state.pending.values_mut() {
            if let Slot::Waiting(waker) = slot
                && let Some(waker) = waker.take()
            {
                waker.wake();
            }
        }
        for channel in state.channels.iter().filter_map(Weak::upgrade) {
            channel.wake();
        }
        self.turn.notify_all();
    }

    pub fn gone(&self, why: impl std::fmt::Display) -> StoreError {
        StoreError::Gone {
            path: self.path.clone(),
            why: Arc::from(why.to_string()),
        }
    }

    /// Reads at least once, waiting as long as it must; until the deadline it may read nothing.
    fn await_bytes(&self, inbox: &mut Frames, until: Option<Instant>) -> io::Result<()> {
        let spin_until = Instant::now() + SPIN;
        loop {
            match self.receive(inbox) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            let now = Instant::now();
            if now < spin_until {
                std::hint::spin_loop();
                continue;
            }
            let left = until.map(|until| until.saturating_duration_since(now));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
            socket::wait(&self.socket, false, left)?;
        }
    }

    fn receive(&self, inbox: &mut Frames) -> io::Result<()> {
        match socket::receive(&self.socket, inbox.room())? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended",
            )),
            received => {
                inbox.received(received);
                Ok(())
            }
        }
    }

    /// Puts a request behind those that wait to be sent, and sends what the socket takes.
    fn post(&self, seq: u64, request: Request<'_>) -> Result<(), StoreError> {
        let mut outgoing = self.outgoing.lock();
        request.encode(seq, &mut outgoing.bytes);
        let sent = outgoing.flush(&self.socket);
        drop(outgoing);
        sent.map(|_| ()).map_err(|e| self.unsendable(&e))
    }

    /// Sends what the socket takes; whether that is all.
    pub fn send_some(&self) -> Result<bool, StoreError> {
        let sent = self.outgoing.lock().flush(&self.socket);
        sent.map_err(|e| self.unsendable(&e))
    }

    /// The other side takes nothing any more: its last words may say more than the error does.
    fn unsendable(&self, e: &io::Error) -> StoreError {
        while self.read_some().is_ok() && self.state.lock().broken.is_none() {}
        let mut state = self.state.lock();
        self.break_off(&mut state, e);
        state.broken.clone().unwrap_or_else(|| self.gone(e))
    }

    /// Waits until everything is sent. A server that waits until its answers are read is not waited
    /// for: they are read.
    fn finish_sending(&self) -> Result<(), StoreError> {
        while !self.send_some()? {
            let ready = socket::wait(&self.socket, true, Some(Duration::from_millis(10)));
            let ready = ready.map_err(|e| self.gone(e))?;
            if ready.read && !ready.write {
                match self.read_some() {
                    Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(self.gone(e)),
                    _ => self.sound()?,
                }
            }
        }
        Ok(())
    }
}

impl Outgoing {
    /// Sends what the socket takes; whether that is all.
    fn flush(&mut self, socket: &OwnedFd) -> io::Result<bool> {
        while self.sent < self.bytes.len() {
            match socket::send(socket, &self.bytes[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(true)
    }
}

impl State {
    /// Who is to be woken when the answer comes.
    #[cfg(feature = "async")]
    pub fn await_with(&mut self, seq: u64, waker: &Waker) {
        if let Some(Slot::Waiting(slot)) = self.pending.get_mut(&seq) {
            *slot = Some(waker.clone());
        }
    }

    /// Why nothing can be asked any more.
    #[cfg(feature = "async")]
    pub fn broken(&self) -> Option<&StoreError> {
        self.broken.as_ref()
    }

    /// The answer of this number, if it has come.
    pub fn take(&mut self, seq: u64) -> Option<Answer> {
        match self.pending.remove(&seq) {
            Some(Slot::Ready(answer)) => Some(answer),
            Some(slot) => {
                self.pending.insert(seq, slot);
                None
            }
            None => None,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Of a fork the socket is the parent's too, who goes on using it.
        if std::process::id() == self.pid {
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        }
    }
}
