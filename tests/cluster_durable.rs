//! Puts with durable copies: what they promise when nodes are killed, and when the place says no.
//!
//! Invariant: nodes are processes, and every wait has a deadline. Left out: who may delete when, which `core` tests with chance; how
//! copies are written and checked, which `store` tests.
#![cfg(all(feature = "cluster", feature = "object-store"))]

mod cluster_common;

use std::time::{Duration, Instant};

use cluster_common::files::Temp;
use cluster_common::{Cluster, called, cluster_with, until, within};
use mobula::prelude::*;
use mobula::{Config, Error, Loss, NotWritten, PutOptions};

/// Numbers in an object.
const MANY: usize = 50_000;
const LONG: Duration = Duration::from_secs(30);
/// How fast deaths are found is not looked at here, and many processes share two CPUs.
const PACE: u32 = 3;
/// For how long after an owner's death what it handed on may still come.
const GRACE: Duration = Duration::from_secs(5);

fn until_copies(temp: &Temp, n: usize) {
    until(&format!("{n} copies are there"), LONG, || {
        temp.files().len() == n
    });
}

fn config() -> Config {
    Config::new()
        .num_cpus(2)
        .object_store_memory(256 << 20)
        .attach(false)
}

/// A head, and so many nodes, which are called `node0` and so on, and have that place.
fn with(name: &str, nodes: usize, test: impl FnOnce(&mut Cluster, &Temp)) {
    let _alone = cluster_common::alone();
    let temp = Temp::new(&format!("durable-{name}"));
    let (pace, place) = (PACE.to_string(), temp.0.to_str().expect("it is text"));
    let settings = [
        ("MOBULA_CLUSTER_PACE", pace.as_str()),
        ("MOBULA_DURABLE", place),
    ];
    let config = config().cluster_pace(PACE).durable(&temp.0);
    let mut cluster = cluster_with(config, nodes, &settings);
    test(&mut cluster, &temp);
}

type Numbers = ObjectRef<Vec<u64>>;

/// Puts objects with a durable copy and so many replicas each, on the node where it runs.
#[remote]
fn puts(objects: u64, replicas: u32) -> Result<Vec<Numbers>, String> {
    let options = PutOptions::new().durable().replicas(replicas);
    let put = |i| options.put(&vec![i; MANY]);
    let all: mobula::Result<_> = (0..objects).map(put).collect();
    all.map_err(|e| e.to_string())
}

#[remote]
fn last(of: &[u64]) -> u64 {
    of[of.len() - 1]
}

#[remote]
struct Keeps {
    of: Vec<Numbers>,
}

#[remote]
impl Keeps {
    pub fn new(of: Vec<Numbers>) -> Self {
        Keeps { of }
    }

    pub fn count(&self) -> usize {
        self.of.len()
    }

    pub fn sum(&self) -> u64 {
        let all = self.of.iter().map(|of| within(of).expect("it is read"));
        all.map(|of| of[MANY - 1]).sum()
    }
}

#[test]
fn what_a_killed_node_put_is_read_from_its_durable_copy() {
    with("killed", 2, |cluster, temp| {
        let [zero, one] = ["node0", "node1"].map(|n| called(&cluster.head, n));
        let objects = within(puts::options().on_node(zero).remote(6, 0)).unwrap();
        assert_eq!(temp.files().len(), 6);
        cluster.nodes[0].kill();
        // Before its death is known, and by another node, too.
        for (i, object) in objects.iter().enumerate() {
            assert_eq!(within(object).unwrap(), vec![i as u64; MANY]);
            let read = last::options().on_node(one).remote(object);
            assert_eq!(within(&read).unwrap(), i as u64);
        }
        assert_eq!(temp.files().len(), 6);
    });
}

