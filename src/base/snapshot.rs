//! What a running program looks like: the data behind the command line, the dashboard and the metrics.
//!
//! Invariant: plain data; every list is bounded and says how many entries it leaves out; what cannot be known without
//! slowing the program down is `None`, never a guess. Left out: how it is found (`exec`), carried and shown.

mod history;

use std::fmt;

#[cfg(feature = "attach")]
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::query::Part;
pub use history::{History, Kept};

/// The number of a call, an object or an actor; written `0x1000000002`, in JSON as that text, since numbers of this size
/// are not exact everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl std::str::FromStr for Id {
    type Err = std::num::ParseIntError;

    /// Hexadecimal with `0x` before it, else decimal.
    fn from_str(text: &str) -> Result<Id, Self::Err> {
        match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).map(Id),
            None => text.parse().map(Id),
        }
    }
}

#[cfg(feature = "attach")]
impl Serialize for Id {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(feature = "attach")]
impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Id, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A moment: microseconds since 1970 (UTC), by the clock of the machine that was looked at.
pub type Micros = u64;

/// Some of the entries there are.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct List<T> {
    /// The entries, at most as many as were asked for.
    pub items: Vec<T>,
    /// How many more match the question; a lower bound if `incomplete`.
    pub left_out: u64,
    /// There are or may be others that were not looked at.
    pub incomplete: bool,
}

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List {
            items: Vec::new(),
            left_out: 0,
            incomplete: false,
        }
    }
}

impl<T> List<T> {
    /// All there are.
    pub fn whole(items: Vec<T>) -> List<T> {
        List {
            items,
            ..List::default()
        }
    }

    /// Adds an entry while there are fewer than `limit`, else counts it.
    pub fn offer(&mut self, limit: usize, item: impl FnOnce() -> T) {
        if self.items.len() < limit {
            self.items.push(item());
        } else {
            self.left_out += 1;
        }
    }

    /// How many are known of, listed or left out.
    pub fn total(&self) -> u64 {
        self.items.len() as u64 + self.left_out
    }
}

/// A look at a running program. Parts that were not asked for are empty.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct Snapshot {
    /// When it was taken.
    pub taken: Micros,
    /// What was asked for: what is not among these is empty because nobody asked.
    pub parts: Vec<Part>,
    /// The program.
    pub program: Program,
    /// Its nodes: this process's, then those of other machines as far as it knows them.
    pub nodes: List<Node>,
    /// What happened since the start, and what is going on.
    pub counts: Counts,
    /// Remote functions and methods that were called, most called first.
    pub functions: List<Function>,
    /// Calls that have not ended: running ones, blocked ones, then those that wait.
    pub tasks: List<Task>,
    /// Actors, those that have something to do first.
    pub actors: List<Actor>,
    /// Objects of the store, largest first.
    pub objects: List<Object>,
    /// Objects of the store by the place where they were made, most bytes first. Complete, where `objects` may not be.
    pub origins: List<OriginGroup>,
    /// Worker processes.
    pub workers: List<Worker>,
    /// Failures, latest first; equal ones are counted together.
    pub errors: List<ErrorEntry>,
}

/// Which program this is.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct Program {
    /// The name of its executable's file.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// The version of Mobula it was built with.
    pub version: String,
    /// When its node started.
    pub started: Micros,
    /// Bytes of memory it has resident, shared memory included.
    pub resident_bytes: u64,
    /// CPU time it has used, in microseconds.
    pub cpu_micros: u64,
}

/// An amount of something that calls hold while they run.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct Resource {
    /// `cpu`, `gpu` or the name of a resource of the program's own.
    pub name: String,
    /// How much the node has.
    pub total: f64,
    /// How much nobody holds; CPUs may be overdrawn for a moment, and are 0 then. An idle executor holds none.
    pub free: f64,
}

/// One machine's node.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct Node {
    /// Its name: the machine's.
    pub name: String,
    /// CPUs, GPUs (if any), then the program's own resources by name.
    pub resources: Vec<Resource>,
    /// Threads that run calls.
    pub executors: u64,
    /// Executors that run something.
    pub busy: u64,
    /// Executors that are blocked in a `get`, `wait` or full mailbox, each covered by a spare.
    pub blocked: u64,
    /// Executors that neither work nor block.
    pub idle: u64,
    /// Its object store.
    pub store: StoreNow,
    /// Its number in the cluster; none where there is no cluster.
    pub id: Option<String>,
    /// Where others reach it.
    pub address: Option<String>,
    /// What it is labelled.
    pub labels: std::collections::BTreeMap<String, String>,
    /// It is leaving.
    pub draining: bool,
    /// What this program says to it goes over a socket of the machine that both are on, instead of over the network.
    pub near: bool,
    /// Somebody joined the cluster in the last two seconds (at a pace of 1), and this node takes four times as long until it holds a
    /// silent node for dead. Known of the program's own node only.
    pub settling: bool,
    /// Another process: of what it has, what it told last is free; what it does is not known, so that executors and the store are 0 here.
    pub away: bool,
}

