//! Where did the time go? A small graph of calls, and its timeline as a file to be opened in Perfetto.
//!
//! Three rounds: eight calls of `f`, each of which takes what the round before gave, then one `g` that takes what the
//! eight gave. Each call is a box in the timeline, each thing taken an arrow.
//!
//! `cargo run --release --example timeline [FILE]` writes FILE, or `mobula-timeline.json` in the system's folder for
//! temporary files. Open it at <https://ui.perfetto.dev>, which keeps it on your machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mobula::prelude::*;

#[remote]
fn f(_x: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(1));
    1
}

#[remote]
fn g(_ys: Vec<u64>) -> u64 {
    1
}

fn run(path: PathBuf) -> mobula::Result<()> {
    let mobula = mobula::init()?;
    let begin = Instant::now();
    let mut x = mobula::put(&1_u64)?;
    for _round in 0..3 {
        let ys: Vec<_> = (0..8).map(|_| f::remote(&x)).collect();
        x = g::remote(ys);
    }
    assert_eq!(mobula::get(&x)?, 1);
    let wall = begin.elapsed();

    let timeline = mobula.timeline(&path)?;
    println!("{}", path.display());
    println!(
        "wall time {:.1} ms; {} boxes, {} arrows from submissions, {} arrows of data, {} bytes",
        wall.as_secs_f64() * 1e3,
        timeline.boxes,
        timeline.submissions,
        timeline.inputs,
        timeline.bytes
    );
    Ok(())
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let path = args.next().map_or_else(
        || std::env::temp_dir().join("mobula-timeline.json"),
        PathBuf::from,
    );
    if args.next().is_some() {
        eprintln!("usage: timeline [FILE]");
        return ExitCode::from(2);
    }
    match run(path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
