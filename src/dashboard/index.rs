//! A recording arranged so that questions about a window of time, a call or a lane are quick.
//!
//! **Invariant:** built once, then only read; every index in it is in range, whatever the recording claimed. Runs are sorted by
//! start; `row` keeps boxes that overlap on one lane apart. Memory is proportional to the recording.
//! **Left out:** the questions: [`super::window`], [`super::task`], [`super::figures`], [`super::find`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::trace::recording::{Call, Inside, Lane, Object, Outcome, Recording, Run};

/// Rows of one lane; what overlaps beyond shares the last.
pub const MAX_ROWS: u8 = 24;

/// No call, no run.
pub const NONE: u32 = u32::MAX;

/// Runs that one entry of [`Index::reach`] covers.
const STRIDE: usize = 512;

/// A recording, ready to be asked.
#[derive(Debug, Default)]
pub struct Index {
    /// The time of the recording, or a later one until which nothing else was recorded.
    now: AtomicU64,
    /// Whether a call had begun and not ended.
    pub open: bool,
    /// The last moment anything happened: the time of the recording if something runs.
    pub until: u64,
    /// The first moment anything was recorded.
    pub begin: u64,
    pub lanes: Vec<Lane>,
    /// How many rows each lane has.
    pub rows: Vec<u8>,
    pub names: Vec<String>,
    pub texts: Vec<String>,
    /// Sorted by submission.
    pub calls: Vec<Call>,
    /// Sorted by start; ends are filled in.
    pub runs: Vec<Run>,
    /// The row of each run.
    pub row: Vec<u8>,
    pub inputs: Vec<u64>,
    pub objects: Vec<Object>,
    /// Sorted by start.
    pub inside: Vec<Inside>,
    pub lost: u64,
    /// The last end within each stride of runs.
    reach: Vec<u64>,
    /// The longest wait or span.
    longest_inside: u64,
    /// First run of each call, in order of time; then the next one of the same call.
    first: Vec<u32>,
    last: Vec<u32>,
    next: Vec<u32>,
    by_id: HashMap<u64, u32>,
    objects_by_id: HashMap<u64, u32>,
    consumers: Many,
    children: Many,
}

/// Lists of indices, one after the other.
#[derive(Debug, Default)]
struct Many {
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl Many {
    /// From pairs of whose list and what is in it.
    fn new(lists: usize, pairs: impl Iterator<Item = (u32, u32)> + Clone) -> Many {
        let mut starts = vec![0u32; lists + 1];
        for (of, _) in pairs.clone() {
            starts[of as usize + 1] += 1;
        }
        for i in 0..lists {
            starts[i + 1] += starts[i];
        }
        let mut at = starts.clone();
        let mut items = vec![0; starts[lists] as usize];
        for (of, item) in pairs {
            items[at[of as usize] as usize] = item;
            at[of as usize] += 1;
        }
        Many { starts, items }
    }

    fn of(&self, list: u32) -> &[u32] {
        let list = list as usize;
        match (self.starts.get(list), self.starts.get(list + 1)) {
            (Some(&a), Some(&b)) => &self.items[a as usize..b as usize],
            _ => &[],
        }
    }
}

impl Index {
    /// Arranges a recording.
    pub fn new(recording: Recording) -> Index {
        let Recording {
            now,
            lanes,
            names,
            texts,
            calls,
            runs,
            inputs,
            objects,
            inside,
            lost,
        } = recording;
        let mut index = Index {
            now: AtomicU64::new(now),
            lanes,
            names,
            texts,
            inputs,
            objects,
            inside,
            lost,
            ..Index::default()
        };
        let moved = index.take_calls(calls);
        index.take_runs(runs, &moved);
        index.take_rest();
        index
    }

    /// The time up to which it is known what was recorded.
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// So much time has passed since, in which nothing was recorded.
    pub fn pass(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX >> 1);
        self.now.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Takes the calls, sorted; gives the new place of each.
    fn take_calls(&mut self, mut calls: Vec<Call>) -> Vec<u32> {
        // Positions are u32; what does not fit is not shown.
        calls.truncate(u32::MAX as usize - 1);
        let mut order: Vec<u32> = (0..calls.len() as u32).collect();
        order.sort_unstable_by_key(|&i| (calls[i as usize].submitted, calls[i as usize].id));
        let mut moved = vec![0; calls.len()];
        self.calls.reserve_exact(calls.len());
        let inputs = self.inputs.len() as u32;
        for (to, &from) in order.iter().enumerate() {
            moved[from as usize] = to as u32;
            let mut call = std::mem::take(&mut calls[from as usize]);
            let (a, b) = call.inputs;
            if a > b || b > inputs {
                call.inputs = (0, 0);
            }
            if call.error as usize > self.texts.len() {
                call.error = 0;
            }
            self.calls.push(call);
        }
        moved
    }

