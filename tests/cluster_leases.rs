//! Slots that nodes lend each other: who gets how many, what a steady stream costs, and what becomes of calls when things end.
//!
//! Invariant: nodes are processes; work is sleep, so that the test needs no more CPUs than there are. Left out: the laws of the
//! two machines, which `core::leases` tests over random sequences.

mod cluster_common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster_common::files::{Gate, pass};
use cluster_common::{Cluster, Node, head, patient_cluster};
use mobula::prelude::*;
use mobula::{Config, Mobula, NodeId};

fn config(cpus: u32) -> Config {
    Config::new()
        .num_cpus(cpus)
        .object_store_memory(64 << 20)
        .attach(false)
}

fn serial(test: impl FnOnce()) {
    let _alone = cluster_common::alone();
    test();
}

fn with(others: usize, test: impl FnOnce(&Cluster)) {
    serial(|| test(&patient_cluster(config(2), others)));
}

fn others(head: &Mobula) -> Vec<NodeId> {
    let all = head.nodes().into_iter();
    all.filter(|n| !n.this).map(|n| n.id).collect()
}

/// Polls until this is so.
fn eventually(what: &str, is: impl FnMut() -> bool) {
    cluster_common::until(what, Duration::from_secs(20), is);
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_micros() as u64)
}

/// Sleeps, and says when it was done.
#[remote]
fn nap(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    now()
}

#[remote]
fn pid() -> u32 {
    std::process::id()
}

/// The node of this number, once the caller's node has heard of it.
fn known(at: u64) -> NodeId {
    let at = NodeId::new(at).unwrap();
    eventually("the nodes know each other", || {
        mobula::get(pid::options().on_node(at).remote()).is_ok()
    });
    at
}

/// When so many naps at a node were done.
#[remote]
fn floods(at: u64, calls: usize, ms: u64) -> Vec<u64> {
    let at = known(at);
    let naps: Vec<_> = (0..calls)
        .map(|_| nap::options().on_node(at).remote(ms))
        .collect();
    mobula::get(&naps).unwrap()
}

#[test]
fn two_that_flood_a_node_get_half_of_it_each() {
    with(3, |cluster| {
        let nodes = others(&cluster.head);
        let target = nodes[2].get();
        let flood = |from| floods::options().on_node(from).remote(target, 300, 5);
        let (a, b) = (flood(nodes[0]), flood(nodes[1]));
        let (a, b) = (mobula::get(a).unwrap(), mobula::get(b).unwrap());
        // The window in which both had calls there, without the moment in which they came.
        let first = |v: &[u64]| v.iter().copied().min().unwrap();
        let last = |v: &[u64]| v.iter().copied().max().unwrap();
        let from = first(&a).max(first(&b)) + 100_000;
        let to = last(&a).min(last(&b));
        let inside = |v: &[u64]| v.iter().filter(|t| (from..to).contains(*t)).count();
        let (of_a, of_b) = (inside(&a), inside(&b));
        assert!(of_a + of_b > 100, "{of_a} and {of_b}");
        let part = of_a as f64 / (of_a + of_b) as f64;
        assert!((0.35..0.65).contains(&part), "{of_a} and {of_b}");
    });
}

/// When a call of high priority at a node was done.
#[remote]
fn overtakes(at: u64) -> u64 {
    let at = known(at);
    mobula::get(nap::options().on_node(at).priority(5).remote(1)).unwrap()
}

#[test]
fn a_call_of_high_priority_overtakes_a_thousand_of_another_node() {
    with(3, |cluster| {
        let nodes = others(&cluster.head);
        let target = nodes[2];
        // 1,000 naps on two CPUs take 2.5 s at least.
        let flood = floods::options()
            .on_node(nodes[0])
            .remote(target.get(), 1_000, 5);
        // They are under way: the target has no CPU to spare.
        let busy = || {
            let all = cluster.head.nodes();
            let there = all.iter().find(|n| n.id == target);
            there.is_some_and(|n| n.free_cpus < mobula::Units::ONE)
        };
        eventually("the flood reaches the node", busy);
        let done = mobula::get(overtakes::options().on_node(nodes[1]).remote(target.get()));
        let done = done.unwrap();
        let naps = mobula::get(flood).unwrap();
        let before = naps.iter().filter(|t| **t < done).count();
        assert!(before < 900, "{before} of 1000 were done before it");
        assert!(before > 0, "it was alone");
    });
}

