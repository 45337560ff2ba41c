//! What a served store says no with.
//!
//! Invariant: an error names the object or the socket, the numbers, and what to do. Left out: why the
//! store of a node within one process is full ([`StoreFull`](super::StoreFull)).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::ObjectId;

/// How far an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectState {
    /// There is none of this name.
    Absent,
    /// It is being written: created, and not sealed yet.
    Written,
    /// It is complete.
    Sealed,
}

impl std::fmt::Display for ObjectState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ObjectState::Absent => "there is none of this name",
            ObjectState::Written => "it is being written",
            ObjectState::Sealed => "it is sealed",
        })
    }
}

/// What can go wrong between a program and a store that another process serves.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no object of this name.
    #[error("object {id} is not in the store")]
    NotFound {
        /// The name.
        id: ObjectId,
    },
    /// An object of this name is there already, or is being written.
    #[error("object {id} exists already: delete it first, or choose another name")]
    Exists {
        /// The name.
        id: ObjectId,
    },
    /// The object is not complete yet.
    #[error("object {id} is still being written: wait for its seal with get")]
    NotSealed {
        /// The name.
        id: ObjectId,
    },
    /// The object was not sealed in time.
    #[error("waited {waited:?} for object {id}: {state}")]
    Deadline {
        /// The name.
        id: ObjectId,
        /// How long was waited.
        waited: Duration,
        /// How far the object was then.
        state: ObjectState,
    },
    /// The store has no room for the object.
    #[error(
        "store full: {requested} bytes requested, {used} of {capacity} bytes used, largest free piece {largest_free} \
         bytes; release and delete objects, evict some, or serve a larger store"
    )]
    Full {
        /// Bytes asked for.
        requested: u64,
        /// Bytes the store may hold.
        capacity: u64,
        /// Bytes of its objects.
        used: u64,
        /// The largest piece that could have been placed.
        largest_free: u64,
    },
    /// The object was moved to disk and cannot be read back. Others are not concerned.
    #[error("object {id} is lost: {why}")]
    Lost {
        /// The name.
        id: ObjectId,
        /// What is wrong.
        why: String,
    },
    /// The object could never fit.
    #[error("an object of {requested} bytes can never fit a store of {capacity}")]
    TooLarge {
        /// Bytes asked for.
        requested: u64,
        /// Bytes the store may hold.
        capacity: u64,
    },
    /// No server answers there, or it ended.
    #[error("the store at {} is gone: {why}", path.display())]
    Gone {
        /// The socket.
        path: PathBuf,
        /// What was seen.
        why: Arc<str>,
    },
    /// A server is serving there already.
    #[error("a store is being served at {} already: stop it, or choose another socket", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The two sides speak different versions of the protocol.
    #[error(
        "the store speaks protocol {server} (mobula {server_crate}), this program {client} (mobula {client_crate}): use one version on both sides"
    )]
    Version {
        /// The server's protocol.
        server: u32,
        /// The server's crate.
        server_crate: String,
        /// The client's protocol.
        client: u32,
        /// The client's crate.
        client_crate: String,
    },
    /// The other side belongs to a user who is not accepted.
    #[error("{who} runs as user {found}, who is not accepted (user {expected} is)")]
    RefusedUser {
        /// Which side was refused.
        who: &'static str,
        /// Its user.
        found: u32,
        /// The user it should have been.
        expected: u32,
    },
    /// The server takes no more connections.
    #[error("the store takes no more connections: it has {clients}")]
    TooManyClients {
        /// Connections it has.
        clients: u64,
    },
    /// What the other side sent is not the protocol.
    #[error("not the store's protocol: {why}")]
    BadFrame {
        /// What is wrong with it.
        why: String,
    },
    /// The connection was made by another process, of which this one is a fork.
    #[error("this process is a fork of {connected}, which made the connection: connect again here")]
    Forked {
        /// The process that connected.
        connected: u32,
    },
    /// The value cannot be archived, or holds references that mean nothing outside its node.
    #[error("cannot archive a {value}: {why}")]
    Encode {
        /// The type.
        value: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The object is not an archive of this type.
    #[error("object {id} is not an archive of {expected}: {why}")]
    Decode {
        /// The name.
        id: ObjectId,
        /// The type.
        expected: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: String,
        /// Its answer.
        source: Arc<std::io::Error>,
    },
}
