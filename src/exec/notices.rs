//! News told to whoever of the program asked to hear it.
//!
//! A listener has a thread of its own: it may block, and neither the node nor other listeners wait for it.
//!
//! Invariant: a listener hears all that is told after it began to listen, once and in order. Left out: what is told (deaths of
//! actors and nodes).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;

/// Who listens; nobody any more after the close.
pub struct Notices<T>(Mutex<Option<Vec<Sender<T>>>>);

impl<T> Default for Notices<T> {
    fn default() -> Notices<T> {
        Notices(Mutex::new(Some(Vec::new())))
    }
}

impl<T: Clone + Send + 'static> Notices<T> {
    /// From now until [`Notices::close`] this is called with all that is told, on a thread of this name.
    pub fn listen(&self, thread: &str, mut hear: impl FnMut(T) + Send + 'static) -> io::Result<()> {
        let (send, told) = channel::<T>();
        let named = std::thread::Builder::new().name(thread.to_owned());
        // It is not waited for at the end: the program's own code may block in it.
        named.spawn(move || {
            for news in told {
                // The panic hook has printed it; the next is told all the same.
                let _ = catch_unwind(AssertUnwindSafe(|| hear(news)));
            }
        })?;
        if let Some(listeners) = &mut *self.0.lock() {
            listeners.push(send);
        }
        Ok(())
    }

    /// Tells everybody; `news` is asked only if somebody listens.
    pub fn tell(&self, news: impl FnOnce() -> T) {
        let listeners = self.0.lock();
        let Some(listeners) = listeners.as_ref().filter(|all| !all.is_empty()) else {
            return;
        };
        let news = news();
        for listener in listeners {
            // A listener ends only at the close.
            let _ = listener.send(news.clone());
        }
    }

    /// Nothing more is told: the threads end when they have heard what was.
    pub fn close(&self) {
        *self.0.lock() = None;
    }
}
