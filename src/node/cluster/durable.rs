//! Durable copies of objects: read when no node has the bytes any more, deleted when nobody needs them.
//!
//! References say where the copy is, so whoever has one finds it, whatever its own settings are.
//!
//! Invariant: a copy is read by who waits for it, with no lock held. The owner's copies that others need are left to them when its part
//! in the cluster ends. Left out: who needs them after the owner's death (`core::replicas`), and how they are written (`store`).

use std::sync::Arc;

use super::books::{Books, Durable};
use super::objects::ORIGIN;
use super::{Cluster, Todo};
use crate::base::{Error, ObjectKey};
use crate::exec::local;
use crate::store::{self, Draft};

/// What the copy of an object is called.
pub(super) fn name(key: ObjectKey) -> Arc<str> {
    store::copy_name(key.owner.get(), key.number)
}

impl Cluster {
    /// An object of this node has a durable copy.
    pub(super) fn is_durable(&self, books: &mut Books, number: u64, at: Arc<str>, len: u64) {
        let owner = self.me;
        let key = ObjectKey { owner, number };
        books.durables.insert(key, Durable { at, len });
    }

    /// Reads an object's durable copy, if it has one, since no node gave its bytes; else that is why there are none.
    pub(super) fn read_durable(
        &self,
        key: ObjectKey,
        len: usize,
        why: Error,
    ) -> Result<(Draft, store::Came), Error> {
        let at = {
            let books = self.books.lock();
            let durable = books.durables.get(&key).filter(|d| d.len == len as u64);
            durable.map(|durable| Arc::clone(&durable.at))
        };
        let at = match at {
            Some(at) if !self.is_over() => at,
            _ => return Err(why),
        };
        let mut draft = local::with(|local| local.engine.create(local, len, ORIGIN))??;
        self.durables.read(&at, &name(key), &mut draft)?;
        Ok((draft, store::Came::Disk))
    }

    /// The last reference here is gone.
    pub(super) fn durable_dropped(&self, books: &mut Books, key: ObjectKey) {
        if key.owner == self.me {
            if books.durables.remove(&key).is_some() {
                self.durables.forget(&name(key));
            }
        } else if !books.replicas.watches(key) {
            books.durables.remove(&key);
        }
    }

    /// The owner is dead, and nobody needs the copy.
    pub(super) fn durable_unneeded(&self, books: &mut Books, key: ObjectKey, first: bool) {
        // Whoever was cut off from the others takes all of them for dead.
        if self.is_over() || self.proxies.has(key) {
            return;
        }
        let known = books.durables.remove(&key).map(|durable| durable.at);
        let guess = || self.durables.usual().filter(|_| first).cloned();
        if let Some(at) = known.or_else(guess) {
            self.durables.delete(&at, name(key));
        }
    }

    /// This node's part in the cluster is over: copies that others need are theirs.
    pub(super) fn leave_durables(&self, books: &mut Books, _: &mut Todo) {
        let Books {
            durables, exports, ..
        } = books;
        let lent = |key: &ObjectKey| key.owner == self.me && exports.contains_key(&key.number);
        for (key, _) in durables.extract_if(|key, _| lent(key)) {
            self.durables.leave(&name(key));
        }
    }
}
