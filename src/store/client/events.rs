//! What a client is told of seals and deletions.
//!
//! Invariant: what waits to be taken is bounded; what did not fit is counted, and told as one event in
//! its place. Left out: how events come (`link`).

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::link::Link;
use crate::base::{ObjectId, StoreError};
use crate::store::proto::Message;

/// Events that wait to be taken.
const WAITING_MAX: usize = 1 << 16;

/// Something that happened in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An object is complete and can be read.
    Sealed {
        /// Its name.
        id: ObjectId,
        /// Its length in bytes.
        len: u64,
    },
    /// An object was deleted or evicted.
    Deleted {
        /// The name it had.
        id: ObjectId,
    },
    /// Events were left out, because they were not taken fast enough: [`list`](super::Client::list)
    /// says what there is now.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// Where the events of one subscription wait.
#[derive(Default)]
pub struct Channel {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    missed: u64,
    waker: Option<Waker>,
}

impl Channel {
    pub fn push(&self, message: &Message) {
        let mut queue = self.queue.lock();
        let event = match *message {
            Message::Sealed { id, len } => Event::Sealed { id, len },
            Message::Deleted { id } => Event::Deleted { id },
            Message::Lagged { missed } => {
                queue.missed = queue.missed.saturating_add(missed);
                return queue.wake();
            }
            Message::Answer(..) | Message::Closing { .. } => return,
        };
        if queue.missed > 0 || queue.events.len() >= WAITING_MAX {
            queue.missed = queue.missed.saturating_add(1);
        } else {
            queue.events.push_back(event);
        }
        queue.wake();
    }

    pub fn pop(&self) -> Option<Event> {
        let mut queue = self.queue.lock();
        if let Some(event) = queue.events.pop_front() {
            return Some(event);
        }
        let missed = std::mem::take(&mut queue.missed);
        (missed > 0).then_some(Event::Lagged { missed })
    }

    pub fn wake(&self) {
        self.queue.lock().wake();
    }

    #[cfg(feature = "async")]
    pub fn await_with(&self, waker: &Waker) {
        self.queue.lock().waker = Some(waker.clone());
    }
}

impl Queue {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Events of a store, from [`subscribe`](super::Client::subscribe) on. As an iterator it waits for each, and ends
/// when the server is gone.
///
/// Memory is bounded: who does not take events gets [`Event::Lagged`] in place of those beyond some
/// ten thousand.
pub struct Subscription {
    pub(super) link: Arc<Link>,
    pub(super) channel: Arc<Channel>,
}

impl Subscription {
    /// The next event; waits for it.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the server is gone and what came before was taken.
    pub fn recv(&self) -> Result<Event, StoreError> {
        loop {
            if let Some(event) = self.link.drive(None, |_| self.channel.pop())? {
                return Ok(event);
            }
        }
    }

    /// As [`recv`](Self::recv), and `None` if none comes in time.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Event>, StoreError> {
        let until = Instant::now().checked_add(timeout);
        self.link.drive(until, |_| self.channel.pop())
    }
}

impl Iterator for Subscription {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.recv().ok()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        super::unsubscribe(&self.link, &self.channel);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({})", self.link.path.display())
    }
}