    fn take_runs(&mut self, mut runs: Vec<Run>, moved: &[u32]) {
        let (lanes, now) = (self.lanes.len(), self.now());
        runs.truncate(u32::MAX as usize - 1);
        runs.retain_mut(|run| {
            let Some(&call) = moved.get(run.call as usize) else {
                return false;
            };
            run.call = call;
            if run.end == 0 {
                run.end = now;
                self.open = true;
            }
            run.end = run.end.max(run.start);
            (run.lane as usize) < lanes
        });
        // A run that lies inside another one that began with it comes after it.
        runs.sort_unstable_by_key(|run| (run.start, u64::MAX - run.end));
        self.rows = vec![1; lanes];
        self.row = Vec::with_capacity(runs.len());
        let mut until: Vec<Vec<u64>> = vec![Vec::new(); lanes];
        for run in &runs {
            let lane = &mut until[run.lane as usize];
            let free = lane.iter().position(|&end| end <= run.start);
            let row = match free {
                Some(row) => row,
                None if lane.len() < usize::from(MAX_ROWS) => {
                    lane.push(0);
                    lane.len() - 1
                }
                None => lane.len() - 1,
            };
            lane[row] = lane[row].max(run.end);
            self.row.push(row as u8);
            let rows = &mut self.rows[run.lane as usize];
            *rows = (*rows).max(row as u8 + 1);
        }
        let reach = |stride: &[Run]| stride.iter().map(|run| run.end).max().unwrap_or(0);
        self.reach = runs.chunks(STRIDE).map(reach).collect();
        self.first = vec![NONE; self.calls.len()];
        self.last = vec![NONE; self.calls.len()];
        self.next = vec![NONE; runs.len()];
        for (i, run) in runs.iter().enumerate() {
            let call = run.call as usize;
            match self.last[call] {
                NONE => self.first[call] = i as u32,
                last => self.next[last as usize] = i as u32,
            }
            self.last[call] = i as u32;
        }
        self.runs = runs;
    }

    fn take_rest(&mut self) {
        self.take_ids();
        self.take_neighbours();
        let lanes = self.lanes.len() as u32;
        self.inside
            .retain(|inside| inside.lane < lanes && inside.start <= inside.end);
        self.inside.sort_unstable_by_key(|inside| inside.start);
        self.longest_inside = self
            .inside
            .iter()
            .map(|i| i.end - i.start)
            .max()
            .unwrap_or(0);
        let now = self.now();
        let first_run = self.runs.first().map_or(now, |run| run.start);
        let submitted = self
            .calls
            .iter()
            .map(|call| call.submitted)
            .filter(|&at| at > 0)
            .min();
        let objects = self.objects.first().map_or(now, |object| object.at);
        self.begin = first_run
            .min(submitted.unwrap_or(now))
            .min(objects)
            .min(now);
        let last = self.reach.iter().copied().max().unwrap_or(0);
        let now = now.max(last);
        *self.now.get_mut() = now;
        let submitted = self.calls.last().map_or(0, |call| call.submitted);
        let object = self.objects.last().map_or(0, |object| object.at);
        let last = last.max(submitted).max(object);
        self.until = if last > 0 { last.min(now) } else { now };
    }

    fn take_ids(&mut self) {
        let numbered = |i: usize, id: u64| (id, i as u32);
        self.by_id = self
            .calls
            .iter()
            .enumerate()
            .map(|(i, c)| numbered(i, c.id))
            .collect();
        let lanes = self.lanes.len() as u32;
        self.objects.retain(|object| object.lane < lanes);
        self.objects.sort_unstable_by_key(|object| object.at);
        self.objects_by_id = self
            .objects
            .iter()
            .enumerate()
            .map(|(i, o)| numbered(i, o.id))
            .collect();
    }

    fn take_neighbours(&mut self) {
        let this = &*self;
        let takes = move |i: u32| {
            this.inputs_of(i)
                .iter()
                .filter_map(move |&id| Some((this.node_of(id)?, i)))
        };
        let calls = 0..this.calls.len() as u32;
        let nodes = this.calls.len() + this.objects.len();
        let consumers = Many::new(nodes, calls.clone().flat_map(takes));
        let parent = |i: u32| Some((this.call(this.calls[i as usize].parent)?, i));
        let children = Many::new(this.calls.len(), calls.filter_map(parent));
        (self.consumers, self.children) = (consumers, children);
    }

