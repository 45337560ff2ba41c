//! Leaving in order: nothing new is taken, what runs is finished, then the node goes.
//!
//! Invariant: a call that was taken is finished, or its submitter is told, whatever the time. Left out: moving actors and objects
//! to other nodes: actors whose history others keep go on there, as after a death, others end with the node, and objects that only it has
//! are waited for while somebody needs them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Cluster;
use crate::base::{Error, NodeId};
use crate::exec::Local;
use crate::wire::Frame;

/// How often it is looked whether everything is finished.
const LOOK: Duration = Duration::from_millis(5);

impl Cluster {
    /// Takes nothing new, waits until what others need of this node is done, and leaves.
    ///
    /// # Errors
    /// That this took longer, and what was left; it left all the same.
    pub fn drain(self: &Arc<Cluster>, local: &Local, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now().checked_add(timeout);
        self.membership.drain();
        self.with(local, |books, _| {
            books.draining = true;
            books.leasing.drain();
            books.replicas.leave();
            let version = books.version();
            let view = self.own_view(books, version, true);
            books.view.merge(self.me, view.clone());
            let view = self.spell(&view);
            let peers: Vec<NodeId> = books.peers.keys().copied().collect();
            for to in peers {
                self.send_surely(books, to, &Frame::View { view: view.clone() });
            }
        });
        let left = loop {
            let (calls, objects) = {
                let books = self.books.lock();
                let replicas = books.replicas.size().needed;
                (books.running.len(), books.held.len() + replicas)
            };
            if calls == 0 && objects == 0 {
                break None;
            }
            if deadline.is_some_and(|d| Instant::now() >= d) {
                break Some((calls, objects));
            }
            let mut seen = self.change.0.lock();
            self.change.1.wait_for(&mut seen, LOOK);
        };
        self.stop(local);
        match left {
            None => Ok(()),
            Some((calls, objects)) => Err(Error::Timeout {
                waited: timeout,
                awaited: format!(
                    "{calls} calls of other nodes to end here, and {objects} results for them to be fetched or dropped"
                ),
            }),
        }
    }
}
