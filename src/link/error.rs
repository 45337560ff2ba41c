//! What can go wrong between two nodes.
//!
//! Invariant: each error says what happened, with names and numbers, and what to do about it where something can be done.
//! Left out: errors of calls and objects.

use std::time::Duration;

use crate::base::NodeId;

/// Why a node was not reached, not let in, or lost.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The text is no join token.
    #[error("bad join token: {0}; copy the whole of it from `mobula start --head`")]
    Token(String),
    /// The other side is no member of the cluster whose token or certificate we hold.
    #[error(
        "the node there belongs to another cluster: its authority is {found}, not {expected}; \
         check the address and the token"
    )]
    OtherCluster {
        /// The beginning of the fingerprint in the token.
        expected: String,
        /// That of the certificate that was shown.
        found: String,
    },
    /// A certificate was refused, here or there.
    #[error("certificate refused: {0}")]
    Certificate(String),
    /// Somebody else answered.
    #[error("{found} answered where {expected} was expected; the address is of another node now")]
    WrongNode {
        /// Who was called.
        expected: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// The head did not let us in.
    #[error("not let in: {0}")]
    Denied(String),
    /// The two speak different versions.
    #[error(
        "wire version {theirs} there, {ours} here; run the same version of mobula on both nodes"
    )]
    Version {
        /// Ours.
        ours: u32,
        /// Theirs.
        theirs: u32,
    },
    /// The two machines lay out memory differently.
    #[error("{theirs} there, {ours} here; a cluster runs on machines of one kind")]
    Platform {
        /// Ours.
        ours: String,
        /// Theirs.
        theirs: String,
    },
    /// The two programs know different functions.
    #[error("{0}; run the same executable on both nodes")]
    Registry(RegistryDiff),
    /// The peer said something that the protocol does not allow.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// Something did not happen in time.
    #[error("no {what} within {after:?}")]
    Timeout {
        /// What was awaited.
        what: &'static str,
        /// For how long.
        after: Duration,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The node stopped, and said so.
    #[error("{0} stopped")]
    Left(NodeId),
    /// The node has heard that it was declared dead, and said so as it stopped.
    #[error("{0} stopped, since others hold it for dead")]
    Fenced(NodeId),
    /// The node was declared dead and is refused.
    #[error("{0} was declared dead; start a new process, which joins as a new node")]
    Forgotten(NodeId),
    /// This endpoint is stopped.
    #[error("this node's endpoint has stopped")]
    Stopped,
    /// A bound was reached.
    #[error("no room for another {what}: {limit} is the bound")]
    NoRoom {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: usize,
    },
    /// A transfer was given up on one side.
    #[error("transfer {transfer} was given up: {why}")]
    Transfer {
        /// Its number.
        transfer: u64,
        /// Why.
        why: String,
    },
    /// The operating system said no.
    #[error("{what}: {why}")]
    Io {
        /// To what.
        what: String,
        /// Its words.
        why: String,
    },
}

/// Why a frame or datagram was not accepted for sending.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer has not acknowledged enough of what went before.
    #[error("{held} bytes wait for {to}, of {limit} that may; send again when it has caught up")]
    Full {
        /// The peer.
        to: NodeId,
        /// Bytes that wait.
        held: usize,
        /// Bytes that may.
        limit: usize,
    },
    /// The peer is not known here, has stopped, or was declared dead.
    #[error("{0} is not connected, has stopped or was declared dead")]
    Gone(NodeId),
    /// More than fits into one.
    #[error("{len} bytes do not fit: {limit} is the bound")]
    TooLarge {
        /// What was to be sent.
        len: usize,
        /// What may be.
        limit: usize,
    },
}

/// What differs between two registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryDiff {
    /// Up to [`RegistryDiff::NAMED`] differences, in words.
    pub named: Vec<String>,
    /// How many more there are.
    pub more: usize,
}

impl RegistryDiff {
    /// How many are named.
    pub const NAMED: usize = 5;
}

impl std::fmt::Display for RegistryDiff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the programs differ: {}", self.named.join(", "))?;
        if self.more > 0 {
            write!(f, ", and {} more", self.more)?;
        }
        Ok(())
    }
}
