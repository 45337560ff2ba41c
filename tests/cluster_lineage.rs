//! Results that are lost with their node, and made again by the calls that made them.
//!
//! Invariant: nodes are processes that are killed; each function notes in a file that it ran, so that what was made again, and what
//! was not, is counted. Left out: the bound and the order of chains, which `core` tests.

mod cluster_common;

use std::path::Path;
use std::time::{Duration, Instant};

use cluster_common::files::{Notes, note};
use cluster_common::{Cluster, called, cluster_with, within};
use mobula::prelude::*;
use mobula::{Config, Error, NodeId, Strategy};

/// More than travels with the news that a call has ended.
const MANY: usize = 50_000;

fn config() -> Config {
    Config::new()
        .num_cpus(1)
        .object_store_memory(256 << 20)
        .attach(false)
}

/// A cluster whose nodes have one CPU each: whoever waits for an object lends it to the call that makes it.
fn with(config: Config, settings: &[(&str, &str)], test: impl FnOnce(&mut Cluster)) {
    let _alone = cluster_common::alone();
    let mut all = vec![("MOBULA_NUM_CPUS", "1")];
    all.extend_from_slice(settings);
    let mut cluster = cluster_with(config, 2, &all);
    test(&mut cluster);
}

/// There, or where it can be.
fn at(node: NodeId) -> Strategy {
    Strategy::Node { node, soft: true }
}

#[remote]
fn makes(file: String, from: u64) -> Vec<u64> {
    note(&file);
    (from..from + MANY as u64).collect()
}

#[remote]
fn adds(file: String, to: &[u64], n: u64) -> Vec<u64> {
    note(&file);
    to.iter().map(|x| x + n).collect()
}

#[remote]
fn grows(file: String) -> Vec<u64> {
    let before = note(&file);
    vec![7; MANY + before]
}

#[remote]
fn only_once(file: String) -> Result<Vec<u64>, String> {
    match note(&file) {
        0 => Ok(vec![7; MANY]),
        _ => Err("once is enough".to_owned()),
    }
}

#[remote]
fn poison(file: String) -> u64 {
    note(&file);
    std::process::abort()
}

#[remote]
fn last(of: &[u64]) -> u64 {
    of[of.len() - 1]
}

/// Reads an object when the file is there.
#[remote]
fn reads_later(of: Vec<ObjectRef<Vec<u64>>>, file: String) -> Result<u64, String> {
    cluster_common::until("it may read", Duration::from_secs(60), || {
        Path::new(&file).exists()
    });
    let all = mobula::get(&of[0]).map_err(|e| e.to_string())?;
    Ok(all[all.len() - 1])
}

#[remote]
struct Keeps {
    of: Vec<ObjectRef<Vec<u64>>>,
}

#[remote]
impl Keeps {
    pub fn new(of: Vec<ObjectRef<Vec<u64>>>) -> Self {
        Keeps { of }
    }

    pub fn last(&self) -> u64 {
        *mobula::get(&self.of[0]).unwrap().last().unwrap()
    }

    pub fn makes(&self, from: u64) -> Vec<u64> {
        (from..from + MANY as u64).collect()
    }
}

/// Waits until they have ended, without reading them.
fn done<T: mobula::Value>(objects: &[ObjectRef<T>]) {
    let all = mobula::wait(objects).num_returns(objects.len());
    let (_, rest) = all.timeout(Duration::from_secs(20)).run().unwrap();
    assert!(rest.is_empty(), "they end");
}

#[test]
fn a_lost_result_is_made_again_and_soon() {
    let notes = Notes::new("lineage-again");
    with(config(), &[], |cluster| {
        cluster_common::settled(&cluster.head);
        let mut took = Vec::new();
        for (i, name) in ["node0", "node1"].into_iter().enumerate() {
            let there = called(&cluster.head, name);
            let object = makes::options().strategy(at(there)).remote(notes.path(), 5);
            done(std::slice::from_ref(&object));
            let killed = Instant::now();
            cluster.nodes[i].kill();
            assert_eq!(within(&object).unwrap()[MANY - 1], 4 + MANY as u64);
            took.push(killed.elapsed());
            assert_eq!(notes.runs(), 2 * (i + 1));
            // It is here now.
            assert_eq!(within(&object).unwrap()[0], 5);
            assert_eq!(notes.runs(), 2 * (i + 1));
        }
        println!("from the kill to the value: {took:?}");
        assert!(
            *took.iter().min().unwrap() < Duration::from_millis(500),
            "{took:?}"
        );
    });
}

