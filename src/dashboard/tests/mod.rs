//! The questions on small recordings whose answers are known, and on recordings that lie.

use super::figures;
use super::find::find;
use super::index::Index;
use super::task::{Task, Thing, critical_path};
use super::window::{Timeline, Window};
use crate::trace::recording::{Call, Inside, Lane, Object, Outcome, Recording, Run};
use proptest::prelude::*;

const ALL: Window = Window {
    from: 0,
    to: u64::MAX / 4,
};

fn call(id: u64, submitted: u64, inputs: (u32, u32), parent: u64) -> Call {
    Call {
        id,
        submitted,
        inputs,
        parent,
        outcome: Outcome::Done,
        ..Call::default()
    }
}

fn run(call: u32, lane: u32, start: u64, end: u64) -> Run {
    Run {
        call,
        lane,
        start,
        end,
        turn: 1,
        outcome: Outcome::Done,
        ..Run::default()
    }
}

/// a and b, then c of both; c submits d, which runs inside it.
fn diamond() -> Recording {
    Recording {
        now: 1_000,
        lanes: vec![Lane::default(), Lane::default()],
        names: vec!["m::f".into(), "m::g".into()],
        texts: vec!["no such row".into()],
        calls: vec![
            call(12, 30, (0, 2), 0),
            call(10, 10, (0, 0), 0),
            call(11, 20, (0, 0), 0),
            call(13, 400, (0, 0), 12),
        ],
        runs: vec![
            run(0, 0, 300, 600),
            run(1, 0, 100, 200),
            run(2, 1, 100, 290),
            run(3, 0, 410, 500),
        ],
        inputs: vec![10, 11],
        ..Recording::default()
    }
}

fn json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).expect("answers are plain")
}

#[test]
fn a_window_has_its_boxes_and_arrows() {
    let index = Index::new(diamond());
    let all = Timeline::of(&index, ALL, 100);
    assert_eq!((all.boxes.len(), all.dense.len()), (4, 0));
    // Two results into c, four submissions.
    assert_eq!(all.edges.len(), 6);
    let shown = json(&all);
    assert_eq!(
        shown["boxes"]["id"],
        serde_json::json!(["0xb", "0xa", "0xc", "0xd"])
    );
    assert_eq!(
        shown["boxes"]["row"],
        serde_json::json!([0, 0, 0, 1]),
        "d lies inside c"
    );
    assert_eq!((all.begin, all.now), (10, 1_000));
    let late = Timeline::of(&index, Window { from: 450, to: 460 }, 100);
    assert_eq!(late.boxes.len(), 2, "c and d touch it");
    assert_eq!(
        json(&late)["boxes"]["start"],
        serde_json::json!([-150, -40])
    );
    assert_eq!(
        Timeline::of(&index, Window { from: 601, to: 900 }, 100).total,
        0
    );
}

#[test]
fn the_critical_path_follows_what_came_last() {
    let index = Index::new(diamond());
    let ids = |id| {
        let (steps, cut) = critical_path(&index, index.call(id).expect("it is there"));
        assert!(!cut);
        steps.iter().map(|s| s.id.0).collect::<Vec<_>>()
    };
    assert_eq!(ids(12), [12, 11], "b ended later than a");
    assert_eq!(ids(13), [13, 12, 11], "d was submitted by c");
    let (steps, _) = critical_path(&index, index.call(13).unwrap());
    assert_eq!((steps[1].start, steps[1].end, steps[1].gap), (300, 400, 10));
}

