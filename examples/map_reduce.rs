//! Word count over text files: map tasks over parts of the files, a tree of tasks that merge.
//!
//! `cargo run --release --example map_reduce -- README.md ARCHITECTURE.md`

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use mobula::prelude::*;

type Counts = HashMap<String, u64>;

/// Bytes of a file that one map task reads.
const PART: u64 = 1 << 16;
/// Words printed at the end.
const TOP: usize = 10;

/// A file that could not be read. As a task's failure it arrives at `get` with its message.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {why}")]
struct Unreadable {
    path: String,
    #[source]
    why: io::Error,
}

/// Counts the words of the lines that begin between `start` and `end`.
#[remote]
fn count(path: String, start: u64, end: u64) -> Result<Counts, Unreadable> {
    let read = || -> io::Result<Counts> {
        let mut file = BufReader::new(File::open(&path)?);
        let mut at = start;
        if start > 0 {
            // The line that runs across `start` belongs to the part before.
            file.seek(SeekFrom::Start(start - 1))?;
            at = start - 1 + file.skip_until(b'\n')? as u64;
        }
        let mut counts = Counts::new();
        let mut line = Vec::new();
        while at < end {
            line.clear();
            match file.read_until(b'\n', &mut line)? {
                0 => break,
                n => at += n as u64,
            }
            let text = String::from_utf8_lossy(&line).to_lowercase();
            for word in text
                .split(|c: char| !c.is_alphabetic())
                .filter(|w| !w.is_empty())
            {
                *counts.entry(word.to_owned()).or_default() += 1;
            }
        }
        Ok(counts)
    };
    read().map_err(|why| Unreadable {
        path: path.clone(),
        why,
    })
}

/// Adds `more`, read where it lies, to `counts`.
#[remote]
fn merge(mut counts: Counts, more: &Archived<Counts>) -> Counts {
    for (word, n) in more.iter() {
        *counts.entry(word.as_str().to_owned()).or_default() += n.to_native();
    }
    counts
}

/// The parts of all files, as arguments for `count`.
fn parts(paths: &[String]) -> Result<Vec<(&String, u64, u64)>, Unreadable> {
    let mut parts = Vec::new();
    for path in paths {
        let metadata = std::fs::metadata(path).and_then(|m| {
            if m.is_dir() {
                Err(io::ErrorKind::IsADirectory.into())
            } else {
                Ok(m)
            }
        });
        let length = metadata
            .map_err(|why| Unreadable {
                path: path.clone(),
                why,
            })?
            .len();
        parts.extend(
            (0..length)
                .step_by(PART as usize)
                .map(|at| (path, at, at + PART)),
        );
    }
    Ok(parts)
}

fn run(paths: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let parts = parts(paths)?;
    let _mobula = mobula::init()?;

    let mut counts: Vec<_> = parts
        .iter()
        .map(|(path, start, end)| count::remote(*path, *start, *end))
        .collect();
    // Hidden by itself when standard error is not a terminal.
    let bar = ProgressBar::new(counts.len() as u64).with_style(ProgressStyle::with_template(
        "{bar:40} {pos} of {len} parts, {elapsed}",
    )?);
    let mut pending = counts.clone();
    while !pending.is_empty() {
        let ready;
        (ready, pending) = mobula::wait(&pending).num_returns(1).run()?;
        bar.inc(ready.len() as u64);
    }
    bar.finish_and_clear();

    // Pairs are merged, then pairs of pairs: the values go from task to task, not through here.
    while counts.len() > 1 {
        let merged = counts.chunks(2).map(|pair| match pair {
            [a, b] => merge::remote(a, b),
            odd => odd[0].clone(),
        });
        counts = merged.collect();
    }
    let counts = counts
        .first()
        .map(mobula::get)
        .transpose()?
        .unwrap_or_default();

    let total: u64 = counts.values().sum();
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(word, n)| (std::cmp::Reverse(**n), *word));
    println!(
        "{total} words, {} different, in {} parts of {} files",
        counts.len(),
        parts.len(),
        paths.len()
    );
    for (word, n) in sorted.iter().take(TOP) {
        println!("{n:8} {word}");
    }
    Ok(())
}

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        eprintln!(
            "usage: map_reduce FILE...\nCounts the words of text files and prints the most frequent."
        );
        return ExitCode::from(2);
    }
    match run(&paths) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("map_reduce: {error}");
            ExitCode::FAILURE
        }
    }
}
