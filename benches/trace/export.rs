//! A million calls recorded in full, written out, and opened.
//!
//! Half of the calls take a result of the other half, so that there are arrows of both kinds. Invariant: what is written and what is found
//! in the file are counted, and must be exactly the calls and arrows that were made.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Instant;

use mobula::prelude::*;
use mobula::{Mobula, Timeline, Trace};

use crate::inc;
use crate::opened;
use crate::report::{self, Bound, Report};

/// Bytes that the export may need for a call here, at the most: two boxes' places may be there twice while the list grows, and so may its
/// arrows' ends.
const BYTES_PER_CALL: f64 = 2.0 * (32.0 + 24.0 + 16.0 / 2.0);

pub fn export(report: &mut Report) {
    let calls: u64 = if report.quick() { 100_000 } else { 1_000_000 };
    let mobula = Config::new()
        .num_cpus(2.0)
        .trace(Trace::Full)
        .trace_memory(calls as usize * 5 * 64 + (4 << 20))
        .init()
        .expect("the runtime starts");
    let begin = Instant::now();
    for i in 0..calls / 2 {
        let once = inc::remote(i);
        assert_eq!(mobula::get(inc::remote(&once)).unwrap(), i + 2);
    }
    let recorded = calls as f64 / begin.elapsed().as_secs_f64();
    let path = std::env::temp_dir().join(format!("mobula-bench-{}.json", std::process::id()));
    let mut rows = Rows::default();
    for _ in 0..report.samples(5) {
        rows.sample(&mobula, &path, calls);
    }
    let _ = std::fs::remove_file(&path);
    rows.tell(report, calls, recorded);
}

#[derive(Default)]
struct Rows {
    events: Vec<f64>,
    megabytes: Vec<f64>,
    file: Vec<f64>,
    peak: Vec<f64>,
    opened: Vec<f64>,
}

impl Rows {
    fn sample(&mut self, mobula: &Mobula, path: &Path, calls: u64) {
        let before = report::resident();
        let watched = forget_peak();
        let begin = Instant::now();
        let written = mobula.timeline(path).expect("the timeline is written");
        let took = begin.elapsed().as_secs_f64();
        if watched {
            self.peak.push(peak().saturating_sub(before) as f64);
        }
        let Timeline {
            boxes,
            submissions,
            inputs,
            ..
        } = written;
        assert_eq!(
            (boxes, submissions, inputs),
            (calls, calls, calls / 2),
            "{written:?}"
        );
        self.events.push(written.events as f64 / took);
        self.megabytes.push(written.bytes as f64 / took / 1e6);
        self.file.push(written.bytes as f64);

        let begin = Instant::now();
        let file = File::open(path).expect("it is there");
        let found = opened::read(BufReader::with_capacity(1 << 20, file)).expect("it is JSON");
        self.opened
            .push(found.events as f64 / begin.elapsed().as_secs_f64());
        assert_eq!((found.tasks, found.submits), (calls, calls), "{found:?}");
        assert_eq!(found.arrows("submit"), (calls, calls), "{found:?}");
        assert_eq!(found.arrows("data"), (calls / 2, calls / 2), "{found:?}");
    }

    fn tell(self, report: &mut Report, calls: u64, recorded: f64) {
        let at_most = Bound::AtMost(BYTES_PER_CALL * calls as f64 + (1 << 20) as f64);
        let rows = [
            ("export_calls_recorded", "1/s", vec![recorded], None),
            ("export_events", "1/s", self.events, None),
            ("export_speed", "MB/s", self.megabytes, None),
            ("export_file", "bytes", self.file, None),
            ("export_peak_memory", "bytes", self.peak, Some(at_most)),
            ("export_opened_events", "1/s", self.opened, None),
        ];
        for (bench, unit, values, bound) in rows {
            if values.is_empty() {
                report
                    .note("export_peak_memory: this system does not let a process forget its peak");
                continue;
            }
            crate::bounded(report, bench, unit, values, bound);
        }
    }
}

/// Lets the system's count of this process's most memory begin anew; false if it does not.
fn forget_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The most memory that this process had since.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs is there");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.expect("the status has a peak") * 1024
}