    /// Calls first, then objects: what can be an input, by number.
    fn node_of(&self, id: u64) -> Option<u32> {
        self.by_id.get(&id).copied().or_else(|| {
            let object = self.objects_by_id.get(&id)?;
            Some(self.calls.len() as u32 + object)
        })
    }

    /// The call with this id.
    pub fn call(&self, id: u64) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// The object with this id.
    pub fn object(&self, id: u64) -> Option<&Object> {
        Some(&self.objects[*self.objects_by_id.get(&id)? as usize])
    }

    /// The runs of a call, first to last.
    pub fn runs_of(&self, call: u32) -> impl Iterator<Item = u32> {
        let mut at = self.first[call as usize];
        std::iter::from_fn(move || {
            let here = at;
            at = *self.next.get(here as usize)?;
            Some(here)
        })
    }

    /// The last run of a call.
    pub fn last_run(&self, call: u32) -> Option<u32> {
        Some(self.last[call as usize]).filter(|&run| run != NONE)
    }

    /// The first run of a call.
    pub fn first_run(&self, call: u32) -> Option<u32> {
        Some(self.first[call as usize]).filter(|&run| run != NONE)
    }

    /// When a call began to run.
    pub fn started(&self, call: u32) -> Option<u64> {
        Some(self.runs[self.first_run(call)? as usize].start)
    }

    /// When a call that has ended did so.
    pub fn ended(&self, call: u32) -> Option<u64> {
        let run = self.runs[self.last_run(call)? as usize];
        let over = matches!(
            run.outcome,
            Outcome::Done | Outcome::Failed | Outcome::Cancelled
        );
        over.then_some(run.end)
    }

    /// Ids of what a call takes.
    pub fn inputs_of(&self, call: u32) -> &[u64] {
        let (a, b) = self.calls[call as usize].inputs;
        &self.inputs[a as usize..b as usize]
    }

    /// Calls that take what this call or object gives.
    pub fn consumers_of(&self, id: u64) -> &[u32] {
        self.node_of(id).map_or(&[], |node| self.consumers.of(node))
    }

    /// Calls that this call submitted.
    pub fn children_of(&self, call: u32) -> &[u32] {
        self.children.of(call)
    }

    /// A function's name.
    pub fn name(&self, name: u32) -> &str {
        self.names.get(name as usize).map_or("?", String::as_str)
    }

    /// The text of a call's error.
    pub fn error(&self, call: u32) -> Option<&str> {
        let error = self.calls[call as usize].error as usize;
        Some(self.texts[error.checked_sub(1)?].as_str())
    }

    /// The runs that touch a window, by position.
    pub fn runs_in(&self, from: u64, to: u64) -> impl Iterator<Item = usize> {
        let upper = self.runs.partition_point(|run| run.start <= to);
        let strides = self.reach.iter().enumerate().take(upper.div_ceil(STRIDE));
        let reached = strides.filter(move |&(_, &reach)| reach >= from);
        let runs = reached.flat_map(move |(i, _)| i * STRIDE..((i + 1) * STRIDE).min(upper));
        runs.filter(move |&i| self.runs[i].end >= from)
    }

    /// Waits and spans that touch a window.
    pub fn inside_in(&self, from: u64, to: u64) -> impl Iterator<Item = &Inside> {
        let since = from.saturating_sub(self.longest_inside);
        let lower = self.inside.partition_point(|i| i.start < since);
        let upper = self.inside.partition_point(|i| i.start <= to);
        self.inside[lower..upper.max(lower)]
            .iter()
            .filter(move |i| i.end >= from)
    }

    /// Objects made within a window.
    pub fn objects_in(&self, from: u64, to: u64) -> &[Object] {
        let lower = self.objects.partition_point(|o| o.at < from);
        let upper = self.objects.partition_point(|o| o.at <= to);
        &self.objects[lower..upper.max(lower)]
    }

    /// The row of the innermost run that holds this piece of a lane.
    pub fn innermost(&self, lane: u32, start: u64, end: u64) -> u8 {
        let around = self.runs_in(start, start).filter(|&i| {
            let run = &self.runs[i];
            run.lane == lane && run.start <= start && end <= run.end
        });
        around.map(|i| self.row[i]).max().unwrap_or(0)
    }

    /// The row on which something at this time on this lane is: that of the innermost run around it.
    pub fn row_at(&self, lane: u32, at: u64, call: Option<u32>) -> u8 {
        let inside = |run: u32| {
            let run = &self.runs[run as usize];
            run.lane == lane && run.start <= at && at <= run.end
        };
        let run = call.and_then(|call| self.runs_of(call).find(|&run| inside(run)));
        run.map_or(0, |run| self.row[run as usize])
    }
}
