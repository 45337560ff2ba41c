//! Any words in the memory of a recording: a worker that lies writes into it, and who looks at another program maps it.
//!
//! Invariant: whatever the words are, the trace is JSON, the spans and the arrangement are made, and none of it takes more memory
//! than in proportion to the recording's. Left out: what is right of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::event::{Event, Outcome};
use super::lane::{Lane, Part};
use super::pool::{Mode, Recorder, SMALLEST};
use crate::base::hostile::cheaply;

struct Plain(Box<[AtomicU64]>);

impl AsRef<[AtomicU64]> for Plain {
    fn as_ref(&self) -> &[AtomicU64] {
        &self.0
    }
}

fn memory() -> Arc<Plain> {
    Arc::new(Plain(
        (0..SMALLEST / 8).map(|_| AtomicU64::new(0)).collect(),
    ))
}

/// The words of a true one that are not zero, each with its place: a record of 10 bytes.
pub fn samples() -> Vec<Vec<u8>> {
    let memory = memory();
    let recorder = Arc::new(Recorder::create(memory.clone(), Mode::Full).expect("it is enough"));
    let lane = Lane::new(&recorder, Part::Driver);
    if let Some(pen) = lane.pen() {
        let name = pen.name("app::f");
        pen.enter(name, 3, 0, 1);
        pen.say(3, "why");
        pen.put(&Event::Span {
            name,
            begin: 5,
            end: 9,
            call: 3,
        });
        pen.put(&Event::Counter {
            name,
            at: 7,
            value: 1.5,
        });
        pen.exit(3, Outcome::Failed, 8, Some("out of luck"));
        pen.enter(name, 5, 9, 1);
    }
    let mut all = Vec::new();
    for (at, word) in memory.0.iter().enumerate() {
        let word = word.load(Ordering::Relaxed);
        if word != 0 {
            all.extend((at as u16).to_le_bytes());
            all.extend(word.to_le_bytes());
        }
    }
    vec![all]
}

/// Records of a place and a word.
pub fn memories(bytes: &[u8]) {
    let memory = memory();
    for record in bytes.chunks_exact(10) {
        let (at, word) = record.split_at(2);
        // Two bytes name every word up to the first chunks.
        let at = usize::from(u16::from_le_bytes([at[0], at[1]]));
        let word = u64::from_le_bytes(word.try_into().expect("8 bytes"));
        memory.0[at].store(word, Ordering::Relaxed);
    }
    let Some(recorder) = Recorder::of("app".into(), memory) else {
        return;
    };
    let recorder = Arc::new(recorder);
    let mut file = Vec::new();
    cheaply(SMALLEST, 8, || super::write(&recorder, &mut file)).expect("a vector takes it");
    let json: serde_json::Result<serde_json::Value> = serde_json::from_slice(&file);
    assert!(json.is_ok(), "{}", String::from_utf8_lossy(&file));
    #[cfg(feature = "dashboard")]
    cheaply(SMALLEST, 16, || {
        let mut follower = super::Follower::new(Arc::clone(&recorder));
        let first = follower.recording();
        assert_eq!(first.calls.len(), follower.recording().calls.len());
    });
    #[cfg(feature = "otel")]
    cheaply(SMALLEST, 16, || {
        let mut spans = Vec::new();
        super::Spans::default().read(&recorder, &mut |span| spans.push(span));
        let source = super::Source {
            service: "app".into(),
            attributes: Vec::new(),
            process: 1,
            seed: 2,
        };
        let _ = super::request(&source, &spans);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hostile::spoiled;

    #[test]
    fn spoiled_recordings_are_shown_or_refused() {
        spoiled(10, 150, &samples(), memories);
    }
}
