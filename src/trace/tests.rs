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

#[test]
fn names_that_a_thread_has_met_take_no_lock() {
    let recorder = recorder(Mode::Full);
    // Many more than it has at hand.
    let names: Vec<&'static str> = (0..500)
        .map(|i| &*Box::leak(format!("name {i}").into_boxed_str()))
        .collect();
    let (met, wait) = std::sync::mpsc::channel();
    let (go_on, locked) = std::sync::mpsc::channel();
    let of = Arc::clone(&recorder);
    let thread = std::thread::spawn(move || {
        let lane = Lane::new(&of, Part::Driver);
        let number = || -> Vec<u32> {
            let pen = lane.pen().unwrap();
            names.iter().map(|name| pen.name(name)).collect()
        };
        met.send(number()).unwrap();
        locked.recv().unwrap();
        met.send(number()).unwrap();
    });
    let first = wait.recv().unwrap();
    let lock = recorder.lock_names();
    go_on.send(()).unwrap();
    let again = wait.recv_timeout(std::time::Duration::from_secs(60));
    drop(lock);
    assert_eq!(again.expect("it waits for the lock"), first);
    thread.join().unwrap();
}

/// Whoever copies an event while it is taken back may see its old kind and its new words: they must not tell of a call
/// that began when the recording did.
#[test]
fn an_event_that_is_taken_back_keeps_its_words() {
    let memory = memory(SMALLEST);
    let recorder = Arc::new(Recorder::create(memory.clone(), Mode::Full).unwrap());
    let lane = Lane::new(&recorder, Part::Driver);
    let pen = lane.pen().unwrap();
    pen.enter(0, 7, 0, 1);
    let at = recorder.base(0) + WORDS;
    let words = || -> Vec<u64> {
        let words = &memory.0[at..at + WORDS];
        words.iter().map(|w| w.load(Ordering::Relaxed)).collect()
    };
    let before = words();
    assert!(pen.exit(7, Outcome::Failed, 0, Some("why")));
    let after = words();
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1..], after[1..]);
}

#[test]
fn what_is_said_of_a_span_outside_of_a_window_is_not_said_of_the_next() {
    let recorder = recorder(Mode::Full);
    let lane = Lane::new(&recorder, Part::Driver);
    let pen = lane.pen().unwrap();
    let span = |begin: u64, fields: &str| {
        pen.say(3, fields);
        pen.put(&Event::Span {
            name: 0,
            begin,
            end: begin,
            call: 3,
        });
    };
    let (begun, _, _) = recorder.origin();
    // Further apart than any scale can take for one.
    span(begun, "first=1");
    span(begun + (1 << 50), "second=2");
    let mut file = Vec::new();
    super::chrome::write_within(&recorder, 1_000_000..=u64::MAX, &mut file, |_, _| {}).unwrap();
    let text = String::from_utf8(file).unwrap();
    assert!(
        text.contains("\"second=2\"") && !text.contains("first"),
        "{text}"
    );
}

/// A thread is between two steps of taking a chunk when the process dies that had the chunk before.
#[test]
fn a_chunk_that_was_just_taken_is_not_let_go_of_for_another_process() {
    let memory = memory(SMALLEST);
    let recorder = Arc::new(Recorder::create(memory.clone(), Mode::Full).unwrap());
    let lane = Lane::new(&recorder, Part::Worker);
    lane.pen().unwrap().put(&counter(1, 1.0));
    drop(lane);
    let state = &memory.0[recorder.base(0)];
    // Another has taken it, and has not yet put its name to it.
    let taken = 99 << 1 | 1;
    state.store(taken, Ordering::Relaxed);
    recorder.release_process(std::process::id());
    assert_eq!(state.load(Ordering::Relaxed), taken);
}

#[test]
fn counts_that_another_process_drove_to_their_ends_do_no_harm() {
    // Tickets, threads, and events that were lost.
    for word in [8, 16, 32, 40] {
        let memory = memory(SMALLEST);
        let recorder = Arc::new(Recorder::create(memory.clone(), Mode::Full).unwrap());
        memory.0[word].store(u64::MAX, Ordering::Relaxed);
        let lane = Lane::new(&recorder, Part::Driver);
        for i in 0..EVENTS * 3 {
            lane.pen().unwrap().put(&counter(1, i as f64));
        }
        exported(&recorder);
        #[cfg(feature = "dashboard")]
        super::Follower::new(Arc::clone(&recorder)).recording();
    }
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
