//! A program to look at: a small pipeline that runs for a while, with its dashboard.
//!
//! `cargo run --release --features dashboard --example dashboard [SECONDS]` prints the page's address, and ends after a
//! minute or as many seconds as said. There are loads, features that read them in place, scores that take the
//! round before, audits of which a few fail, an actor that adds up, and calls that wait for a licence.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mobula::prelude::*;

#[remote]
fn load(shard: u64, calibration: &[f32]) -> Vec<f32> {
    let scale = calibration[shard as usize % calibration.len()];
    (0..20_000)
        .map(|i| ((i as u64 ^ shard) % 1000) as f32 * scale)
        .collect()
}

#[remote]
fn features(rows: &[f32]) -> Vec<f32> {
    let sum: f32 = rows.iter().sum();
    let mean = sum / rows.len() as f32;
    rows.chunks(100)
        .map(|c| c.iter().map(|x| (x - mean).powi(2)).sum::<f32>().sqrt())
        .collect()
}

#[remote]
fn score(shard: u64, features: &[f32], best: f64) -> f64 {
    std::thread::sleep(Duration::from_micros(200 + shard % 7 * 150));
    best / 2.0 + features.iter().map(|x| f64::from(*x)).sum::<f64>()
}

#[remote]
fn audit(shard: u64, features: &[f32]) -> Result<usize, String> {
    match shard % 97 {
        41 => Err("the shard has no labels".into()),
        _ => Ok(features.iter().filter(|x| x.is_finite()).count()),
    }
}

#[remote]
fn best(scores: Vec<f64>) -> f64 {
    scores.into_iter().fold(0.0, f64::max)
}

#[remote]
fn licensed(_round: u64) {
    std::thread::sleep(Duration::from_millis(180));
}

#[remote]
struct Totals {
    sum: f64,
}

#[remote]
impl Totals {
    pub fn new() -> Self {
        Totals { sum: 0.0 }
    }

    pub fn add(&mut self, best: f64) -> f64 {
        self.sum += best;
        self.sum
    }
}

fn run(seconds: u64) -> mobula::Result<()> {
    let mobula = Config::new()
        .num_cpus(4)
        .resource("licence", 1.0)
        .on_unobserved_failure(|_| {})
        .dashboard(true)
        .init()?;
    println!("{}", mobula.dashboard_url().unwrap_or_default());
    let calibration = mobula::put(&vec![1.5f32; 100_000])?;
    let totals = Totals::options().name("totals").remote();
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut shard = 0;
    let mut last = mobula::put(&0.0)?;
    let mut waiting = Vec::new();
    let mut rounds = VecDeque::new();
    while Instant::now() < until {
        let scores: Vec<_> = (0..12)
            .map(|_| {
                shard += 1;
                let rows = load::remote(shard, &calibration);
                let features = features::remote(rows);
                if shard % 4 == 1 {
                    drop(audit::remote(shard, &features));
                }
                score::remote(shard, features, &last)
            })
            .collect();
        waiting.retain(|r| {
            mobula::wait(std::slice::from_ref(r))
                .timeout(Duration::ZERO)
                .run()
                .is_ok_and(|(done, _)| done.is_empty())
        });
        if waiting.len() < 5 {
            waiting.push(licensed::options().resource("licence", 1.0).remote(shard));
        }
        // Every round takes what the one before gave; a few of them are under way at a time.
        last = totals.add(best::remote(scores));
        rounds.push_back(last.clone());
        if rounds.len() > 3
            && let Some(round) = rounds.pop_front()
        {
            mobula::get(round)?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let seconds = match std::env::args().nth(1).map(|s| s.parse::<u32>()) {
        None => 60,
        Some(Ok(seconds)) => seconds,
        Some(Err(_)) => {
            eprintln!("usage: dashboard [SECONDS]");
            return ExitCode::from(2);
        }
    };
    match run(seconds.into()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
