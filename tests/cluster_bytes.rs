//! Where bytes are, which way they go, and that nothing is left of them.
//!
//! Invariant: nodes are processes with arenas of their own, and all bytes go over QUIC, so that they are counted. Left out: nodes that
//! die meanwhile.

mod cluster_common;

use std::time::Duration;

use cluster_common::{Cluster, patient_cluster, until};
use mobula::inspect::{Part, Query, snapshot};
use mobula::prelude::*;
use mobula::{Config, NodeId};

/// How long anything may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn with(others: usize, test: impl FnOnce(&Cluster)) {
    let _alone = cluster_common::alone();
    let config = Config::new()
        .num_cpus(2)
        .object_store_memory(256 << 20)
        .attach(false);
    test(&patient_cluster(config, others));
}

fn others(cluster: &Cluster) -> Vec<NodeId> {
    let nodes = cluster.head.nodes().into_iter();
    nodes.filter(|n| !n.this).map(|n| n.id).collect()
}

#[remote]
fn filled(bytes: usize) -> Vec<u8> {
    vec![7; bytes]
}

/// Who reads it.
#[remote]
fn reads(bytes: &[u8]) -> (u32, usize) {
    (std::process::id(), bytes.len())
}

#[remote]
fn pid() -> u32 {
    std::process::id()
}

/// Has the value read by a call, wherever that runs.
#[remote]
fn has_it_read(object: Vec<ObjectRef<Vec<u8>>>) -> (u32, usize) {
    mobula::get_timeout(reads::remote(&object[0]), SOON).unwrap()
}

/// A new object of this many bytes on a node.
fn made_on(node: NodeId, bytes: usize) -> ObjectRef<Vec<u8>> {
    let made = filled::options().on_node(node).remote(bytes);
    let waits = mobula::wait(std::slice::from_ref(&made));
    let (ready, _) = waits.timeout(SOON).run().unwrap();
    assert_eq!(ready.len(), 1);
    made
}

#[test]
fn a_call_runs_where_its_bytes_are() {
    // A node that is thought to be busy is passed over, and on a loaded machine that is thought of it at times.
    const TRIES: usize = 10;
    const MOST: usize = 3;
    with(2, |cluster| {
        let nodes = others(cluster);
        let there: u32 =
            mobula::get_timeout(pid::options().on_node(nodes[0]).remote(), SOON).unwrap();
        let size = 16 << 20;
        let is_free = || {
            let all = cluster.head.nodes();
            let node = all.iter().find(|n| n.id == nodes[0]);
            node.is_some_and(|n| n.free_cpus == mobula::Units::whole(2))
        };
        // From here, and from a third node, which finds out as well.
        let from_here = |big| mobula::get_timeout(reads::remote(&big), SOON).unwrap();
        let from_another = |big| {
            let asks = has_it_read::options().on_node(nodes[1]);
            mobula::get_timeout(asks.remote(vec![big]), SOON).unwrap()
        };
        let ask: [&dyn Fn(ObjectRef<Vec<u8>>) -> (u32, usize); 2] = [&from_here, &from_another];
        for ask in ask {
            let mut went = 0;
            for _ in 0..TRIES {
                let big = made_on(nodes[0], size);
                until("the node has room", SOON, is_free);
                let before = cluster.head.network().bulk_in;
                let (pid, len) = ask(big);
                assert_eq!(len, size);
                if pid == there {
                    went += 1;
                    assert_eq!(
                        cluster.head.network().bulk_in,
                        before,
                        "its bytes stay there"
                    );
                }
                if went == MOST {
                    break;
                }
            }
            assert_eq!(went, MOST, "of {TRIES} calls that read 16 MiB went there");
        }
        // Unless it is told to run elsewhere.
        let (big, here) = (made_on(nodes[0], size), cluster.head.node_id().unwrap());
        let before = cluster.head.network().bulk_in;
        let told = reads::options().on_node(here).remote(&big);
        let read = mobula::get_timeout(told, SOON).unwrap();
        assert_eq!(read, (std::process::id(), size));
        assert!(cluster.head.network().bulk_in >= before + size as u64);
    });
}

