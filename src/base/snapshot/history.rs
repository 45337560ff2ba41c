//! What can be seen of an actor's history: how much would run again, and who keeps it.
//!
//! Invariant: plain data, each number as it was at some time during the look. Left out: the history itself (`core::history`,
//! `core::recovery`).

#[cfg(feature = "attach")]
use serde::{Deserialize, Serialize};

use super::Micros;

/// What is kept of an actor so that it can be made again as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct History {
    /// Calls that may have changed its state, since it was made.
    pub order: u64,
    /// Those of them that would run again.
    pub logged: u64,
    /// Bytes of their arguments.
    pub log_bytes: u64,
    /// The call after which its state was saved last; 0 if it never was.
    pub saved: u64,
    /// Bytes of that.
    pub state_bytes: u64,
}

/// Who keeps an actor's history on other nodes, as the node that runs it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct Kept {
    /// 1 at first; each takeover adds one.
    pub incarnation: u64,
    /// How many backups it is to have.
    pub replicas: u32,
    /// The nodes that its record names as backups, by their numbers: they have all that was told.
    pub backups: Vec<String>,
    /// When its state was saved last; `None` if it never was on this node.
    pub saved_at: Option<Micros>,
    /// The call after which its state was written outside of all nodes last; `None` if it never was by this node.
    pub durable: Option<u64>,
    /// Why the last that was to be written there was not.
    pub not_durable: Option<String>,
    /// Why this node took it over; `None` if it was made here.
    pub last_death: Option<String>,
}