#[test]
fn references_are_handed_on_after_the_owners_death_and_copies_go_with_the_last() {
    with("handed", 2, |cluster, temp| {
        let [zero, one] = ["node0", "node1"].map(|n| called(&cluster.head, n));
        let objects = within(puts::options().on_node(zero).remote(6, 0)).unwrap();
        cluster.nodes[0].kill();
        until("it is gone", LONG, || cluster.head.nodes().len() == 2);
        // Never read here; this node's own references are gone before they are read there.
        let keeps = Keeps::options().on_node(one).remote(objects);
        let kept = Instant::now();
        assert_eq!(within(keeps.count()).unwrap(), 6);
        until("a grace period is over", LONG, || {
            assert_eq!(temp.files().len(), 6, "somebody needs them");
            kept.elapsed() > GRACE + GRACE / 2
        });
        assert_eq!(within(keeps.sum()).unwrap(), 15);
        drop(keeps);
        until_copies(temp, 0);
    });
}

#[test]
fn copies_go_with_the_last_reference_while_the_owner_lives_and_with_whoever_has_it() {
    with("lives", 2, |cluster, temp| {
        let [zero, one] = ["node0", "node1"].map(|n| called(&cluster.head, n));
        let numbers = PutOptions::new()
            .durable()
            .put_slice(&[7u64; MANY])
            .unwrap();
        // However small.
        let small = PutOptions::new().durable().put(&3u8).unwrap();
        assert_eq!((temp.files().len(), within(&small).unwrap()), (2, 3));
        let read = last::options().on_node(one).remote(&numbers);
        assert_eq!(within(&read).unwrap(), 7);
        drop((read, small));
        until_copies(temp, 1);
        drop(numbers);
        until_copies(temp, 0);
        // Owner and borrower die, one after the other: somebody else knows of both.
        let objects = within(puts::options().on_node(zero).remote(3, 0)).unwrap();
        let keeps = Keeps::options().on_node(one).remote(objects);
        assert_eq!(within(keeps.sum()).unwrap(), 3);
        cluster.nodes[0].kill();
        until("it is gone", LONG, || cluster.head.nodes().len() == 2);
        assert_eq!(within(keeps.sum()).unwrap(), 3);
        assert_eq!(temp.files().len(), 3);
        cluster.nodes[1].kill();
        until_copies(temp, 0);
    });
}

#[test]
fn replicas_are_read_before_the_copy_and_the_copy_when_they_are_dead_too() {
    with("both", 3, |cluster, temp| {
        let zero = called(&cluster.head, "node0");
        let objects = within(puts::options().on_node(zero).remote(8, 2)).unwrap();
        cluster.nodes[0].kill();
        until("it is gone", LONG, || cluster.head.nodes().len() == 3);
        let held: Vec<_> = temp.files();
        let aside = temp.0.with_extension("aside");
        std::fs::rename(&temp.0, &aside).unwrap();
        assert_eq!(within(&objects[0]).unwrap()[0], 0, "from a replica");
        std::fs::rename(&aside, &temp.0).unwrap();
        assert_eq!(temp.files().len(), held.len());
        cluster.nodes[1].kill();
        cluster.nodes[2].kill();
        until("they are gone", LONG, || cluster.head.nodes().len() == 1);
        for (i, object) in objects.iter().enumerate() {
            assert_eq!(within(object).unwrap()[MANY - 1], i as u64);
        }
    });
}

