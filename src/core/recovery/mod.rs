//! Actors that keep their history: what is logged where, when outcomes may be told, and who goes on after a death.
//!
//! The node that runs such an actor, its [`Host`], numbers the calls that may change the state in the order in which they run, and
//! has each written down by the actor's [`Backup`]s before its outcome is told. A checkpoint (the state, where in the order it
//! stands, and the outcomes that callers may still ask for: [`Dedup`]) makes the log shorter. When the host dies a backup
//! takes over: it makes the actor from the checkpoint, runs the logged calls again in their order, and goes on with what
//! the [`Caller`]s send again.
//!
//! One record in the control store says who hosts the actor, as which incarnation, and who its backups are. It changes by
//! compare-and-swap alone: a takeover and a change of backups each need it, so that of two sides of a partition one goes on. A node
//! that was declared dead never comes back under its number; a host that goes on regardless is refused by its backups.
//!
//! A result that lies with the host alone is not settled with its call: it is made again by running the log, or goes along with a
//! checkpoint, and whoever went on is asked for it when it is lost. To ask runs nothing.
//!
//! Calls that only look at the state (`&self`) are not logged. Before their outcome is told, every backup has confirmed
//! after they ran that nobody else hosts the actor, and has what they may have seen.
//!
//! When host and backups are dead together, an actor whose checkpoints are written outside of all nodes goes on from the last of those
//! ([`restore`]), without the calls that were answered since.
//!
//! Invariant: what was told to a caller is in the history of every backup that the record names, or it names none
//! because there is no other node; each logged call counts once in the state, in each caller's order; at most one incarnation
//! tells outcomes. A call that only looks and is sent again may see calls that its caller made after it. Left out: running
//! calls, archives of states, how payloads look (`P`, which is cheap to clone), and links, which deliver once and in
//! order between living nodes.

pub mod backup;
pub mod caller;
pub mod choose;
pub mod dedup;
pub mod host;
pub mod restore;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::base::{ActorKey, NodeId};
pub use backup::Backup;
pub use caller::Caller;
pub use dedup::Dedup;
pub use host::Host;

/// A call of an actor: the node that made it, and its number among the calls of that node to that actor, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    /// Who called.
    pub node: NodeId,
    /// Its number there. Calls of one node are sent in the order of their numbers.
    pub number: u64,
}

/// Which of its calls a node has settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// All below this,
    pub below: u64,
    /// but these, in order: what they gave lies with the host alone, and may be asked for again.
    pub but: Vec<u64>,
}

impl Settled {
    /// All of them.
    pub fn below(below: u64) -> Settled {
        let but = Vec::new();
        Settled { below, but }
    }
}

/// A call in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<P> {
    /// Its place in the order of all calls that may have changed the state, from 1 on.
    pub order: u64,
    /// Which call.
    pub call: CallId,
    /// What the caller had settled.
    pub settled: Settled,
    /// What it takes in the log.
    pub bytes: u64,
    /// The call itself.
    pub load: P,
}

/// A state, and what is to be known to go on from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint<P> {
    /// All calls up to this one are in it; 0 is how the actor was made.
    pub order: u64,
    /// The state.
    pub state: P,
    /// What it takes.
    pub bytes: u64,
    /// What came of calls that are in it, as far as their callers may ask again.
    pub ran: Dedup<P>,
}

/// All that is needed to make the actor again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<P> {
    /// The last state kept.
    pub checkpoint: Arc<Checkpoint<P>>,
    /// The calls after it, without a gap.
    pub entries: VecDeque<Entry<P>>,
}

impl<P> History<P> {
    /// Starts at a state.
    pub fn new(checkpoint: Arc<Checkpoint<P>>) -> History<P> {
        History {
            checkpoint,
            entries: VecDeque::new(),
        }
    }

    /// The last call in it.
    pub fn order(&self) -> u64 {
        let last = self.entries.back();
        last.map_or(self.checkpoint.order, |entry| entry.order)
    }

    /// What its calls take.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }

    /// A newer state makes the calls that are in it needless; what they took.
    fn shorten(&mut self, checkpoint: Arc<Checkpoint<P>>) -> u64 {
        let mut freed = 0;
        while let Some(entry) = self.entries.pop_front_if(|e| e.order <= checkpoint.order) {
            freed += entry.bytes;
        }
        self.checkpoint = checkpoint;
        freed
    }
}

/// The record of an actor in the control store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it was made: this names it for ever.
    pub actor: ActorKey,
    /// How often it was made; a takeover adds one.
    pub incarnation: u64,
    /// How often the record was written; no two records of an actor are equal.
    pub version: u64,
    /// Where it is.
    pub at: ActorKey,
    /// Who has all that was told, and may take over.
    pub backups: Vec<NodeId>,
}

/// From a host to a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToBackup<P> {
    /// Write this down, and answer. Nothing in it asks only whether the receiver knows of no later incarnation.
    Save {
        /// The sender's.
        incarnation: u64,
        /// Numbers the messages of this host to this backup.
        beat: u64,
        /// Replaces the one before and the calls that are in it. The first message has one.
        checkpoint: Option<Arc<Checkpoint<P>>>,
        /// Calls that follow those sent before.
        entries: Vec<Entry<P>>,
    },
    /// Somebody else hosts the actor, says the sender, which does so no more: read the record.
    Look {
        /// The sender's.
        incarnation: u64,
    },
    /// Keep nothing of the actor: another does, or it has ended.
    Forget {
        /// The sender's.
        incarnation: u64,
    },
}

/// From a backup to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToHost {
    /// All up to this message is written down.
    Saved {
        /// The receiver's.
        incarnation: u64,
        /// Which message.
        beat: u64,
    },
    /// Somebody else hosts the actor.
    Refused {
        /// As this later incarnation.
        incarnation: u64,
    },
    /// The sender cannot keep this history: it has no room, is leaving, or lost the start of it.
    Declined {
        /// The receiver's.
        incarnation: u64,
    },
}

/// How much is kept, and how often a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many backups.
    pub replicas: usize,
    /// A checkpoint after so many calls.
    pub every: Option<u64>,
    /// A checkpoint after so long, if there were calls.
    pub interval: Option<Duration>,
    /// A checkpoint when so many calls are in the log.
    pub calls: u64,
    /// A checkpoint when the log takes this and as much as the last state.
    pub bytes: u64,
    /// At this size of the log callers are held back.
    pub most: u64,
    /// How long a host without any other node waits before it goes on without backups: it may be the one that is cut off, and its
    /// backups about to take over.
    pub alone: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            replicas: 1,
            every: None,
            interval: None,
            calls: 10_000,
            bytes: 1 << 20,
            most: 64 << 20,
            alone: Duration::from_millis(500),
        }
    }
}
