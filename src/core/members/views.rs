//! What each member says of itself, and what of it is still to be passed on.
//!
//! A view is opaque here: at most [`VIEW_MAX`] bytes with a version, of which the newest stands. Each is passed on a
//! few times by everybody who learnt it, the newest first, in whatever room datagrams have. That reaches nearly all;
//! who was missed gets the next version, and each view is told again now and then.
//!
//! Invariant: one view a member, never older than one that was seen; nothing of those who are gone. Left out: what
//! views mean.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::frame::{VIEW_HEADER, put_view};
use super::{DATAGRAM_MAX, VIEW_MAX};
use crate::base::NodeId;

/// What a member is up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// It takes work.
    #[default]
    Serving,
    /// It finishes what it has and takes no more.
    Draining,
    /// It is about to go, on its own wish.
    Leaving,
}

/// A view as it travels.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    pub node: NodeId,
    pub version: u64,
    pub duty: Duty,
    pub bytes: &'a [u8],
}

#[derive(Debug)]
struct View {
    version: u64,
    duty: Duty,
    bytes: Vec<u8>,
    /// Its place in the queue: times it is still to be sent, and when it came.
    queued: Option<(u8, u64)>,
}

/// The views of all members.
#[derive(Debug, Default)]
pub struct Views {
    of: BTreeMap<NodeId, View>,
    /// Most sends left first, then newest first.
    queue: BTreeSet<(Reverse<u8>, Reverse<u64>, NodeId)>,
    serial: u64,
}

impl Views {
    /// Takes a view that is newer than what is known, to be passed on `sends` times. True if it was.
    pub fn take(&mut self, item: &Item<'_>, sends: u8) -> bool {
        debug_assert!(item.bytes.len() <= VIEW_MAX);
        self.serial += 1;
        let view = self.of.entry(item.node).or_insert(View {
            version: 0,
            duty: Duty::Serving,
            bytes: Vec::new(),
            queued: None,
        });
        if item.version <= view.version {
            return false;
        }
        if let Some((left, serial)) = view.queued.take() {
            self.queue
                .remove(&(Reverse(left), Reverse(serial), item.node));
        }
        view.version = item.version;
        view.duty = view.duty.max(item.duty);
        view.bytes.clear();
        view.bytes.extend_from_slice(item.bytes);
        if sends > 0 {
            view.queued = Some((sends, self.serial));
            self.queue
                .insert((Reverse(sends), Reverse(self.serial), item.node));
        }
        true
    }

    /// What is known of a member.
    pub fn get(&self, node: NodeId) -> Option<(u64, Duty, &[u8])> {
        let view = self.of.get(&node)?;
        Some((view.version, view.duty, &view.bytes))
    }

    /// What a member is up to.
    pub fn duty(&self, node: NodeId) -> Duty {
        self.of.get(&node).map_or(Duty::Serving, |view| view.duty)
    }

    /// A member goes, on its own wish.
    pub fn leaves(&mut self, node: NodeId) {
        if let Some(view) = self.of.get_mut(&node) {
            view.duty = Duty::Leaving;
        } else {
            let (bytes, queued) = (Vec::new(), None);
            self.of.insert(
                node,
                View {
                    version: 0,
                    duty: Duty::Leaving,
                    bytes,
                    queued,
                },
            );
        }
    }

    /// Forgets a member.
    pub fn remove(&mut self, node: NodeId) {
        if let Some(View {
            queued: Some((left, serial)),
            ..
        }) = self.of.remove(&node)
        {
            self.queue.remove(&(Reverse(left), Reverse(serial), node));
        }
    }

    /// Whether anything is still to be passed on.
    pub fn pending(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Appends what there is room for, and counts it as sent.
    pub fn fill(&mut self, to: &mut Vec<u8>) {
        let mut sent = Vec::new();
        // Views differ in length: a few that do not fit are passed over, not the whole queue.
        let mut misses = 0;
        for &(Reverse(left), Reverse(serial), node) in &self.queue {
            let Some(view) = self.of.get(&node) else {
                continue;
            };
            if to.len() + VIEW_HEADER + view.bytes.len() > DATAGRAM_MAX {
                misses += 1;
                if misses == 4 || to.len() + VIEW_HEADER > DATAGRAM_MAX {
                    break;
                }
                continue;
            }
            put_view(
                to,
                &Item {
                    node,
                    version: view.version,
                    duty: view.duty,
                    bytes: &view.bytes,
                },
            );
            sent.push((left, serial, node));
        }
        for (left, serial, node) in sent {
            self.queue.remove(&(Reverse(left), Reverse(serial), node));
            let next = (left > 1).then_some((left - 1, serial));
            if let Some((left, serial)) = next {
                self.queue.insert((Reverse(left), Reverse(serial), node));
            }
            if let Some(view) = self.of.get_mut(&node) {
                view.queued = next;
            }
        }
    }

    /// How many are known, and how many are to be passed on.
    #[cfg(test)]
    pub fn len(&self) -> (usize, usize) {
        (self.of.len(), self.queue.len())
    }
}
