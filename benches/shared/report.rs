//! Samples, medians, and how rows are printed: for people as a table, with `--json` one object a line.

use std::process::Command;
use std::time::{Duration, Instant};

/// Tells a child process what it is.
pub const ROLE: &str = "MOBULA_BENCH_ROLE";

/// Collects and prints rows.
pub struct Report {
    json: bool,
    quick: bool,
    only: Option<String>,
    rows: usize,
}

/// One row's samples.
pub struct Row {
    pub bench: &'static str,
    pub unit: &'static str,
    pub values: Vec<f64>,
    pub limit: Option<f64>,
    pub every: bool,
}

/// What else stands beside a row.
#[derive(Default)]
pub struct Beside {
    /// Further limits, by name, with their samples.
    pub limits: Vec<(&'static str, Vec<f64>)>,
    /// What the design asks for.
    pub bound: Option<Bound>,
}

/// What the design asks of a row.
#[derive(Clone, Copy)]
pub enum Bound {
    /// A median of at least this.
    AtLeast(f64),
    /// A median of at most this.
    AtMost(f64),
    /// A median of at least this part of the limit.
    OfLimit(f64),
    /// As `OfLimit`, and no sample below that part of the median.
    Steady(f64, f64),
    /// A median of at most so many times the limit.
    TimesLimit(f64),
}

impl Bound {
    /// What is asked for, and whether it is met by these samples (ascending).
    fn judge(self, sorted: &[f64], limit: Option<f64>) -> (String, bool) {
        let (slowest, value) = (sorted[0], sorted[sorted.len() / 2]);
        let limit = limit.unwrap_or(f64::NAN); // no limit, no way to meet a part of it
        match self {
            Bound::AtLeast(n) => (format!(">= {}", number(n).trim()), value >= n),
            Bound::AtMost(n) => (format!("<= {}", number(n).trim()), value <= n),
            Bound::OfLimit(part) => (format!(">= {part} of the limit"), value >= part * limit),
            Bound::TimesLimit(n) => (format!("<= {n} x the limit"), value <= n * limit),
            Bound::Steady(part, slow) => (
                format!(">= {part} of the limit, slowest >= {slow} of the median"),
                value >= part * limit && slowest >= slow * value,
            ),
        }
    }
}

impl Report {
    pub fn from_args() -> Report {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let only = args
            .iter()
            .position(|a| a == "--only")
            .and_then(|i| args.get(i + 1))
            .cloned();
        let quick = args.iter().any(|a| a == "--quick");
        Report {
            json: args.iter().any(|a| a == "--json"),
            quick,
            only,
            rows: 0,
        }
    }

    /// How many samples a row gets.
    pub fn samples(&self, usual: usize) -> usize {
        if self.quick { usual.min(3) } else { usual }
    }

    pub fn quick(&self) -> bool {
        self.quick
    }

    pub fn wants(&self, bench: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|o| o.split(',').any(|o| bench.contains(o)))
    }

    /// A rate: `f` does `n` things per sample.
    pub fn rate(&mut self, bench: &'static str, samples: usize, n: usize, mut f: impl FnMut()) {
        self.measure(bench, "1/s", samples, || {
            let took = time(&mut f);
            n as f64 / took.as_secs_f64()
        });
    }

    /// A latency in microseconds: `f` does `n` things per sample, one after the other.
    pub fn latency(&mut self, bench: &'static str, samples: usize, n: usize, mut f: impl FnMut()) {
        self.measure(bench, "us", samples, || {
            time(&mut f).as_secs_f64() * 1e6 / n as f64
        });
    }

    /// Whatever `f` returns, per sample, after one that does not count.
    pub fn measure(
        &mut self,
        bench: &'static str,
        unit: &'static str,
        samples: usize,
        mut f: impl FnMut() -> f64,
    ) {
        if !self.wants(bench) {
            return;
        }
        f();
        let values = (0..self.samples(samples)).map(|_| f()).collect();
        self.row(Row {
            bench,
            unit,
            values,
            limit: None,
            every: false,
        });
    }

    pub fn row(&mut self, row: Row) {
        self.row_beside(row, Beside::default());
    }