#[test]
fn an_object_that_all_want_is_handed_on_by_those_who_have_it() {
    const ROUNDS: u64 = 2;
    with(4, |cluster| {
        let nodes = others(cluster);
        let size = 8 << 20;
        for round in 1..=ROUNDS {
            let object = mobula::put(&vec![7u8; size]).unwrap();
            let read: Vec<_> = nodes
                .iter()
                .map(|node| reads::options().on_node(*node).remote(&object))
                .collect();
            let read = mobula::get_timeout(&read, SOON).unwrap();
            assert!(read.iter().all(|(_, len)| *len == size));
            let out = cluster.head.network().bulk_out;
            println!(
                "{round} objects for 4 nodes: {} were sent by their owner",
                out / size as u64
            );
        }
        // All of them came somehow; not all came from here.
        let all = ROUNDS * 4 * size as u64;
        let out = cluster.head.network().bulk_out;
        assert!(out >= ROUNDS * size as u64, "{out} bytes of {all}");
        assert!(out <= all - size as u64, "{out} bytes of {all}");
    });
}

#[remote]
fn square(x: u64) -> u64 {
    x * x
}

#[remote]
fn sum(of: Vec<ObjectRef<u64>>) -> u64 {
    mobula::get_timeout(&of, SOON).unwrap().iter().sum()
}

/// References, one of them to a large value, made where this runs.
#[remote]
fn makes(n: u64) -> Vec<ObjectRef<Vec<u8>>> {
    (0..n)
        .map(|i| filled::remote(100_000 + i as usize))
        .collect()
}

#[remote]
fn fails(x: u64) -> Result<u64, String> {
    Err(format!("no {x}"))
}

#[remote]
struct Counter {
    total: u64,
}

