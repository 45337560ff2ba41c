//! What the store does beside what the machine's memory can do.
//!
//! `cargo bench --bench store [-- --json] [--quick] [--only a,b]`. Each row is the median of several samples, with the
//! slowest and fastest; its limit was measured in the same run, in turn with the samples. Names say what, how much, in
//! which state the memory was, and `_huge` for reserved pages of 2 MiB: `put_1gb_warm_huge`. *Cold* memory was never
//! touched, *prefaulted* memory was faulted in and never written, *warm* memory held another object before. To reserve
//! huge pages it must run as root; it gives them back. Left out: tasks and actors that share the process (`core`).

mod clients;
mod isolated;
#[allow(dead_code, reason = "each benchmark uses its part")]
#[path = "../shared/memory.rs"]
mod memory;
mod pool;
mod raw;
mod reads;
#[allow(dead_code, reason = "each benchmark uses its part")]
#[path = "../shared/report.rs"]
mod report;
mod sizes;

use report::Report;

fn main() {
    let mut report = Report::from_args();
    if let Ok(role) = std::env::var(report::ROLE) {
        match role.as_str() {
            "worker_start" => isolated::child(),
            role => clients::child(role),
        }
        return;
    }
    isolated::rows(&mut report);
    clients::rows(&mut report);
    reads::rows(&mut report);
    sizes::rows(&mut report);
    report.end();
}