#[test]
fn a_steady_stream_asks_nobody() {
    with(1, |cluster| {
        let there = others(&cluster.head)[0];
        const WINDOW: usize = 16;
        let mut under_way = std::collections::VecDeque::new();
        let mut stream = |calls: usize| {
            for _ in 0..calls {
                if under_way.len() == WINDOW {
                    mobula::get(under_way.pop_front().unwrap()).unwrap();
                }
                under_way.push_back(pid::options().on_node(there).remote());
            }
        };
        stream(500);
        let before = (cluster.head.leases(), cluster.head.network());
        stream(2_000);
        let after = (cluster.head.leases(), cluster.head.network());
        let calls = after.0.calls - before.0.calls;
        assert!(calls >= 1_900, "{calls} were sent to slots");
        let choices = after.0.choices - before.0.choices;
        assert!(choices <= 20, "a node was chosen {choices} times");
        let messages = after.0.messages - before.0.messages;
        assert!(messages <= 100, "{messages} messages about leases");
        // One frame there for each call, and one back.
        let frames = after.1.frames_out - before.1.frames_out;
        assert!(frames <= calls + 200, "{frames} frames for {calls} calls");
        let frames = after.1.frames_in - before.1.frames_in;
        assert!(frames <= calls + 200, "{frames} frames back");
    });
}

#[test]
fn an_unused_lease_is_given_back() {
    with(1, |cluster| {
        let there = others(&cluster.head)[0];
        mobula::get(pid::options().on_node(there).remote()).unwrap();
        eventually("it is given back", || cluster.head.leases().borrowed == 0);
        let all = cluster.head.leases();
        assert_eq!((all.waiting, all.sent), (0, 0), "{all:?}");
    });
}

#[test]
fn calls_end_when_the_node_that_lends_dies() {
    serial(|| {
        let mut cluster = cluster_common::cluster(config(2), 2);
        let nodes = others(&cluster.head);
        // Some sent to its slots, some in line for them, some in line for whoever is first.
        let bound: Vec<_> = (0..20)
            .map(|_| nap::options().on_node(nodes[0]).remote(30))
            .collect();
        let soft: Vec<_> = (0..20)
            .map(|_| nap::options().prefer_node(nodes[0]).remote(30))
            .collect();
        let free: Vec<_> = (0..40).map(|_| nap::remote(30)).collect();
        eventually("slots are lent", || cluster.head.leases().borrowed > 0);
        let victim = mobula::get(pid::options().on_node(nodes[0]).priority(9).remote()).unwrap();
        for node in &mut cluster.nodes {
            if node.process.id() == victim {
                node.kill();
            }
        }
        for call in &bound {
            if let Err(e) = mobula::get(call) {
                assert!(e.to_string().contains(&nodes[0].to_string()), "{e}");
            }
        }
        assert_eq!(mobula::get(&soft).unwrap().len(), 20);
        assert_eq!(mobula::get(&free).unwrap().len(), 40);
        eventually("nothing is left", || {
            let all = cluster.head.leases();
            (all.waiting, all.sent) == (0, 0)
        });
    });
}

/// Goes on at the next node until it has been at all, in turn, so many times.
#[remote]
fn goes_round(nodes: Vec<u64>, left: u64) -> u64 {
    if left == 0 {
        return 1;
    }
    let at = NodeId::new(nodes[left as usize % nodes.len()]).unwrap();
    let next = goes_round::options().on_node(at).remote(&nodes, left - 1);
    mobula::get(next).unwrap() + 1
}

