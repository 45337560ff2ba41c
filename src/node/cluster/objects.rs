//! Objects' bytes on their way: asked for, served, and landed in the store.
//!
//! They land in the draft that becomes the object of whoever reads it here (`reads`). Who has them is asked in this order: the node that is known to have a copy, then the owner.
//!
//! Invariant: every transfer that was asked for ends: by its last byte, by a refusal, or by the death of who was asked. Left
//! out: who has copies (`core::owners`), and whoever waits.

use std::sync::{Arc, Weak};

use super::books::{Came, Export, Want};
use super::{Cluster, lost};
use crate::base::{NodeId, ObjectKey, Origin};
use crate::core::pulls::{Effect as Pulling, Why};
use crate::exec::far::ValueParcel;
use crate::exec::far::take::{self, Told};
use crate::exec::pin::PinnedRef;
use crate::exec::{Local, RawRef, cell, local};
use crate::link::{Bytes, Landing, LinkError};
use crate::store::Draft;
use crate::wire::{Frame, ValueBody};

/// Where such objects come from, as far as this node's store is concerned.
pub(super) const ORIGIN: Origin = Origin::Result("an object of another node");

/// A draft that bytes land in.
pub(super) struct Lander {
    cluster: Weak<Cluster>,
    key: ObjectKey,
    transfer: u64,
    pub draft: Draft,
}

impl Landing for Lander {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.draft.write_at(offset as usize, bytes);
    }

    fn finish(self: Box<Self>, outcome: Result<(), LinkError>) {
        let Lander {
            cluster,
            key,
            transfer,
            draft,
        } = *self;
        if let Some(cluster) = cluster.upgrade() {
            let _ = local::with(|local| cluster.landed(local, key, transfer, draft, outcome));
        }
    }
}

/// The first pause after a transfer that failed is this part of the time in which a death is surely found; each later one is
/// twice as long.
const PAUSES: u32 = 48;

/// Marks the numbers of values that are asked for among those of transfers.
const VALUE: u64 = 1 << 63;

impl Cluster {
    /// What the pulls' machine wants done.
    pub(super) fn pulling(self: &Arc<Cluster>, local: &Local, effect: Pulling) {
        match effect {
            Pulling::Send { .. } => {}
            Pulling::Fetch {
                key,
                from,
                transfer,
                failures: 0,
            } => self.begin(local, key, from, transfer),
            Pulling::Fetch {
                key,
                from,
                transfer,
                failures,
            } => {
                let pause = self.patience * (1 << (failures - 1).min(7)) / PAUSES;
                let at = self.now() + pause;
                self.books.lock().paused.push((at, key, from, transfer));
            }
            Pulling::Abort { transfer } => {
                let known = self.books.lock().transfers.remove(&transfer);
                if let Some((from, _)) = known {
                    self.give_up(from, transfer);
                }
            }
            Pulling::Here(key) => {
                let (want, own) = {
                    let mut books = self.books.lock();
                    let want = books.wants.remove(&key);
                    let replica = want.as_ref().is_some_and(|want| want.replica);
                    let whole = books.copies.get(&key).is_some_and(|copy| copy.whole);
                    let own = books.held.contains_key(&key) || (whole && !replica);
                    (want, own)
                };
                if let Some(Want {
                    draft, from, tell, ..
                }) = want
                {
                    let _ = tell.send(Ok(match draft {
                        // What no transfer has filled is no value.
                        Some(draft) if !own && from.is_some() => Came::Bytes(draft, from),
                        draft => Came::Here(draft),
                    }));
                }
                self.with(local, |books, todo| {
                    books.owners.copied(key, &mut todo.effects)
                });
            }
            Pulling::Failed(key, why) => {
                let want = self.books.lock().wants.remove(&key);
                if let Some(want) = want {
                    let _ = want.tell.send(Err(match why {
                        Why::OwnerDied => "its owner died".to_owned(),
                        Why::NoSource => "no node has them any more".to_owned(),
                        Why::Attempts(n) => format!("{n} transfers of it failed"),
                    }));
                }
            }
        }
    }

    /// Begins the transfers whose pause is over.
    pub(super) fn resume(self: &Arc<Cluster>, local: &Local) {
        let now = self.now();
        let due: Vec<_> = {
            let mut books = self.books.lock();
            let due = books.paused.extract_if(.., |(at, ..)| *at <= now);
            due.collect()
        };
        for (_, key, from, transfer) in due {
            if self.books.lock().pulls.fetches(key, transfer) {
                self.begin(local, key, from, transfer);
            }
        }
    }

