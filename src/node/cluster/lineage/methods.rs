//! Lost results of methods: whoever hosts the actor is asked for them, or it is said why nobody is.
//!
//! Invariant: what comes of such a question is taken in only if the object is still wanted from it; its length is as before. Left
//! out: how hosts are asked (`recovery`).

use std::sync::Arc;

use super::{CALL, Kept, Lack, Recipe, other_length};
use crate::base::NodeId;
use crate::core::owners::{Effect as Owning, Message, Stand};
use crate::core::recovery::caller::MOST_RESULTS;
use crate::exec::far::{ValueParcel, take};
use crate::exec::{Local, RawRef};
use crate::node::cluster::{Cluster, recovery};

/// As often may a result be asked for again: actors end with their restarts, and this bounds who tells of a copy that is none.
const ROUNDS: u32 = 64;

/// What is kept for the result of a method that whoever hosts the actor can have once more.
pub(in crate::node::cluster) fn of_method(again: recovery::Again) -> (Recipe, Kept) {
    let kept = Kept {
        bytes: CALL,
        retries: ROUNDS,
        ..Kept::default()
    };
    (Recipe::Method(again), kept)
}

/// Why the result of a method is not made again.
pub(super) fn why(lack: &Lack) -> String {
    match lack {
        Lack::Method(method) => format!(
            "`{method}`, a method of an actor, made it and is not run again for a lost result: only calls that may change the state (`&mut self`) \
             are, of actors with an archive, max_restarts and replicas; read it in time, or put it with replicas"
        ),
        Lack::TooMany(method) => format!(
            "`{method}`, a method of an actor, made it, and later ones took its place: no more than {MOST_RESULTS} results of an actor that \
             stay with its node are made again; read them in time, or put them with replicas"
        ),
        _ => String::new(),
    }
}

/// The same of one that was asked for.
fn not_told(method: &str, why: &str) -> String {
    format!(
        "`{method}`, a method of an actor, made it, and its result is not there any more: {why}"
    )
}

impl Cluster {
    /// A host that was asked has the result, of so many bytes.
    pub(in crate::node::cluster) fn remade_at(
        self: &Arc<Cluster>,
        local: &Local,
        number: u64,
        from: NodeId,
        len: u64,
    ) {
        let key = self.own(number);
        let wrong = self.with(local, |books, todo| {
            let method = books.remakes.asked.remove(&number);
            let expected = books.tickets.get(&number).map(|(_, len)| *len);
            if method.is_none() || expected != Some(len) {
                let message = Message::Free { key };
                todo.effects.push(Owning::Send { to: from, message });
                return method.zip(expected);
            }
            books.tickets.insert(number, (from, len));
            self.made(books, todo, key, Stand::Ready { len, at: from });
            if !books.peers.contains_key(&from) {
                // It died meanwhile, and nobody will say so again.
                let now = self.now();
                books.owners.peer_died(now, from, &mut todo.effects);
            }
            None
        });
        if let Some((method, expected)) = wrong {
            self.not_remade(local, number, other_length(method, expected, len));
        }
    }

    /// Who was asked told the result itself.
    pub(in crate::node::cluster) fn remade_of(
        self: &Arc<Cluster>,
        number: u64,
        value: ValueParcel,
    ) {
        let cluster = Arc::clone(self);
        // Room may have to be waited for.
        self.errand(move |local| match value.object(local) {
            Ok(record) => cluster.remade_as(local, number, &record),
            Err(e) => cluster.not_told_again(local, number, &e.to_string()),
        });
    }

    /// The result lies in this node, as this record's value.
    pub(in crate::node::cluster) fn remade_as(
        self: &Arc<Cluster>,
        local: &Local,
        number: u64,
        record: &RawRef,
    ) {
        let key = self.own(number);
        let len = record.value_size() as u64;
        let wrong = self.with(local, |books, todo| {
            let method = books.remakes.asked.remove(&number)?;
            let (_, expected) = books.tickets.get(&number).copied()?;
            if expected != len || !take::is_stored(record) {
                return Some((method, expected));
            }
            books.tickets.insert(number, (self.me, len));
            let before = books.held.insert(key, record.clone());
            before.into_iter().for_each(|r| todo.later.record(r));
            self.made(books, todo, key, Stand::Ready { len, at: self.me });
            books.pulls.found(key, &mut todo.pulls);
            None
        });
        if let Some((method, expected)) = wrong {
            self.not_remade(local, number, other_length(method, expected, len));
        }
    }

    /// Who was asked has it no more, or nobody could be asked.
    pub(in crate::node::cluster) fn not_told_again(
        self: &Arc<Cluster>,
        local: &Local,
        number: u64,
        why: &str,
    ) {
        let method = self.books.lock().remakes.asked.remove(&number);
        if let Some(method) = method {
            self.not_remade(local, number, not_told(method, why));
        }
    }

    /// The actor has too many results that stay with its node.
    pub(in crate::node::cluster) fn give_up_result(
        self: &Arc<Cluster>,
        local: &Local,
        number: u64,
    ) {
        self.with(local, |books, todo| {
            let Some(Recipe::Method(again)) = books.remakes.recipes.get(&number) else {
                return;
            };
            let lack = Lack::TooMany(again.method);
            books.remakes.asked.remove(&number);
            let core = &mut books.remakes.core;
            let (lost, mut out) = (core.is_lost(number), Vec::new());
            // It may be about to be asked for: whoever waits for that is told, as nobody will answer.
            core.ended(number, false, &mut out);
            core.bar(number, lack, &mut out);
            self.remaking(books, todo, out);
            if lost {
                // Whoever asks for it later is not to wait.
                let key = self.own(number);
                books.owners.settled(key, Stand::Failed, &mut todo.effects);
            }
        });
    }
}
