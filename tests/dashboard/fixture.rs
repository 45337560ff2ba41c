//! A recorded run that looks like a real one, for the page to show: the demo's graph, and a run of as many calls as asked.
//!
//! **Invariant:** the same every time; what is drawn from a generator of its own. Left out: a program.
#![allow(dead_code)]

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mobula::dashboard::{Call, Inside, Lane, Object, Outcome, Recording, Run, Source, Window};
use mobula::inspect::{Part, Query, Snapshot};

const MS: u64 = 1_000_000;

/// A source that replays.
pub struct Replay {
    pub recording: Recording,
    pub pid: u32,
    looks: AtomicU64,
    start: Instant,
}

impl Replay {
    pub fn new(recording: Recording) -> Replay {
        Replay {
            recording,
            pid: 4242,
            looks: AtomicU64::new(0),
            start: Instant::now(),
        }
    }
}

/// Numbers that look random and are the same each time.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }

    /// Mostly small, sometimes large.
    pub fn long_tail(&mut self, n: u64) -> u64 {
        let r = self.below(1000).max(1);
        n * 100 / r / 4 + self.below(n / 4 + 1)
    }
}

fn lanes(workers: usize) -> Vec<Lane> {
    let mut lanes = vec![Lane {
        node: "node 1".into(),
        name: "main".into(),
        driver: true,
    }];
    lanes.extend((0..workers).map(|i| Lane {
        node: "node 1".into(),
        name: format!("executor {i}"),
        driver: false,
    }));
    lanes
}

/// Three rounds of 8 `f` on the last `g`'s result, then `g` of the 8: 27 calls, 24 + 16 + ... arrows.
pub fn demo() -> Recording {
    let mut r = Recording {
        lanes: lanes(4),
        names: vec![
            "timeline::f".into(),
            "timeline::g".into(),
            "put at examples/timeline.rs:31".into(),
        ],
        ..Recording::default()
    };
    r.objects.push(Object {
        id: 0x1_0000_0001,
        origin: 2,
        lane: 0,
        at: MS / 5,
        bytes: 4096,
    });
    let mut last = 0x1_0000_0001;
    let mut next = 0x1_0000_0002;
    let mut clock = MS / 4;
    for _ in 0..3 {
        let mut fs = Vec::new();
        let start = clock;
        for i in 0..8 {
            let at = start + 20_000 + (i / 4) * 1_120_000 + (i % 4) * 21_000;
            let inputs = add_inputs(&mut r, &[last]);
            add(
                &mut r,
                next,
                0,
                (i % 4) as u32 + 1,
                start + i * 9_000,
                (at, at + 1_080_000),
                inputs,
                Outcome::Done,
            );
            fs.push(next);
            next += 1;
        }
        let ready = start + 20_000 + 1_120_000 + 63_000 + 1_080_000;
        let inputs = add_inputs(&mut r, &fs);
        add(
            &mut r,
            next,
            1,
            4,
            start + 90_000,
            (ready + 12_000, ready + 60_000),
            inputs,
            Outcome::Done,
        );
        last = next;
        next += 1;
        clock = ready + 70_000;
    }
    r.inside.push(Inside {
        lane: 0,
        name: 1,
        start: MS / 3,
        end: clock,
        awaited: last,
        wait: true,
    });
    r.now = clock + MS / 4;
    r
}

fn add_inputs(r: &mut Recording, ids: &[u64]) -> (u32, u32) {
    let from = r.inputs.len() as u32;
    r.inputs.extend(ids);
    (from, r.inputs.len() as u32)
}

#[allow(clippy::too_many_arguments)]
fn add(
    r: &mut Recording,
    id: u64,
    function: u32,
    lane: u32,
    submitted: u64,
    (start, end): (u64, u64),
    inputs: (u32, u32),
    outcome: Outcome,
) {
    let call = r.calls.len() as u32;
    r.calls.push(Call {
        id,
        function,
        submitted,
        ready: start.saturating_sub(3_000).max(submitted),
        outcome,
        bytes: 8,
        inputs,
        ..Call::default()
    });
    let long = end - start;
    r.runs.push(Run {
        call,
        lane,
        start,
        end,
        reading: (long / 20) as u32,
        storing: (long / 30) as u32,
        turn: 1,
        outcome,
    });
}

