//! Following changes, with a bounded buffer between who writes and who follows.
//!
//! Invariant: a watch gives every change behind its revision once, in order, until it says that it fell behind; after
//! that, or once the records are closed, nothing more. Whoever writes never waits for a watch. Left out: where
//! changes come from.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{ControlError, LeaseId, Result, Revision, WATCH_MAX, until};

/// One change to one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// The write that changed it. Records that end with their lease share one.
    pub revision: Revision,
    /// What it is now, with its lease; `None`: it is deleted.
    pub now: Option<(Vec<u8>, Option<LeaseId>)>,
}

#[derive(Debug)]
struct State {
    changes: VecDeque<Change>,
    /// What is told once the changes are taken.
    end: Option<ControlError>,
    /// The last write told of.
    told: Revision,
}

/// What lies between.
#[derive(Debug)]
pub(super) struct Buffer {
    prefix: String,
    state: Mutex<State>,
    filled: Condvar,
}

impl Buffer {
    pub fn new(prefix: &str, from: Revision) -> Arc<Buffer> {
        let state = State {
            changes: VecDeque::new(),
            end: None,
            told: from,
        };
        Arc::new(Buffer {
            prefix: prefix.to_owned(),
            state: Mutex::new(state),
            filled: Condvar::new(),
        })
    }

    /// Adds a change if it is of these keys. False: nobody needs more.
    pub fn push(&self, change: &Change) -> bool {
        if !change.key.starts_with(&self.prefix) {
            return true;
        }
        let mut state = self.state.lock();
        if state.end.is_some() {
            return false;
        }
        if state.changes.len() >= WATCH_MAX {
            state.changes.clear();
            state.end = Some(self.behind(state.told));
        } else {
            state.changes.push_back(change.clone());
        }
        self.filled.notify_all();
        state.end.is_none()
    }

    /// Ends it, after what it holds.
    pub fn end(&self, with: ControlError) {
        let mut state = self.state.lock();
        state.end.get_or_insert(with);
        self.filled.notify_all();
    }

    /// What a watch of these keys says that fell behind.
    pub fn behind(&self, from: Revision) -> ControlError {
        ControlError::FellBehind {
            prefix: self.prefix.clone(),
            from,
        }
    }
}

/// Changes, as they come. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    buffer: Arc<Buffer>,
    /// Ends whatever fills the buffer.
    _guard: Option<Guard>,
}

/// Runs once, when the watch goes.
pub(super) struct Guard(pub Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guard")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Watch {
    pub(super) fn new(buffer: Arc<Buffer>, guard: Option<Guard>) -> Watch {
        Watch {
            buffer,
            _guard: guard,
        }
    }

    /// The next change; `None` if there was none in time.
    ///
    /// # Errors
    ///
    /// [`ControlError::FellBehind`] if changes came faster than they were taken, and [`WATCH_MAX`] were held already;
    /// [`ControlError::Closed`] once the records are closed; what the backend failed with. It is the same from then on.
    pub fn next(&self, within: Duration) -> Result<Option<Change>> {
        let until = until(within);
        let mut state = self.buffer.state.lock();
        loop {
            if let Some(change) = state.changes.pop_front() {
                state.told = change.revision;
                return Ok(Some(change));
            }
            if let Some(end) = &state.end {
                return Err(end.clone());
            }
            if self.buffer.filled.wait_until(&mut state, until).timed_out()
                && state.changes.is_empty()
                && state.end.is_none()
            {
                return Ok(None);
            }
        }
    }
}