#[test]
fn a_chain_is_made_again_for_a_reader_here_and_one_elsewhere() {
    let (notes, go) = (Notes::new("lineage-chain"), Notes::new("lineage-go"));
    with(config(), &[], |cluster| {
        let there = called(&cluster.head, "node0");
        let third = called(&cluster.head, "node1");
        let mut chain = vec![makes::options().strategy(at(there)).remote(notes.path(), 0)];
        for _ in 0..2 {
            let next =
                adds::options()
                    .strategy(at(there))
                    .remote(notes.path(), chain.last().unwrap(), 1);
            chain.push(next);
        }
        done(&chain);
        let end = chain.pop().unwrap();
        let both = adds::options()
            .strategy(at(there))
            .remote(notes.path(), &end, 10);
        done(std::slice::from_ref(&both));
        // Only the lineage keeps the first two.
        drop(chain);
        let reads = reads_later::options()
            .on_node(third)
            .remote(vec![both.clone()], go.path());
        cluster.nodes[0].kill();
        note(&go.path());
        let last = MANY as u64 + 1;
        assert_eq!(within(&end).unwrap()[MANY - 1], last);
        assert_eq!(within(&reads).unwrap(), last + 10);
        assert_eq!(within(last_of(&both)).unwrap(), last + 10);
        assert_eq!(notes.runs(), 8, "four calls, each twice");
    });
}

fn last_of(of: &ObjectRef<Vec<u64>>) -> ObjectRef<u64> {
    last::remote(of)
}

#[test]
fn the_node_that_waits_for_it_can_make_it_again() {
    let notes = Notes::new("lineage-waits");
    let go = Notes::new("lineage-waits-go");
    with(config(), &[("MOBULA_RESOURCES", "maker=1")], |cluster| {
        let there = called(&cluster.head, "node0");
        let third = called(&cluster.head, "node1");
        let made = makes::options()
            .strategy(at(there))
            .resource("maker", 1.0)
            .remote(notes.path(), 0);
        done(std::slice::from_ref(&made));
        let reads = reads_later::options()
            .on_node(third)
            .remote(vec![made.clone()], go.path());
        cluster.nodes[0].kill();
        note(&go.path());
        assert_eq!(within(&reads).unwrap(), MANY as u64 - 1);
        assert_eq!(notes.runs(), 2);
    });
}

#[test]
fn a_surviving_copy_is_preferred() {
    let notes = Notes::new("lineage-survives");
    with(config(), &[], |cluster| {
        let there = called(&cluster.head, "node0");
        let third = called(&cluster.head, "node1");
        let object = makes::options().strategy(at(there)).remote(notes.path(), 0);
        let keeps = Keeps::options().on_node(third).remote(vec![object.clone()]);
        assert_eq!(within(keeps.last()).unwrap(), MANY as u64 - 1);
        cluster.nodes[0].kill();
        assert_eq!(within(&object).unwrap().len(), MANY);
        assert_eq!(notes.runs(), 1, "node1 had a copy");
    });
}

/// Fills the store of the node where it runs, until what came from another node is on disk; how many bytes that are.
#[remote]
fn fills(mut blocks: usize) -> u64 {
    use mobula::inspect::{Part, Query, snapshot};
    let spilled = || {
        let look = snapshot(&Query::of(&[Part::Objects])).expect("a node can be looked at");
        let its = look.origins.items.iter();
        let its = its.filter(|o| o.origin.contains("another node"));
        its.map(|o| o.spilled_bytes).sum()
    };
    let mut all = Vec::new();
    while blocks > 0 && spilled() == 0u64 {
        all.push(mobula::put(&vec![1u64; MANY]).expect("there is a disk"));
        blocks -= 1;
    }
    spilled()
}