    /// Asks a node for the bytes.
    fn begin(self: &Arc<Cluster>, local: &Local, key: ObjectKey, from: NodeId, transfer: u64) {
        let Some(link) = self.link.get() else { return };
        let begun = self.with(local, |books, todo| {
            let Some(want) = books.wants.get_mut(&key) else {
                return true;
            };
            let Some(draft) = want.draft.take() else {
                return false;
            };
            books.transfers.insert(transfer, (from, key));
            let cluster = Arc::downgrade(self);
            let lander = Lander {
                cluster,
                key,
                transfer,
                draft,
            };
            todo.landings.push((from, transfer, Box::new(lander)));
            true
        });
        if begun {
            return;
        }
        // An earlier transfer has not given its draft back: another, for which room may have to be waited for.
        let cluster = Arc::clone(self);
        let len = self.books.lock().wants.get(&key).map_or(0, |w| w.len);
        let _ = link;
        self.errand(move |local| {
            let made = local.engine.create(local, len, ORIGIN);
            let again = {
                let mut books = cluster.books.lock();
                match (books.wants.get_mut(&key), made) {
                    (Some(want), Ok(draft)) => want.draft.replace(draft),
                    (_, made) => made.ok(),
                }
            };
            drop(again);
            if cluster
                .books
                .lock()
                .wants
                .get(&key)
                .is_some_and(|w| w.draft.is_some())
            {
                cluster.begin(local, key, from, transfer);
            } else {
                cluster.with(local, |books, todo| {
                    books.pulls.fetch_failed(key, transfer, &mut todo.pulls);
                });
            }
        });
    }

    /// Says where bytes land that are about to be asked for, and asks.
    pub(super) fn expect(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        transfer: u64,
        lander: Box<Lander>,
    ) {
        let near = self.books.lock().near.contains_key(&from);
        let mut far = None;
        if near {
            self.books.lock().landers.insert(transfer, lander);
        } else if let Some(link) = self.link.get() {
            let len = lander.draft.len() as u64;
            link.expect_bulk(from, transfer, len, lander);
        } else {
            far = Some(lander);
        }
        let asked = self.with(local, |books, _| {
            // Given up meanwhile.
            let Some((_, key)) = books.transfers.get(&transfer).copied() else {
                return false;
            };
            let frame = Frame::Fetch {
                key,
                transfer,
                near,
            };
            books.peers.contains_key(&from) && self.send_surely(books, from, &frame)
        });
        drop(far);
        if !asked {
            self.give_up(from, transfer);
        }
    }

    /// Ends a transfer that is not wanted, or will not come.
    fn give_up(&self, from: NodeId, transfer: u64) {
        let lander = self.books.lock().landers.remove(&transfer);
        match (lander, self.link.get()) {
            (Some(lander), _) => lander.finish(Err(LinkError::Transfer {
                transfer,
                why: "it was given up".to_owned(),
            })),
            (None, Some(link)) => link.cancel_bulk(from, transfer),
            (None, None) => {}
        }
    }

    /// All bytes of a transfer are here, or no more will come.
    fn landed(
        self: &Arc<Cluster>,
        local: &Local,
        key: ObjectKey,
        transfer: u64,
        draft: Draft,
        outcome: Result<(), LinkError>,
    ) {
        self.with(local, |books, todo| {
            let from = books.transfers.remove(&transfer).map(|(from, _)| from);
            let left = match books.wants.get_mut(&key) {
                Some(want) => {
                    want.from = from;
                    want.draft.replace(draft)
                }
                None => Some(draft),
            };
            left.into_iter().for_each(|draft| todo.later.draft(draft));
            match outcome {
                Ok(()) => books.pulls.fetched(key, transfer, &mut todo.pulls),
                Err(_) => books.pulls.fetch_failed(key, transfer, &mut todo.pulls),
            }
        });
    }

    /// The bytes are here, or nobody wants them.
    pub(super) fn ticket_gone(self: &Arc<Cluster>, key: ObjectKey) {
        if key.owner != self.me {
            return;
        }
        let _ = local::with(|local| {
            self.with(local, |books, todo| {
                books.tickets.remove(&key.number);
                self.forget_lineage(books, todo, key.number);
                if !books.exports.contains_key(&key.number) {
                    books.owners.forget(key, &mut todo.effects);
                }
            });
        });
    }

    /// Asks for a value that has references in it, for its proxy.
    pub(super) fn fetch_value(self: &Arc<Cluster>, local: &Local, key: ObjectKey, from: NodeId) {
        let asked = self.with(local, |books, _| {
            let transfer = books.number() | VALUE;
            let asked = books.peers.contains_key(&from)
                && self.send_surely(
                    books,
                    from,
                    &Frame::Fetch {
                        key,
                        transfer,
                        near: false,
                    },
                );
            if asked {
                books.values.insert(transfer, (from, key));
            }
            asked
        });
        if !asked && let Some(record) = self.proxies.get(key) {
            let e = lost(key, from, "the node that has it is gone");
            local.engine.settle_error(local, &record, e);
        }
    }

