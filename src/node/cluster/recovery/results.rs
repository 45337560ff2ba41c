//! Results of methods that are too large to be told: they stay with the actor's host, and are asked for again when they are lost.
//!
//! A caller excepts such a result from what it has settled, as long as somebody may need it (`core::recovery::Caller`), and keeps an
//! [`Again`] as its lineage. Whoever goes on runs the logged calls again, and so has the result of each that is excepted; what a
//! checkpoint has cut goes along with that, within a bound. The answer to [`Again::ask`] is the object's new copy.
//!
//! Invariant: no call runs because its result is asked for. Left out: when one is lost, and wanted (`lineage`).

use std::sync::Arc;

use super::caller::{Asked, KeptCaller};
use super::host::{Input, KeptHost};
use super::load::{Came, Load, came};
use crate::base::{Error, NodeId, ObjectKey};
use crate::core::recovery::CallId;
use crate::exec::far::take;
use crate::exec::{Local, RawRef};
use crate::node::cluster::Cluster;
use crate::wire::Outcome;

/// How a result that stays with its host is had once more. When this is dropped the host need not keep it.
pub(in crate::node::cluster) struct Again {
    caller: Arc<KeptCaller>,
    number: u64,
    /// Which method gave it.
    pub method: &'static str,
}

impl Again {
    /// Of a call by its number.
    pub(super) fn new(caller: &Arc<KeptCaller>, number: u64, method: &'static str) -> Again {
        Again {
            caller: Arc::clone(caller),
            number,
            method,
        }
    }

    /// Asks for it, without the books.
    pub fn ask(&self) -> impl FnOnce(&Local) + use<> {
        let (caller, number) = (Arc::clone(&self.caller), self.number);
        move |local| caller.post(local, Asked::Again(number))
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        let number = self.number;
        let _ = crate::exec::local::with(|local| self.caller.post(local, Asked::Let(number)));
    }
}

/// What is told of a call that nobody knows any more.
pub(super) fn unknown(me: NodeId) -> Came {
    let error = Error::NodeLost {
        node: me,
        what: Arc::from("whoever hosts the actor now knows nothing of the call"),
    };
    Came::Failed(take::failure_bytes(&error))
}

impl KeptHost {
    /// A call that came has ended; the number of its result, if its caller asked for it here.
    pub fn told(
        self: &Arc<KeptHost>,
        local: &Local,
        id: CallId,
        number: Option<u64>,
        record: &RawRef,
    ) {
        let Some(cluster) = self.cluster.upgrade() else {
            return;
        };
        let asked = |number| cluster.books.lock().running.remove(&(id.node, number));
        drop(number.map(asked));
        self.forget_call(record.id);
        // Whoever goes on runs it: it did not fail, this node goes.
        if cluster.is_over() || self.is_over() {
            return;
        }
        let came = came(record);
        if let Some(number) = number {
            cluster.hold_large(local, id.node, number, &came);
        }
        self.post(local, Input::Told(id, came));
    }
}

impl Cluster {
    /// A result that is too large to be told stays here until its owner frees it.
    pub(super) fn hold_large(
        self: &Arc<Cluster>,
        local: &Local,
        owner: NodeId,
        number: u64,
        came: &Came,
    ) {
        if let Came::Large(_, record) = came
            && owner != self.me
        {
            let key = ObjectKey { owner, number };
            self.with(local, |books, todo| {
                if !books.peers.contains_key(&owner) {
                    return; // it died, and will not free it
                }
                let before = books.held.insert(key, record.clone());
                before.into_iter().for_each(|r| todo.later.record(r));
                books.owners.hosts(key);
                // Made again, perhaps for somebody here too.
                books.pulls.found(key, &mut todo.pulls);
            });
        }
    }

    /// What came of asking for a result again.
    pub(super) fn told_again(self: &Arc<Cluster>, local: &Local, number: u64, outcome: Load) {
        let failed = |why: &[u8]| {
            let why = take::failure_text(why, "a method");
            why.unwrap_or_else(|| "its failure cannot be read".to_owned())
        };
        match outcome {
            Load::Told(from, outcome) => match Arc::unwrap_or_clone(outcome) {
                Outcome::Stored(len) => self.remade_at(local, number, from, len),
                Outcome::Value(value) => match self.import_value(local, from, value) {
                    Ok(value) => self.remade_of(number, value),
                    Err(e) => self.not_told_again(local, number, &e.to_string()),
                },
                Outcome::Failed(why) => self.not_told_again(local, number, &failed(&why)),
                Outcome::Returned => self.not_told_again(local, number, "it was not told"),
            },
            Load::Came(came) => match &*came {
                Came::Value(value) => self.remade_of(number, value.clone()),
                Came::Failed(why) => self.not_told_again(local, number, &failed(why)),
                Came::Large(_, record) => self.remade_as(local, number, record),
            },
            _ => self.not_told_again(local, number, "it was not told"),
        }
    }
}