#[remote]
impl Counter {
    pub fn new() -> Self {
        Counter { total: 0 }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}

/// What a node has: objects and bytes in its store, actors, and calls that have not ended.
#[remote(num_cpus = 0)]
fn has() -> [u64; 4] {
    let look = snapshot(&Query::of(&[Part::Nodes])).expect("a node can be looked at");
    let store = &look.nodes.items[0].store;
    let counts = &look.counts;
    let open = counts.running + counts.queued + counts.waiting_arguments + counts.waiting_resources;
    [store.objects, store.used, counts.actors, open]
}

fn all_have(cluster: &Cluster) -> Vec<[u64; 4]> {
    let nodes = cluster.head.nodes().into_iter();
    nodes
        .map(|n| mobula::get_timeout(has::options().on_node(n.id).remote(), SOON).unwrap())
        .collect()
}

#[test]
fn nothing_is_left_of_many_calls_between_nodes() {
    with(2, |cluster| {
        let ids: Vec<NodeId> = cluster.head.nodes().iter().map(|n| n.id).collect();
        let before = all_have(cluster);
        assert!(before.iter().all(|n| n[..3] == [0, 0, 0]), "{before:?}");
        for round in 0..3u64 {
            let counters: Vec<_> = (ids.iter())
                .map(|id| Counter::options().on_node(*id).num_cpus(0).remote())
                .collect();
            let large = mobula::put(&vec![1u8; 300_000]).unwrap();
            let (mut sums, mut adds, mut lengths, mut refused) = (vec![], vec![], vec![], vec![]);
            for i in 0..120u64 {
                let at = ids[(i % 3) as usize];
                let squares: Vec<_> = (0..3)
                    .map(|x| {
                        square::options()
                            .on_node(ids[((i + x) % 3) as usize])
                            .remote(x)
                    })
                    .collect();
                sums.push(sum::options().on_node(at).remote(&squares));
                adds.push(counters[(i % 3) as usize].add(i));
                lengths.push(reads::options().on_node(at).remote(&large));
                refused.push(fails::options().on_node(at).remote(i));
            }
            assert_eq!(mobula::get_timeout(&sums, SOON).unwrap(), [5; 120]);
            let lengths = mobula::get_timeout(&lengths, SOON).unwrap();
            assert!(lengths.iter().all(|(_, len)| *len == 300_000));
            mobula::get_timeout(&adds, SOON).unwrap();
            for r in &refused {
                let e = mobula::get_timeout(r, SOON).unwrap_err();
                assert!(matches!(e, mobula::Error::TaskFailed(_)), "{e}");
            }
            // Made by one node, read by this one and by the next, and some of it by nobody.
            for (i, id) in ids.iter().enumerate() {
                let made = makes::options().on_node(*id).remote(4);
                let made: Vec<ObjectRef<Vec<u8>>> = mobula::get_timeout(made, SOON).unwrap();
                let here = mobula::get_timeout(&made[0], SOON).unwrap();
                assert_eq!(here.len(), 100_000);
                let next = reads::options().on_node(ids[(i + 1) % 3]).remote(&made[1]);
                assert_eq!(mobula::get_timeout(next, SOON).unwrap().1, 100_001);
            }
            if round == 1 {
                let some = all_have(cluster);
                assert!(some.iter().any(|n| n[2] > 0), "actors are there: {some:?}");
            }
        }
        until("all is as before", SOON, || {
            let now = all_have(cluster);
            // The call that looks is one that has not ended.
            let as_before =
                |(now, before): (&[u64; 4], &[u64; 4])| now[..3] == before[..3] && now[3] <= 1;
            now.iter().zip(&before).all(as_before)
        });
    });
}

/// So many references to small values, all together.
#[remote]
fn many_small(count: usize, bytes: usize) -> Vec<ObjectRef<Vec<u8>>> {
    (0..count)
        .map(|n| mobula::put(&vec![n as u8; bytes]).unwrap())
        .collect()
}

type LargeWithOne = (Vec<u8>, Vec<ObjectRef<u64>>);

/// A reference to a value of this many bytes, in which there is another.
#[remote]
fn large_with_one(bytes: usize) -> Vec<ObjectRef<LargeWithOne>> {
    let one = vec![mobula::put(&1).unwrap()];
    vec![mobula::put(&(vec![7; bytes], one)).unwrap()]
}

fn get_inner(outer: ObjectRef<Vec<ObjectRef<LargeWithOne>>>) -> ObjectRef<LargeWithOne> {
    mobula::get_timeout(outer, SOON).unwrap().remove(0)
}

#[test]
fn references_with_more_beside_them_than_a_frame_takes_arrive_and_too_many_are_an_error() {
    // 18 MiB of values, of which each is small enough to travel with its reference; a frame has at most 16 MiB.
    const COUNT: usize = 40_000;
    const BYTES: usize = 480;
    with(1, |cluster| {
        let there = others(cluster)[0];
        let made = many_small::options().on_node(there).remote(COUNT, BYTES);
        let all = mobula::get_timeout(made, SOON).unwrap();
        assert_eq!(all.len(), COUNT);
        for n in [0, 1, COUNT / 2, COUNT - 1] {
            let value = mobula::get_timeout(&all[n], SOON).unwrap();
            assert_eq!(value, vec![n as u8; BYTES], "{n}");
        }
        let made = many_small::options().on_node(there).remote(130_000, 1);
        let error = mobula::get_timeout(made, SOON).unwrap_err().to_string();
        assert!(
            error.contains("130000 references inside, which count 96 bytes each"),
            "{error}"
        );
        // An object that is asked for, and the most that still goes.
        let large = large_with_one::options().on_node(there).remote(12 << 20);
        let error = mobula::get_timeout(&get_inner(large), SOON).unwrap_err();
        assert!(
            error.to_string().contains("more than travels at once"),
            "{error}"
        );
        let fits = large_with_one::options().on_node(there).remote(11 << 20);
        let (bytes, one) = mobula::get_timeout(&get_inner(fits), SOON).unwrap();
        assert_eq!(
            (bytes.len(), mobula::get_timeout(&one[0], SOON).unwrap()),
            (11 << 20, 1)
        );
    });
}
