//! Objects' bytes on their way: asked for, served, and landed in the store.
//!
//! Whoever reads an object that another node has waits for its bytes here, with its CPU lent; they land in the draft that becomes
//! the object. Who has them is asked in this order: the node that is known to have a copy, then the owner.
//!
//! Invariant: every transfer that was asked for ends: by its last byte, by a refusal, or by the death of who was asked. Left
//! out: who has copies (`core::owners`).

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Weak};

use super::books::{Export, Transfer};
use super::{Cluster, lost};
use crate::base::{Error, NodeId, ObjectKey, Origin};
use crate::exec::far::ValueParcel;
use crate::exec::far::take::{self, Told};
use crate::exec::pin::PinnedRef;
use crate::exec::{Local, RawRef, cell};
use crate::link::{Bytes, Landing, LinkError};
use crate::store::{Distant, Draft};
use crate::wire::{Frame, ValueBody};

/// Stands for the bytes of an object that another node has.
struct There {
    cluster: Weak<Cluster>,
    key: ObjectKey,
    at: NodeId,
}

impl Distant for There {
    fn origin(&self) -> Origin {
        Origin::Result("an object of another node")
    }

    fn fetch(&self, draft: Draft) -> Result<Draft, Error> {
        match self.cluster.upgrade() {
            Some(cluster) => cluster.fetch(self.key, self.at, draft),
            None => Err(Error::ShutDown),
        }
    }
}

impl Drop for There {
    fn drop(&mut self) {
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.ticket_gone(self.key);
        }
    }
}

/// A draft that bytes land in.
struct Lander {
    draft: Option<Draft>,
    done: SyncSender<Result<Draft, LinkError>>,
}

impl Landing for Lander {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        if let Some(draft) = &mut self.draft {
            draft.write_at(offset as usize, bytes);
        }
    }

    fn finish(mut self: Box<Self>, outcome: Result<(), LinkError>) {
        if let Some(draft) = self.draft.take() {
            let _ = self.done.send(outcome.map(|()| draft));
        }
    }
}

impl Cluster {
    /// What stands for the bytes of an object that this node has.
    pub(super) fn distant(
        self: &Arc<Cluster>,
        key: ObjectKey,
        at: NodeId,
        _len: u64,
    ) -> Box<dyn Distant> {
        Box::new(There {
            cluster: Arc::downgrade(self),
            key,
            at,
        })
    }

    /// Has the bytes of an object brought into the draft. Blocks.
    fn fetch(
        self: &Arc<Cluster>,
        key: ObjectKey,
        at: NodeId,
        mut draft: Draft,
    ) -> Result<Draft, Error> {
        let mut last = String::new();
        let mut sources = vec![at];
        if key.owner != at {
            sources.push(key.owner);
        }
        for from in sources {
            if from == self.me {
                match self.copy_own(key, &mut draft) {
                    Ok(()) => return Ok(draft),
                    Err(e) => last = e.to_string(),
                }
                continue;
            }
            let len = draft.len();
            match self.pull(key, from, draft) {
                Ok(draft) => {
                    self.arrived(key);
                    return Ok(draft);
                }
                Err((why, back)) => {
                    last = why;
                    match back {
                        Some(back) => draft = back,
                        None => {
                            let store = crate::exec::local::with(|local| {
                                local.engine.create(
                                    local,
                                    len,
                                    Origin::Result("an object of another node"),
                                )
                            });
                            draft = store.and_then(|d| d)?;
                        }
                    }
                }
            }
        }
        Err(Error::NodeLost {
            node: at,
            what: Arc::from(format!("the bytes of object {key} were there: {last}")),
        })
    }

    /// One try.
    fn pull(
        self: &Arc<Cluster>,
        key: ObjectKey,
        from: NodeId,
        draft: Draft,
    ) -> Result<Draft, (String, Option<Draft>)> {
        let Some(link) = self.link.get() else {
            return Err(("this node has no link".to_owned(), Some(draft)));
        };
        let (done, ended) = sync_channel(1);
        let len = draft.len() as u64;
        let transfer = {
            let mut books = self.books.lock();
            if !books.peers.contains_key(&from) {
                return Err((format!("node {from} is gone"), Some(draft)));
            }
            let transfer = books.number();
            books.transfers.insert(transfer, Transfer::Bulk { from });
            let lander = Lander {
                draft: Some(draft),
                done,
            };
            link.expect_bulk(from, transfer, len, Box::new(lander));
            self.send_surely(&mut books, from, &Frame::Fetch { key, transfer });
            transfer
        };
        let outcome = ended.recv();
        self.books.lock().transfers.remove(&transfer);
        match outcome {
            Ok(Ok(draft)) => Ok(draft),
            Ok(Err(e)) => Err((e.to_string(), None)),
            Err(_) => Err(("the transfer was given up".to_owned(), None)),
        }
    }

    /// The bytes lie in this node already, under another record.
    fn copy_own(&self, key: ObjectKey, draft: &mut Draft) -> Result<(), Error> {
        let gone = || lost(key, self.me, "this node has no copy any more");
        let record = self.books.lock().held.get(&key).cloned().ok_or_else(gone)?;
        let pinned = PinnedRef::new(record)?;
        if pinned.bytes().len() != draft.len() {
            return Err(gone());
        }
        draft.write_at(0, pinned.bytes());
        Ok(())
    }

    /// A copy is here now, and can be had from here.
    fn arrived(self: &Arc<Cluster>, key: ObjectKey) {
        let _ = crate::exec::local::with(|local| {
            self.with(local, |books, todo| {
                books.owners.copied(key, &mut todo.effects)
            });
        });
    }