#[test]
fn a_surviving_copy_on_disk_is_preferred() {
    let notes = Notes::new("lineage-on-disk");
    let small = [("MOBULA_OBJECT_STORE_MEMORY", "4M")];
    with(config(), &small, |cluster| {
        let there = called(&cluster.head, "node0");
        let third = called(&cluster.head, "node1");
        let object = makes::options().strategy(at(there)).remote(notes.path(), 0);
        let keeps = Keeps::options().on_node(third).remote(vec![object.clone()]);
        assert_eq!(within(keeps.last()).unwrap(), MANY as u64 - 1);
        let spilled = fills::options().on_node(third).remote(40);
        assert!(within(&spilled).unwrap() > 0, "the copy is on disk");
        cluster.nodes[0].kill();
        assert_eq!(within(&object).unwrap().len(), MANY);
        assert_eq!(notes.runs(), 1, "node1 had a copy on disk");
    });
}

#[test]
fn what_is_not_made_again_says_why() {
    let notes: Vec<_> = (0..4).map(|i| Notes::new(&format!("why{i}"))).collect();
    with(config(), &[], |cluster| {
        let there = called(&cluster.head, "node0");
        let never = makes::options()
            .strategy(at(there))
            .max_retries(0)
            .remote(notes[0].path(), 0);
        let grows = grows::options().strategy(at(there)).remote(notes[1].path());
        let fails = only_once::options()
            .strategy(at(there))
            .remote(notes[2].path());
        let bound = makes::options().on_node(there).remote(notes[3].path(), 0);
        let actor = Keeps::options()
            .on_node(there)
            .remote(Vec::<ObjectRef<Vec<u64>>>::new());
        let of_actor = actor.makes(1);
        done(&[&never, &grows, &fails, &bound, &of_actor].map(Clone::clone));
        cluster.nodes[0].kill();
        let why = |object: &ObjectRef<Vec<u64>>| match within(object) {
            Err(Error::NodeLost { node, what }) => {
                assert_eq!(node, there);
                what.to_string()
            }
            other => panic!("{other:?}"),
        };
        let says = |object, what: &str| {
            let why = why(object);
            assert!(why.contains(what), "{what}: {why}");
        };
        says(&never, "max_retries 0");
        says(
            &grows,
            "grows` gave 400024 bytes for a lost result of 400016 bytes",
        );
        says(&grows, "not deterministic");
        says(&fails, "once is enough");
        says(&bound, "which is gone");
        says(&of_actor, "Keeps::makes`, a method of an actor, made it");
        let runs: Vec<_> = notes.iter().map(Notes::runs).collect();
        assert_eq!(runs, [1, 2, 2, 1]);
    });
}

#[test]
fn lineages_are_bounded_and_who_was_given_up_is_told() {
    let notes = Notes::new("lineage-bound");
    // Room for two of these calls.
    with(config().lineage_bytes(1000), &[], |cluster| {
        let there = called(&cluster.head, "node0");
        let make = |n| makes::options().strategy(at(there)).remote(notes.path(), n);
        let mut objects = Vec::new();
        for n in 0..6 {
            objects.push(make(n));
            done(&objects);
        }
        cluster.nodes[0].kill();
        let e = within(&objects[0]).unwrap_err().to_string();
        assert!(e.contains("given up at 1000 bytes"), "{e}");
        assert!(e.contains("lineage_bytes"), "{e}");
        assert_eq!(within(&objects[5]).unwrap()[0], 5);
        assert_eq!(notes.runs(), 7);
    });
}

#[test]
fn a_call_that_kills_every_node_ends_with_its_attempts() {
    let notes = Notes::new("lineage-poison");
    let settings = [("MOBULA_RESOURCES", "victim=1")];
    with(config(), &settings, |cluster| {
        let ids: Vec<_> = ["node0", "node1"].map(|n| called(&cluster.head, n)).into();
        let call = poison::options()
            .resource("victim", 1.0)
            .max_retries(1)
            .remote(notes.path());
        let e = within(&call).unwrap_err().to_string();
        assert!(e.contains("2 times"), "{e}");
        for id in ids {
            assert!(e.contains(&id.to_string()), "{id}: {e}");
        }
        assert_eq!(notes.runs(), 2);
    });
}
