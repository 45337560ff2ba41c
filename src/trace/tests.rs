//! The recorder as a whole: what is written is read back, by whom and whenever, and nonsense does no harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;

use super::event::{Event, Outcome, WORDS};
use super::lane::{Lane, Part};
use super::pool::{EVENTS, Mode, Recorder, SMALLEST};
use super::{read, write};

/// Memory of this process alone.
pub(super) struct Plain(Box<[AtomicU64]>);

impl AsRef<[AtomicU64]> for Plain {
    fn as_ref(&self) -> &[AtomicU64] {
        &self.0
    }
}

pub(super) fn memory(bytes: usize) -> Arc<Plain> {
    Arc::new(Plain((0..bytes / 8).map(|_| AtomicU64::new(0)).collect()))
}

pub(super) fn recorder(mode: Mode) -> Arc<Recorder> {
    Arc::new(Recorder::create(memory(SMALLEST), mode).unwrap())
}

fn counter(at: u64, value: f64) -> Event {
    Event::Counter { name: 0, at, value }
}

/// The values of all counters, oldest first, with their threads.
fn values(recorder: &Recorder) -> Vec<(u32, f64)> {
    let mut all = Vec::new();
    read::each_chunk(recorder, |whose, events, _| {
        let read = events.iter().rev().filter_map(Event::read);
        all.extend(read.filter_map(|e| match e {
            Event::Counter { value, .. } => Some((whose.lane, value)),
            _ => None,
        }));
    });
    all.reverse();
    all
}

/// The trace as it would be in a file.
fn exported(recorder: &Recorder) -> serde_json::Value {
    let mut file = Vec::new();
    write(recorder, &mut file).unwrap();
    serde_json::from_slice(&file).expect("the trace is JSON")
}

#[test]
fn too_little_memory_is_refused() {
    assert!(Recorder::create(memory(SMALLEST - 8), Mode::Full).is_none());
    assert!(Recorder::attach(memory(SMALLEST), Mode::Full).is_none());
}

#[test]
fn the_newest_events_stay_and_the_others_are_counted() {
    let recorder = recorder(Mode::Full);
    let room = recorder.chunks() * EVENTS;
    let lane = Lane::new(&recorder, Part::Driver);
    let pen = lane.pen().unwrap();
    let all = room + 3 * EVENTS;
    for i in 0..all {
        pen.put(&counter(1, i as f64));
    }
    let kept = values(&recorder);
    assert_eq!(recorder.lost(), (3 * EVENTS as u64, 0));
    assert_eq!(kept.len(), room);
    let newest: Vec<f64> = (3 * EVENTS..all).map(|i| i as f64).collect();
    assert_eq!(kept.iter().map(|k| k.1).collect::<Vec<_>>(), newest);
}

#[test]
fn a_chunk_that_is_held_is_passed_over() {
    let recorder = recorder(Mode::Full);
    let idle = Lane::new(&recorder, Part::Driver);
    idle.pen().unwrap().put(&counter(1, -1.0));
    let busy = Lane::new(&recorder, Part::Driver);
    for i in 0..recorder.chunks() * EVENTS * 2 {
        busy.pen().unwrap().put(&counter(1, i as f64));
    }
    assert_eq!(values(&recorder)[0], (1, -1.0));
    idle.pen().unwrap().put(&counter(1, -2.0));
    let idles = values(&recorder).into_iter().filter(|v| v.0 == 1);
    assert_eq!(idles.collect::<Vec<_>>(), [(1, -1.0), (1, -2.0)]);
}

#[test]
fn more_threads_than_chunks_lose_events_and_say_so() {
    let recorder = recorder(Mode::Full);
    let lanes: Vec<_> = (0..recorder.chunks() + 2)
        .map(|_| Lane::new(&recorder, Part::Executor))
        .collect();
    for lane in &lanes {
        lane.pen().unwrap().put(&counter(1, 1.0));
    }
    assert_eq!(values(&recorder).len(), recorder.chunks());
    assert_eq!(recorder.lost(), (0, 2));
    drop(lanes);
    let later = Lane::new(&recorder, Part::Executor);
    later.pen().unwrap().put(&counter(1, 2.0));
    assert!(values(&recorder).iter().any(|v| v.1 == 2.0));
}

#[test]
fn what_a_process_left_is_read_and_its_chunks_are_used_again() {
    let memory = memory(SMALLEST);
    let node = Arc::new(Recorder::create(memory.clone(), Mode::Full).unwrap());
    let worker = Arc::new(Recorder::attach(memory, Mode::Full).unwrap());
    let lane = Lane::new(&worker, Part::Worker);
    lane.pen().unwrap().put(&counter(1, 7.0));
    // As a process does that is killed.
    std::mem::forget(lane);
    assert_eq!(values(&node), [(1, 7.0)]);
    node.release_process(std::process::id());
    assert_eq!(values(&node), [(1, 7.0)]);
    let own = Lane::new(&node, Part::Driver);
    for _ in 0..node.chunks() * EVENTS {
        own.pen().unwrap().put(&counter(1, 8.0));
    }
    assert!(values(&node).iter().all(|v| v.1 == 8.0));
}