    /// The bytes are here, or nobody wants them.
    fn ticket_gone(self: &Arc<Cluster>, key: ObjectKey) {
        if key.owner != self.me {
            return;
        }
        let _ = crate::exec::local::with(|local| {
            self.with(local, |books, todo| {
                books.tickets.remove(&key.number);
                if !books.exports.contains_key(&key.number) {
                    books.owners.forget(key, &mut todo.effects);
                }
            });
        });
    }

    /// Asks for a value that has references in it, for its proxy.
    pub(super) fn fetch_value(self: &Arc<Cluster>, local: &Local, key: ObjectKey, from: NodeId) {
        let asked = self.with(local, |books, _| {
            let transfer = books.number();
            books
                .transfers
                .insert(transfer, Transfer::Value { from, key });
            let asked = books.peers.contains_key(&from)
                && self.send_surely(books, from, &Frame::Fetch { key, transfer });
            if !asked {
                books.transfers.remove(&transfer);
            }
            asked
        });
        if !asked && let Some(record) = self.proxies.get(key) {
            local.engine.settle_error(
                local,
                &record,
                lost(key, from, "the node that has it is gone"),
            );
        }
    }

    /// Another node wants the bytes of an object.
    pub(super) fn on_fetch(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        key: ObjectKey,
        transfer: u64,
    ) {
        let record = self
            .find(key)
            .filter(|r| cell::phase(r.state()) == cell::Phase::Done);
        let Some(record) = record else {
            return self.tell_fetched(local, from, transfer, None);
        };
        let Told::Value(_, refers) = take::told(&record) else {
            return self.tell_fetched(local, from, transfer, None);
        };
        let cluster = Arc::clone(self);
        // It may have to come back from disk first.
        self.errand(move |local| {
            if refers || !take::is_stored(&record) {
                let value = ValueParcel::of(&record)
                    .ok()
                    .map(|value| cluster.out_value(value));
                cluster.with(local, |books, todo| {
                    let value = value.map(|v| cluster.export_value(books, todo, from, v));
                    cluster.send_surely(books, from, &Frame::Fetched { transfer, value });
                });
                return;
            }
            match (PinnedRef::new(record), cluster.link.get()) {
                (Ok(pinned), Some(link)) => {
                    link.send_bulk(from, transfer, Bytes::from_owner(pinned), Box::new(|_| {}));
                }
                _ => cluster.tell_fetched(local, from, transfer, None),
            }
        });
    }

    /// The object here, whatever it is to this node.
    fn find(&self, key: ObjectKey) -> Option<RawRef> {
        let books = self.books.lock();
        if let Some(record) = books.held.get(&key) {
            return Some(record.clone());
        }
        if key.owner == self.me {
            return match books.exports.get(&key.number) {
                Some(Export::Object(record, _)) => Some(record.clone()),
                _ => None,
            };
        }
        drop(books);
        self.proxies.get(key)
    }

    /// A node died: what was asked of it does not come. Bytes that it was sending are given up by the link.
    pub(super) fn transfers_died(self: &Arc<Cluster>, local: &Local, node: NodeId) {
        let given_up: Vec<(u64, Option<ObjectKey>)> = {
            let mut books = self.books.lock();
            let its = books.transfers.iter().filter_map(|(number, t)| match t {
                Transfer::Bulk { from } if *from == node => Some((*number, None)),
                Transfer::Value { from, key } if *from == node => Some((*number, Some(*key))),
                _ => None,
            });
            let its: Vec<_> = its.collect();
            its.iter()
                .for_each(|(number, _)| drop(books.transfers.remove(number)));
            its
        };
        for (transfer, key) in given_up {
            match (
                key.and_then(|key| Some((key, self.proxies.get(key)?))),
                self.link.get(),
            ) {
                (Some((key, record)), _) => {
                    local.engine.settle_error(
                        local,
                        &record,
                        lost(key, node, "it died before it sent the value"),
                    );
                }
                (None, Some(link)) => link.cancel_bulk(node, transfer),
                (None, None) => {}
            }
        }
    }

    fn tell_fetched(
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

    /// A transfer does not come as bytes of its own.
    pub(super) fn on_fetched(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        transfer: u64,
        value: Option<ValueBody>,
    ) {
        let known = {
            let mut books = self.books.lock();
            match books.transfers.get(&transfer) {
                Some(Transfer::Bulk { from: f } | Transfer::Value { from: f, .. })
                    if *f == from =>
                {
                    books.transfers.remove(&transfer)
                }
                _ => None,
            }
        };
        match known {
            None => {
                if let Some(value) = value {
                    drop(self.import_value(local, from, value));
                }
            }
            Some(Transfer::Bulk { .. }) => {
                if let Some(value) = value {
                    drop(self.import_value(local, from, value));
                }
                if let Some(link) = self.link.get() {
                    link.cancel_bulk(from, transfer);
                }
            }
            Some(Transfer::Value { key, .. }) => {
                let value = value.map(|value| self.import_value(local, from, value));
                let Some(record) = self.proxies.get(key) else {
                    return;
                };
                match value {
                    Some(Ok(value)) => local.engine.settle_value(local, &record, value),
                    Some(Err(e)) => local.engine.settle_error(local, &record, e),
                    None => {
                        let e = lost(key, from, "it has the value no more");
                        local.engine.settle_error(local, &record, e);
                    }
                }
            }
        }
    }
}