/// An object store's counts.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct StoreNow {
    /// Bytes it may hold.
    pub capacity: u64,
    /// Bytes of its objects.
    pub used: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes taken from the arena, with what rounding costs.
    pub reserved: u64,
    /// Bytes faulted in ahead of use.
    pub prefaulted: u64,
    /// Bytes spilled to disk now.
    pub spilled_bytes: u64,
    /// Objects spilled to disk now.
    pub spilled_objects: u64,
    /// Bytes of objects that are pinned in memory by views or running calls.
    pub pinned_bytes: u64,
    /// Bytes that moved to disk since the start.
    pub moved_bytes: u64,
    /// Bytes that were read back since the start.
    pub restored_bytes: u64,
    /// Producers that wait for room.
    pub waiting: u64,
}

/// What happened since the start, and what is going on.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct Counts {
    /// Calls that were submitted: tasks, constructors and methods.
    pub submitted: u64,
    /// Calls that ran to their end, failed ones included. One that was tried again is counted once.
    pub finished: u64,
    /// Calls that ended in an error, cancelled ones included.
    pub failed: u64,
    /// Calls that were cancelled.
    pub cancelled: u64,
    /// Further attempts at calls that had failed.
    pub retried: u64,
    /// Calls that run now, those that are blocked included.
    pub running: u64,
    /// Tasks that are ready and lie in a queue. Calls in mailboxes are counted with their actors.
    pub queued: u64,
    /// Calls that wait for resources.
    pub waiting_resources: u64,
    /// Calls that wait for arguments.
    pub waiting_arguments: u64,
    /// Calls that ended per second, since the look before this one or, if there was none, since the start.
    pub per_second: f64,
    /// Actors that are alive or are about to be.
    pub actors: u64,
}

/// One remote function or method, since the start.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct Function {
    /// Its path.
    pub name: String,
    /// Where it is written: `file:line`.
    pub at: String,
    /// Calls of it that ended.
    pub calls: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Running now.
    pub running: u64,
    /// How long its calls ran: `times[i]` of them took less than `2^i` microseconds and not less than half of that; the
    /// last slot has everything longer. Short calls are sampled, and a sample counts for those it stands for, so that the
    /// sum is about `calls`.
    pub times: Vec<u64>,
    /// Half of the calls took no longer than this, in microseconds, as far as the slots of `times` can say.
    pub p50: Option<f64>,
    /// 99 of 100 took no longer, in microseconds.
    pub p99: Option<f64>,
    /// How many calls were timed.
    pub samples: u64,
    /// How long its calls ran together, in microseconds, estimated in the same way.
    pub busy_micros: f64,
}

/// Where a call is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum TaskState {
    /// It runs.
    Running,
    /// It runs, and waits for another call meanwhile.
    Blocked,
    /// It is ready and lies in a queue.
    #[default]
    Queued,
    /// It waits for CPUs, GPUs or other resources.
    WaitingResources,
    /// It waits for arguments.
    WaitingArguments,
}

impl TaskState {
    /// Every state.
    pub const ALL: [TaskState; 5] = [
        TaskState::Running,
        TaskState::Blocked,
        TaskState::Queued,
        TaskState::WaitingResources,
        TaskState::WaitingArguments,
    ];

    /// Its name, as in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            TaskState::Running => "running",
            TaskState::Blocked => "blocked",
            TaskState::Queued => "queued",
            TaskState::WaitingResources => "waiting-resources",
            TaskState::WaitingArguments => "waiting-arguments",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A call that has not ended. Calls in mailboxes are counted with their actors and not listed.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct Task {
    /// Its id.
    pub id: Id,
    /// The function or method.
    pub function: String,
    /// Where it is on its way.
    pub state: TaskState,
    /// Since when it has been seen in this state; `None` at the first look. It may have been there before.
    pub since: Option<Micros>,
    /// The attempt that runs or comes next, 1 being the first.
    pub attempt: u32,
    /// The thread or the process that runs it.
    pub runs_on: Option<String>,
    /// The actor whose call it is.
    pub actor: Option<Id>,
    /// Why it waits, in words.
    pub why: Option<String>,
    /// The calls and objects it waits for, as far as they are known; a few at most.
    pub waits_for: Vec<Id>,
}

/// Where an actor is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum ActorState {
    /// Its constructor has not ended yet.
    Starting,
    /// It has nothing to do.
    #[default]
    Idle,
    /// One of its methods runs, or its mailbox is being emptied.
    Running,
    /// It has calls, and waits for a thread to run them.
    Queued,
    /// It has ended, and somebody still holds a handle.
    Dead,
}