#[test]
fn copies_that_are_gone_or_spoilt_are_said_with_their_names() {
    with("spoilt", 1, |cluster, temp| {
        let zero = called(&cluster.head, "node0");
        let objects = within(puts::options().on_node(zero).remote(3, 0)).unwrap();
        let mut copies = temp.files();
        copies.sort();
        cluster.nodes[0].kill();
        until("it is gone", LONG, || cluster.head.nodes().len() == 1);
        std::fs::remove_file(&copies[0]).unwrap();
        let mut bytes = std::fs::read(&copies[1]).unwrap();
        bytes[1000] ^= 1;
        std::fs::write(&copies[1], bytes).unwrap();
        let mut found = Vec::new();
        for end in objects.iter().map(within) {
            match end {
                Ok(numbers) => assert_eq!(numbers.len(), MANY),
                Err(Error::CopyLost(lost)) => {
                    let name = lost.copy.to_string();
                    assert!(copies.iter().any(|at| at.ends_with(&name)), "{name}");
                    found.push(lost.why.clone());
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        found.sort_by_key(|why| format!("{why:?}"));
        assert_eq!(found, [Loss::Corrupted, Loss::Deleted]);
    });
}

#[test]
fn a_place_that_says_no_is_said_and_nothing_stays() {
    with("refused", 1, |cluster, temp| {
        let blocked = temp.0.with_extension("blocked");
        std::fs::write(&blocked, b"a file where a folder was to be").unwrap();
        let options = PutOptions::new().durable_at(&blocked).replicas(1);
        match options.put(&vec![1u8; MANY]) {
            Err(Error::NotDurable(e)) => {
                let place = e.place.as_deref().expect("it was given");
                assert!(place.ends_with("blocked/"), "{place}");
                assert!(matches!(e.why, NotWritten::Refused(_)), "{e}");
            }
            other => panic!("{other:?}"),
        }
        std::fs::remove_file(&blocked).unwrap();
        // The copy goes again if there are too few nodes.
        let few = PutOptions::new()
            .durable()
            .replicas(2)
            .put(&vec![1u8; MANY]);
        assert!(matches!(few, Err(Error::TooFewReplicas { .. })), "{few:?}");
        until_copies(temp, 0);
        let none = PutOptions::new().durable().timeout(Duration::ZERO);
        match none.put(&1u8) {
            Err(Error::NotDurable(e)) => {
                assert_eq!(e.why, NotWritten::TimedOut(Duration::ZERO));
            }
            other => panic!("{other:?}"),
        }
        let refers = PutOptions::new().durable();
        let e = refers
            .put(&vec![mobula::put(&1).unwrap()])
            .expect_err("lost");
        assert!(e.to_string().contains("references in it"), "{e}");
        assert_eq!(cluster.head.store().objects, 0);
        assert_eq!(temp.files().len(), 0);
    });
}

#[test]
fn a_node_that_leaves_in_order_leaves_copies_that_others_need() {
    with("leaves", 2, |cluster, temp| {
        let zero = called(&cluster.head, "node0");
        let objects = within(puts::options().on_node(zero).remote(3, 0)).unwrap();
        let pid = cluster.nodes[0].process.id().to_string();
        let told = std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status();
        assert!(told.expect("a signal can be sent").success());
        until("it leaves", LONG, || cluster.head.nodes().len() == 2);
        let _ = cluster.nodes[0].process.wait();
        assert_eq!(temp.files().len(), 3);
        for (i, object) in objects.iter().enumerate() {
            assert_eq!(within(object).unwrap()[0], i as u64);
        }
        drop(objects);
        until_copies(temp, 0);
    });
}

#[test]
fn a_node_alone_writes_copies_too_and_takes_them_along_at_its_end() {
    let _alone = cluster_common::alone();
    let temp = Temp::new("alone");
    let mobula = config().durable(&temp.0).init().unwrap();
    let options = PutOptions::new().durable();
    let one = options.put(&vec![1u64; MANY]).unwrap();
    let two = options.put(&2u8).unwrap();
    assert_eq!(temp.files().len(), 2);
    assert_eq!(within(&one).unwrap(), vec![1; MANY]);
    drop(one);
    until_copies(&temp, 1);
    let few = options.clone().replicas(1).put(&1u8);
    assert!(matches!(few, Err(Error::TooFewReplicas { .. })), "{few:?}");
    drop(mobula);
    assert_eq!(temp.files().len(), 0);
    drop(two);
    // Without a place.
    let mobula = config().init().unwrap();
    match options.put(&1u8) {
        Err(Error::NotDurable(e)) => {
            assert_eq!((e.why.clone(), &e.place), (NotWritten::NoPlace, &None))
        }
        other => panic!("{other:?}"),
    }
    let at = PutOptions::new().durable_at(&temp.0).put(&1u8).unwrap();
    assert_eq!(temp.files().len(), 1);
    drop(at);
    until_copies(&temp, 0);
    drop(mobula);
    match config().durable("nothing://there").init() {
        Err(Error::Config { setting, .. }) => assert_eq!(setting, "durable"),
        other => panic!("{other:?}"),
    }
}
