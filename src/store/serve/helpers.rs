//! Threads that wait in the serving thread's stead: for room, and for the disk.
//!
//! They start when there is something to wait for, and end when there is nothing. Invariants: each
//! errand is done exactly once and its outcome is fetched by the serving thread; so many wait for the
//! disk at most, and so many for room, that neither keeps the other. Left out: what outcomes lead to.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use super::objects::Serial;
use super::shelf::{Place, Shelf, Shelved, Wanted};
use crate::store::proto::Denial;

/// Threads that wait for room. The store gives it in the order they came.
const FOR_ROOM: usize = 32;

/// Threads that read from disk.
const FOR_DISK: usize = 4;

/// Something to wait for.
pub enum Errand {
    /// Room for an object, unless it is given up.
    Place {
        serial: Serial,
        wanted: Wanted,
        given_up: Arc<AtomicBool>,
    },
    /// An object's return from disk.
    Hold { serial: Serial, shelved: Shelved },
}

/// What came of it.
pub enum Outcome {
    Placed {
        serial: Serial,
        place: Result<Place, Denial>,
    },
    /// With the hold, if it is one, which the receiver ends.
    Held {
        serial: Serial,
        shelved: Shelved,
        offset: Result<u64, Denial>,
    },
}

/// The threads, and what waits for them.
pub struct Helpers {
    shared: Arc<Shared>,
}

struct Shared {
    shelf: Shelf,
    queues: Mutex<[Queue; 2]>,
    outcomes: Mutex<Vec<Outcome>>,
    /// Readable when there are outcomes.
    ready: OwnedFd,
}

#[derive(Default)]
struct Queue {
    errands: VecDeque<Errand>,
    threads: usize,
}

impl Helpers {
    pub fn new(shelf: Shelf) -> std::io::Result<Helpers> {
        let ready = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Helpers {
            shared: Arc::new(Shared {
                shelf,
                queues: Mutex::default(),
                outcomes: Mutex::default(),
                ready,
            }),
        })
    }

    /// Gives an errand to a thread, as soon as one is free.
    pub fn send(&self, errand: Errand) {
        let (queue, most) = match errand {
            Errand::Place { .. } => (0, FOR_ROOM),
            Errand::Hold { .. } => (1, FOR_DISK),
        };
        let start = {
            let mut queues = self.shared.queues.lock();
            let queue = &mut queues[queue];
            queue.errands.push_back(errand);
            let start = queue.threads < most;
            queue.threads += usize::from(start);
            start
        };
        if !start {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("mobula-store-wait".into());
        if thread.spawn(move || shared.work(queue)).is_err() {
            // There is no thread to be had: better late for all than never for one.
            self.shared.work(queue);
        }
    }

    /// What has come of errands since the last look.
    pub fn outcomes(&self) -> Vec<Outcome> {
        let _ = rustix::io::read(&self.shared.ready, &mut [0; 8]);
        std::mem::take(&mut *self.shared.outcomes.lock())
    }
}

impl AsFd for Helpers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.ready.as_fd()
    }
}

impl Shared {
    /// Does errands until there are none.
    fn work(&self, queue: usize) {
        loop {
            let errand = {
                let mut queues = self.queues.lock();
                let queue = &mut queues[queue];
                let errand = queue.errands.pop_front();
                queue.threads -= usize::from(errand.is_none());
                errand
            };
            let Some(errand) = errand else {
                return;
            };
            let outcome = match errand {
                Errand::Place {
                    serial,
                    wanted,
                    given_up,
                } => Outcome::Placed {
                    serial,
                    place: self.shelf.place(wanted, &given_up),
                },
                Errand::Hold { serial, shelved } => Outcome::Held {
                    serial,
                    offset: shelved.hold(&self.shelf),
                    shelved,
                },
            };
            self.outcomes.lock().push(outcome);
            let _ = rustix::io::write(&self.ready, &1u64.to_ne_bytes());
        }
    }
}
