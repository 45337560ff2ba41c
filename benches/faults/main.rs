//! From a fault to the answer that should have come without it, and what being ready for faults costs.
//!
//! `cargo bench --bench faults [-- --json] [--quick] [--only a,b]`. Processes are killed with SIGKILL; the time runs from the
//! moment before. Every row checks the answer: a counter that was told to add one ten times says eleven next, however its
//! process died. `logged_..` is an isolated actor that keeps its history beside `unlogged_..`, one that does not, in turn;
//! `replay_..` is the death after 10,000 calls, with and without checkpoints; `rolling_..` replaces three nodes under load;
//! `driver_..` is what a program that joined had under way elsewhere. Nodes are processes of this machine over QUIC, so that
//! no answer waits for a network; what a death costs there is its detection.
//!
//! Left out: machines, whose loss looks the same from outside; partitions (tests have them).

mod calls;
mod drivers;
mod kept;
mod logs;
mod lost;
mod rolling;
mod workers;

#[allow(dead_code, reason = "each benchmark uses its part")]
#[path = "../cluster/nodes.rs"]
mod nodes;
#[allow(dead_code, reason = "each benchmark uses its part")]
#[path = "../shared/report.rs"]
mod report;

use report::Report;

fn main() {
    drivers::driver();
    let mut report = Report::from_args();
    workers::rows(&mut report);
    logs::rows(&mut report);
    kept::rows(&mut report);
    lost::rows(&mut report);
    drivers::rows(&mut report);
    rolling::rows(&mut report);
    report.end();
}

/// Kills a process that is not this one's to wait for.
fn kill(pid: u32) {
    let done = std::process::Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status()
        .expect("kill can be run");
    assert!(done.success(), "process {pid} can be killed");
}
