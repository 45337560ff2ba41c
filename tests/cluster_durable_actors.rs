//! Actors whose checkpoints are durable: host and backups killed together, and they go on.
//!
//! Invariant: nodes are processes, and every wait has a deadline. Left out: actors of which a backup is left
//! (`tests/cluster_recovery.rs`), and how copies are written and checked, which `store` tests.
#![cfg(all(feature = "cluster", feature = "object-store"))]

mod cluster_common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cluster_common::files::Temp;
use cluster_common::{Cluster, Node, called, cluster_with, until, within};
use mobula::inspect::{Actor, Part, Query, snapshot};
use mobula::prelude::*;
use mobula::{Config, Error, Mobula, NodeId};

const LONG: Duration = Duration::from_secs(30);
/// Many processes of unoptimised code share two CPUs.
const PACE: u32 = 2;

fn until_one(temp: &Temp, end: &str) {
    until("only the newest is there", LONG, || {
        let saved = temp.files();
        let name = |at: &PathBuf| at.to_string_lossy().ends_with(end);
        saved.len() == 1 && name(&saved[0])
    });
}

/// A head and three nodes, which have that place.
fn with(name: &str, test: impl FnOnce(&mut Cluster, &Temp)) {
    let _alone = cluster_common::alone();
    let temp = Temp::new(&format!("checkpoints-{name}"));
    let config = Config::new()
        .num_cpus(2)
        .object_store_memory(128 << 20)
        .attach(false)
        .cluster_pace(PACE)
        .durable(&temp.0);
    let (pace, place) = (PACE.to_string(), temp.0.to_str().expect("it is text"));
    let settings = [
        ("MOBULA_CLUSTER_PACE", pace.as_str()),
        ("MOBULA_DURABLE", place),
    ];
    let mut cluster = cluster_with(config, 3, &settings);
    test(&mut cluster, &temp);
}

#[remote(max_restarts = 3, durable_checkpoints)]
struct Counter {
    total: u64,
    held: Vec<ObjectRef<u64>>,
}

#[remote]
impl Counter {
    pub fn new(total: u64) -> Self {
        let held = Vec::new();
        Counter { total, held }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }

    pub fn hold(&mut self, object: Vec<ObjectRef<u64>>) {
        self.held = object;
    }
}

#[remote]
fn makes(on: String, every: u32) -> Result<Handle<Counter>, String> {
    let node: NodeId = on.parse().expect("a node");
    let began = Instant::now();
    loop {
        // Nodes that came last may not be connected yet.
        let options = Counter::options().checkpoint_every(every).on_node(node);
        match options.try_remote(100) {
            // It is handed on once it is there.
            Ok(counter) => {
                let there = mobula::get_timeout(&counter.add(0), LONG);
                return there.map(|_| counter).map_err(|e| e.to_string());
            }
            Err(e) if began.elapsed() > LONG => return Err(e.to_string()),
            Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
        }
    }
}

/// An actor on `node0` that `node1` made, which is its first backup. One call has run.
fn counter(cluster: &Cluster, every: u32) -> Handle<Counter> {
    let there = called(&cluster.head, "node0").to_string();
    let makes = makes::options().on_node(called(&cluster.head, "node1"));
    within(&makes.remote(there, every)).expect("it is made")
}

/// Everybody who has its history.
fn kill_all(cluster: &mut Cluster) {
    let pids = cluster.nodes[..2]
        .iter()
        .map(|n| n.process.id().to_string());
    let pids: Vec<String> = pids.collect();
    let killed = std::process::Command::new("kill")
        .arg("-KILL")
        .args(&pids)
        .status();
    assert!(killed.expect("a signal can be sent").success());
    for node in &mut cluster.nodes[..2] {
        node.kill();
    }
}

/// Actors of this node whose history others keep, as JSON.
#[remote]
fn looks() -> String {
    let look = snapshot(&Query::of(&[Part::Actors])).expect("a node can be looked at");
    let kept = look.actors.items.iter().filter(|a| a.kept.is_some());
    serde_json::to_string(&kept.collect::<Vec<&Actor>>()).expect("JSON")
}

/// What the node that has the actor shows of it.
fn shown(mobula: &Mobula) -> Option<Actor> {
    let looks = |node: &mobula::NodeInfo| looks::options().on_node(node.id).remote();
    let all: Vec<_> = mobula.nodes().iter().map(looks).collect();
    let mut found = all.iter().filter_map(|looked| {
        let kept = within(looked).ok()?;
        let mut kept: Vec<Actor> = serde_json::from_str(&kept).expect("what it said");
        kept.pop()
    });
    found.next()
}

