//! A small number for each thread, by which it picks its shard.
//!
//! Numbers are handed out in order of first use, so the first threads of a program never share a
//! shard. Left out: reuse of dead threads' numbers; a shard is only a hint.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// This thread's number: one thread-local load after the first call.
#[inline]
pub fn thread_number() -> usize {
    let number = NUMBER.get();
    if number == usize::MAX {
        assign()
    } else {
        number
    }
}

#[cold]
fn assign() -> usize {
    let number = NEXT.fetch_add(1, Relaxed);
    NUMBER.set(number);
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_differ_and_keep_their_number() {
        let mine = thread_number();
        let other = std::thread::spawn(thread_number).join().unwrap();
        assert_ne!(mine, other);
        assert_eq!(mine, thread_number());
    }
}
