//! Events that are handled one after the other, by whichever thread comes first.
//!
//! Whoever posts an event handles it, unless somebody is at it already: then that thread does, with all that has come meanwhile. So
//! nobody waits, no lock is held while events are handled, and what follows from one may post others to the same desk.
//!
//! Invariant: events are handled in the order in which they were posted, by one thread at a time. Left out: what they are.

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

    /// Hands an event in. `handle` is given those that wait, and takes out all.
    pub fn post(&self, event: E, handle: impl FnMut(&mut VecDeque<E>)) {
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
    pub fn open(&self, mut handle: impl FnMut(&mut VecDeque<E>)) {
        let mut batch = VecDeque::new();
        loop {
            {
                let mut queue = self.queue.lock();
                if queue.events.is_empty() {
                    queue.busy = false;
                    return;
                }
                std::mem::swap(&mut queue.events, &mut batch);
            }
            handle(&mut batch);
            debug_assert!(batch.is_empty(), "all are taken out");
        }
    }
}

/// Handles one after the other.
pub(super) fn each<E>(mut handle: impl FnMut(E)) -> impl FnMut(&mut VecDeque<E>) {
    move |events| events.drain(..).for_each(&mut handle)
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
                desk.post(n + 10, each(|n| handle(desk, seen, n)));
            }
            seen.lock().push(n);
        }
        desk.post(1, each(|n| handle(&desk, &seen, n)));
        desk.post(2, each(|n| handle(&desk, &seen, n)));
        assert!(seen.lock().is_empty(), "it is shut");
        desk.open(each(|n| handle(&desk, &seen, n)));
        desk.post(3, each(|n| handle(&desk, &seen, n)));
        assert_eq!(*seen.lock(), [1, 2, 11, 12, 3, 13]);
    }
}
