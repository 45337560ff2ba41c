//! Every way in which Mobula says no, as one type.
//!
//! Invariant: an error names the thing, the numbers and the remedy; it is cheap to clone (shared inside), since
//! one failure may reach many waiting callers. Left out: failures of user code, which are data ([`Failure`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{
    BadAmount, BadBytes, CopyLost, Failure, Infeasible, NodeId, NotDurable, ObjectLost, StoreError,
    StoreFull, WorkerDeath,
};

/// The result of a Mobula call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Its `Debug` form is its `Display` form, since that is what a `main` that returns it prints.
#[derive(Clone)]
#[non_exhaustive]
pub enum Error {
    /// The function returned `Err` or panicked.
    TaskFailed(Arc<Failure>),
    /// An argument of the call never came to be: `cause` says why, `through` names the calls between, the
    /// one nearest to the cause first.
    DependencyFailed {
        /// The error at the root.
        cause: Arc<Error>,
        /// The functions that could not run because of it, nearest to the cause first.
        through: Vec<&'static str>,
    },
    /// The worker process that ran the call ended before the call did.
    WorkerDied(Arc<WorkerDeath>),
    /// The actor cannot answer: it ended before this call was executed.
    ActorDied {
        /// The actor's type, with its path.
        actor: &'static str,
        /// Its name, if it has one.
        name: Option<Arc<str>>,
        /// Why it ended.
        cause: Arc<str>,
        /// How often it had been restarted.
        restarts: u32,
    },
    /// No actor is registered under this name.
    NoSuchActor {
        /// The name asked for.
        name: String,
    },
    /// The name is taken by a living actor.
    NameTaken {
        /// The name.
        name: String,
        /// The type of the actor that has it.
        actor: &'static str,
    },
    /// The name belongs to an actor of another type.
    WrongActorType {
        /// The name.
        name: String,
        /// The type that was asked for.
        expected: &'static str,
        /// The type it has.
        found: &'static str,
    },
    /// The actor's mailbox holds as many calls as it may, and the caller asked not to wait.
    MailboxFull {
        /// The actor's type.
        actor: &'static str,
        /// The bound.
        max_pending: u32,
    },
    /// The object store has no room.
    StoreFull(Arc<StoreFull>),
    /// The object was moved to disk and cannot be read back; others are not concerned.
    ObjectLost(Arc<ObjectLost>),
    /// The call asks for more than this node has.
    Infeasible(Arc<Infeasible>),
    /// An amount of a resource is not a number that can be asked for.
    BadAmount {
        /// The resource.
        resource: String,
        /// What is wrong with it.
        why: BadAmount,
    },
    /// A text is no amount of memory.
    BadBytes {
        /// Where it was given.
        option: &'static str,
        /// The text.
        text: String,
        /// What is wrong with it.
        why: BadBytes,
    },
    /// An option of a call or an actor cannot be honoured.
    BadOption {
        /// The option.
        option: &'static str,
        /// What is wrong with it and what to give instead.
        why: &'static str,
    },
    /// Time ran out.
    Timeout {
        /// How long was waited.
        waited: Duration,
        /// What was awaited, and in which state it was.
        awaited: String,
    },
    /// The call was cancelled before it finished.
    Cancelled {
        /// The function.
        function: &'static str,
    },
    /// Bytes are not an archive of the expected type.
    Decode {
        /// The type.
        expected: &'static str,
        /// What is wrong.
        why: Arc<str>,
    },
    /// A value could not be archived.
    Encode {
        /// The type.
        value: &'static str,
        /// What is wrong.
        why: Arc<str>,
    },
    /// Another node died, or what it said cannot be.
    NodeLost {
        /// The node.
        node: NodeId,
        /// What became of what was asked for.
        what: Arc<str>,
    },
    /// A call may run on no node that there is.
    NoNode {
        /// Why not, and what would help.
        why: Arc<str>,
    },
    /// A put asked for more replicas than it got: see `PutOptions::replicas`. Nothing of it is kept.
    TooFewReplicas {
        /// How many other nodes were to have a copy.
        wanted: u32,
        /// How many had.
        made: u32,
        /// How many other nodes there were that take any.
        nodes: u32,
        /// What was in the way, and what would help.
        why: Arc<str>,
    },
    /// A durable copy could not be written: see `PutOptions::durable`. Nothing of the put is kept.
    NotDurable(Arc<NotDurable>),
    /// No node has the object any more, and its durable copy cannot be read; others are not concerned.
    CopyLost(Arc<CopyLost>),
    /// A placement group cannot be made, or a call cannot run in it.
    Group {
        /// Which or what of it, why not, and what would help.
        why: Arc<str>,
    },
    /// The cluster could not be joined or started.
    Cluster {
        /// Why not, and what would help.
        why: Arc<str>,
    },
    /// Waiting here could never end.
    Deadlock {
        /// Who waits for whom.
        what: String,
    },
    /// Two remote functions or actors have one name.
    DuplicateName {
        /// The name.
        name: &'static str,
        /// Where the first is.
        first: String,
        /// Where the second is.
        second: String,
    },
    /// `init` was called while a runtime is up.
    AlreadyInitialized,
    /// A runtime is needed and none is up.
    NotInitialized,
    /// The runtime was shut down before the call finished.
    ShutDown,
    /// Something cannot be done in a worker process, or by one.
    Isolation {
        /// What, why, and what to do instead.
        what: String,
    },
    /// A setting cannot be honoured.
    Config {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it and what to give instead.
        why: String,
    },
    /// A store that another process serves said no, or is gone.
    Store(Arc<StoreError>),
    /// The operating system refused something.
    Os {
        /// What was tried.
        what: &'static str,
        /// Its answer.
        source: Arc<std::io::Error>,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::TaskFailed(e) => e.fmt(f),
            Error::DependencyFailed { cause, through } => {
                write!(
                    f,
                    "could not run {}: an argument failed: {cause}",
                    through.join(" <- ")
                )
            }
            Error::ActorDied {
                actor,
                name,
                cause,
                restarts,
            } => {
                write!(f, "actor {actor}")?;
                if let Some(name) = name {
                    write!(f, " \"{name}\"")?;
                }
                if cause.contains('\n') {
                    // What a worker printed stands at the end.
                    return write!(f, " died after {restarts} restarts: {cause}");
                }
                write!(f, " died: {cause} (restarted {restarts} times)")
            }
            Error::NoSuchActor { name } => write!(
                f,
                "no actor is named \"{name}\": create it with options().name(\"{name}\"), and keep a handle or make it detached"
            ),
            Error::NameTaken { name, actor } => write!(
                f,
                "the name \"{name}\" belongs to a living {actor}: choose another, or use get_or_create"
            ),
            Error::WrongActorType {
                name,
                expected,
                found,
            } => {
                write!(
                    f,
                    "the actor named \"{name}\" is a {found}, not a {expected}"
                )
            }
            Error::MailboxFull { actor, max_pending } => write!(
                f,
                "the mailbox of {actor} holds {max_pending} calls: wait for results, raise max_pending, or let callers wait with when_full(WhenFull::Wait)"
            ),
            Error::WorkerDied(e) => e.fmt(f),
            Error::StoreFull(e) => e.fmt(f),
            Error::ObjectLost(e) => e.fmt(f),
            Error::Infeasible(e) => e.fmt(f),
            Error::BadAmount { resource, why } => write!(f, "resource `{resource}`: {why}"),
            Error::BadBytes { option, text, why } => write!(f, "{option} \"{text}\": {why}"),
            Error::BadOption { option, why } => write!(f, "option `{option}`: {why}"),
            Error::Timeout { waited, awaited } => {
                write!(f, "timed out after {waited:?} waiting for {awaited}")
            }
            Error::Cancelled { function } => write!(f, "{function} was cancelled"),
            Error::Decode { expected, why } => {
                write!(f, "the bytes are not an archive of {expected}: {why}")
            }
            Error::Encode { value, why } => write!(f, "cannot archive a {value}: {why}"),
            Error::Deadlock { what } => write!(f, "this wait could never end: {what}"),
            Error::NodeLost { node, what } => write!(f, "node {node} is lost: {what}"),
            Error::NoNode { why } => write!(f, "no node can run the call: {why}"),
            Error::TooFewReplicas {
                wanted,
                made,
                nodes,
                why,
            } => write!(
                f,
                "put with {wanted} replicas has {made}, of {nodes} other nodes that take any: {why}"
            ),
            Error::NotDurable(e) => e.fmt(f),
            Error::CopyLost(e) => e.fmt(f),
            Error::Group { why } => write!(f, "placement group: {why}"),
            Error::Cluster { why } => write!(f, "no cluster: {why}"),
            Error::DuplicateName {
                name,
                first,
                second,
            } => write!(
                f,
                "two remote items are called `{name}`: {first} and {second}; give one of them #[remote(name = \"...\")]"
            ),
            Error::AlreadyInitialized => f.write_str(
                "mobula is already running in this process: keep one guard, or drop it first",
            ),
            Error::NotInitialized => {
                f.write_str("mobula is not running: call mobula::init() and keep what it returns")
            }
            Error::ShutDown => f.write_str("mobula was shut down before the call finished"),
            Error::Isolation { what } => f.write_str(what),
            Error::Config { setting, why } => write!(f, "Config::{setting}: {why}"),
            Error::Store(e) => e.fmt(f),
            Error::Os { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::DependencyFailed { cause, .. } => Some(&**cause),
            Error::StoreFull(e) => Some(&**e),
            Error::NotDurable(e) => Some(&**e),
            Error::CopyLost(e) => Some(&**e),
            Error::Infeasible(e) => Some(&**e),
            Error::BadAmount { why, .. } => Some(why),
            Error::BadBytes { why, .. } => Some(why),
            Error::Store(e) => Some(&**e),
            Error::Os { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

impl From<StoreFull> for Error {
    fn from(e: StoreFull) -> Error {
        Error::StoreFull(Arc::new(e))
    }
}

impl From<StoreError> for Error {
    fn from(e: StoreError) -> Error {
        Error::Store(Arc::new(e))
    }
}

impl From<Infeasible> for Error {
    fn from(e: Infeasible) -> Error {
        Error::Infeasible(Arc::new(e))
    }
}

impl Error {
    /// The failure of user code at the root of this error, if that is what it is, however many dependants
    /// lie between.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Error::TaskFailed(f) => Some(f),
            Error::DependencyFailed { cause, .. } => cause.failure(),
            _ => None,
        }
    }

    /// Whether the call was cancelled, itself or through an argument.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Error::Cancelled { .. } => true,
            Error::DependencyFailed { cause, .. } => cause.is_cancelled(),
            _ => false,
        }
    }
}
