//! Figures over a window of time: how long the calls of each function took, and how busy each lane was when.
//!
//! **Invariant:** one pass over the runs of the window; answers are bounded by [`MAX_FUNCTIONS`], the lanes and the columns
//! asked for. **Left out:** figures since the program's start, which the snapshot has.

use serde::Serialize;

use super::index::Index;
use super::window::{LaneRow, Window, lanes};
use crate::trace::recording::Outcome;

/// Functions of one answer, those that took most time first.
pub const MAX_FUNCTIONS: usize = 200;

/// Columns of a heat map.
pub const MAX_COLUMNS: usize = 1_000;

/// Slots of a histogram: four per doubling, from 64 ns.
const SLOTS: usize = 160;

/// How long the calls of one function took.
#[derive(Clone, Debug, Serialize)]
pub struct Function {
    pub name: String,
    pub function: u32,
    /// Runs that ended in the window or touch it.
    pub count: u64,
    pub failed: u64,
    /// Nanoseconds, all together.
    pub total: u64,
    pub min: u64,
    pub max: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    /// `slots[i]` of them took up to `floor[i + 1]` and not less than `floor[i]` of [`Functions`].
    pub slots: Vec<u32>,
}

/// The functions of a window.
#[derive(Debug, Serialize)]
pub struct Functions {
    /// The lower bounds of the slots, in nanoseconds.
    floor: Vec<u64>,
    pub functions: Vec<Function>,
    left_out: usize,
}

/// The slot of a duration.
fn slot(nanos: u64) -> usize {
    let nanos = nanos.max(64);
    let doubling = nanos.ilog2();
    let quarter = (nanos >> (doubling - 2)) & 3;
    ((doubling as usize - 6) * 4 + quarter as usize).min(SLOTS - 1)
}

/// The shortest duration of a slot.
fn floor(slot: usize) -> u64 {
    let (doubling, quarter) = (slot / 4 + 6, slot as u64 % 4);
    (4 + quarter) << (doubling - 2)
}

impl Function {
    fn new(function: u32) -> Function {
        Function {
            name: String::new(),
            function,
            count: 0,
            failed: 0,
            total: 0,
            min: u64::MAX,
            max: 0,
            p50: 0,
            p90: 0,
            p99: 0,
            slots: vec![0; SLOTS],
        }
    }

    /// The middle of the slot in which this part of the runs has ended, within what was seen.
    fn quantile(&self, part: f64) -> u64 {
        let wanted = (self.count as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, &n) in self.slots.iter().enumerate() {
            seen += u64::from(n);
            if seen >= wanted {
                let middle = floor(i) / 2 + floor(i + 1) / 2;
                return middle.clamp(self.min, self.max);
            }
        }
        self.max
    }
}

/// How long the calls took that touch a window.
pub fn functions(index: &Index, window: Window) -> Functions {
    let mut of: Vec<Option<Function>> = vec![None; index.names.len() + 1];
    for i in index.runs_in(window.from, window.to) {
        let run = &index.runs[i];
        if matches!(run.outcome, Outcome::Running | Outcome::Pending) {
            continue;
        }
        let function = index.calls[run.call as usize].function;
        let known = (function as usize).min(index.names.len());
        let entry = of[known].get_or_insert_with(|| Function::new(function));
        let took = run.end - run.start;
        entry.count += 1;
        entry.failed += u64::from(matches!(run.outcome, Outcome::Failed | Outcome::Again));
        entry.total = entry.total.saturating_add(took);
        entry.min = entry.min.min(took);
        entry.max = entry.max.max(took);
        entry.slots[slot(took)] += 1;
    }
    let mut functions: Vec<Function> = of.into_iter().flatten().collect();
    functions.sort_unstable_by_key(|f| std::cmp::Reverse(f.total));
    let left_out = functions.len().saturating_sub(MAX_FUNCTIONS);
    functions.truncate(MAX_FUNCTIONS);
    for f in &mut functions {
        f.name = index.name(f.function).into();
        (f.p50, f.p90, f.p99) = (f.quantile(0.5), f.quantile(0.9), f.quantile(0.99));
    }
    Functions {
        floor: (0..=SLOTS).map(floor).collect(),
        functions,
        left_out,
    }
}

/// How busy each lane was.
#[derive(Debug, Serialize)]
pub struct Heat<'a> {
    from: u64,
    to: u64,
    columns: usize,
    lanes: Vec<LaneRow<'a>>,
    /// Per lane and column, how much of the time it ran something, 0 to 100.
    pub busy: Vec<Vec<u8>>,
    /// Per lane, how many runs touch the window.
    pub runs: Vec<u64>,
}

/// How busy each lane was in each of the columns of a window.
pub fn heat(index: &Index, window: Window, columns: usize) -> Heat<'_> {
    let columns = columns.clamp(1, MAX_COLUMNS);
    let Window { from, to } = window;
    let width = ((to - from) / columns as u64).max(1);
    let mut nanos = vec![vec![0u64; columns]; index.lanes.len()];
    let mut runs = vec![0; index.lanes.len()];
    for i in index.runs_in(from, to) {
        let run = &index.runs[i];
        let lane = run.lane as usize;
        runs[lane] += 1;
        // A run inside another one adds nothing to how busy the thread is.
        if index.row[i] > 0 {
            continue;
        }
        let (start, end) = (run.start.max(from) - from, run.end.min(to).max(from) - from);
        let first = (start / width) as usize;
        let last = (end / width) as usize;
        for (column, sum) in nanos[lane]
            .iter_mut()
            .enumerate()
            .take(last + 1)
            .skip(first)
        {
            let left = column as u64 * width;
            let part = end
                .min(left.saturating_add(width))
                .saturating_sub(start.max(left));
            *sum = sum.saturating_add(part);
        }
    }
    let percent = |&n: &u64| (n.saturating_mul(100) / width).min(100) as u8;
    Heat {
        from,
        to,
        columns,
        lanes: lanes(index),
        busy: nanos
            .iter()
            .map(|lane| lane.iter().map(percent).collect())
            .collect(),
        runs,
    }
}