    /// Another node wants the bytes of an object.
    pub(super) fn on_fetch(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        key: ObjectKey,
        (transfer, near): (u64, bool),
    ) {
        let record = self
            .find(key)
            .filter(|r| cell::phase(r.state()) == cell::Phase::Done);
        let Some(record) = record else {
            return self.tell_fetched(local, from, transfer, None);
        };
        let elsewhere = {
            let books = self.books.lock();
            key.owner == self.me
                && books.tickets.contains_key(&key.number)
                && !books.held.contains_key(&key)
        };
        if elsewhere {
            // Another node has it. Who waits for it here, for another, could wait in a circle.
            return self.tell_fetched(local, from, transfer, None);
        }
        let Told::Value(_, refers) = take::told(&record) else {
            return self.tell_fetched(local, from, transfer, None);
        };
        let cluster = Arc::clone(self);
        // It may have to come back from disk first.
        self.errand(move |local| {
            if refers || !take::is_stored(&record) {
                let value = ValueParcel::of_message(&record)
                    .ok()
                    .map(|value| cluster.out_value(value));
                cluster.with(local, |books, todo| {
                    let value = value.map(|v| cluster.export_value(books, todo, from, v));
                    cluster.send_surely(books, from, &Frame::Fetched { transfer, value });
                });
                return;
            }
            if near {
                return cluster.show(local, from, transfer, record);
            }
            match (PinnedRef::new(record), cluster.link.get()) {
                (Ok(pinned), Some(link)) => {
                    let (again, bytes) = (Arc::downgrade(&cluster), Bytes::from_owner(pinned));
                    let done = move |sent: Result<(), LinkError>| {
                        // Nothing of it went, and who waits for it hears of that by nobody else.
                        if let (Err(LinkError::NoRoom { .. }), Some(cluster)) =
                            (sent, again.upgrade())
                        {
                            let told = Arc::clone(&cluster);
                            cluster.errand(move |local| {
                                told.tell_fetched(local, from, transfer, None)
                            });
                        }
                    };
                    link.send_bulk(from, transfer, bytes, Box::new(done));
                }
                _ => cluster.tell_fetched(local, from, transfer, None),
            }
        });
    }

    /// The object here, whatever it is to this node.
    fn find(&self, key: ObjectKey) -> Option<RawRef> {
        let books = self.books.lock();
        let copy = books.copies.get(&key).filter(|copy| copy.whole);
        if let Some(record) = books.held.get(&key).or(copy.map(|copy| &copy.record)) {
            return Some(record.clone());
        }
        if let (true, Some(export)) = (key.owner == self.me, books.exports.get(&key.number)) {
            return match export {
                Export::Object(record, _) => Some(record.clone()),
                Export::Actor(_) => None,
            };
        }
        drop(books);
        // Of another node; or of this one, with replicas.
        self.proxies.get(key)
    }

    /// A node died: what was asked of it does not come. The pulls' machine has seen to the rest.
    pub(super) fn values_died(self: &Arc<Cluster>, local: &Local, node: NodeId) {
        let keys: Vec<ObjectKey> = {
            let mut books = self.books.lock();
            let its = books.values.iter().filter(|(_, (from, _))| *from == node);
            let its: Vec<_> = its.map(|(number, (_, key))| (*number, *key)).collect();
            for (number, _) in &its {
                books.values.remove(number);
            }
            its.into_iter().map(|(_, key)| key).collect()
        };
        for key in keys {
            if let Some(record) = self.proxies.get(key) {
                let e = lost(key, node, "it died before it sent the value");
                local.engine.settle_error(local, &record, e);
            }
        }
    }

    pub(super) fn tell_fetched(
        self: &Arc<Cluster>,
        local: &Local,
        to: NodeId,
        transfer: u64,
        value: Option<ValueBody>,
    ) {
        self.with(local, |books, _| {
            self.send_surely(books, to, &Frame::Fetched { transfer, value });
        });
    }

    /// What was asked for does not come as bytes of its own.
    pub(super) fn on_fetched(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        transfer: u64,
        value: Option<ValueBody>,
    ) {
        let value = value.map(|value| self.import_value(local, from, value));
        if transfer & VALUE == 0 {
            let known = {
                let books = self.books.lock();
                books
                    .transfers
                    .get(&transfer)
                    .is_some_and(|(f, _)| *f == from)
            };
            if known {
                self.give_up(from, transfer);
            }
            return;
        }
        let key = {
            let mut books = self.books.lock();
            match books.values.get(&transfer) {
                Some((f, key)) if *f == from => {
                    let key = *key;
                    books.values.remove(&transfer);
                    key
                }
                _ => return,
            }
        };
        let Some(record) = self.proxies.get(key) else {
            return;
        };
        match value {
            Some(Ok(value)) => self.settle(local, record, value),
            Some(Err(e)) => local.engine.settle_error(local, &record, e),
            None => {
                let e = lost(
                    key,
                    from,
                    "it has the value no more, or that has references inside and is more than travels at once (12 MiB)",
                );
                local.engine.settle_error(local, &record, e);
            }
        }
    }
}