#[test]
fn readers_see_whole_events_while_writers_overwrite_them() {
    let recorder = recorder(Mode::Full);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let lane = Lane::new(&recorder, Part::Executor);
                let mut i = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    i += 1;
                    // A time that the value vouches for.
                    lane.pen().unwrap().put(&counter(i, i as f64));
                }
            });
        }
        let mut events = 0;
        while events < 200_000 {
            read::each_chunk(&recorder, |whose, words, _| {
                assert!((1..=2).contains(&whose.lane));
                for word in words {
                    match Event::read(word) {
                        Some(Event::Counter { at, value, .. }) => assert_eq!(at as f64, value),
                        other => panic!("{other:?} was never written"),
                    }
                }
                events += words.len();
            });
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_call_that_ends_in_its_chunk_is_one_event_and_elsewhere_one_box() {
    let recorder = recorder(Mode::Full);
    let lane = Lane::new(&recorder, Part::Executor);
    let pen = lane.pen().unwrap();
    let name = pen.name("some::long::call");
    pen.enter(name, 3, 0, 1);
    pen.enter(name, 5, 0, 1);
    assert!(pen.exit(5, Outcome::Done, 8, None));
    for _ in 0..EVENTS {
        pen.put(&counter(1, 1.0));
    }
    assert!(pen.exit(3, Outcome::Failed, 0, Some("out of luck")));
    assert!(!pen.exit(7, Outcome::Done, 0, None), "it never began");
    pen.enter(name, 9, 0, 1);
    let trace = exported(&recorder);
    let events = trace["traceEvents"].as_array().unwrap();
    let boxes: Vec<_> = events.iter().filter(|e| e["cat"] == "task").collect();
    let outcome = |call: &str| {
        let mut of = boxes.iter().filter(|b| b["args"]["call"] == call);
        let found = of.next().map(|b| b["args"]["outcome"].clone());
        assert!(of.next().is_none(), "{call} has two boxes");
        found.unwrap_or_default()
    };
    assert_eq!(boxes.len(), 3);
    assert_eq!(
        [outcome("0x3"), outcome("0x5"), outcome("0x9")],
        ["failed", "done", "running"]
    );
    let failed = boxes.iter().find(|b| b["args"]["call"] == "0x3").unwrap();
    assert_eq!(failed["args"]["error"], "out of luck");
    assert_eq!(failed["name"], "call");
}

#[test]
fn names_are_kept_once_cut_and_bounded() {
    let recorder = recorder(Mode::Full);
    assert_eq!(recorder.name("one"), recorder.name("one"));
    let long = "é".repeat(500);
    let cut = recorder.read_name(recorder.name(&long)).unwrap();
    assert_eq!(cut, "é".repeat(100));
    let given = (0..20_000).filter(|i| recorder.name(&format!("a name with number {i}")) != 0);
    assert!((2_000..10_000).contains(&given.count()));
    assert_eq!(
        recorder.read_name(recorder.name("one")).as_deref(),
        Some("one")
    );
    assert_eq!(recorder.name("no room for this"), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 24 }))]

    /// Whatever another process wrote, anywhere.
    #[test]
    fn any_memory_is_exported_as_json(
        head in proptest::collection::vec((0_usize..64, any::<u64>()), 0..12),
        seed in any::<u64>(),
        kinds in proptest::collection::vec(0_u8..14, 1..40),
    ) {
        let memory = memory(SMALLEST);
        let recorder = Arc::new(Recorder::create(memory.clone(), Mode::Full).unwrap());
        let lane = Lane::new(&recorder, Part::Worker);
        let pen = lane.pen().unwrap();
        pen.name("a name");
        let mut state = seed | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Small ones too, that mean something.
            if state & 3 == 0 { state >> 58 } else { state }
        };
        for kind in &kinds {
            pen.put(&counter(0, 0.0));
            let mut words: [u64; WORDS] = std::array::from_fn(|_| random());
            words[0] = words[0] & !0xff | u64::from(*kind);
            pen.scribble(words);
        }
        for (at, value) in head {
            memory.0[at].store(value, Ordering::Relaxed);
        }
        for _ in 0..64 {
            let at = random() as usize % memory.0.len();
            memory.0[at].store(random(), Ordering::Relaxed);
        }
        let trace = exported(&recorder);
        prop_assert!(trace["traceEvents"].is_array());
        // Writing goes on, too.
        for i in 0..600 {
            pen.put(&counter(1, f64::from(i)));
        }
        pen.name_anew("another name");
        exported(&recorder);
    }
}