    /// A row of samples beside a limit of the same run, and what is asked for; nothing if it is not wanted.
    pub fn bounded(
        &mut self,
        bench: &'static str,
        unit: &'static str,
        values: Vec<f64>,
        limit: Option<f64>,
        bound: Option<Bound>,
    ) {
        if !self.wants(bench) || values.is_empty() {
            return;
        }
        let row = Row {
            bench,
            unit,
            values,
            limit,
            every: false,
        };
        let beside = Beside {
            bound,
            ..Beside::default()
        };
        self.row_beside(row, beside);
    }

    /// A row with more beside it than one limit.
    pub fn row_beside(&mut self, row: Row, beside: Beside) {
        let mut sorted = row.values.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
        let value = sorted[sorted.len() / 2];
        let Row { bench, unit, .. } = row;
        let bound = beside.bound.map(|b| b.judge(&sorted, row.limit));
        self.rows += 1;
        if self.json {
            let mut more = String::new();
            if let Some(limit) = row.limit {
                more += &format!(", \"limit\": {limit:.4}");
            }
            for (name, values) in beside.limits {
                let (least, middle) = (least(&values), median(&values));
                more += &format!(", \"{name}\": {middle:.4}, \"{name}_min\": {least:.4}");
            }
            if let Some((text, met)) = bound {
                more += &format!(", \"bound\": \"{text}\", \"met\": {met}");
            }
            if row.every {
                let all: Vec<String> = row.values.iter().map(|v| format!("{v:.3}")).collect();
                more += &format!(", \"samples\": [{}]", all.join(", "));
            }
            println!(
                "{{\"bench\": \"{bench}\", \"value\": {value:.4}, \"unit\": \"{unit}\", \"min\": {min:.4}, \"max\": {max:.4}, \"n\": {}{more}}}",
                sorted.len()
            );
            return;
        }
        if self.rows == 1 {
            println!(
                "{:<28} {:>12} {:<5} {:>12} {:>12} {:>4}  ratio to limit",
                "bench", "median", "unit", "min", "max", "n"
            );
        }
        let mut more = String::new();
        if let Some(limit) = row.limit {
            more += &format!("  {:.2}", value / limit);
        }
        for (name, values) in beside.limits {
            let (least, middle) = (least(&values), median(&values));
            let (least, middle) = (number(least), number(middle));
            more += &format!("  {name} {} (min {})", middle.trim(), least.trim());
        }
        if let Some((text, met)) = bound {
            more += &format!("  {}: {text}", if met { "met" } else { "MISSED" });
        }
        println!(
            "{bench:<28} {} {unit:<5} {} {} {:>4}{more}",
            number(value),
            number(min),
            number(max),
            sorted.len()
        );
        if row.every {
            let all: Vec<String> = row.values.iter().map(|v| format!("{v:.1}")).collect();
            println!("{:<28} every one: {}", "", all.join(" "));
        }
    }

    /// Something to know about the rows that follow; not part of the JSON's rows.
    pub fn note(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("-- {text}");
        }
    }

    pub fn end(&self) {
        if !self.json {
            println!(
                "{} rows; medians; allocator: the system's; release profile",
                self.rows
            );
        }
    }
}

fn number(v: f64) -> String {
    if v >= 100_000.0 {
        format!("{:>11.2}M", v / 1e6)
    } else if v >= 100.0 {
        format!("{v:>12.1}")
    } else {
        format!("{v:>12.4}")
    }
}

/// The middle one; of an even number, the upper of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// How long `f` takes.
pub fn time(f: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    f();
    begin.elapsed()
}

/// Bytes of memory that this process has resident.
pub fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs is there");
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|p| p.parse().ok())
        .expect("statm has pages");
    pages * 4096
}

/// What a process that does nothing else has to say, in the role given.
pub fn ask(role: &str) -> Vec<f64> {
    let me = std::env::current_exe().expect("the benchmark knows its own path");
    let out = Command::new(me)
        .env(ROLE, role)
        .output()
        .expect("a child process runs");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).expect("figures are text");
    text.split_whitespace()
        .map(|v| v.parse().expect("a figure"))
        .collect()
}