#[test]
fn calls_that_wait_for_others_lend_their_slot() {
    serial(|| {
        // One CPU each: more calls at once wait than there are slots.
        let head = head(config(1).cluster_pace(5).share_memory(false));
        let settings = [
            ("MOBULA_NUM_CPUS", "1"),
            ("MOBULA_CLUSTER_PACE", "5"),
            ("MOBULA_SHARE_MEMORY", "0"),
        ];
        let _nodes: Vec<_> = (0..2)
            .map(|i| Node::start(&head, &format!("round{i}"), &settings))
            .collect();
        head.wait_for_nodes(3, Duration::from_secs(30)).unwrap();
        let nodes: Vec<u64> = head.nodes().iter().map(|n| n.id.get()).collect();
        let rounds: Vec<_> = (0..6)
            .map(|i| {
                let at = NodeId::new(nodes[i % 3]).unwrap();
                goes_round::options().on_node(at).remote(&nodes, 9)
            })
            .collect();
        assert_eq!(mobula::get(&rounds).unwrap(), [10; 6]);
    });
}

#[test]
fn a_call_is_cancelled_in_line_and_on_its_way() {
    with(1, |cluster| {
        let there = others(&cluster.head)[0];
        let mut calls: Vec<_> = (0..50)
            .map(|_| nap::options().on_node(there).remote(20))
            .collect();
        let kept = calls.split_off(25);
        for call in &calls {
            mobula::cancel(call).unwrap();
        }
        let mut cancelled = 0;
        for call in &calls {
            match mobula::get(call) {
                Ok(_) => {}
                Err(mobula::Error::Cancelled { .. }) => cancelled += 1,
                Err(e) => panic!("{e}"),
            }
        }
        assert!(cancelled >= 15, "{cancelled} of 25");
        assert_eq!(mobula::get(&kept).unwrap().len(), 25);
        let all = cluster.head.leases();
        assert_eq!((all.waiting, all.sent), (0, 0), "{all:?}");
    });
}

#[remote]
fn held(gate: String) -> u64 {
    pass(&gate);
    now()
}

#[test]
fn what_waits_for_others_is_taken_back_when_nothing_is_left_here() {
    with(1, |cluster| {
        let there = others(&cluster.head)[0];
        // The other node is busy for long; what was meant for it is done here.
        let gate = Gate::new("leases-gate");
        let long: Vec<_> = (0..2)
            .map(|_| {
                held::options()
                    .on_node(there)
                    .priority(5)
                    .remote(gate.path())
            })
            .collect();
        eventually("it is busy", || cluster.head.leases().sent == 2);
        let calls: Vec<_> = (0..40).map(|_| nap::remote(10)).collect();
        mobula::get_timeout(&calls, Duration::from_secs(20)).expect("they need no node but this");
        gate.open();
        mobula::get(&long).unwrap();
    });
}

#[remote]
async fn waits_for(of: Vec<ObjectRef<u64>>) -> usize {
    let mut done = 0;
    for call in of {
        call.await.unwrap();
        done += 1;
    }
    done
}

#[remote]
async fn later(ms: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    ms
}

#[test]
fn futures_take_no_slot_from_others() {
    with(1, |cluster| {
        let there = others(&cluster.head)[0];
        let begin = Instant::now();
        let all: Vec<_> = (0..200)
            .map(|_| later::options().on_node(there).remote(200))
            .collect();
        let pids = mobula::get(pid::options().on_node(there).remote());
        pids.unwrap();
        assert_eq!(mobula::get(&all).unwrap().len(), 200);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(8), "one by one: {took:?}");
        let naps: Vec<_> = (0..4)
            .map(|_| nap::options().on_node(there).remote(20))
            .collect();
        let waiting = waits_for::options().on_node(there).remote(&naps);
        assert_eq!(mobula::get(&waiting).unwrap(), 4);
    });
}
