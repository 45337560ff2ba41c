//! What one program costs: tasks, actors, objects, waiting, memory.
//!
//! `cargo bench --bench core [-- --json] [--quick] [--only substring]`. Each row is the median of several samples, with the
//! slowest and fastest; rows with a `limit` measured it in the same run, interleaved. Left out: other runtimes
//! (`benches/peers`).

mod actors;
#[allow(dead_code, reason = "each benchmark uses its part")]
#[path = "../shared/memory.rs"]
mod memory;
mod objects;
#[allow(dead_code, reason = "each benchmark uses its part")]
#[path = "../shared/report.rs"]
mod report;
mod tasks;
mod whole;

use report::Report;

fn main() {
    let mut report = Report::from_args();
    if let Ok(role) = std::env::var(report::ROLE) {
        whole::child(&role);
        return;
    }
    whole::rows(&mut report);
    let mobula = mobula::Config::new()
        .num_cpus(2.0)
        .init()
        .expect("the runtime starts");
    tasks::rows(&mut report);
    actors::rows(&mut report);
    objects::rows(&mut report, &mobula);
    drop(mobula);
    objects::cold_rows(&mut report);
    report.end();
}
