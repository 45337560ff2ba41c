//! The worker processes of a node: started when they are first needed, kept for a while, seen when they die.
//!
//! One thread starts all of them and watches them. Invariant: a worker is idle, or with one call, or ended; whoever waits
//! for one hears of every worker that becomes free. Left out: what they run.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::epoll;

use super::super::engine::Engine;
use super::care::Care;
use super::process::Process;
use super::table::table;
use crate::base::Error;
use crate::core::Pool;

/// See the file.
pub struct Workers {
    state: Mutex<State>,
    /// What they have beside their calls.
    pub care: Care,
    changed: Condvar,
    began: Instant,
}

struct State {
    pool: Pool<u32>,
    all: HashMap<u32, Arc<Process>>,
    /// Started and not ready, since when.
    starting: HashMap<u32, Instant>,
    /// To be started.
    wanted: usize,
    /// Why the last one could not be started.
    failed: Option<Arc<str>>,
    /// Why none can be started any more.
    broken: Option<Arc<str>>,
    thread: Option<std::thread::JoinHandle<()>>,
    bell: Option<Arc<OwnedFd>>,
    /// When all that still live are ended.
    last: Option<Instant>,
    closed: bool,
}

impl Workers {
    /// None yet, for a node with so many CPUs.
    pub fn new(cpus: usize) -> Workers {
        Workers {
            state: Mutex::new(State {
                pool: Pool::new(cpus),
                all: HashMap::new(),
                starting: HashMap::new(),
                wanted: 0,
                failed: None,
                broken: None,
                thread: None,
                bell: None,
                last: None,
                closed: false,
            }),
            care: Care::default(),
            changed: Condvar::new(),
            began: Instant::now(),
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// A worker that is free; waits until one is.
    pub fn take(&self, engine: &Arc<Engine>) -> Result<Arc<Process>, Error> {
        let mut guard = self.state.lock();
        if guard.pool.waiting() == 0 {
            guard.failed = None; // whom it concerned is gone
        }
        loop {
            let state = &mut *guard;
            if state.closed {
                return Err(Error::ShutDown);
            }
            let taken = state.pool.take(self.now());
            let worker = taken.and_then(|pid| state.all.get(&pid).cloned());
            if taken.is_none() {
                if let Some(why) = &state.broken {
                    return Err(cannot_start(why));
                }
                if let Some(why) = state.failed.take() {
                    return Err(match engine.is_closing() {
                        true => Error::ShutDown, // it was ended for that
                        false => cannot_start(&why),
                    });
                }
                state.pool.wait();
            }
            let missing = state.pool.start();
            if missing > 0 {
                state.wanted += missing;
                if let Err(why) = self.call_thread(engine, state) {
                    // For good: nothing is left that could start one.
                    let why = state.broken.insert(why);
                    let error = cannot_start(why);
                    state.pool.waited();
                    return Err(error);
                }
            }
            if let Some(worker) = worker.filter(|w| !w.is_spent()) {
                return Ok(worker);
            }
            if taken.is_none() {
                self.changed.wait(&mut guard);
                guard.pool.waited();
            }
        }
    }

    /// Gives it back after a call.
    pub fn give_back(&self, worker: Arc<Process>) {
        if !worker.watched.end(&self.care) {
            worker.kill();
        }
        let mut state = self.state.lock();
        if !worker.is_spent() && !state.closed {
            state.pool.give_back(worker.pid, self.now());
            if state.pool.waiting() > 0 {
                self.changed.notify_one();
            }
        }
    }

    /// All that live.
    pub fn all(&self) -> Vec<Arc<Process>> {
        self.state.lock().all.values().cloned().collect()
    }

    fn call_thread(&self, engine: &Arc<Engine>, state: &mut State) -> Result<(), Arc<str>> {
        if state.bell.is_none() {
            super::takeover::keep();
            let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)
                .map_err(|e| Arc::from(e.to_string()))?;
            state.bell = Some(Arc::new(bell));
            let engine = Arc::clone(engine);
            let thread = std::thread::Builder::new()
                .name("mobula-workers".into())
                .spawn(move || engine.workers.watch(&engine));
            state.thread = Some(thread.map_err(|e| Arc::from(e.to_string()))?);
        }
        if let Some(bell) = &state.bell {
            let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
        }
        Ok(())
    }

    /// Has all workers ended at this time, so that nobody who winds the node up waits for one longer.
    pub fn end_at(&self, deadline: Instant) {
        let mut state = self.state.lock();
        state.last = Some(deadline);
        if let Some(bell) = &state.bell {
            let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
        }
    }

    /// Ends all workers, and waits until they have ended.
    pub fn close(&self) {
        let thread = {
            let mut state = self.state.lock();
            state.closed = true;
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
        self.care.end();
    }

    /// The thread that starts workers and sees them die.
    fn watch(&self, engine: &Arc<Engine>) {
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
            let look_up = {
                let state = self.state.lock();
                let quiet = state.pool.is_quiet() && state.starting.is_empty();
                let last = state.last.map(|at| {
                    let left = at.saturating_duration_since(Instant::now());
                    left.clamp(SOON, LOOK_UP)
                });
                last.or((!quiet).then_some(LOOK_UP))
            };
            let limit = look_up.map(|limit| rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: limit.subsec_nanos().into(),
            });
            let limit = limit.as_ref();
            let n = match epoll::wait(&poll, &mut events, limit) {
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
                    token => self.event(&poll, engine, token),
                }
            }
            let (start, over) = {
                let mut state = self.state.lock();
                let over = state.closed && state.all.is_empty();
                let now = self.now();
                let mut old: Vec<u32> = state.pool.tick(now);
                // A process that does not say that it is ready is no worker.
                let stuck = state.starting.iter();
                old.extend(
                    stuck
                        .filter(|(_, s)| s.elapsed() > PATIENCE)
                        .map(|(p, _)| *p),
                );
                old.iter()
                    .filter_map(|pid| state.all.get(pid))
                    .for_each(|w| w.kill());
                let late = state.last.is_some_and(|at| Instant::now() >= at);
                if late {
                    state.all.values().for_each(|w| w.kill());
                }
                let wanted = std::mem::take(&mut state.wanted) + state.pool.start();
                let none = late || state.closed;
                (if none { 0 } else { wanted }, over)
            };
            if over {
                return;
            }
            for _ in 0..start {
                self.start(&poll, engine);
            }
        }
    }

    fn start(&self, poll: &OwnedFd, engine: &Arc<Engine>) {
        let output = self.care.begin(engine);
        let started = output
            .and_then(|o| Process::start(engine.store(), engine.recording(), o, table().hash));
        let watched = started.and_then(|process| {
            let flags = epoll::EventFlags::IN;
            for (fd, kind) in [(process.pidfd.as_fd(), 0), (process.socket.as_fd(), 1)] {
                let data = epoll::EventData::new_u64(u64::from(process.pid) << 1 | kind);
                if let Err(e) = epoll::add(poll, fd, data, flags) {
                    // Nobody would hear of its end.
                    process.kill();
                    process.bury(&self.care);
                    return Err(e.into());
                }
            }
            Ok(process)
        });
        let mut state = self.state.lock();
        match watched {
            Ok(process) => {
                let process = Arc::new(process);
                let pid = process.pid;
                if state.closed {
                    process.kill();
                }
                state.starting.insert(pid, Instant::now());
                state.all.insert(pid, process);
            }
            Err(e) => {
                state.failed = Some(Arc::from(e.to_string()));
                state.pool.failed();
                self.changed.notify_all();
            }
        }
    }

    fn event(&self, poll: &OwnedFd, engine: &Engine, token: u64) {
        let pid = (token >> 1) as u32;
        let Some(process) = self.state.lock().all.get(&pid).cloned() else {
            return;
        };
        if token & 1 == 0 {
            let _ = epoll::delete(poll, &process.pidfd);
            let _ = epoll::delete(poll, &process.socket);
            process.bury(&self.care);
            if let Some(recorder) = engine.recorder() {
                recorder.release_process(pid);
            }
            let mut state = self.state.lock();
            state.all.remove(&pid);
            state.pool.died(&pid);
            if state.starting.remove(&pid).is_some() {
                state.pool.failed();
                let why = format!("the new process {pid} ended with {}", process.exit());
                state.failed.get_or_insert(Arc::from(why));
            }
            self.changed.notify_all();
            drop(state);
            if let Some(actor) = process.unhost() {
                super::super::actor::host_died(&actor);
            }
            return;
        }
        match super::hello::answered(&process.socket) {
            Ok(None) => {}
            Ok(Some(Ok(()))) => {
                let mut state = self.state.lock();
                if state.starting.remove(&pid).is_some() {
                    let now = self.now();
                    state.pool.started();
                    state.pool.give_back(pid, now);
                    self.changed.notify_one();
                }
            }
            Ok(Some(Err(why))) => {
                let mut state = self.state.lock();
                if state.starting.contains_key(&pid) {
                    state.failed = Some(Arc::from(why));
                }
                drop(state);
                process.kill();
            }
            Err(_) => {
                let _ = epoll::delete(poll, &process.socket);
                process.kill();
            }
        }
    }

    fn give_up(&self, why: &str) {
        self.state.lock().broken = Some(Arc::from(why));
        self.changed.notify_all();
    }
}

/// How long a new process may take until it says that it is ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the age of idle workers is looked at, while there are any.
const LOOK_UP: Duration = Duration::from_millis(500);
/// At the end it is looked at no more often than this.
const SOON: Duration = Duration::from_millis(10);

fn cannot_start(why: &str) -> Error {
    Error::Os {
        what: "starting a worker process",
        source: Arc::new(std::io::Error::other(why.to_owned())),
    }
}

#[cfg(all(test, not(miri), not(loom)))]
mod tests {
    use super::*;
    use crate::base::Capacity;
    use crate::store::{Store, StoreOptions};

    #[test]
    fn a_start_that_failed_for_nobody_is_nobodys_failure() {
        let store = Store::open(StoreOptions {
            capacity: Some(1 << 20),
            ..StoreOptions::default()
        });
        let engine = Engine::new(Capacity::default(), store.unwrap(), None);
        let workers = &engine.workers;
        workers.state.lock().failed = Some(Arc::from("long ago"));
        let worker = workers.take(&engine);
        let worker = worker.map(|w| workers.give_back(w));
        workers.close();
        worker.unwrap();
    }
}
