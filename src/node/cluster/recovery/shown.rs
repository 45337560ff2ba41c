//! What can be seen from outside of an actor whose history is kept.
//!
//! Invariant: a look waits for no event of the actor's: it reads what the last one left. Left out: showing it.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::load::Load;
use crate::base::NodeId;
use crate::base::snapshot::{History, Kept, Micros};
use crate::core::recovery::Host;
use crate::exec::inspect;

/// See the file.
#[derive(Default)]
pub(super) struct Shown {
    order: AtomicU64,
    logged: AtomicU64,
    bytes: AtomicU64,
    saved: AtomicU64,
    state: AtomicU64,
    /// When the state was saved last; 0: never.
    at: AtomicU64,
    backups: Mutex<Vec<NodeId>>,
    /// Why it came here.
    death: Option<String>,
}

impl Shown {
    /// Of one that was made here, or came here after a death.
    pub fn of(death: Option<String>) -> Shown {
        Shown {
            death,
            ..Shown::default()
        }
    }

    /// An event has been handled.
    pub fn note(&self, host: &Host<Load>) {
        let (saved, state) = host.checkpoint();
        self.order.store(host.orders().0, Ordering::Relaxed);
        self.logged.store(host.logged() as u64, Ordering::Relaxed);
        self.bytes.store(host.bytes(), Ordering::Relaxed);
        self.state.store(state, Ordering::Relaxed);
        if self.saved.swap(saved, Ordering::Relaxed) != saved {
            self.at.store(inspect::now(), Ordering::Relaxed);
        }
        let mut backups = self.backups.lock();
        if *backups != host.named() {
            *backups = host.named().to_vec();
        }
    }

    /// What was noted last.
    pub fn look(&self, incarnation: u64, replicas: u32) -> (History, Kept) {
        let saved_at: Micros = self.at.load(Ordering::Relaxed);
        let saved = self.saved.load(Ordering::Relaxed);
        let state = self.state.load(Ordering::Relaxed);
        let history = History {
            order: self.order.load(Ordering::Relaxed),
            logged: self.logged.load(Ordering::Relaxed),
            log_bytes: self.bytes.load(Ordering::Relaxed),
            saved,
            state_bytes: if saved > 0 { state } else { 0 },
        };
        let backups = self.backups.lock();
        let kept = Kept {
            incarnation,
            replicas,
            backups: backups.iter().map(NodeId::to_string).collect(),
            saved_at: (saved_at > 0).then_some(saved_at),
            last_death: self.death.clone(),
            ..Kept::default()
        };
        (history, kept)
    }
}
