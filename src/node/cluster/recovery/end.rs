//! The other end of a handle to an actor whose history is kept: what the handle asks for is handed to this node's caller.
//!
//! Invariant: nothing here waits for another node. Left out: what follows (`caller`).

use std::sync::Arc;

use super::caller::{Asked, KeptCaller};
use super::load::object;
use crate::base::{ActorKey, ObjectKey};
use crate::exec::far::{FarActor, Parcel};
use crate::exec::{Local, RawRef};
use crate::wire::Frame;

/// See the file.
pub(super) struct End(pub Arc<KeptCaller>);

impl FarActor for End {
    fn call(&self, local: &Local, record: RawRef) {
        // What is to be joined is joined now, where it may block.
        if Parcel::may_block(&record)
            && let Err(e) = Parcel::pack(local, &record)
        {
            return local.engine.settle_error(local, &record, e);
        }
        self.0.post(local, Asked::Call(record));
    }

    fn kill(&self, restart: bool) {
        let _ = crate::exec::local::with(|local| self.0.post(local, Asked::Kill(restart)));
    }

    fn gone(&self) {
        let _ = crate::exec::local::with(|local| self.0.cell_gone(local));
    }

    fn key(&self) -> Option<ObjectKey> {
        Some(object(self.0.at.lock().0))
    }

    fn kept(&self) -> Option<(ActorKey, u64)> {
        Some((self.0.actor, self.0.at.lock().1))
    }

    fn cancel(&self, record: &RawRef) {
        let Some(cluster) = self.0.cluster.upgrade() else {
            return;
        };
        let to = self.0.at.lock().0.host;
        let number = record.id;
        let _ = crate::exec::local::with(|local| {
            if to == cluster.me {
                return cluster.on_cancel(local, to, number);
            }
            cluster.with(local, |books, _| {
                cluster.send_surely(books, to, &Frame::Cancel { number });
            });
        });
    }
}
