//! `mobula metrics`: a running program's metrics, as Prometheus reads them.
//!
//! Invariant: as the dashboard's `/metrics`. Left out: serving them; a textfile collector can take this output.

use mobula::inspect::metrics::Exposition;

use crate::Failure;
use crate::attached::{Attached, failure, print};

/// Prints a running program's metrics in Prometheus' text format.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula metrics\n  \
    mobula metrics --pid 4242 > /var/lib/node_exporter/mobula.prom")]
pub struct Args {
    /// The program with this process id; by default the newest of yours that uses Mobula
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let attached = Attached {
        pid: args.pid,
        json: false,
        watch: None,
    };
    let snapshot = attached.client()?.snapshot(&Exposition::query());
    print(&Exposition::new().text(&snapshot.map_err(failure)?))
}
