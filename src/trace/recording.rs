//! A recording as calls, their runs and what lies between: what the events mean together.
//!
//! **Invariant:** plain data, all of it claims: indices are checked before use (by whoever asks), times may be in any order.
//! **Left out:** how it was recorded, and every question about it.

/// A line of the timeline: one thread that runs calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// The machine or process it belongs to.
    pub node: String,
    /// Its own name, such as `worker 3`.
    pub name: String,
    /// Whether it is the user's own thread and not an executor.
    pub driver: bool,
}

/// How a call, or one run of it, ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// It has not begun.
    #[default]
    Waiting = 0,
    /// It runs.
    Running = 1,
    /// Its value is there.
    Done = 2,
    /// Its error is there.
    Failed = 3,
    /// It was told to stop, and did.
    Cancelled = 4,
    /// This attempt failed, another follows.
    Again = 5,
    /// A future that waits to be polled again.
    Pending = 6,
}

impl Outcome {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Waiting => "waiting",
            Outcome::Running => "running",
            Outcome::Done => "done",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
            Outcome::Again => "retried",
            Outcome::Pending => "suspended",
        }
    }
}

/// One call, from submission to outcome. Times are nanoseconds since the node's start; 0 where unknown.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Its id, unique in the recording.
    pub id: u64,
    /// Its function, an index into [`Recording::names`].
    pub function: u32,
    /// The actor whose method it is; 0 for a function.
    pub actor: u64,
    /// The call that submitted it; 0 for a driver.
    pub parent: u64,
    /// The lane it was submitted from.
    pub submit_lane: u32,
    /// When it was submitted.
    pub submitted: u64,
    /// When all it waited for was there.
    pub ready: u64,
    /// How far it has come.
    pub outcome: Outcome,
    /// Bytes of its result.
    pub bytes: u64,
    /// Where its inputs are in [`Recording::inputs`].
    pub inputs: (u32, u32),
    /// What went wrong, if something did: an index into [`Recording::texts`] plus one; 0 for nothing.
    pub error: u32,
}

/// One attempt at a call, or one poll of its future: a box of the timeline.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// The call, an index into [`Recording::calls`].
    pub call: u32,
    /// The lane it ran on.
    pub lane: u32,
    /// Since when.
    pub start: u64,
    /// Until when; 0 while it runs.
    pub end: u64,
    /// Nanoseconds in which its arguments were read.
    pub reading: u32,
    /// Nanoseconds in which its result was stored.
    pub storing: u32,
    /// Which attempt or poll it is, from 1.
    pub turn: u16,
    /// How it ended.
    pub outcome: Outcome,
}

/// An object that the program made by hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Object {
    /// Its id, in one space with the ids of calls.
    pub id: u64,
    /// Where in the program, an index into [`Recording::names`].
    pub origin: u32,
    /// The lane it was made on.
    pub lane: u32,
    /// When it was complete.
    pub at: u64,
    /// How long it is.
    pub bytes: u64,
}

/// Something inside a run: a wait for results, or a span of the user's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inside {
    /// The lane.
    pub lane: u32,
    /// What it is called, an index into [`Recording::names`].
    pub name: u32,
    /// Since when.
    pub start: u64,
    /// Until when.
    pub end: u64,
    /// What was awaited; 0 for a span.
    pub awaited: u64,
    /// Whether it is a wait and not a span.
    pub wait: bool,
}

/// All that was recorded and is still kept.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The time of this reading, in nanoseconds since the node's start.
    pub now: u64,
    /// The threads.
    pub lanes: Vec<Lane>,
    /// Names of functions and places.
    pub names: Vec<String>,
    /// Texts of errors.
    pub texts: Vec<String>,
    /// The calls, in any order.
    pub calls: Vec<Call>,
    /// Their runs, in any order.
    pub runs: Vec<Run>,
    /// Ids of what the calls take: calls or objects.
    pub inputs: Vec<u64>,
    /// Objects made by hand.
    pub objects: Vec<Object>,
    /// Waits and spans.
    pub inside: Vec<Inside>,
    /// Events that were overwritten or not recorded.
    pub lost: u64,
}
