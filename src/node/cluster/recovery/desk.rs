//! Events that are handled one after the other, by whichever thread comes first.
//!
//! Whoever posts an event handles it, unless somebody is at it already: then that thread does. So nobody waits, no lock is held while
//! an event is handled, and what follows from one may post others to the same desk.
//!
//! Invariant: events are handled in the order in which they were posted, one at a time. Left out: what they are.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// See the file.
pub(super) struct Desk<E> {
    queue: Mutex<Queue<E>>,
}

struct Queue<E> {
    events: VecDeque<E>,
    busy: bool,
}

impl<E> Desk<E> {
    /// One at which events wait until it [opens](Self::open).
    pub fn shut() -> Desk<E> {
        Desk::make(true)
    }

    /// One that is open.
    pub fn new() -> Desk<E> {
        Desk::make(false)
    }

    fn make(busy: bool) -> Desk<E> {
        let events = VecDeque::new();
        Desk {
            queue: Mutex::new(Queue { events, busy }),
        }
    }

    /// Hands an event in.
    pub fn post(&self, event: E, handle: impl FnMut(E)) {
        {
            let mut queue = self.queue.lock();
            queue.events.push_back(event);
            if std::mem::replace(&mut queue.busy, true) {
                return;
            }
        }
        self.open(handle);
    }

    /// Handles what waits. Only for whoever made it shut, once.
    pub fn open(&self, mut handle: impl FnMut(E)) {
        loop {
            let event = {
                let mut queue = self.queue.lock();
                let event = queue.events.pop_front();
                if event.is_none() {
                    queue.busy = false;
                }
                event
            };
            match event {
                Some(event) => handle(event),
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_an_event_comes_after_those_before() {
        let desk = Desk::shut();
        let seen = Mutex::new(Vec::new());
        fn handle(desk: &Desk<u32>, seen: &Mutex<Vec<u32>>, n: u32) {
            if n < 10 {
                desk.post(n + 10, |n| handle(desk, seen, n));
            }
            seen.lock().push(n);
        }
        desk.post(1, |n| handle(&desk, &seen, n));
        desk.post(2, |n| handle(&desk, &seen, n));
        assert!(seen.lock().is_empty(), "it is shut");
        desk.open(|n| handle(&desk, &seen, n));
        desk.post(3, |n| handle(&desk, &seen, n));
        assert_eq!(*seen.lock(), [1, 2, 11, 12, 3, 13]);
    }
}