/// A run of `calls` calls on 12 lanes: a pipeline of five functions with dependencies, failures, nested calls, an actor,
/// spans, and some that wait.
pub fn large(calls: usize) -> Recording {
    let mut dice = Dice(42);
    let mut r = Recording {
        lanes: lanes(12),
        names: [
            "ingest::load", "ingest::parse", "features::window", "model::score", "report::merge",
            "report::Totals::add", "put at src/main.rs:42", "decode", "normalise", "ingest::fetch",
        ]
        .map(String::from)
        .to_vec(),
        texts: vec!["report::merge returned an error: shard 7 has no rows (DataError at src/report.rs:88)".into(),
            "model::score panicked: index out of bounds: the len is 128 but the index is 131 (src/model.rs:210:17)".into()],
        lost: 12_345,
        ..Recording::default()
    };
    let mut free = [MS; 13];
    let mut recent: VecDeque<(u64, u64)> = VecDeque::new();
    let mut id = 0x2_0000_0000u64;
    let base = MS;
    for n in 0..calls {
        let pick = dice.below(100);
        let function = match pick {
            0..30 => 0,
            30..60 => 1,
            60..80 => 2,
            80..93 => 3,
            93..97 => 4,
            _ => 5,
        };
        let lane = (1..13).min_by_key(|&lane| free[lane]).unwrap_or(1);
        let mean = [300, 120, 800, 450, 2_500, 40][function as usize] * 1_000;
        // Now and then the whole program breathes.
        let pause = if n % 4_000 == 3_999 {
            40 * MS
        } else {
            2_000 + dice.below(20_000)
        };
        let start = free[lane] + pause;
        let end = start + dice.long_tail(mean) + 2_000;
        let submitted = start.saturating_sub(50_000 + dice.below(3 * MS)).max(base);
        let mut wanted = Vec::new();
        if function > 0 && function < 5 {
            for _ in 0..=dice.below(if function == 4 { 7 } else { 2 }) {
                // What has ended can be taken.
                let tries = (0..4).map(|_| dice.below(recent.len().max(1) as u64) as usize);
                let tries = tries.filter_map(|i| recent.get(i));
                wanted.extend(
                    tries
                        .filter(|(_, end)| end + 5_000 < start)
                        .map(|(id, _)| *id)
                        .next(),
                );
            }
        }
        let inputs = add_inputs(&mut r, &wanted);
        let failed = dice.below(400) == 0 && (function == 3 || function == 4);
        let outcome = if failed {
            Outcome::Failed
        } else {
            Outcome::Done
        };
        add(
            &mut r,
            id,
            function,
            lane as u32,
            submitted,
            (start, end),
            inputs,
            outcome,
        );
        if function == 5 {
            r.calls.last_mut().unwrap().actor = 0x7_0000_0001;
        }
        if failed {
            r.calls.last_mut().unwrap().error = if function == 3 { 2 } else { 1 };
        }
        let parent = id;
        id += 1;
        if function == 2 && end - start > 400_000 {
            // A call inside a call: the executor runs it while it waits.
            let inner = (start + (end - start) / 3, start + (end - start) / 3 * 2);
            add(
                &mut r,
                id,
                9,
                lane as u32,
                inner.0 - 2_000,
                inner,
                (0, 0),
                Outcome::Done,
            );
            r.calls.last_mut().unwrap().parent = parent;
            r.calls.last_mut().unwrap().submit_lane = lane as u32;
            r.inside.push(Inside {
                lane: lane as u32,
                name: 9,
                start: inner.0 - 1_000,
                end: inner.1 + 1_000,
                awaited: id,
                wait: true,
            });
            id += 1;
        }
        if function == 1 && n.is_multiple_of(7) {
            let half = start + (end - start) / 2;
            r.inside.push(Inside {
                lane: lane as u32,
                name: 7,
                start: start + 1_000,
                end: half,
                awaited: 0,
                wait: false,
            });
            r.inside.push(Inside {
                lane: lane as u32,
                name: 8,
                start: half,
                end: end - 500,
                awaited: 0,
                wait: false,
            });
        }
        if n % 5_000 == 100 {
            r.objects.push(Object {
                id,
                origin: 6,
                lane: 0,
                at: start,
                bytes: 64 << 20,
            });
            recent.push_back((id, start));
            id += 1;
        }
        recent.push_back((parent, end));
        if recent.len() > 64 {
            recent.pop_front();
        }
        free[lane] = end;
    }
    r.now = free.iter().copied().max().unwrap_or(0);
    // What has not ended: one that runs, one that waits for it, one that waits for a CPU.
    let running = r.calls.len() as u32;
    r.calls.push(Call {
        id: 0x3_0000_0001,
        function: 4,
        submitted: r.now - 9 * MS,
        ready: r.now - 9 * MS,
        outcome: Outcome::Running,
        ..Call::default()
    });
    r.runs.push(Run {
        call: running,
        lane: 1,
        start: r.now + 1_000,
        end: 0,
        turn: 1,
        outcome: Outcome::Running,
        ..Run::default()
    });
    let inputs = add_inputs(&mut r, &[0x3_0000_0001]);
    r.calls.push(Call {
        id: 0x3_0000_0002,
        function: 3,
        submitted: r.now - 8 * MS,
        inputs,
        ..Call::default()
    });
    r.calls.push(Call {
        id: 0x3_0000_0003,
        function: 0,
        submitted: r.now - 7 * MS,
        ready: r.now - 7 * MS,
        ..Call::default()
    });
    r.now += 5 * MS;
    r
}

