//! What two nodes do over QUIC on this machine, beside what bare QUIC, TLS and TCP do between two processes.
//!
//! `cargo bench --bench cluster [-- --json] [--quick] [--only a,b]`. The benchmark is the head and starts itself again as
//! the other nodes and as the other ends of the peers. Each row is the median of several samples; its limit was measured in
//! the same run, in turn with the samples. Names say what, how much and which way: `transfer_1gb_to_head` is a result that
//! lies on the other node and is viewed here, `transfer_1gb_to_node` an object of this node that a call there takes;
//! `.._cpu` is CPU seconds per GB, of both processes. What bare peers receive they write to a buffer that is there and
//! warm, as an object's place is. The figures of a thousand nodes are of the pure machines, in virtual time.
//!
//! Left out: real networks, whose packets are an Ethernet's; faults (tests have them).

mod big;
mod cpu;
mod many;
#[allow(dead_code, reason = "each benchmark uses its part")]
mod nodes;
mod peers;
mod trips;

// The machines are no part of what the library shows; they are included as they are, as in tests/sim.
#[allow(dead_code, unused_imports, missing_docs)]
#[path = "../../src/base/mod.rs"]
mod base;
#[allow(dead_code, unused_imports, missing_docs)]
#[path = "../../src/core/mod.rs"]
mod core;
mod pure;

#[allow(dead_code, reason = "each benchmark uses its part")]
#[path = "../shared/report.rs"]
mod report;

use report::Report;

fn main() {
    if let Ok(role) = std::env::var(report::ROLE) {
        return peers::serve(&role);
    }
    let mut report = Report::from_args();
    trips::rows(&mut report);
    big::rows(&mut report);
    many::rows(&mut report);
    pure::rows(&mut report);
    report.end();
}
