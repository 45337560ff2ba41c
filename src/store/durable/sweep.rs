//! Threads that delete copies: one copy after the other at each place, at some places at a time.
//!
//! They start when there is something to delete, and end when there was nothing for a while. Invariant: a place that does not answer
//! holds up one thread, so others are swept as long as fewer than [`MOST`] hang, and each step at a place ends. Left out: what is deleted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Copies;

/// At how many places at a time.
const MOST: usize = 8;
/// How long a thread waits for more.
const REST: Duration = Duration::from_secs(10);

/// See the file.
#[derive(Default)]
pub struct Sweep(Arc<Shared>);

#[derive(Default)]
struct Shared {
    books: Mutex<Books>,
    /// There is a place that no thread is at.
    ready: Condvar,
    /// All is deleted.
    idle: Condvar,
}

#[derive(Default)]
struct Books {
    /// What is to be deleted, by place: of those that are ready, and those that a thread is at.
    queues: HashMap<Arc<str>, VecDeque<Gone>>,
    /// Places where there is something to do and no thread.
    ready: VecDeque<Arc<str>>,
    threads: usize,
    resting: usize,
    /// What is not deleted yet.
    left: usize,
    ended: bool,
}

struct Gone {
    copies: Arc<Copies>,
    name: Arc<str>,
}

impl Sweep {
    /// Deletes this copy, soon.
    pub fn delete(&self, place: &Arc<str>, copies: Arc<Copies>, name: Arc<str>) {
        let gone = Gone { copies, name };
        let mut books = self.0.books.lock();
        books.left += 1;
        if let Some(queue) = books.queues.get_mut(place) {
            // A thread is at it, or comes.
            queue.push_back(gone);
            return;
        }
        books.queues.insert(Arc::clone(place), [gone].into());
        books.ready.push_back(Arc::clone(place));
        // Those that rest may have been woken for other places.
        if books.ready.len() <= books.resting || books.threads == MOST {
            self.0.ready.notify_one();
            return;
        }
        let shared = Arc::clone(&self.0);
        let named = std::thread::Builder::new().name("mobula-durable".to_owned());
        if named.spawn(move || work(&shared)).is_ok() {
            books.threads += 1;
        } else if books.threads == 0 {
            // Without one, copies stay.
            books.queues.clear();
            books.ready.clear();
            books.left = 0;
        }
    }

    /// Waits until all is deleted, so long at most.
    pub fn end(&self, longest: Duration) {
        let until = Instant::now() + longest;
        let mut books = self.0.books.lock();
        while books.left > 0 && !self.0.idle.wait_until(&mut books, until).timed_out() {}
        books.ended = true;
        self.0.ready.notify_all();
    }
}

/// A thread.
fn work(shared: &Shared) {
    // Best effort: at normal priority the thread is only less polite.
    let _ = rustix::process::setpriority_process(None, 10);
    let mut books = shared.books.lock();
    loop {
        let Some(place) = books.ready.pop_front() else {
            if books.ended {
                break;
            }
            books.resting += 1;
            let waited = shared.ready.wait_for(&mut books, REST).timed_out();
            books.resting -= 1;
            if waited && books.ready.is_empty() {
                break;
            }
            continue;
        };
        let queue = books.queues.get_mut(&place);
        if let Some(Gone { copies, name }) = queue.and_then(VecDeque::pop_front) {
            // What cannot be deleted stays: nobody waits for it, and nobody can be told.
            let _ = MutexGuard::unlocked(&mut books, || copies.delete(&name));
            books.left -= 1;
            if books.left == 0 {
                shared.idle.notify_all();
            }
        }
        // One at a time, so that places take turns when there are more than threads.
        match books.queues.get(&place) {
            Some(queue) if !queue.is_empty() => books.ready.push_back(place),
            _ => drop(books.queues.remove(&place)),
        }
    }
    books.threads -= 1;
}
