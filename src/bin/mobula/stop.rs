//! `mobula stop`: ends launchers and what they started.
//!
//! Invariant: only processes that a launcher wrote down are ended, each known by its number and the moment of its start. Left out:
//! programs that run on their nodes, which see them go.

use std::path::PathBuf;
use std::time::Duration;

use mobula::launch::{self, Recorded};
use serde_json::json;

use crate::Failure;
use crate::attached::print;

/// Ends the launcher of this machine, and the nodes that it started.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula stop\n  \
    mobula stop --dir /srv/mobula\n  \
    mobula stop --all --json")]
pub struct Args {
    /// The launcher of this folder, where there are several
    #[arg(long, value_name = "DIR", conflicts_with = "all")]
    dir: Option<PathBuf>,

    /// All launchers of yours on this machine
    #[arg(long)]
    all: bool,

    /// One line of JSON instead of text for people
    #[arg(long)]
    json: bool,
}

/// How long a launcher may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn run(args: &Args) -> Result<(), Failure> {
    let place = launch::place()?;
    let mut chosen = Recorded::all(&place);
    if let Some(dir) = &args.dir {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.clone());
        chosen.retain(|r| r.dir == dir);
    }
    if chosen.is_empty() {
        return Err(Failure::NothingRuns(
            "no launcher of yours runs here".to_owned(),
        ));
    }
    if chosen.len() > 1 && !args.all {
        let dirs: Vec<String> = chosen.iter().map(|r| r.dir.display().to_string()).collect();
        return Err(Failure::Error(format!(
            "{} launchers run: choose one with --dir ({}), or say --all",
            dirs.len(),
            dirs.join(", ")
        )));
    }
    let mut told = Vec::new();
    for launcher in chosen {
        let (pid, runs, nodes) = (
            launcher.launcher.pid,
            launcher.launcher.runs(),
            launcher.nodes.len(),
        );
        launcher.end(&place, PATIENCE);
        told.push(match args.json {
            true => json!({ "pid": pid, "ran": runs, "nodes": nodes, "dir": launcher.dir.display().to_string() }).to_string(),
            false if runs => format!("ended the launcher of {} (process {pid}) and {nodes} nodes", launcher.dir.display()),
            false => format!("the launcher of {} had ended already; ended {nodes} nodes", launcher.dir.display()),
        });
    }
    match args.json {
        true => print(&format!("[{}]", told.join(","))),
        false => print(&told.join("\n")),
    }
}
