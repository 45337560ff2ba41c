//! What the timeline shows of a window of time: boxes, arrows, waits and objects, in columns.
//!
//! **Invariant:** an answer has at most `limit` boxes and [`MAX_EDGES`] arrows, however much happened: when there is more,
//! boxes too short to be told apart at the window's scale are put together, with their count and how busy they were.
//! **Left out:** drawing.

use serde::Serialize;

use super::index::Index;
use crate::base::snapshot::Id;
use crate::trace::recording::Outcome;

/// Arrows of one answer.
pub const MAX_EDGES: usize = 4_000;

/// Waits, spans and objects of one answer, each.
pub const MAX_MARKS: usize = 4_000;

/// The most boxes that one answer gives.
pub const MAX_BOXES: usize = 20_000;

/// Columns that a window is thought to be wide when boxes are put together.
const COLUMNS: u64 = 2_000;

/// A part of the timeline, in nanoseconds since the node's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Since when.
    pub from: u64,
    /// Until when.
    pub to: u64,
}

/// A lane as the page draws it.
#[derive(Debug, Serialize)]
pub struct LaneRow<'a> {
    node: &'a str,
    name: &'a str,
    driver: bool,
    rows: u8,
}

/// What an arrow means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EdgeKind {
    /// From the submitting line of the program to the call.
    Submission = 0,
    /// From a call's result to the call that takes it.
    Data = 1,
    /// From an object made by hand to the call that takes it.
    Object = 2,
}

/// Boxes, one column per property. Times are relative to [`Timeline::from`] and may be negative.
#[derive(Debug, Default, Serialize)]
pub struct Boxes {
    id: Vec<Id>,
    lane: Vec<u32>,
    row: Vec<u8>,
    function: Vec<u32>,
    start: Vec<i64>,
    end: Vec<i64>,
    /// Nanoseconds in which arguments were read.
    reading: Vec<u32>,
    /// Nanoseconds in which the result was stored.
    storing: Vec<u32>,
    outcome: Vec<u8>,
    turn: Vec<u16>,
}

/// Boxes put together: many short ones, side by side.
#[derive(Debug, Default, Serialize)]
pub struct Dense {
    lane: Vec<u32>,
    row: Vec<u8>,
    /// The function that took most of the time.
    function: Vec<u32>,
    start: Vec<i64>,
    end: Vec<i64>,
    count: Vec<u32>,
    /// Nanoseconds in which one of them ran.
    busy: Vec<u64>,
    failed: Vec<u32>,
    #[serde(skip)]
    lead: Vec<u64>,
}

/// Arrows, with where they begin and end, so that boxes out of view need not be known.
#[derive(Debug, Default, Serialize)]
pub struct Edges {
    from: Vec<Id>,
    to: Vec<Id>,
    kind: Vec<u8>,
    from_lane: Vec<u32>,
    from_row: Vec<u8>,
    from_at: Vec<i64>,
    to_lane: Vec<u32>,
    to_row: Vec<u8>,
    to_at: Vec<i64>,
}

/// Waits and spans inside boxes.
#[derive(Debug, Default, Serialize)]
pub struct Marks {
    lane: Vec<u32>,
    row: Vec<u8>,
    name: Vec<u32>,
    start: Vec<i64>,
    end: Vec<i64>,
    wait: Vec<bool>,
    awaited: Vec<Id>,
}

/// Objects made by hand.
#[derive(Debug, Default, Serialize)]
pub struct Objects {
    id: Vec<Id>,
    lane: Vec<u32>,
    origin: Vec<u32>,
    at: Vec<i64>,
    bytes: Vec<u64>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Timeline<'a> {
    /// The window's start; other times are relative to it.
    pub from: u64,
    /// Its end.
    pub to: u64,
    /// The first moment there is anything of.
    pub begin: u64,
    /// The last.
    pub last: u64,
    /// The time of the recording.
    pub now: u64,
    /// Boxes that touch the window.
    pub total: usize,
    /// All boxes there are.
    pub recorded: usize,
    /// Events that were overwritten.
    pub lost: u64,
    lanes: Vec<LaneRow<'a>>,
    functions: &'a [String],
    pub boxes: Boxes,
    pub dense: Dense,
    pub edges: Edges,
    /// Arrows that were too many to give.
    pub edges_left_out: usize,
    marks: Marks,
    objects: Objects,
}

impl Boxes {
    /// How many.
    pub fn len(&self) -> usize {
        self.id.len()
    }
}