fn micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as u64)
}

impl Source for Replay {
    fn snapshot(&self, query: &Query) -> io::Result<Snapshot> {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        let now = micros();
        let wave = ((looks as f64) / 6.0).sin();
        let running = (6.0 + 4.0 * wave) as u64;
        let all = query.bound().min(100);
        let wants = |part| query.wants(part);
        let list = |items: serde_json::Value, on: bool| {
            if on {
                serde_json::json!({ "items": items, "left_out": 0, "incomplete": false })
            } else {
                serde_json::json!({ "items": [], "left_out": 0, "incomplete": false })
            }
        };
        const FUNCTIONS: [&str; 3] = ["report::merge", "model::score", "ingest::load"];
        const STATES: [&str; 6] = [
            "running",
            "waiting-arguments",
            "waiting-resources",
            "blocked",
            "queued",
            "queued",
        ];
        const WHY: [Option<&str>; 6] = [
            None,
            Some("waits for its argument 0x300000001 of report::merge, which is running"),
            Some("waits for 2 cpu: 0.5 of 12 are free"),
            Some("waits in get for ingest::fetch"),
            Some("waits for a free executor, behind 40 others"),
            Some("waits for a free executor"),
        ];
        let seconds = self.start.elapsed().as_secs_f64();
        let finished = 999_000
            + (9_600.0 * seconds + 1_500.0 * (seconds / 3.0).sin() + 260.0 * (seconds * 1.7).sin())
                as u64;
        let cpu =
            (7.2e6 * seconds + 1.1e6 * (seconds / 2.0).sin() + 0.3e6 * (seconds * 2.3).cos() + 1e6)
                as u64;
        let tasks: Vec<_> = (0..9).map(|i| serde_json::json!({
            "id": format!("{:#x}", 0x3_0000_0001u64 + i), "function": FUNCTIONS[i as usize % 3],
            "state": STATES[i as usize % 6],
            "since": now - i * 1_400_000, "attempt": 1 + i / 5, "runs_on": if i % 6 == 0 { Some("executor 1") } else { None },
            "actor": if i % 6 == 4 { Some("0x700000001") } else { None },
            "why": WHY[i as usize % 6],
            "waits_for": if i % 6 == 1 { &["0x300000001"][..] } else { &[] },
        })).filter(|t| query.id.is_none_or(|id| t["id"] == format!("{id:#x}"))).take(all).collect();
        let value = serde_json::json!({
            "taken": now,
            "parts": query.parts,
            "program": { "name": "pipeline", "pid": self.pid, "version": "0.1.0", "started": now - 754_000_000,
                "resident_bytes": (3u64 << 30) + ((wave * 200e6) as i64).unsigned_abs(), "cpu_micros": cpu },
            "nodes": list(serde_json::json!([{ "name": "node 1", "resources": [
                    { "name": "cpu", "total": 12.0, "free": 12.0 - running as f64 }, { "name": "gpu", "total": 1.0, "free": 0.0 }, { "name": "licence", "total": 4.0, "free": 3.0 }],
                "executors": 14, "busy": running, "blocked": 2, "idle": 12 - running,
                "store": { "capacity": 8u64 << 30, "used": (5u64 << 30) + looks * 700_000 % (1 << 30), "objects": 1_204 + looks % 40, "reserved": 6u64 << 30, "prefaulted": 1u64 << 30,
                    "spilled_bytes": 640u64 << 20, "spilled_objects": 10, "pinned_bytes": 900u64 << 20, "moved_bytes": 3u64 << 30, "restored_bytes": 1u64 << 30, "waiting": 1 } }]), wants(Part::Nodes)),
            "counts": { "submitted": 1_000_000 + looks * 2_500, "finished": finished, "failed": 412 + looks / 9, "cancelled": 3, "retried": 51, "running": running,
                "queued": 40 + looks % 7, "waiting_resources": 3, "waiting_arguments": 118, "per_second": 9_600.0 + wave * 2_000.0, "actors": 3 },
            "functions": list(serde_json::json!([]), false),
            "tasks": list(tasks.into(), wants(Part::Tasks)),
            "actors": list(serde_json::json!([
                { "id": "0x700000001", "type_name": "report::Totals", "name": "totals", "state": "running", "pending": 4, "max_pending": 1000, "restarts": 0, "max_restarts": 3, "running": ["add"], "cause": null, "handles": 2 },
                { "id": "0x700000002", "type_name": "ingest::Cache", "name": null, "state": "idle", "pending": 0, "max_pending": null, "restarts": 1, "max_restarts": 1, "running": [], "cause": null, "handles": 12 },
                { "id": "0x700000003", "type_name": "model::Server", "name": "server", "state": "dead", "pending": null, "max_pending": null, "restarts": 2, "max_restarts": 2, "running": [], "cause": "panicked in load: weights.bin: No such file or directory", "handles": 1 }]), wants(Part::Actors)),
            "objects": list(serde_json::json!((0..40).map(|i: u64| serde_json::json!({ "id": format!("{:#x}", 0x2_0000_0065 + i * 5_001), "bytes": (96u64 << 20) >> (i / 6), "origin": if i.is_multiple_of(3) { "put at src/main.rs:42" } else { "result of features::window" }, "references": 1 + i % 4, "pins": i % 3, "place": if i % 9 == 8 { "spilled" } else { "store" } })).collect::<Vec<_>>()), wants(Part::Objects)),
            "origins": list(serde_json::json!([{ "origin": "put at src/main.rs:42", "bytes": 3u64 << 30, "objects": 48 }, { "origin": "result of features::window", "bytes": 2u64 << 30, "objects": 1_130 }]), wants(Part::Objects)),
            "workers": list(serde_json::json!([
                { "pid": 4310, "runs": "model::score", "since": now - 3_000_000, "started": now - 600_000_000, "resident_bytes": 812u64 << 20, "memory_limit": 2u64 << 30, "lines": ["loading weights.bin", "epoch 3: loss 0.0412", "epoch 4: loss 0.0391", "<script>window.pwned = 1</script>"] },
                { "pid": 4311, "runs": null, "since": null, "started": now - 600_000_000, "resident_bytes": 64u64 << 20, "memory_limit": null, "lines": [] }]), wants(Part::Workers)),
            "errors": list(serde_json::json!([
                { "function": "model::score", "kind": "panicked", "cause": "index out of bounds: the len is 128 but the index is 131 (src/model.rs:210:17)\n  caused by: batch 77 <b>is short</b>", "call": "0x200000123", "first": now - 400_000_000, "last": now - 2_000_000, "count": 391 },
                { "function": "report::merge", "kind": "returned an error", "cause": "shard 7 has no rows (DataError at src/report.rs:88)", "call": null, "first": now - 90_000_000, "last": now - 80_000_000, "count": 21 }]), wants(Part::Errors)),
        });
        serde_json::from_value(value).map_err(io::Error::other)
    }

    fn recording(&self) -> io::Result<Recording> {
        Ok(self.recording.clone())
    }

    fn generation(&self) -> Option<u64> {
        Some(0)
    }

    fn trace(&self, window: Window, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{{\"traceEvents\":[")?;
        let r = &self.recording;
        let seen = r
            .runs
            .iter()
            .filter(|run| run.start <= window.to && run.end >= window.from);
        for (i, run) in seen.enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let (ts, dur) = (
                run.start as f64 / 1e3,
                run.end.saturating_sub(run.start) as f64 / 1e3,
            );
            let name = &r.names[r.calls[run.call as usize].function as usize];
            write!(
                out,
                "{comma}{{\"ph\":\"X\",\"pid\":1,\"tid\":{},\"ts\":{ts},\"dur\":{dur},\"name\":{name:?}}}",
                run.lane
            )?;
        }
        write!(out, "]}}")
    }

    fn metrics(&self) -> io::Result<String> {
        Ok(
            "# TYPE mobula_calls_submitted_total counter\nmobula_calls_submitted_total 1000000\n"
                .into(),
        )
    }
}