#[test]
fn when_host_and_backup_die_together_it_goes_on_from_its_durable_checkpoint() {
    with("together", |cluster, temp| {
        let counter = counter(cluster, 1_000);
        for n in 1..=5 {
            assert_eq!(within(&counter.add(1)).unwrap(), 100 + n);
        }
        within(&counter.checkpoint()).expect("it is written");
        assert_eq!(temp.files().len(), 1, "what was returned for is there");
        // Answered, and lost: this is what durable checkpoints do not keep.
        for n in 6..=8 {
            assert_eq!(within(&counter.add(1)).unwrap(), 100 + n);
        }
        let seen = shown(&cluster.head).expect("it is there").kept.unwrap();
        assert_eq!((seen.durable, seen.not_durable), (Some(6), None));
        kill_all(cluster);
        assert_eq!(within(&counter.add(1)).unwrap(), 106);
        let actor = shown(&cluster.head).expect("it goes on");
        let kept = actor.kept.expect("others keep it");
        assert_eq!((actor.restarts, kept.incarnation), (1, 2));
        let death = kept.last_death.expect("they died");
        for said in [
            "durable checkpoint",
            "first 6 calls",
            "answered since is lost",
        ] {
            assert!(death.contains(said), "{death}");
        }
        // Written again as the new incarnation's; the older one goes.
        until_one(temp, "-00000002-0000000000000006");
        within(&counter.checkpoint()).expect("it is written");
        until_one(temp, "-00000002-0000000000000007");
    });
}

#[test]
fn each_checkpoint_is_written_and_calls_under_way_count_once() {
    with("each", |cluster, temp| {
        let counter = counter(cluster, 1);
        for n in 1..=5 {
            assert_eq!(within(&counter.add(1)).unwrap(), 100 + n);
        }
        // With every call, soon after it: this one waits for that.
        until_one(temp, "-00000001-0000000000000006");
        let under_way: Vec<_> = (0..200).map(|_| counter.add(1)).collect();
        within(&under_way[0]).expect("it runs");
        kill_all(cluster);
        // Those that nobody had answered come again; those that were answered after what is written are lost, so what the
        // answers say begins anew at most once.
        let totals = within(&under_way).expect("all end");
        let back = totals.windows(2).filter(|w| w[1] != w[0] + 1).count();
        assert!(back <= 1, "{totals:?}");
        let last = totals.last().unwrap();
        assert!((105..=305).contains(last), "{last}");
        assert_eq!(within(&counter.add(1)).unwrap(), last + 1);
    });
}

#[test]
fn a_checkpoint_that_is_spoilt_is_said_and_its_calls_fail() {
    with("spoilt", |cluster, temp| {
        let counter = counter(cluster, 1_000);
        within(&counter.checkpoint()).expect("it is written");
        let at = temp.files().pop().expect("it is there");
        let mut bytes = std::fs::read(&at).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&at, bytes).unwrap();
        kill_all(cluster);
        let e = within(&counter.add(1)).expect_err("it is lost");
        assert!(matches!(e, Error::ActorDied { .. }), "{e}");
        for said in [
            "its state is lost",
            "durable checkpoint cannot be read",
            "checksum",
        ] {
            assert!(e.to_string().contains(said), "{e}");
        }
    });
}

#[test]
fn what_cannot_be_written_is_said_where_a_checkpoint_is_asked_for() {
    with("unwritten", |cluster, temp| {
        let counter = counter(cluster, 1_000);
        let object = mobula::put(&7u64).unwrap();
        within(&counter.hold(vec![object])).expect("it runs");
        let e = within(&counter.checkpoint()).expect_err("it has a reference inside");
        assert!(matches!(e, Error::Encode { .. }), "{e}");
        until("that is shown", LONG, || {
            let kept = shown(&cluster.head).and_then(|actor| actor.kept);
            kept.is_some_and(|kept| kept.not_durable.is_some() && kept.durable.is_none())
        });
        assert_eq!(temp.files().len(), 0);
        within(&counter.hold(Vec::<ObjectRef<u64>>::new())).expect("it runs");
        within(&counter.checkpoint()).expect("it is written");
        let kept = shown(&cluster.head).and_then(|actor| actor.kept).unwrap();
        assert_eq!((kept.durable, kept.not_durable), (Some(3), None));
        drop(counter);
        until("it ends with its handles, and that with it", LONG, || {
            temp.files().is_empty()
        });
    });
}

