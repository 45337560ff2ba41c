//! Whoever reads an object that another node has: it waits for the bytes here, with its CPU lent.
//!
//! Invariant: of the readers of one object on this node and whoever makes a replica of it here, one pulls, and the others copy what it
//! has. Left out: how bytes come (`objects`).

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::books::{Came, Want};
use super::objects::ORIGIN;
use super::{Cluster, lost};
use crate::base::{Error, NodeId, ObjectKey, Origin};
use crate::exec::local;
use crate::exec::pin::PinnedRef;
use crate::store::{self, Distant, Draft};

/// Stands for the bytes of an object that another node has.
struct There {
    cluster: Weak<Cluster>,
    key: ObjectKey,
    at: NodeId,
}

impl Distant for There {
    fn origin(&self) -> Origin {
        ORIGIN
    }

    fn fetch(&self, draft: Draft) -> Result<(Draft, store::Came), Error> {
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

/// What came of a wish for bytes.
enum Pulled {
    Came(Draft, store::Came),
    /// A replica of them is being made here: here is the draft again.
    Comes(Draft),
}

impl Cluster {
    /// What stands for the bytes of an object that this node has.
    pub(super) fn distant(self: &Arc<Cluster>, key: ObjectKey, at: NodeId) -> Box<dyn Distant> {
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
    ) -> Result<(Draft, store::Came), Error> {
        /// As often may replicas begin, and be given up, while they are waited for.
        const REPLICAS: usize = 100;
        for _ in 0..REPLICAS {
            let (held, copied) = {
                let books = self.books.lock();
                (
                    books.held.contains_key(&key),
                    books.copies.contains_key(&key),
                )
            };
            if held {
                self.copy_own(key, &mut draft)?;
                return Ok((draft, store::Came::Here));
            }
            // A replica may be given up just now: then the bytes are asked for as any.
            if copied && self.copy_own(key, &mut draft).is_ok() {
                return Ok((draft, store::Came::Here));
            }
            let len = draft.len();
            match self.pull(key, at, draft) {
                Ok(Pulled::Came(draft, came)) => return Ok((draft, came)),
                Ok(Pulled::Comes(back)) => draft = back,
                Err(why) => return self.read_durable(key, len, why),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let what = format!(
            "the bytes of object {key} were there: its replicas here were given up again and again"
        );
        let what = Arc::from(what);
        Err(Error::NodeLost { node: at, what })
    }

    fn pull(
        self: &Arc<Cluster>,
        key: ObjectKey,
        at: NodeId,
        draft: Draft,
    ) -> Result<Pulled, Error> {
        let (tell, ended) = sync_channel(1);
        let len = draft.len();
        let back = local::with(|local| {
            self.with(local, |books, todo| {
                if self.stopping() {
                    return None;
                }
                if books.held.contains_key(&key) {
                    let _ = tell.send(Ok(Came::Here(Some(draft))));
                    return None;
                }
                // A replica's: whoever makes it waits for the end of that, and so does who reads.
                if books.wants.contains_key(&key) {
                    return Some(draft);
                }
                let want = Want {
                    draft: Some(draft),
                    len,
                    from: None,
                    replica: false,
                    tell,
                };
                books.wants.insert(key, want);
                books.pulls.want(key, len as u64, &mut todo.pulls);
                None
            })
        })?;
        if let Some(draft) = back {
            return Ok(Pulled::Comes(draft));
        }
        let own = match ended.recv() {
            Ok(Ok(Came::Bytes(draft, from))) => {
                return Ok(Pulled::Came(draft, store::Came::Node(from.unwrap_or(at))));
            }
            Ok(Ok(Came::Here(draft))) => draft,
            Ok(Err(why)) => {
                let why = self.why_not_again(key).unwrap_or(why);
                let what = Arc::from(format!("the bytes of object {key} were there: {why}"));
                return Err(Error::NodeLost { node: at, what });
            }
            Err(_) => return Err(Error::ShutDown),
        };
        let mut draft = match own {
            Some(draft) => draft,
            None => local::with(|local| local.engine.create(local, len, ORIGIN))??,
        };
        self.copy_own(key, &mut draft)?;
        Ok(Pulled::Came(draft, store::Came::Here))
    }

    /// The bytes lie in this node already, under another record.
    fn copy_own(&self, key: ObjectKey, draft: &mut Draft) -> Result<(), Error> {
        let gone = || lost(key, self.me, "this node has no copy any more");
        let record = {
            let books = self.books.lock();
            let copy = books.copies.get(&key).map(|copy| &copy.record);
            books.held.get(&key).or(copy).cloned()
        };
        let record = record.ok_or_else(gone)?;
        let pinned = PinnedRef::new(record)?;
        if pinned.bytes().len() != draft.len() {
            return Err(gone());
        }
        draft.write_at(0, pinned.bytes());
        Ok(())
    }
}