impl Dense {
    /// How many groups.
    pub fn len(&self) -> usize {
        self.lane.len()
    }

    /// How many boxes they stand for.
    #[cfg(test)]
    pub fn stands_for(&self) -> u64 {
        self.count.iter().map(|&n| u64::from(n)).sum()
    }

    fn clear(&mut self) {
        *self = Dense::default();
    }
}

impl Edges {
    /// How many.
    pub fn len(&self) -> usize {
        self.from.len()
    }

    /// Adds the arrow from a call's submission to its first run.
    pub fn submission(&mut self, index: &Index, call: u32, base: u64) {
        let Some(run) = index.first_run(call) else {
            return;
        };
        let of = &index.calls[call as usize];
        if of.submitted == 0 || of.submit_lane as usize >= index.lanes.len() {
            return;
        }
        let row = index.row_at(of.submit_lane, of.submitted, index.call(of.parent));
        let from = (Id(of.parent), of.submit_lane, row, of.submitted);
        self.push(index, EdgeKind::Submission, from, run, base);
    }

    /// Adds the arrow from an input of a call to its first run.
    pub fn input(&mut self, index: &Index, input: u64, call: u32, base: u64) {
        let Some(run) = index.first_run(call) else {
            return;
        };
        if let Some(producer) = index.call(input) {
            let Some(last) = index.last_run(producer) else {
                return;
            };
            let made = &index.runs[last as usize];
            let from = (Id(input), made.lane, index.row[last as usize], made.end);
            self.push(index, EdgeKind::Data, from, run, base);
        } else if let Some(object) = index.object(input) {
            let from = (Id(input), object.lane, 0, object.at);
            self.push(index, EdgeKind::Object, from, run, base);
        }
    }

    fn push(
        &mut self,
        index: &Index,
        kind: EdgeKind,
        from: (Id, u32, u8, u64),
        to: u32,
        base: u64,
    ) {
        let run = &index.runs[to as usize];
        self.from.push(from.0);
        self.from_lane.push(from.1);
        self.from_row.push(from.2);
        self.from_at.push(relative(from.3, base));
        self.to.push(Id(index.calls[run.call as usize].id));
        self.to_lane.push(run.lane);
        self.to_row.push(index.row[to as usize]);
        self.to_at.push(relative(run.start, base));
        self.kind.push(kind as u8);
    }
}

/// A time relative to another.
pub fn relative(at: u64, base: u64) -> i64 {
    at.wrapping_sub(base).cast_signed()
}

