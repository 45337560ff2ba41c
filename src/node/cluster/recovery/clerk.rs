//! The records of actors whose history is kept: read and swapped by a thread that may wait for whoever keeps them.
//!
//! Invariant: what was asked for is answered, in order, unless this node's part in the cluster is over; while the records cannot be
//! reached it is tried again. Left out: the records themselves (`control`).

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::base::{ActorKey, Error};
use crate::core::recovery::Record;
use crate::exec::Local;
use crate::node::cluster::{Cluster, run_errands};
use crate::wire::{Found, Question};

/// Before what failed is tried again.
const AGAIN: Duration = Duration::from_millis(50);

impl Cluster {
    /// Starts the thread.
    pub(in crate::node::cluster) fn start_keeping(&self) -> std::io::Result<()> {
        let (send, errands) = channel();
        *self.recovery.clerk.lock() = Some(send);
        let named = std::thread::Builder::new().name("mobula-recovery".to_owned());
        let thread = named.spawn(move || run_errands(&errands))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    fn ask_apart(
        self: &Arc<Cluster>,
        question: Question,
        answer: impl FnOnce(&Arc<Cluster>, &Local, Found) + Send + 'static,
    ) {
        let cluster = Arc::clone(self);
        let errand = move |local: &Local| {
            while !cluster.is_over() {
                match cluster.ask_found(local, &question) {
                    Ok(found) => return answer(&cluster, local, found),
                    Err(_) => std::thread::park_timeout(AGAIN),
                }
            }
        };
        if let Some(clerk) = &*self.recovery.clerk.lock() {
            let _ = clerk.send(Box::new(errand));
        }
    }

    /// Reads an actor's record.
    pub(super) fn look_up(
        self: &Arc<Cluster>,
        actor: ActorKey,
        then: impl FnOnce(&Arc<Cluster>, &Local, Option<Record>) + Send + 'static,
    ) {
        self.ask_apart(Question::Record(actor), move |cluster, local, found| {
            if let Found::Record(record) = found {
                then(cluster, local, record);
            }
        });
    }

    /// Swaps an actor's record; what it is instead if it was not as expected.
    pub(super) fn swap_record(
        self: &Arc<Cluster>,
        actor: ActorKey,
        expect: Option<Record>,
        record: Option<Record>,
        then: impl FnOnce(&Local, Option<Option<Record>>) + Send + 'static,
    ) {
        let question = Question::Swap(actor, expect, record);
        self.ask_apart(question, move |_, local, found| match found {
            Found::Swapped => then(local, None),
            Found::Record(record) => then(local, Some(record)),
            _ => {}
        });
    }

    /// Why this node's part in the cluster is over.
    pub(super) fn over_by(&self) -> Option<Error> {
        let stopped = self.stopping().then_some(Error::ShutDown);
        self.fenced_by().or(stopped)
    }
}
