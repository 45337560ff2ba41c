//! The worker processes of a node: started when they are first needed, kept for a while, seen when they die.
//!
//! One thread starts all of them and watches them. Invariant: a worker is idle, or with one call, or ended; whoever waits
//! for one hears of every worker that becomes free. Left out: what they run.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::event::epoll;

use super::super::engine::Engine;
use super::process::Process;
use super::table::table;
use crate::base::Error;
use crate::store::Store;

/// See the file.
pub struct Workers {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Arc<Process>>,
    all: HashMap<u32, Arc<Process>>,
    /// Started, not ready.
    starting: Vec<u32>,
    /// To be started.
    wanted: usize,
    waiting: usize,
    /// Why the last one could not be started.
    failed: Option<Arc<str>>,
    thread: Option<std::thread::JoinHandle<()>>,
    bell: Option<Arc<OwnedFd>>,
    closed: bool,
}

impl Workers {
    pub fn new() -> Workers {
        Workers {
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// A worker that is free; waits until one is.
    pub fn take(&self, engine: &Arc<Engine>) -> Result<Arc<Process>, Error> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Err(Error::ShutDown);
            }
            while let Some(worker) = state.idle.pop() {
                if !worker.dead() {
                    return Ok(worker);
                }
            }
            if let Some(why) = state.failed.take() {
                return Err(cannot_start(&why));
            }
            if state.wanted + state.starting.len() <= state.waiting {
                state.wanted += 1;
                self.call_thread(engine, &mut state)?;
            }
            state.waiting += 1;
            self.changed.wait(&mut state);
            state.waiting -= 1;
        }
    }

    /// Gives it back after a call.
    pub fn give_back(&self, worker: Arc<Process>) {
        let mut state = self.state.lock();
        if !worker.dead() && !state.closed {
            state.idle.push(worker);
            if state.waiting > 0 {
                self.changed.notify_one();
            }
        }
    }

    fn call_thread(&self, engine: &Arc<Engine>, state: &mut State) -> Result<(), Error> {
        if state.bell.is_none() {
            super::takeover::keep();
            let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)
                .map_err(|e| cannot_start(&e.to_string()))?;
            state.bell = Some(Arc::new(bell));
            let engine = Arc::clone(engine);
            let thread = std::thread::Builder::new()
                .name("mobula-workers".into())
                .spawn(move || engine.workers.watch(engine.store()));
            state.thread = Some(thread.map_err(|e| cannot_start(&e.to_string()))?);
        }
        if let Some(bell) = &state.bell {
            let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
        }
        Ok(())
    }

    /// Ends all workers, and waits until they have ended.
    pub fn close(&self) {
        let thread = {
            let mut state = self.state.lock();
            state.closed = true;
            state.idle.clear();
            state.all.values().for_each(|w| w.kill());
            if let Some(bell) = &state.bell {
                let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
            }
            self.changed.notify_all();
            state.thread.take()
        };
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    /// The thread that starts workers and sees them die.
    fn watch(&self, store: &Store) {
        const BELL: u64 = u64::MAX;
        let Ok(poll) = epoll::create(epoll::CreateFlags::CLOEXEC) else {
            return self.give_up("epoll is refused");
        };
        let Some(bell) = self.state.lock().bell.clone() else {
            return;
        };
        let flags = epoll::EventFlags::IN;
        let _ = epoll::add(&poll, &bell, epoll::EventData::new_u64(BELL), flags);
        loop {
            let mut events = [epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }; 16];
            let limit = rustix::event::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            let n = match epoll::wait(&poll, &mut events, Some(&limit)) {
                Ok(n) => n,
                Err(rustix::io::Errno::INTR) => 0,
                Err(_) => return self.give_up("epoll fails"),
            };
            for event in &events[..n] {
                match event.data.u64() {
                    BELL => {
                        let mut count = [0; 8];
                        let _ = rustix::io::read(&bell, &mut count);
                    }
                    token => self.event(&poll, token),
                }
            }
            let (start, over) = {
                let mut state = self.state.lock();
                let over = state.closed && state.all.is_empty();
                let start = if state.closed { 0 } else { state.wanted };
                state.wanted = 0;
                (start, over)
            };
            if over {
                return;
            }
            for _ in 0..start {
                self.start(&poll, store);
            }
        }
    }

    fn start(&self, poll: &OwnedFd, store: &Store) {
        let started = Process::start(store, table().hash);
        let mut state = self.state.lock();
        match started {
            Ok(process) => {
                let process = Arc::new(process);
                let pid = process.pid;
                let flags = epoll::EventFlags::IN;
                for (fd, kind) in [(process.pidfd.as_fd(), 0), (process.socket.as_fd(), 1)] {
                    let data = epoll::EventData::new_u64(u64::from(pid) << 1 | kind);
                    let _ = epoll::add(poll, fd, data, flags);
                }
                if state.closed {
                    process.kill();
                }
                state.starting.push(pid);
                state.all.insert(pid, process);
            }
            Err(e) => {
                state.failed = Some(Arc::from(e.to_string()));
                self.changed.notify_all();
            }
        }
    }

    fn event(&self, poll: &OwnedFd, token: u64) {
        let pid = (token >> 1) as u32;
        let Some(process) = self.state.lock().all.get(&pid).cloned() else {
            return;
        };
        if token & 1 == 0 {
            let _ = epoll::delete(poll, &process.pidfd);
            let _ = epoll::delete(poll, &process.socket);
            process.bury();
            let mut state = self.state.lock();
            state.all.remove(&pid);
            state.idle.retain(|w| w.pid != pid);
            if let Some(i) = state.starting.iter().position(|p| *p == pid) {
                state.starting.swap_remove(i);
                let why = format!("the new process {pid} ended with {}", process.exit());
                state.failed.get_or_insert(Arc::from(why));
            }
            self.changed.notify_all();
            return;
        }
        match super::hello::answered(&process.socket) {
            Ok(None) => {}
            Ok(Some(Ok(()))) => {
                let mut state = self.state.lock();
                state.starting.retain(|p| *p != pid);
                state.idle.push(process);
                self.changed.notify_one();
            }
            Ok(Some(Err(why))) => {
                self.state.lock().failed = Some(Arc::from(why));
                process.kill();
            }
            Err(_) => {
                let _ = epoll::delete(poll, &process.socket);
                process.kill();
            }
        }
    }

    fn give_up(&self, why: &str) {
        let mut state = self.state.lock();
        state.failed = Some(Arc::from(why));
        self.changed.notify_all();
    }
}

/// How long a new process may take until it says that it is ready.
#[allow(dead_code)]
const PATIENCE: Duration = Duration::from_secs(20);

fn cannot_start(why: &str) -> Error {
    Error::Os {
        what: "starting a worker process",
        source: Arc::new(std::io::Error::other(why.to_owned())),
    }
}