#[test]
fn a_call_names_its_neighbours_and_why_it_waits() {
    let mut recording = diamond();
    recording.calls.push(Call {
        id: 14,
        submitted: 700,
        inputs: (2, 4),
        ..Call::default()
    });
    recording.calls.push(Call {
        id: 15,
        submitted: 710,
        ..Call::default()
    });
    recording.inputs.extend([12, 15]);
    recording.calls[1].outcome = Outcome::Failed;
    recording.calls[1].error = 1;
    recording.runs[1].outcome = Outcome::Failed;
    let index = Index::new(recording);
    let c = json(&Task::of(&index, 12));
    assert_eq!(c["inputs"].as_array().unwrap().len(), 2);
    assert_eq!(c["inputs"][0]["outcome"], "failed");
    assert_eq!(c["consumers"][0]["id"], "0xe");
    assert_eq!(c["children"][0]["id"], "0xd");
    assert!(c["waiting"].is_null());
    assert_eq!(json(&Task::of(&index, 10))["error"], "no such row");
    let waits = json(&Task::of(&index, 14))["waiting"].to_string();
    assert!(
        waits.contains("0xf") && !waits.contains("more"),
        "only one is missing: {waits}"
    );
    assert!(
        json(&Task::of(&index, 15))["waiting"]
            .to_string()
            .contains("free executor")
    );
    assert!(Task::of(&index, 99).is_none());
}

#[test]
fn figures_add_up() {
    let index = Index::new(diamond());
    let of = figures::functions(&index, ALL);
    assert_eq!(
        (of.functions[0].count, of.functions[0].total),
        (4, 300 + 100 + 190 + 90)
    );
    assert_eq!(of.functions[0].slots.iter().sum::<u32>(), 4);
    assert_eq!((of.functions[0].min, of.functions[0].max), (90, 300));
    let heat = figures::heat(&index, Window { from: 0, to: 1_000 }, 10);
    assert_eq!(heat.busy[0], [0, 100, 0, 100, 100, 100, 0, 0, 0, 0]);
    assert_eq!(heat.busy[1], [0, 100, 90, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(heat.runs, [3, 1]);
}

#[test]
fn searching_finds_ids_functions_objects_and_errors() {
    let mut recording = diamond();
    recording.names.push("put at src/main.rs:3".into());
    recording.objects.push(Object {
        id: 0xabc,
        origin: 2,
        lane: 0,
        at: 5,
        bytes: 9,
    });
    recording.calls[0].error = 1;
    let index = Index::new(recording);
    let found = |text: &str| {
        find(&index, text)
            .iter()
            .map(|f| (f.what, f.id.map(|id| id.0)))
            .collect::<Vec<_>>()
    };
    assert_eq!(found("0xc")[0], ("task", Some(12)));
    assert_eq!(found("0xabc"), [("object", Some(0xabc))]);
    assert_eq!(found("main.rs"), [("object", Some(0xabc))]);
    assert_eq!(found("M::F").len(), 5, "the function and its calls");
    assert_eq!(found("such row"), [("task", Some(12))]);
    assert_eq!(found("nothing has this"), []);
    assert_eq!(found("  "), []);
    assert_eq!(found(&"x".repeat(100_000)), []);
}

/// A recording of many short calls on some lanes.
fn many(n: u64) -> Recording {
    let mut recording = Recording {
        lanes: vec![Lane::default(); 8],
        names: vec!["f".into()],
        ..Recording::default()
    };
    for i in 0..n {
        let at = i * 100;
        recording.calls.push(call(i + 1, at, (0, 0), 0));
        recording
            .runs
            .push(run(i as u32, (i % 8) as u32, at, at + 300 + i % 7));
    }
    recording.now = n * 100 + 500;
    recording
}

#[test]
fn a_large_window_is_put_together_and_loses_no_call() {
    let index = Index::new(many(300_000));
    for (from, to) in [
        (0, 30_000_000),
        (10_000_000, 20_000_000),
        (0, u64::MAX / 2),
        (5_000_000, 5_000_000),
    ] {
        let all = Timeline::of(&index, Window { from, to }, 5_000);
        assert!(
            all.boxes.len() + all.dense.len() <= 5_000,
            "{}",
            all.boxes.len() + all.dense.len()
        );
        assert_eq!(
            all.boxes.len() as u64 + all.dense.stands_for(),
            all.total as u64
        );
    }
    let none = Timeline::of(&index, ALL, 0);
    assert!(none.boxes.len() + none.dense.len() <= 8 * 24);
}

#[test]
fn the_widest_window_is_answered_too() {
    let index = Index::new(many(1_000));
    let (done, answered) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let widest = Window {
            from: 0,
            to: u64::MAX,
        };
        let all = Timeline::of(&index, widest, 1);
        let _ = done.send(all.boxes.len() as u64 + all.dense.stands_for());
    });
    let shown = answered.recv_timeout(std::time::Duration::from_secs(60));
    assert_eq!(shown, Ok(1_000), "it has an end");
}

