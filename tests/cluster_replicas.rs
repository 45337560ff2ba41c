//! Puts with replicas: what they promise when nodes are killed.
//!
//! Invariant: nodes are processes, and every wait has a deadline. Left out: which nodes are chosen and who frees what when, which
//! `core` tests with chance.

mod cluster_common;

use std::time::Duration;

use cluster_common::{Cluster, head};
use mobula::prelude::*;
use mobula::{Config, Error, Mobula, NodeId, PutOptions};

/// Numbers in an object.
const MANY: usize = 50_000;

fn config() -> Config {
    Config::new()
        .num_cpus(2)
        .object_store_memory(256 << 20)
        .attach(false)
}

fn with(others: usize, test: impl FnOnce(&mut Cluster)) {
    let _alone = cluster_common::alone();
    test(&mut cluster_common::cluster(config(), others));
}

fn called(mobula: &Mobula, name: &str) -> NodeId {
    let mut nodes = mobula.nodes().into_iter();
    nodes.find(|n| n.name == name).expect("it joined").id
}

/// The value, which comes within half a minute or is a failure.
fn within<G: mobula::Get>(objects: G) -> mobula::Result<G::Output> {
    mobula::get_timeout(objects, Duration::from_secs(30))
}

type Numbers = ObjectRef<Vec<u64>>;

/// Puts objects with so many replicas each, on the node where it runs.
#[remote]
fn puts(objects: u64, replicas: u32) -> Result<Vec<Numbers>, String> {
    let options = PutOptions::new().replicas(replicas);
    let put = |i| options.put(&vec![i; MANY]);
    let all: mobula::Result<_> = (0..objects).map(put).collect();
    all.map_err(|e| e.to_string())
}

#[test]
fn what_a_killed_node_put_is_read_from_its_replicas() {
    with(3, |cluster| {
        let there = called(&cluster.head, "node0");
        // Some of them on each pair of other nodes.
        let objects = within(puts::options().on_node(there).remote(12, 2)).unwrap();
        cluster.nodes[0].kill();
        for (i, object) in objects.iter().enumerate() {
            assert_eq!(within(object).unwrap(), vec![i as u64; MANY]);
        }
    });
}
