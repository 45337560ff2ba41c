//! What a panic said, where, and through which calls.
//!
//! A hook, installed once, notes message and stack of panics inside remote code instead of printing them: they reach
//! whoever takes the result. Panics elsewhere go to the hook that was there before.
//!
//! Invariant: the note is of this thread's latest panic and is taken by whoever caught it.
//! Left out: aborts; those need a process of their own.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Once};

use crate::base::{Failure, FailureKind, Stack};

struct Note {
    location: String,
    backtrace: Arc<Stack>,
}

thread_local! {
    static NOTE: RefCell<Option<Note>> = const { RefCell::new(None) };
    /// A future of ours is polled here; sync calls are seen through the local.
    pub(super) static POLLING: Cell<bool> = const { Cell::new(false) };
}

/// Installs the hook, the first time.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = POLLING.try_with(Cell::get).unwrap_or(false)
                || super::local::with(|l| !l.current.get().is_null()).unwrap_or(false);
            if !ours {
                before(info);
                return;
            }
            let location = info
                .location()
                .map_or_else(String::new, ToString::to_string);
            let backtrace = Arc::new(Stack::from(Backtrace::force_capture()));
            let _ = NOTE.try_with(|n| {
                *n.borrow_mut() = Some(Note {
                    location,
                    backtrace,
                })
            });
        }));
    });
}

/// Drops what a panic carried. Its own `Drop` may panic, with a payload of which the same is true: that one is leaked
/// rather than let the executor down.
pub fn discard(payload: Box<dyn Any + Send>) {
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(payload)));
    if let Err(again) = dropped {
        std::mem::forget(again);
    }
}

/// The failure of a call that panicked here, just now.
pub fn failure(payload: Box<dyn Any + Send>) -> Failure {
    let note = NOTE.try_with(|n| n.borrow_mut().take()).ok().flatten();
    let (message, type_name) = if let Some(s) = payload.downcast_ref::<&'static str>() {
        ((*s).to_owned(), "&str")
    } else if let Some(s) = payload.downcast_ref::<String>() {
        (s.clone(), "String")
    } else {
        ("a value that is no text".to_owned(), "Box<dyn Any>")
    };
    discard(payload);
    Failure {
        kind: FailureKind::Panicked,
        function: "",
        message,
        type_name,
        sources: Vec::new(),
        location: note
            .as_ref()
            .map_or_else(String::new, |n| n.location.clone()),
        attempts: 1,
        backtrace: note.map(|n| n.backtrace),
    }
}