fn any_recording() -> impl Strategy<Value = Recording> {
    let call = (
        any::<u8>(),
        any::<u8>(),
        0u64..12,
        any::<u64>(),
        any::<u32>(),
        (0u32..12, 0u32..12),
        0u32..5,
    );
    let call = call.prop_map(
        |(id, function, parent, submitted, submit_lane, inputs, error)| Call {
            id: u64::from(id) % 12,
            function: u32::from(function) % 4,
            actor: 0,
            parent,
            submit_lane: submit_lane % 4,
            submitted: submitted >> (submitted % 60),
            ready: 0,
            outcome: if id % 2 == 0 {
                Outcome::Waiting
            } else {
                Outcome::Done
            },
            bytes: 1,
            inputs,
            error,
        },
    );
    let run = (0u32..14, 0u32..4, any::<u64>(), any::<u64>(), any::<u8>());
    let run = run.prop_map(|(call, lane, start, end, kind)| Run {
        call,
        lane,
        start: start >> (start % 60),
        end: end >> (end % 60),
        reading: u32::MAX,
        storing: 1,
        turn: 1,
        outcome: [
            Outcome::Running,
            Outcome::Done,
            Outcome::Failed,
            Outcome::Pending,
        ][usize::from(kind) % 4],
    });
    let inside = (0u32..4, any::<u32>(), any::<u64>(), any::<u64>());
    let inside = inside.prop_map(|(lane, name, start, end)| Inside {
        lane,
        name,
        start,
        end,
        awaited: 1,
        wait: true,
    });
    let object = (0u64..14, 0u32..5, 0u32..4, any::<u64>());
    let object = object.prop_map(|(id, origin, lane, at)| Object {
        id,
        origin,
        lane,
        at,
        bytes: 1,
    });
    let lists = (
        prop::collection::vec(call, 0..14),
        prop::collection::vec(run, 0..40),
        prop::collection::vec(0u64..14, 0..12),
        prop::collection::vec(inside, 0..9),
        prop::collection::vec(object, 0..9),
    );
    (lists, any::<u64>()).prop_map(|((calls, runs, inputs, inside, objects), now)| Recording {
        now: now >> (now % 60),
        lanes: vec![Lane::default(); 3],
        names: vec!["a".into(), "b".into()],
        texts: vec!["e".into()],
        calls,
        runs,
        inputs,
        objects,
        inside,
        lost: 0,
    })
}

proptest! {
    #[test]
    fn a_recording_that_lies_is_answered(
        recording in any_recording(),
        from in any::<u64>(),
        to in any::<u64>(),
        limit in 0usize..20,
        columns in 0usize..20,
    ) {
        let (from, to) = (from.min(to) >> 3, from.max(to));
        let index = Index::new(recording);
        for window in [Window { from, to }, Window { from: index.begin, to: index.now() }] {
            let timeline = Timeline::of(&index, window, limit);
            prop_assert_eq!(timeline.boxes.len() as u64 + timeline.dense.stands_for(), timeline.total as u64);
            json(&timeline);
            json(&figures::functions(&index, window));
            json(&figures::heat(&index, window, columns));
        }
        for id in 0..14 {
            json(&Task::of(&index, id));
            json(&Thing::of(&index, id));
        }
        for text in ["a", "0x3", "e", "003"] {
            find(&index, text);
        }
    }
}
