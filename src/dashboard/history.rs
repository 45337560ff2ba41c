//! The last quarter of an hour of a program, in counts.
//!
//! **Invariant:** [`History`] keeps [`KEPT`] samples, the oldest go first. **Left out:** when they are taken (`live`).

use std::collections::VecDeque;

use serde::Serialize;

use crate::base::snapshot::{Micros, Snapshot};

/// Samples that are kept, one per second.
pub const KEPT: usize = 900;

/// One second of a program.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Sample {
    at: Micros,
    /// Calls that ended, per second.
    finished: f64,
    failed: f64,
    running: u64,
    waiting: u64,
    /// CPUs in use, 1.0 being one of them.
    cpu: f64,
    store_bytes: u64,
    resident_bytes: u64,
}

/// The last samples.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
}

impl History {
    /// Adds one.
    pub fn push(&mut self, sample: Sample) {
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The samples, oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.iter().copied().collect()
    }
}

/// The difference between two looks at a program.
pub fn between(before: &Snapshot, now: &Snapshot) -> Sample {
    let seconds = now.taken.saturating_sub(before.taken) as f64 / 1e6;
    let rate = |a: u64, b: u64| {
        if seconds > 0.0 {
            b.saturating_sub(a) as f64 / seconds
        } else {
            0.0
        }
    };
    let (a, b) = (&before.counts, &now.counts);
    Sample {
        at: now.taken,
        finished: rate(a.finished, b.finished),
        failed: rate(a.failed, b.failed),
        running: b.running,
        waiting: b.queued + b.waiting_resources + b.waiting_arguments,
        cpu: rate(before.program.cpu_micros, now.program.cpu_micros) / 1e6,
        store_bytes: now.nodes.items.iter().map(|node| node.store.used).sum(),
        resident_bytes: now.program.resident_bytes,
    }
}
