//! All about one call, or one object: where it comes from, what it takes and gives, what it waits for, and which chain of calls led to it.
//!
//! **Invariant:** an answer is bounded: at most [`MAX_LISTED`] neighbours of a kind and [`MAX_STEPS`] steps of the path, and
//! says what it leaves out. A recording with circles or lies ends the path; it does not hang.
//! **Left out:** what only the running program knows (resources, mailboxes), which comes with the snapshot.

use serde::Serialize;

use super::index::Index;
use super::window::Edges;
use crate::base::snapshot::Id;
use crate::trace::recording::Outcome;

/// Neighbours of one kind.
pub const MAX_LISTED: usize = 200;

/// Steps of a critical path.
pub const MAX_STEPS: usize = 2_000;

/// A neighbour.
#[derive(Debug, Serialize)]
pub struct Near {
    id: Id,
    /// `task`, `object` or `unknown`.
    what: &'static str,
    name: String,
    outcome: &'static str,
    lane: Option<u32>,
    start: Option<u64>,
    end: Option<u64>,
    bytes: u64,
}

/// One attempt or poll.
#[derive(Debug, Serialize)]
pub struct Try {
    lane: u32,
    row: u8,
    start: u64,
    end: u64,
    reading: u32,
    storing: u32,
    turn: u16,
    outcome: &'static str,
}

/// One step of a critical path, the last one first.
#[derive(Debug, Serialize, PartialEq)]
pub struct Step {
    /// The call.
    pub id: Id,
    /// Its function's index.
    pub function: u32,
    pub lane: u32,
    pub row: u8,
    /// Since when the chain was in this call.
    pub start: u64,
    /// Until when: its end, or the moment it submitted the next one.
    pub end: u64,
    /// How long the next call then waited before it ran.
    pub gap: u64,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Task<'a> {
    id: Id,
    function: &'a str,
    outcome: &'static str,
    actor: Option<Id>,
    parent: Option<Near>,
    submitted: u64,
    submitted_from: Option<&'a str>,
    ready: u64,
    bytes: u64,
    error: Option<&'a str>,
    runs: Vec<Try>,
    inputs: Vec<Near>,
    inputs_left_out: usize,
    consumers: Vec<Near>,
    consumers_left_out: usize,
    children: Vec<Near>,
    children_left_out: usize,
    edges: Edges,
    path: Vec<Step>,
    path_cut: bool,
    /// Why it has not begun, as far as the recording can say; `None` if it has.
    waiting: Option<String>,
}

impl<'a> Task<'a> {
    /// What is known of the call with this id.
    pub fn of(index: &'a Index, id: u64) -> Option<Task<'a>> {
        let at = index.call(id)?;
        let call = &index.calls[at as usize];
        let inputs = index.inputs_of(at);
        let (consumers, children) = (index.consumers_of(id), index.children_of(at));
        let mut edges = Edges::default();
        edges.submission(index, at, 0);
        for &input in inputs.iter().take(MAX_LISTED) {
            edges.input(index, input, at, 0);
        }
        for &consumer in consumers.iter().take(MAX_LISTED) {
            edges.input(index, id, consumer, 0);
        }
        for &child in children.iter().take(MAX_LISTED) {
            edges.submission(index, child, 0);
        }
        let (path, path_cut) = critical_path(index, at);
        let listed = |calls: &[u32]| {
            calls
                .iter()
                .take(MAX_LISTED)
                .map(|&c| near_call(index, c))
                .collect()
        };
        let lane = index.lanes.get(call.submit_lane as usize);
        Some(Task {
            id: Id(id),
            function: index.name(call.function),
            outcome: call.outcome.word(),
            actor: (call.actor != 0).then_some(Id(call.actor)),
            parent: index
                .call(call.parent)
                .map(|parent| near_call(index, parent)),
            submitted: call.submitted,
            submitted_from: lane.map(|lane| lane.name.as_str()),
            ready: call.ready,
            bytes: call.bytes,
            error: index.error(at),
            runs: tries(index, at),
            inputs: inputs
                .iter()
                .take(MAX_LISTED)
                .map(|&i| near(index, i))
                .collect(),
            inputs_left_out: inputs.len().saturating_sub(MAX_LISTED),
            consumers: listed(consumers),
            consumers_left_out: consumers.len().saturating_sub(MAX_LISTED),
            children: listed(children),
            children_left_out: children.len().saturating_sub(MAX_LISTED),
            edges,
            path,
            path_cut,
            waiting: waiting(index, at),
        })
    }
}

/// An object that the program made by hand, and who takes it.
#[derive(Debug, Serialize)]
pub struct Thing<'a> {
    id: Id,
    origin: &'a str,
    bytes: u64,
    at: u64,
    lane: u32,
    made_on: &'a str,
    consumers: Vec<Near>,
    consumers_left_out: usize,
    edges: Edges,
}

