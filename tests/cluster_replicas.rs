//! Puts with replicas: what they promise when nodes are killed, have no room, or leave.
//!
//! Invariant: nodes are processes, and every wait has a deadline. Left out: which nodes are chosen and who frees what when, which
//! `core` tests with chance.

mod cluster_common;

use std::time::Duration;

use cluster_common::{Cluster, Node, called, head, until, within};
use mobula::inspect::{Part, Query, snapshot};
use mobula::prelude::*;
use mobula::{Config, Error, NodeId, PutOptions};

/// Numbers in an object.
const MANY: usize = 50_000;
const LONG: Duration = Duration::from_secs(30);
/// How fast deaths are found is not looked at here, and many processes share two CPUs.
const PACE: u32 = 3;

fn config() -> Config {
    Config::new()
        .num_cpus(2)
        .object_store_memory(256 << 20)
        .cluster_pace(PACE)
        .attach(false)
}

/// Settings of a node.
type Settings = &'static [(&'static str, &'static str)];
const PLAIN: Settings = &[];

/// A head, and nodes with these settings, which are called `node0` and so on.
fn with(nodes: &[Settings], test: impl FnOnce(&mut Cluster)) {
    let _alone = cluster_common::alone();
    let head = head(config());
    let nodes = nodes.iter().enumerate();
    let nodes: Vec<_> = nodes
        .map(|(i, settings)| {
            let pace = PACE.to_string();
            let all = [&[("MOBULA_CLUSTER_PACE", pace.as_str())], *settings].concat();
            Node::start(&head, &format!("node{i}"), &all)
        })
        .collect();
    head.wait_for_nodes(nodes.len() + 1, LONG)
        .expect("all nodes join");
    test(&mut Cluster { nodes, head });
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

/// How many replicas the node has where it runs.
#[remote]
fn replicas() -> u64 {
    let look = snapshot(&Query::of(&[Part::Objects])).expect("a node can be looked at");
    let its = look.origins.items.iter();
    let its = its.filter(|o| o.origin.contains("replica"));
    its.map(|o| o.objects).sum()
}

/// How many replicas each of these nodes has.
fn counted(nodes: &[NodeId]) -> Vec<u64> {
    let ask = |node: &NodeId| replicas::options().on_node(*node).remote();
    within(&nodes.iter().map(ask).collect::<Vec<_>>()).expect("all nodes answer")
}

fn until_counted(what: &str, nodes: &[NodeId], right: impl Fn(&[u64]) -> bool) {
    until(what, LONG, || right(&counted(nodes)));
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

    pub fn sum(&self) -> u64 {
        let all = self.of.iter().map(|of| within(of).expect("it is read"));
        all.map(|of| of[MANY - 1]).sum()
    }
}

#[test]
fn what_a_killed_node_put_is_read_from_its_replicas_and_lost_without() {
    with(&[PLAIN; 3], |cluster| {
        let there = called(&cluster.head, "node0");
        let put = |n, replicas| within(puts::options().on_node(there).remote(n, replicas)).unwrap();
        // Some of them on each pair of other nodes.
        let (two, one, none) = (put(12, 2), put(40, 1), put(2, 0));
        let read = |of: &Numbers| within(of).map(|v| v.len());
        std::thread::scope(|scope| {
            // Reads under way go on elsewhere.
            let halves = one.chunks(20);
            let readers: Vec<_> = halves
                .map(|half| scope.spawn(move || half.iter().map(read).collect::<Vec<_>>()))
                .collect();
            cluster.nodes[0].kill();
            for reader in readers {
                for read in reader.join().expect("all are read") {
                    assert_eq!(read.unwrap(), MANY);
                }
            }
        });
        for (i, object) in two.iter().enumerate() {
            assert_eq!(within(object).unwrap(), vec![i as u64; MANY]);
        }
        until("it is gone", LONG, || cluster.head.nodes().len() == 3);
        for object in &none {
            match within(object) {
                Err(Error::NodeLost { node, .. }) => assert_eq!(node, there),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn references_are_handed_on_after_the_owners_death_and_replicas_go_with_the_last() {
    with(&[PLAIN; 3], |cluster| {
        let [zero, one, two] = ["node0", "node1", "node2"].map(|n| called(&cluster.head, n));
        let objects = within(puts::options().on_node(zero).remote(6, 1)).unwrap();
        cluster.nodes[0].kill();
        until("it is gone", LONG, || cluster.head.nodes().len() == 3);
        // Never read here.
        for (i, object) in objects.iter().enumerate() {
            let at = if i % 2 == 0 { one } else { two };
            let read = last::options().on_node(at).remote(object);
            assert_eq!(within(&read).unwrap(), i as u64);
        }
        let here = cluster.head.node_id().expect("it is a node");
        let keeps = Keeps::options().on_node(two).remote(objects);
        assert_eq!(within(keeps.sum()).unwrap(), 15);
        // The call's references are gone, here and where it was called from; the actor's are not.
        let all = [here, one, two];
        assert_eq!(counted(&all).iter().sum::<u64>(), 6);
        drop(keeps);
        until_counted("nobody needs them", &all, |n| n == [0; 3]);
    });
}

#[test]
fn replicas_go_with_the_last_reference_while_the_owner_lives() {
    with(&[PLAIN; 2], |cluster| {
        let [zero, one] = ["node0", "node1"].map(|n| called(&cluster.head, n));
        let both = PutOptions::new().replicas(2);
        let numbers = both.put_slice(&[7u64; MANY]).unwrap();
        // However small.
        let small = both.put(&3u8).unwrap();
        assert_eq!(counted(&[zero, one]), [2, 2]);
        assert_eq!(within(&small).unwrap(), 3);
        let read = last::options().on_node(one).remote(&numbers);
        assert_eq!(within(&read).unwrap(), 7);
        drop(read);
        // A borrower that has read it and let go takes nothing with it.
        let other = last::options().on_node(one).remote(&numbers);
        assert_eq!(within(&other).unwrap(), 7);
        drop(other);
        assert_eq!(counted(&[zero, one]), [2, 2]);
        drop((numbers, small));
        until_counted("nobody needs them", &[zero, one], |n| n == [0, 0]);
        assert_eq!(cluster.head.store().objects, 0);
    });
}

#[test]
fn a_replica_that_dies_is_made_again_while_the_owner_lives() {
    with(&[PLAIN; 3], |cluster| {
        let ids = ["node0", "node1", "node2"].map(|n| called(&cluster.head, n));
        let options = PutOptions::new().replicas(1);
        let put = |i| options.put(&vec![i; MANY]).unwrap();
        let objects: Vec<_> = (0..12).map(put).collect();
        let had = counted(&ids);
        assert_eq!(had.iter().sum::<u64>(), 12);
        let dead = (0..3).max_by_key(|i| had[*i]).unwrap();
        cluster.nodes[dead].kill();
        let rest: Vec<_> = (0..3).filter(|i| *i != dead).map(|i| ids[i]).collect();
        until("it is gone", LONG, || cluster.head.nodes().len() == 3);
        until_counted("others have them", &rest, |n| n.iter().sum::<u64>() == 12);
        // None is left to take them; then one comes.
        let last = ids.iter().position(|id| *id == rest[0]).unwrap();
        cluster.nodes[last].kill();
        until("it is gone", LONG, || cluster.head.nodes().len() == 2);
        until_counted("the last one has all", &rest[1..], |n| n == [12]);
        drop(objects);
        until_counted("nobody needs them", &rest[1..], |n| n == [0]);
    });
}

#[test]
fn deaths_in_the_middle_of_a_put_leave_no_gap_and_nothing_behind() {
    with(&[PLAIN; 3], |cluster| {
        let [zero, one, two] = ["node0", "node1", "node2"].map(|n| called(&cluster.head, n));
        let here = cluster.head.node_id().expect("it is a node");
        let call = puts::options().on_node(zero).remote(60, 1);
        // One that makes replicas dies: others make them.
        until_counted("it has some", &[one], |n| n[0] > 0);
        cluster.nodes[1].kill();
        let objects = within(&call).unwrap();
        drop(call);
        let rest = [here, two];
        let all = |n: &[u64]| n.iter().sum::<u64>() == 60;
        until_counted("others have them", &rest, all);
        // The owner dies while it puts more: what nobody refers to goes.
        let call = puts::options().on_node(zero).remote(1_000, 1);
        until_counted("it puts", &rest, |n| n.iter().sum::<u64>() > 65);
        cluster.nodes[0].kill();
        within(&call).expect_err("it was to run on a node that is dead");
        until_counted("what was not handed out goes", &rest, all);
        for (i, object) in objects.iter().enumerate() {
            assert_eq!(within(object).unwrap()[0], i as u64);
        }
    });
}

#[test]
fn too_few_nodes_are_said_with_numbers_and_nothing_stays() {
    let small: Settings = &[("MOBULA_OBJECT_STORE_MEMORY", "4M")];
    with(&[small, PLAIN], |cluster| {
        let ids = ["node0", "node1"].map(|n| called(&cluster.head, n));
        // One of the two is too small for this, on disk too.
        let large = vec![1u64; 1 << 20];
        // Each takes as long as a death takes to be noticed.
        let (three, both) = std::thread::scope(|scope| {
            let three = scope.spawn(|| PutOptions::new().replicas(3).put(&vec![1u64; MANY]));
            let both = PutOptions::new().replicas(2).put(&large);
            (three.join().expect("it is refused"), both)
        });
        let Err(Error::TooFewReplicas { wanted, nodes, .. }) = three else {
            panic!("{three:?}")
        };
        assert_eq!((wanted, nodes), (3, 2));
        let Err(Error::TooFewReplicas {
            wanted, nodes, why, ..
        }) = both
        else {
            panic!("{both:?}")
        };
        assert_eq!((wanted, nodes), (2, 2));
        let no_room = format!("node {} has no room in its store", ids[0]);
        assert!(why.contains(&no_room), "{why}");
        until_counted("nothing stays", &ids, |n| n == [0, 0]);
        // It is passed over where others suffice.
        let one = PutOptions::new().replicas(1);
        let kept: Vec<_> = (0..4).map(|_| one.put(&large).unwrap()).collect();
        assert_eq!(counted(&ids), [0, 4]);
        drop(kept);
        let late = one.clone().timeout(Duration::ZERO).put(&large);
        let e = late.expect_err("no time is too little").to_string();
        assert!(e.contains("PutOptions::timeout"), "{e}");
        until_counted("nothing stays", &ids, |n| n == [0, 0]);
        assert_eq!(cluster.head.store().objects, 0);
        let refers = one.put(&vec![mobula::put(&1).unwrap()]);
        let e = refers.expect_err("they would be lost").to_string();
        assert!(e.contains("references in it"), "{e}");
    });
}

#[test]
fn a_node_that_leaves_hands_its_replicas_to_others() {
    with(&[PLAIN; 2], |cluster| {
        let ids = ["node0", "node1"].map(|n| called(&cluster.head, n));
        let one = PutOptions::new().replicas(1);
        let kept: Vec<_> = (0..8).map(|i| one.put(&vec![i; MANY]).unwrap()).collect();
        let had = counted(&ids);
        assert_eq!(had.iter().sum::<u64>(), 8);
        let leaves = usize::from(had[1] > had[0]);
        let stays = [ids[1 - leaves]];
        let pid = cluster.nodes[leaves].process.id().to_string();
        let told = std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status();
        assert!(told.expect("a signal can be sent").success());
        // Nothing runs there: the replicas are what it waits for.
        until("it leaves", LONG, || cluster.head.nodes().len() == 2);
        assert_eq!(counted(&stays), [8], "the other has all");
        drop(kept);
        until_counted("nobody needs them", &stays, |n| n == [0]);
    });
}

#[test]
fn replicas_that_were_moved_to_disk_are_read_from_there() {
    let small: Settings = &[("MOBULA_OBJECT_STORE_MEMORY", "4M")];
    with(&[PLAIN, small], |cluster| {
        let there = called(&cluster.head, "node0");
        // Three times what that node's memory holds.
        let objects = within(puts::options().on_node(there).remote(30, 2)).unwrap();
        cluster.nodes[0].kill();
        let one = called(&cluster.head, "node1");
        for (i, object) in objects.iter().enumerate() {
            let read = last::options().on_node(one).remote(object);
            assert_eq!(within(&read).unwrap(), i as u64);
        }
    });
}
