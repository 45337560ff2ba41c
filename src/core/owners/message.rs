//! What nodes tell each other about references and copies.
//!
//! Invariant: each message is small and fixed in size, save for the few hints of where a value is ([`MAX_HINTS`]). Left
//! out: how they look on the wire, and the bytes of small values and failures, which the driver puts beside
//! [`Message::Settled`], [`Message::Borrowed`] and exported references.

use crate::base::{NodeId, ObjectKey};

/// How many nodes that have a copy are named to a borrower. It asks the owner before it pulls; these help to place tasks.
pub const MAX_HINTS: usize = 4;

/// What a reference says about its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefState {
    /// Nothing yet.
    Pending,
    /// It has a value.
    Ready {
        /// Bytes of its archive.
        len: u64,
        /// Some of the nodes that have a copy.
        at: Vec<NodeId>,
    },
    /// It failed.
    Failed,
}

/// A message between the [`Owners`](crate::core::owners::Owners) of two nodes; `Where`, `Stop` and `At` are between an owner and the
/// [`Pulls`](crate::core::pulls::Pulls) of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// To the owner: the last reference here is gone; so many had come from you or were registered with you.
    Release {
        /// The object.
        key: ObjectKey,
        /// References since the last release.
        received: u64,
    },
    /// To the owner: `from` gave me a reference.
    Borrow {
        /// The object.
        key: ObjectKey,
        /// Who keeps the object until I say that I am registered.
        from: NodeId,
        /// Its number for the reference that travelled.
        transit: u64,
    },
    /// From the owner: the answer to [`Message::Borrow`].
    Borrowed {
        /// The object.
        key: ObjectKey,
        /// As in the question.
        from: NodeId,
        /// As in the question.
        transit: u64,
        /// What is known of the object.
        state: RefState,
    },
    /// To the node that handed a reference on: I am registered with the owner, let go.
    Arrived {
        /// Its number for the reference that travelled.
        transit: u64,
    },
    /// From the owner: the object has a value, or failed.
    Settled {
        /// The object.
        key: ObjectKey,
        /// Which.
        state: RefState,
    },
    /// From the owner: the object was let go before this node was registered, since the node that gave it the reference
    /// died.
    Gone {
        /// The object.
        key: ObjectKey,
    },
    /// To the owner: I finished a pull, and serve others.
    Copy {
        /// The object.
        key: ObjectKey,
    },
    /// To the owner: my copy is no more.
    CopyGone {
        /// The object.
        key: ObjectKey,
    },
    /// From the owner: drop your copy.
    Free {
        /// The object.
        key: ObjectKey,
    },
    /// From the owner: the copy that was kept is lost; keep yours until I say [`Message::Free`].
    Pin {
        /// The object.
        key: ObjectKey,
    },
    /// To the owner: from whom may I pull?
    Where {
        /// The object.
        key: ObjectKey,
        /// Tells the answer from those to earlier questions.
        ask: u64,
        /// The source of the last answer, if the pull from it failed.
        failed: Option<NodeId>,
    },
    /// To the owner: I pull no more.
    Stop {
        /// The object.
        key: ObjectKey,
    },
    /// From the owner: the answer to [`Message::Where`], once a source has room.
    At {
        /// The object.
        key: ObjectKey,
        /// As in the question.
        ask: u64,
        /// Whom to pull from; `None`: nobody has it, and nobody will.
        from: Option<NodeId>,
    },
    /// To everybody: I hold this node for dead, and have registered what it had handed on to me.
    Buried {
        /// Who is dead.
        node: NodeId,
    },
}