impl ActorState {
    /// Every state.
    pub const ALL: [ActorState; 5] = [
        ActorState::Starting,
        ActorState::Idle,
        ActorState::Running,
        ActorState::Queued,
        ActorState::Dead,
    ];

    /// Its name, as in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ActorState::Starting => "starting",
            ActorState::Idle => "idle",
            ActorState::Running => "running",
            ActorState::Queued => "queued",
            ActorState::Dead => "dead",
        }
    }
}

impl fmt::Display for ActorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An actor.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct Actor {
    /// Its id.
    pub id: Id,
    /// Its type.
    pub type_name: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Where it is in its life.
    pub state: ActorState,
    /// Calls in its mailbox. Exact where it is bounded or idle; otherwise at least so many: those that came since a thread
    /// emptied it are not counted. `None` if nothing is known.
    pub pending: Option<u64>,
    /// The bound of its mailbox, if it has one.
    pub max_pending: Option<u32>,
    /// How often it was made again.
    pub restarts: u32,
    /// How often it may be.
    pub max_restarts: u32,
    /// The methods that run now; a few at most.
    pub running: Vec<String>,
    /// Why it died.
    pub cause: Option<String>,
    /// Handles to it.
    pub handles: u64,
    /// What brings its state back if its process dies, or its node; `None` if that is not kept.
    pub history: Option<History>,
    /// Who keeps that on other nodes; `None` if nobody is to, or if it runs elsewhere.
    pub kept: Option<Kept>,
}

/// Where an object's bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Place {
    /// Inside its record, since it is small.
    Record,
    /// In the store's shared memory.
    #[default]
    Store,
    /// On disk.
    Spilled,
}

impl Place {
    /// Its name, as in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Place::Record => "record",
            Place::Store => "store",
            Place::Spilled => "spilled",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One object.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct Object {
    /// The place of its bytes in the store, which is not a call's id.
    pub id: Id,
    /// Its bytes.
    pub bytes: u64,
    /// Where it was made: `put at src/main.rs:10`, `result of app::load`.
    pub origin: String,
    /// References to it; `None` where that is not known.
    pub references: Option<u64>,
    /// 0 if nothing keeps its bytes in memory; `None` if views, running calls or a writer do.
    pub pins: Option<u64>,
    /// Where its bytes are.
    pub place: Place,
}

/// The objects that were made at one place of the program.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct OriginGroup {
    /// Where: `put at src/main.rs:10`, `result of app::load`.
    pub origin: String,
    /// Their bytes together.
    pub bytes: u64,
    /// How many there are.
    pub objects: u64,
    /// Those of their bytes that are on disk.
    pub spilled_bytes: u64,
}

/// A worker process.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct Worker {
    /// Its process id.
    pub pid: u32,
    /// The function it runs now, or the actor type that lives in it; `None` if it has nothing to do.
    pub runs: Option<String>,
    /// Whether that is an actor.
    pub actor: bool,
    /// Since when it has done that.
    pub since: Option<Micros>,
    /// Bytes of memory it has resident.
    pub resident_bytes: Option<u64>,
    /// The bytes of memory it may have, if there is a limit.
    pub memory_limit: Option<u64>,
    /// The last lines it printed, oldest first; as many as were asked for.
    pub lines: Vec<String>,
    /// How many lines it has printed, but for the rest of long backtraces; `None` if that cannot be told now.
    pub printed: Option<u64>,
}

/// A failure, or several equal ones.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default))]
#[non_exhaustive]
pub struct ErrorEntry {
    /// The function that failed, or the actor type that died; empty if neither.
    pub function: String,
    /// What kind of failure: `panicked`, `returned an error`, `worker died`, `store full`, ...
    pub kind: String,
    /// What was said, with its cause; cut after some thousand bytes.
    pub cause: String,
    /// The call that failed last in this way, if it was one.
    pub call: Option<Id>,
    /// When it happened first.
    pub first: Micros,
    /// When it happened last.
    pub last: Micros,
    /// How often.
    pub count: u64,
}
