//! Counts as they change: sampled once for all who look, kept for a while, and sent on.
//!
//! **Invariant:** a sample is taken at most four times a second, whoever watches, and once a second when nobody does;
//! one per second is kept. Who reads slowly gets the latest and misses those between.
//! **Left out:** tables, which the page asks for when it shows them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch;

use super::history::{Sample, between};
use super::refusal;
use super::state::State;
use crate::base::query::{Part, Query};
use crate::base::snapshot::Snapshot;

const WATCHED: Duration = Duration::from_millis(250);

/// What is sent to those who watch.
#[derive(Debug, Serialize)]
struct Tick<'a> {
    sample: Sample,
    /// Whether the sample enters the history, as one does every second.
    keep: bool,
    snapshot: &'a Snapshot,
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
        return refusal::busy("too many pages watch this program: close one");
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
