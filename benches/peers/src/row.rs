//! Timing, interleaving and printing: what every row shares and no peer has to itself.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a sample runs before its clock starts, and how long the clock then runs.
const WARM: Duration = Duration::from_millis(15);
const TIMED: Duration = Duration::from_millis(60);

/// Between two samples, so that the threads of the one before have gone to sleep.
const SETTLE: Duration = Duration::from_millis(15);

/// The clock of one sample: `while clock.more(n) { /* n calls */ }`, then one of its figures.
///
/// It asks for batches until the time is up, so that a fast and a slow peer run equally long, and
/// forgets what ran in the warm-up.
pub struct Clock {
    warm: bool,
    asked: bool,
    start: Instant,
    calls: u64,
    elapsed: f64,
}

impl Clock {
    /// A clock at the beginning of its warm-up.
    pub fn new() -> Self {
        Clock {
            warm: true,
            asked: false,
            start: Instant::now(),
            calls: 0,
            elapsed: 0.0,
        }
    }

    /// Whether another batch of `calls` calls is wanted; the ones before it are then done.
    pub fn more(&mut self, calls: u64) -> bool {
        let now = Instant::now();
        let since = now - self.start;
        if self.warm && self.asked && since >= WARM {
            (self.warm, self.start, self.calls) = (false, now, 0);
        } else if !self.warm && since >= TIMED {
            self.elapsed = since.as_secs_f64();
            return false;
        }
        self.asked = true;
        self.calls += calls;
        true
    }

    /// Microseconds per call.
    pub fn micros(&self) -> f64 {
        self.elapsed * 1e6 / self.calls as f64
    }

    /// Nanoseconds per call.
    pub fn nanos(&self) -> f64 {
        self.micros() * 1e3
    }

    /// Calls per second.
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.elapsed
    }
}

/// Memory of this process that is resident, in bytes, counted page by page by the kernel.
pub fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("Linux with smaps_rollup");
    let line = text
        .lines()
        .find(|l| l.starts_with("Rss:"))
        .expect("an Rss line");
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    kib * 1024.0
}

/// Runs this binary again for one figure: memory that an earlier sample freed would hide new use.
pub fn in_fresh_process(figure: &str) -> f64 {
    let exe = std::env::current_exe().expect("the path of this binary");
    let out = Command::new(exe)
        .args(["--child", figure])
        .output()
        .expect("a child process");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success(),
        "{figure}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    text.trim()
        .parse()
        .unwrap_or_else(|_| panic!("{figure} printed {text:?}"))
}

/// Does the work once and gives its figure.
type Sample = Box<dyn FnMut() -> f64>;

/// One piece of work and everyone who does it.
pub struct Row {
    name: &'static str,
    unit: &'static str,
    about: &'static str,
    peers: Vec<(&'static str, Sample)>,
}

impl Row {
    /// A row without peers; rates (`1/s`, `GB/s`) are better when higher, all else when lower.
    pub fn new(name: &'static str, unit: &'static str, about: &'static str) -> Self {
        Row {
            name,
            unit,
            about,
            peers: Vec::new(),
        }
    }

    /// Adds a peer: `sample` does the work, asserts its results and gives one figure.
    pub fn peer(mut self, name: &'static str, sample: impl FnMut() -> f64 + 'static) -> Self {
        self.peers.push((name, Box::new(sample)));
        self
    }

    /// Keeps the peers whose `row.peer` contains `part`, and mobula wherever one is left.
    pub fn filtered(mut self, part: &str) -> Option<Self> {
        let row = self.name;
        let hit = |peer: &str| format!("{row}.{peer}").contains(part);
        let any = self.peers.iter().any(|(peer, _)| hit(peer));
        self.peers
            .retain(|(peer, _)| hit(peer) || *peer == "mobula");
        any.then_some(self)
    }