impl<'a> Timeline<'a> {
    /// Looks through a window for at most about `limit` boxes.
    pub fn of(index: &'a Index, window: Window, limit: usize) -> Timeline<'a> {
        let Window { from, to } = window;
        let hits: Vec<usize> = index.runs_in(from, to).collect();
        let limit = limit.clamp(1, MAX_BOXES);
        let mut timeline = Timeline {
            from,
            to,
            begin: index.begin,
            last: index.until,
            now: index.now(),
            total: hits.len(),
            recorded: index.runs.len(),
            lost: index.lost,
            lanes: lanes(index),
            functions: &index.names,
            boxes: Boxes::default(),
            dense: Dense::default(),
            edges: Edges::default(),
            edges_left_out: 0,
            marks: Marks::default(),
            objects: Objects::default(),
        };
        if hits.len() <= limit {
            for &run in &hits {
                timeline.exact(index, run);
            }
            timeline.arrows(index, &hits);
            timeline.inside(index, window);
        } else {
            timeline.together(index, &hits, limit);
        }
        for object in index.objects_in(from, to).iter().take(MAX_MARKS) {
            let objects = &mut timeline.objects;
            objects.id.push(Id(object.id));
            objects.lane.push(object.lane);
            objects.origin.push(object.origin);
            objects.at.push(relative(object.at, from));
            objects.bytes.push(object.bytes);
        }
        timeline
    }

    fn exact(&mut self, index: &Index, i: usize) {
        let run = &index.runs[i];
        let call = &index.calls[run.call as usize];
        let boxes = &mut self.boxes;
        boxes.id.push(Id(call.id));
        boxes.lane.push(run.lane);
        boxes.row.push(index.row[i]);
        boxes.function.push(call.function);
        boxes.start.push(relative(run.start, self.from));
        boxes.end.push(relative(run.end, self.from));
        boxes.reading.push(run.reading);
        boxes.storing.push(run.storing);
        boxes.outcome.push(run.outcome as u8);
        boxes.turn.push(run.turn);
    }

    fn arrows(&mut self, index: &Index, hits: &[usize]) {
        for &i in hits {
            let call = index.runs[i].call;
            // One set of arrows per call, at its first run.
            if index.first_run(call) != Some(i as u32) {
                continue;
            }
            let inputs = index.inputs_of(call);
            if self.edges.len() + inputs.len() + 1 > MAX_EDGES {
                self.edges_left_out += inputs.len() + 1;
                continue;
            }
            self.edges.submission(index, call, self.from);
            for &input in inputs {
                self.edges.input(index, input, call, self.from);
            }
        }
    }

    fn inside(&mut self, index: &Index, window: Window) {
        for inside in index.inside_in(window.from, window.to).take(MAX_MARKS) {
            let marks = &mut self.marks;
            marks.lane.push(inside.lane);
            marks
                .row
                .push(index.innermost(inside.lane, inside.start, inside.end));
            marks.name.push(inside.name);
            marks.start.push(relative(inside.start, window.from));
            marks.end.push(relative(inside.end, window.from));
            marks.wait.push(inside.wait);
            marks.awaited.push(Id(inside.awaited));
        }
    }

    /// Puts together what is too short, doubling what counts as short until little enough is left.
    fn together(&mut self, index: &Index, hits: &[usize], limit: usize) {
        let mut bucket = ((self.to - self.from) / COLUMNS).max(1);
        loop {
            self.boxes = Boxes::default();
            self.dense.clear();
            if self.fill(index, hits, bucket, limit) {
                return;
            }
            bucket = bucket.saturating_mul(2);
        }
    }

    /// One attempt; false if it came to more than the limit.
    fn fill(&mut self, index: &Index, hits: &[usize], bucket: u64, limit: usize) -> bool {
        // A window may be as wide as numbers go.
        let last = bucket > self.to - self.from || bucket == u64::MAX;
        // The group that each row of each lane is adding to.
        let rows = usize::from(super::index::MAX_ROWS);
        let mut open = vec![usize::MAX; index.lanes.len() * rows];
        for &i in hits {
            let run = &index.runs[i];
            let long = run.end - run.start >= bucket;
            let slot = run.lane as usize * rows + usize::from(index.row[i]);
            if long && !last {
                open[slot] = usize::MAX;
                self.exact(index, i);
            } else {
                self.merge(index, i, bucket, &mut open[slot]);
            }
            // At the widest bucket there is one group per row, which is as little as there can be.
            if !last && self.boxes.len() + self.dense.len() > limit {
                return false;
            }
        }
        true
    }

    fn merge(&mut self, index: &Index, i: usize, bucket: u64, open: &mut usize) {
        let run = &index.runs[i];
        let function = index.calls[run.call as usize].function;
        let (start, end) = (relative(run.start, self.from), relative(run.end, self.from));
        let long = run.end - run.start;
        let failed = u32::from(matches!(run.outcome, Outcome::Failed | Outcome::Again));
        let dense = &mut self.dense;
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let near = |end: i64| start.saturating_sub(end) < signed(bucket);
        // A group does not grow past some columns, so that it keeps showing when it was busy.
        let small =
            |at: usize| end.saturating_sub(dense.start[at]) <= signed(bucket.saturating_mul(4));
        if *open != usize::MAX && near(dense.end[*open]) && small(*open) {
            let at = *open;
            dense.end[at] = dense.end[at].max(end);
            dense.count[at] += 1;
            dense.busy[at] = dense.busy[at].saturating_add(long);
            dense.failed[at] += failed;
            if long > dense.lead[at] {
                dense.lead[at] = long;
                dense.function[at] = function;
            }
        } else {
            *open = dense.len();
            dense.lane.push(run.lane);
            dense.row.push(index.row[i]);
            dense.function.push(function);
            dense.start.push(start);
            dense.end.push(end);
            dense.count.push(1);
            dense.busy.push(long);
            dense.failed.push(failed);
            dense.lead.push(long);
        }
    }
}

/// The lanes as the page lists them.
pub fn lanes(index: &Index) -> Vec<LaneRow<'_>> {
    index
        .lanes
        .iter()
        .zip(&index.rows)
        .map(|(lane, &rows)| LaneRow {
            node: &lane.node,
            name: &lane.name,
            driver: lane.driver,
            rows,
        })
        .collect()
}