impl<'a> Thing<'a> {
    /// What is known of the object with this id.
    pub fn of(index: &'a Index, id: u64) -> Option<Thing<'a>> {
        let object = index.object(id)?;
        let consumers = index.consumers_of(id);
        let mut edges = Edges::default();
        for &consumer in consumers.iter().take(MAX_LISTED) {
            edges.input(index, id, consumer, 0);
        }
        let near = |&call: &u32| near_call(index, call);
        Some(Thing {
            id: Id(id),
            origin: index.name(object.origin),
            bytes: object.bytes,
            at: object.at,
            lane: object.lane,
            made_on: &index.lanes.get(object.lane as usize)?.name,
            consumers: consumers.iter().take(MAX_LISTED).map(near).collect(),
            consumers_left_out: consumers.len().saturating_sub(MAX_LISTED),
            edges,
        })
    }
}

fn tries(index: &Index, call: u32) -> Vec<Try> {
    let one = |i: u32| {
        let run = &index.runs[i as usize];
        Try {
            lane: run.lane,
            row: index.row[i as usize],
            start: run.start,
            end: run.end,
            reading: run.reading,
            storing: run.storing,
            turn: run.turn,
            outcome: run.outcome.word(),
        }
    };
    index.runs_of(call).take(MAX_LISTED).map(one).collect()
}

fn near(index: &Index, id: u64) -> Near {
    if let Some(call) = index.call(id) {
        return near_call(index, call);
    }
    let object = index.object(id);
    Near {
        id: Id(id),
        what: if object.is_some() {
            "object"
        } else {
            "unknown"
        },
        name: object.map_or_else(|| "not recorded".into(), |o| index.name(o.origin).into()),
        outcome: "done",
        lane: object.map(|o| o.lane),
        start: object.map(|o| o.at),
        end: object.map(|o| o.at),
        bytes: object.map_or(0, |o| o.bytes),
    }
}

fn near_call(index: &Index, at: u32) -> Near {
    let call = &index.calls[at as usize];
    let first = index.first_run(at).map(|run| &index.runs[run as usize]);
    Near {
        id: Id(call.id),
        what: "task",
        name: index.name(call.function).into(),
        outcome: call.outcome.word(),
        lane: first.map(|run| run.lane),
        start: first.map(|run| run.start),
        end: index.last_run(at).map(|run| index.runs[run as usize].end),
        bytes: call.bytes,
    }
}

/// The chain of calls that decided when this one ended: from each to whatever came last of what it needed, be it an input or
/// its submission by another call.
pub fn critical_path(index: &Index, call: u32) -> (Vec<Step>, bool) {
    let mut steps = Vec::new();
    let Some(last) = index.last_run(call) else {
        return (steps, false);
    };
    let (mut at, mut until, mut gap) = (call, index.runs[last as usize].end, 0);
    while let Some(first) = index.first_run(at) {
        if steps.len() == MAX_STEPS {
            return (steps, true);
        }
        let run = &index.runs[first as usize];
        let of = &index.calls[at as usize];
        steps.push(Step {
            id: Id(of.id),
            function: of.function,
            lane: run.lane,
            row: index.row[first as usize],
            start: run.start,
            end: until.max(run.start),
            gap,
        });
        let before = |&(_, end): &(u32, u64)| end <= run.start;
        let made = index.inputs_of(at).iter().filter_map(|&id| {
            let call = index.call(id)?;
            Some((call, index.ended(call)?))
        });
        let latest = made.filter(before).max_by_key(|&(_, end)| end);
        let parent = index.call(of.parent).filter(|_| of.submitted > 0);
        let parent =
            parent.filter(|&p| index.started(p).is_some_and(|start| start <= of.submitted));
        let (next, end) = match (latest, parent) {
            (Some((call, end)), _) if end >= of.submitted => (call, end),
            (_, Some(parent)) => (parent, of.submitted),
            (Some((call, end)), None) => (call, end),
            (None, None) => return (steps, false),
        };
        // Time only goes backwards along the chain; a recording that says otherwise ends it.
        if end > run.start
            || index
                .started(next)
                .is_none_or(|start| start > end || next == at)
        {
            return (steps, false);
        }
        gap = run.start - end;
        (at, until) = (next, end);
    }
    (steps, false)
}

/// Why a call has not begun.
fn waiting(index: &Index, at: u32) -> Option<String> {
    let call = &index.calls[at as usize];
    if call.outcome != Outcome::Waiting {
        return None;
    }
    let missing: Vec<u32> = index
        .inputs_of(at)
        .iter()
        .filter_map(|&id| index.call(id))
        .filter(|&input| index.ended(input).is_none())
        .collect();
    if let Some(&first) = missing.first() {
        let named = &index.calls[first as usize];
        let (name, state) = (index.name(named.function), named.outcome.word());
        let more = match missing.len() - 1 {
            0 => String::new(),
            n => format!(", and for {n} more"),
        };
        return Some(format!(
            "It waits for its argument {} of {name}, which is {state}{more}.",
            Id(named.id)
        ));
    }
    Some(match (call.actor, call.ready) {
        (0, 0) => "Its arguments are there. It waits for resources or for a free executor.".into(),
        (0, _) => "It is ready and waits in a queue for a free executor.".into(),
        (actor, _) => format!(
            "It lies in the mailbox of actor {}, behind earlier calls.",
            Id(actor)
        ),
    })
}