    /// Runs `rounds` rounds of every peer in turn and prints the row; in a table, also what another
    /// run has `beside` it.
    pub fn run(mut self, rounds: usize, json: bool, beside: &[(String, Figure)]) {
        let mut samples = vec![Vec::with_capacity(rounds); self.peers.len()];
        for _ in 0..rounds {
            for ((_, sample), taken) in self.peers.iter_mut().zip(&mut samples) {
                std::thread::sleep(SETTLE);
                taken.push(sample());
            }
        }
        let mobula = self.peers.iter().position(|(name, _)| *name == "mobula");
        let ratio_to = |peer: usize| {
            let mobula = mobula.filter(|mobula| *mobula != peer)?;
            let by_round = samples[mobula]
                .iter()
                .zip(&samples[peer])
                .map(|(m, p)| m / p);
            Some(Figure::of(by_round.collect()))
        };
        let figures: Vec<_> = samples
            .iter()
            .map(|taken| Figure::of(taken.clone()))
            .collect();
        if json {
            for (i, (figure, (peer, _))) in figures.iter().zip(&self.peers).enumerate() {
                figure.json(&format!("{}.{peer}", self.name), self.unit);
                if let Some(ratio) = ratio_to(i) {
                    ratio.json(&format!("{}.mobula/{peer}", self.name), "mobula/peer");
                }
            }
        } else {
            println!("\n{} [{}]: {}", self.name, self.unit, self.about);
            let (median, min, max) = ("median", "min", "max");
            println!(
                "  {:<18}{median:>12}{min:>12}{max:>12}    n   mobula/peer",
                ""
            );
            for (i, (figure, (peer, _))) in figures.iter().zip(&self.peers).enumerate() {
                self.line(peer, figure, ratio_to(i).map(|ratio| ratio.median));
            }
            for (bench, figure) in beside {
                let peer = bench
                    .strip_prefix(self.name)
                    .and_then(|rest| rest.strip_prefix('.'));
                if let Some(peer) = peer.filter(|peer| !peer.contains("mobula")) {
                    let ratio = mobula.map(|m| figures[m].median / figure.median);
                    self.line(&format!("{peer}, other run"), figure, ratio);
                }
            }
        }
        std::io::stdout().flush().expect("stdout");
    }

    fn line(&self, peer: &str, figure: &Figure, ratio: Option<f64>) {
        let higher_wins = self.unit.ends_with("/s");
        let ratio = ratio.map_or(String::new(), |ratio| {
            let word = if (ratio > 1.0) == higher_wins {
                "better"
            } else {
                "worse"
            };
            format!("{} {word}", short(ratio))
        });
        let [median, min, max] = [figure.median, figure.min, figure.max].map(short);
        println!(
            "  {peer:<18}{median:>12}{min:>12}{max:>12}{:>5}   {ratio}",
            figure.n
        );
    }
}

/// The median of some samples and their spread.
pub struct Figure {
    median: f64,
    min: f64,
    max: f64,
    n: usize,
}

impl Figure {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let n = samples.len();
        let median = (samples[(n - 1) / 2] + samples[n / 2]) / 2.0;
        Figure {
            median,
            min: samples[0],
            max: samples[n - 1],
            n,
        }
    }

    /// The names in here are letters, digits and `_./`: nothing to escape.
    fn json(&self, bench: &str, unit: &str) {
        let Figure {
            median,
            min,
            max,
            n,
        } = self;
        println!(
            r#"{{"bench":"{bench}","value":{median:.6},"unit":"{unit}","min":{min:.6},"max":{max:.6},"n":{n}}}"#
        );
    }
}

/// The figures in a file of such lines; lines of another kind are passed over.
pub fn read(path: &str) -> Vec<(String, Figure)> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines().filter_map(read_line).collect()
}

fn read_line(line: &str) -> Option<(String, Figure)> {
    let field = |name: &str| {
        let (_, value) = line.split_once(&format!("\"{name}\":"))?;
        Some(value.split([',', '}']).next()?.trim().trim_matches('"'))
    };
    let number = |name: &str| field(name)?.parse().ok();
    let n = field("n")?.parse().ok()?;
    let figure = Figure {
        median: number("value")?,
        min: number("min")?,
        max: number("max")?,
        n,
    };
    Some((field("bench")?.to_owned(), figure))
}

/// Four digits or so, with `k` and `M` for what is large.
fn short(x: f64) -> String {
    match x.abs() {
        a if a >= 1e6 => format!("{:.3} M", x / 1e6),
        a if a >= 1e4 => format!("{:.1} k", x / 1e3),
        a if a >= 100.0 => format!("{x:.0}"),
        a if a >= 1.0 => format!("{x:.2}"),
        a if a >= 0.01 => format!("{x:.3}"),
        _ => format!("{x:.2e}"),
    }
}