#[test]
fn a_place_that_is_out_of_reach_for_a_while_has_the_state_afterwards() {
    with("outage", |cluster, temp| {
        let counter = counter(cluster, 1_000);
        // A file in the folder's place.
        let _ = std::fs::remove_dir_all(&temp.0);
        std::fs::write(&temp.0, b"in the way").unwrap();
        let e = within(&counter.checkpoint()).expect_err("it cannot be written");
        assert!(e.to_string().contains("no durable copy"), "{e}");
        std::fs::remove_file(&temp.0).unwrap();
        std::fs::create_dir(&temp.0).unwrap();
        // No call came since: the same state is asked for again.
        within(&counter.checkpoint()).expect("it is written now");
        until_one(temp, "-00000001-0000000000000001");
        // And once more, which must not touch what is there.
        let before = std::fs::metadata(&temp.files()[0]).unwrap().modified();
        within(&counter.checkpoint()).expect("it is there");
        let after = std::fs::metadata(&temp.files()[0]).unwrap().modified();
        assert_eq!(before.unwrap(), after.unwrap());
        // Nobody asks for this one: it is written when the place is back.
        within(&counter.add(1)).unwrap();
        let _ = std::fs::remove_dir_all(&temp.0);
        std::fs::write(&temp.0, b"in the way").unwrap();
        within(&counter.checkpoint()).expect_err("it cannot be written");
        std::fs::remove_file(&temp.0).unwrap();
        std::fs::create_dir(&temp.0).unwrap();
        until_one(temp, "-00000001-0000000000000002");
    });
}

/// It needs more than this program's own node has.
#[remote]
fn makes_wide(on: String) -> Result<Handle<Counter>, String> {
    let node: NodeId = on.parse().expect("a node");
    let mut made = None;
    until("it is connected", LONG, || {
        let wide = Counter::options().num_cpus(3.0).on_node(node);
        made = wide.try_remote(100).ok();
        made.is_some()
    });
    let counter = made.expect("it was made");
    let there = mobula::get_timeout(&counter.add(0), LONG);
    there.map(|_| counter).map_err(|e| e.to_string())
}

#[test]
fn who_cannot_run_it_takes_nothing_over_and_deletes_nothing() {
    with("wide", |cluster, temp| {
        let (place, pace) = (temp.0.to_str().unwrap().to_owned(), PACE.to_string());
        for name in ["wide0", "wide1"] {
            let settings = [
                ("MOBULA_CLUSTER_PACE", pace.as_str()),
                ("MOBULA_DURABLE", place.as_str()),
                ("MOBULA_NUM_CPUS", "4"),
            ];
            let node = Node::start(&cluster.head, name, &settings);
            cluster.nodes.insert(0, node);
        }
        let count = cluster.nodes.len() + 1;
        cluster.head.wait_for_nodes(count, LONG).expect("all join");
        let there = called(&cluster.head, "wide0").to_string();
        let makes = makes_wide::options().on_node(called(&cluster.head, "wide1"));
        let counter = within(&makes.remote(there)).expect("it is made");
        assert_eq!(within(&counter.add(1)).unwrap(), 101);
        within(&counter.checkpoint()).expect("it is written");
        kill_all(cluster);
        let answer = counter.add(1);
        let none = mobula::get_timeout(&answer, Duration::from_secs(4));
        assert!(matches!(none, Err(Error::Timeout { .. })), "{none:?}");
        assert_eq!(temp.files().len(), 1, "it waits there for a node that can");
    });
}

#[test]
fn without_a_place_there_are_no_durable_checkpoints() {
    let _alone = cluster_common::alone();
    let _mobula = Config::new().num_cpus(1).attach(false).init().unwrap();
    match Counter::options().try_remote(1) {
        Err(Error::BadOption { option, why }) => {
            assert_eq!(option, "durable_checkpoints");
            assert!(why.contains("MOBULA_DURABLE"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    for without in [
        Counter::options().max_restarts(0),
        Counter::options().replicas(0),
    ] {
        let e = without.try_remote(1).expect_err("nobody goes on from one");
        assert!(matches!(e, Error::BadOption { .. }), "{e}");
    }
    let plain = Counter::options().durable_checkpoints(false).remote(1);
    assert_eq!(within(&plain.add(1)).unwrap(), 2);
}
