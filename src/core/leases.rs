//! CPUs lent between nodes: a steady stream of calls of one shape from one node to another asks nobody.
//!
//! A *submitter* with calls for another node tells that node how many slots of the calls' shape (their demand and
//! priority) it could use. The *grantor* there divides what it has between all who want some, its own node among them,
//! and tells each how many slots it may use: that is a lease. From then on the submitter sends calls into its slots
//! and the grantor runs them as they come. Both sides may change their number at any time; each message says the whole
//! truth about one lease, so that repeating one does no harm.
//!
//! The grantor alone decides what runs. A submitter that believes in slots it has no more sends calls in vain: they come
//! back unrun, and are sent elsewhere. So nothing need be agreed on to take slots back, and a submitter that lies gains
//! nothing. Calls are sent a little ahead of the slots they run in, so that no slot idles for a round trip.
//!
//! Invariant: a call that was submitted is run once by whoever it was sent to last, handed back to be placed anew, or
//! reported lost with its node; slots in use never exceed what the grantor's ledger gave. Left out: links (the machines
//! assume that messages between two living nodes arrive once and in order), and what a call is.

pub mod grantor;
pub mod rate;
mod share;
pub mod submitter;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::base::{Demand, Infeasible};
pub use grantor::Grantor;
pub use submitter::Submitter;

/// Slots of one lease.
pub const MAX_SLOTS: u32 = 1_024;
/// Calls sent per slot, the running one included.
pub const MAX_DEPTH: u32 = 512;
/// Leases of one submitter at one grantor.
pub const MAX_LEASES: usize = 64;
/// Slots of a grantor, over all leases.
pub const MAX_TICKETS: usize = 8_192;
/// A lease of which nothing is heard for so long lapses.
pub const TERM: Duration = Duration::from_secs(3);
/// An unused lease is given back after so long, and unused slots of one.
pub const IDLE: Duration = Duration::from_millis(200);
/// So long after it was refused, a submitter asks again.
pub const BACKOFF: Duration = Duration::from_millis(100);

/// What the two halves say to each other. A lease has a number of its submitter's choice, counted up per pair of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseMsg {
    /// To the grantor: so many slots of this shape could be used now; 0 gives the lease back.
    Want {
        /// Which lease; a new number makes one.
        lease: u32,
        /// What a call holds while it runs.
        demand: Demand,
        /// Of its calls.
        priority: i32,
        /// How many.
        slots: u32,
    },
    /// To the submitter: so many slots may be used from now on.
    Slots {
        /// Which lease.
        lease: u32,
        /// How many.
        slots: u32,
        /// Calls that are blocked there, beside those slots.
        blocked: u32,
    },
    /// To the submitter: these calls did not run and will not; so many slots there are.
    Refused {
        /// Which lease.
        lease: u32,
        /// How many.
        slots: u32,
        /// Which calls.
        calls: Vec<u64>,
    },
    /// To the submitter: there is no such lease any more. What runs in it goes on.
    Ended {
        /// Which lease.
        lease: u32,
        /// Why.
        why: Ending,
    },
}

impl LeaseMsg {
    /// Whether a grantor takes it; else a submitter does.
    pub fn is_for_grantor(&self) -> bool {
        matches!(self, LeaseMsg::Want { .. })
    }
}

/// Why a grantor ended a lease, or did not make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The node can never run such calls.
    Infeasible(Infeasible),
    /// The submitter has [`MAX_LEASES`] there, or the grantor has no room for more.
    Full,
    /// The node is leaving.
    Draining,
    /// Nothing was heard of it for [`TERM`].
    Lapsed,
}
