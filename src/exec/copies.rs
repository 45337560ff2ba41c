//! Copies of an object that were asked for: on other nodes, and at a URL outside of all.
//!
//! Invariant: an object whose copies could not all be made has none when its last reference is gone, but for what cannot be reached
//! then. Left out: the nodes (`node`), the URL (`store`).

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cell::RawRef;
use super::engine::Engine;
use super::local::Local;
use super::options::Extra;
use super::pin::PinnedRef;
use crate::base::{Demand, Error};
use crate::store::Durables;

/// Which are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Copies<'a> {
    /// So many other nodes.
    pub replicas: u32,
    /// One at a URL: this one, or else the one of the settings.
    pub durable: Option<Option<&'a Path>>,
    /// How long they may take together.
    pub timeout: Duration,
}

/// In a record of a node that is of no cluster: the end of its durable copy.
struct Ticket {
    durables: Arc<Durables>,
    name: Arc<str>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.durables.forget(&self.name);
    }
}

/// An object's bytes, in place.
struct Archive(PinnedRef);

impl AsRef<[u8]> for Archive {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl Engine {
    /// Copies that outlive this process.
    pub(crate) fn durables(&self) -> &Arc<Durables> {
        &self.durables
    }

    /// What an object of this number carries that is about to have copies: so its last reference is told of.
    pub fn copied(&self, number: u64) -> Option<Box<Extra>> {
        if let Some(far) = self.far() {
            return Some(far.replicated(number));
        }
        let ticket = Ticket {
            durables: Arc::clone(&self.durables),
            name: self.durables.own(number),
        };
        Some(Box::new(Extra {
            demand: None,
            ticket: Some(Box::new(ticket)),
            ..Extra::of_actor(Demand::NONE)
        }))
    }

    /// Has copies made of an object that carries that. Blocks until they are there, with the CPU lent.
    ///
    /// # Errors
    /// [`Error::TooFewReplicas`], [`Error::NotDurable`].
    pub fn make_copies(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        wanted: Copies<'_>,
    ) -> Result<(), Error> {
        let far = self.far();
        if far.is_none() && wanted.replicas > 0 {
            return Err(Error::TooFewReplicas {
                wanted: wanted.replicas,
                made: 0,
                nodes: 0,
                why: Arc::from("this node is of no cluster"),
            });
        }
        let _block = self.block(local, ("copies of an object", record.id, 1));
        super::tasks::aside(|| {
            let begun = Instant::now();
            let durable = match wanted.durable {
                Some(at) => {
                    let archive = Archive(PinnedRef::new(record.clone())?);
                    let name = self.durables.own(record.id);
                    let written = self.durables.write(at, &name, archive, wanted.timeout);
                    Some(written?)
                }
                None => None,
            };
            let Some(far) = far else { return Ok(()) };
            let left = wanted.timeout.saturating_sub(begun.elapsed());
            far.replicate(local, record, (wanted.replicas, durable), left)
        })
    }
}
