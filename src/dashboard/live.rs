//! Counts as they change: sampled once for all who look, kept for a while, and sent on.
//!
//! **Invariant:** a sample is taken at most four times a second, whoever watches, and once a second when nobody does;
//! [`History`] keeps [`KEPT`] of them, one per second. Who reads slowly gets the latest and misses those between.
//! **Left out:** tables, which the page asks for when it shows them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch;

use super::routes::State;
use crate::base::query::{Part, Query};
use crate::base::snapshot::{Micros, Snapshot};

/// Samples that are kept, one per second.
pub const KEPT: usize = 900;

/// Who may watch at one time.
pub const MAX_WATCHERS: usize = 32;

const WATCHED: Duration = Duration::from_millis(250);

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

/// What is sent to those who watch.
#[derive(Debug, Serialize)]
struct Tick<'a> {
    sample: Sample,
    /// Whether the sample enters the history, as one does every second.
    keep: bool,
    snapshot: &'a Snapshot,
}

/// The last samples.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
}

impl History {
    fn push(&mut self, sample: Sample) {
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
fn between(before: &Snapshot, now: &Snapshot) -> Sample {
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

/// Takes samples for as long as the server runs.
pub async fn sample(state: Arc<State>) {
    let mut beat = tokio::time::interval(WATCHED);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut kept, mut sent): (Option<Snapshot>, Option<Snapshot>) = (None, None);
    let mut last = Instant::now();
    loop {
        beat.tick().await;
        let keep = kept.is_none() || last.elapsed() >= Duration::from_millis(990);
        if !keep && state.ticks.receiver_count() == 0 {
            continue;
        }
        let source = state.source.clone();
        let look = move || source.snapshot(&Query::of(&[Part::Nodes]));
        let look = tokio::task::spawn_blocking(look).await;
        let Ok(Ok(now)) = look else {
            // The program has gone, or is busy going; whoever asks for something else is told so.
            let _ = state.ticks.send(Arc::from("null"));
            continue;
        };
        let before = sent.as_ref().or(kept.as_ref()).unwrap_or(&now);
        let mut sample = between(before, &now);
        if keep {
            last = Instant::now();
            state.keep.forget(&*state.source);
            sample = kept.as_ref().map_or(sample, |kept| between(kept, &now));
            state.history().push(sample);
            kept = Some(now.clone());
        }
        // A pause is a moment too: rates fall to zero by themselves.
        let tick = Tick {
            sample,
            keep,
            snapshot: &now,
        };
        if let Ok(text) = serde_json::to_string(&tick) {
            let _ = state.ticks.send(Arc::from(text));
        }
        sent = Some(now);
    }
}

/// The stream of ticks.
pub fn watch(state: &State) -> Response {
    let Ok(place) = state.watchers.clone().try_acquire_owned() else {
        return super::routes::busy("too many pages watch this program: close one");
    };
    let mut ticks: watch::Receiver<Arc<str>> = state.ticks.subscribe();
    ticks.mark_changed();
    let next = |(mut ticks, place): (watch::Receiver<Arc<str>>, _)| async move {
        ticks.changed().await.ok()?;
        let text = ticks.borrow_and_update().clone();
        let event = Event::default().data(&*text);
        Some((Ok::<_, Infallible>(event), (ticks, place)))
    };
    let alive = KeepAlive::new().interval(Duration::from_secs(10));
    Sse::new(stream::unfold((ticks, place), next))
        .keep_alive(alive)
        .into_response()
}
