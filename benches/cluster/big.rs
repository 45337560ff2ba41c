//! Large objects between two nodes, both ways, beside what two processes can do without this library.

use mobula::prelude::*;
use mobula::{NodeId, ObjectRef};

use crate::cpu;
use crate::nodes::Cluster;
use crate::peers;
use crate::report::{Bound, Report, median};

const GB: f64 = 1e9;

#[remote]
fn make(len: usize) -> Vec<u8> {
    vec![7; len]
}

#[remote]
fn take(v: &[u8]) -> usize {
    v.len()
}

/// What one way of moving bytes did.
#[derive(Default)]
struct Samples {
    /// GB a second.
    speed: Vec<f64>,
    /// CPU seconds per GB, of both sides.
    cpu: Vec<f64>,
}

impl Samples {
    /// Moves so many bytes so many times; `f` says how long each took, and what CPU time.
    fn take(&mut self, len: usize, times: usize, mut f: impl FnMut() -> (f64, f64)) {
        let all: Vec<(f64, f64)> = (0..times).map(|_| f()).collect();
        let gb = (len * times) as f64 / GB;
        self.speed
            .push(gb / all.iter().map(|(took, _)| took).sum::<f64>());
        self.cpu
            .push(all.iter().map(|(_, used)| used).sum::<f64>() / gb);
    }
}

/// The names of one size's rows.
struct Size {
    len: usize,
    /// Moved so many times for one sample.
    times: usize,
    samples: usize,
    to_head: [&'static str; 2],
    to_node: [&'static str; 2],
    limits: [[&'static str; 2]; 3],
}

macro_rules! size {
    ($len:expr, $times:expr, $samples:expr, $name:literal) => {
        Size {
            len: $len,
            times: $times,
            samples: $samples,
            to_head: [
                concat!("transfer_", $name, "_to_head"),
                concat!("transfer_", $name, "_to_head_cpu"),
            ],
            to_node: [
                concat!("transfer_", $name, "_to_node"),
                concat!("transfer_", $name, "_to_node_cpu"),
            ],
            limits: [
                [
                    concat!("limit_quinn_", $name),
                    concat!("limit_quinn_", $name, "_cpu"),
                ],
                [
                    concat!("limit_tls_", $name),
                    concat!("limit_tls_", $name, "_cpu"),
                ],
                [
                    concat!("limit_tcp_", $name),
                    concat!("limit_tcp_", $name, "_cpu"),
                ],
            ],
        }
    };
}

const SIZES: [Size; 3] = [
    size!(1_000_000_000, 1, 7, "1gb"),
    size!(100_000_000, 1, 15, "100mb"),
    size!(1_000_000, 20, 15, "1mb"),
];

pub fn rows(report: &mut Report) {
    let wanted = |size: &Size| {
        let limits = size.limits.iter().flatten();
        let names = size.to_head.iter().chain(&size.to_node).chain(limits);
        names.copied().any(|name| report.wants(name))
    };
    let sizes: Vec<&Size> = SIZES.iter().filter(|size| wanted(size)).collect();
    let Some(largest) = sizes.iter().map(|size| size.len).max() else {
        return;
    };
    let mut cluster = Cluster::new((largest as u64 * 5 / 2).max(256 << 20), false);
    cluster.add();
    let there = cluster.others()[0];
    let pids = cluster.pids();
    let mut peers = ["quinn", "tls", "tcp"].map(peers::start);
    let mut buffer = vec![1; largest];
    for size in sizes {
        let usual = if report.quick() && size.len > GB as usize / 2 {
            2
        } else {
            size.samples
        };
        let times = if report.quick() {
            size.times.min(5)
        } else {
            size.times
        };
        let (mut to_head, mut to_node) = (Samples::default(), Samples::default());
        let mut limits: [Samples; 3] = Default::default();
        for sample in 0..=report.samples(usual) {
            // The first finds memory that was never touched, and does not count.
            let mut kept = (Samples::default(), Samples::default());
            let (head, node) = match sample {
                0 => (&mut kept.0, &mut kept.1),
                _ => (&mut to_head, &mut to_node),
            };
            head.take(size.len, times, || pull(&pids, there, size.len));
            node.take(size.len, times, || push(&pids, there, size.len));
            for (peer, samples) in peers.iter_mut().zip(&mut limits) {
                let into = &mut buffer[..size.len];
                if sample == 0 {
                    peer.pull(into);
                    continue;
                }
                let pids = [std::process::id(), peer.pid()];
                samples.take(size.len, times, || cpu::during(&pids, || peer.pull(into)));
            }
        }
        let quinn = Some(median(&limits[0].speed));
        let cpu = Some(median(&limits[0].cpu));
        // What the design asks is asked of large objects.
        let bound = (size.len >= 100_000_000).then_some(Bound::OfLimit(0.9));
        for ([speed_row, cpu_row], samples) in [(size.to_head, to_head), (size.to_node, to_node)] {
            report.bounded(speed_row, "GB/s", samples.speed, quinn, bound);
            report.bounded(cpu_row, "s/GB", samples.cpu, cpu, None);
        }
        for ([speed_row, cpu_row], samples) in size.limits.into_iter().zip(limits) {
            report.bounded(speed_row, "GB/s", samples.speed, None, None);
            report.bounded(cpu_row, "s/GB", samples.cpu, None, None);
        }
    }
}

/// Reads a result that lies on the other node.
fn pull(pids: &[u32], there: NodeId, len: usize) -> (f64, f64) {
    let made: ObjectRef<Vec<u8>> = make::options().on_node(there).remote(len);
    // It has ended, and its bytes are where it ran.
    let (ready, _) = mobula::wait(std::slice::from_ref(&made)).run().unwrap();
    assert_eq!(ready.len(), 1);
    cpu::during(pids, || assert_eq!(mobula::view(&made).unwrap().len(), len))
}

/// Has the other node read an object of this one.
fn push(pids: &[u32], there: NodeId, len: usize) -> (f64, f64) {
    let put = mobula::put(&vec![7u8; len]).unwrap();
    cpu::during(pids, || {
        let taken = take::options().on_node(there).remote(&put);
        assert_eq!(mobula::get(&taken).unwrap(), len);
    })
}
