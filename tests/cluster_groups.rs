//! Placement groups over several nodes, and on one.
//!
//! Invariant: nodes are processes of this test binary. Left out: the decisions, which `core::groups` tests with lost time.

mod cluster_common;

use std::time::{Duration, SystemTime};

use cluster_common::files::{Gate, pass};
use cluster_common::{Cluster, cluster};
use mobula::prelude::*;
use mobula::{
    Config, Error, GroupHandle, GroupId, GroupStrategy, NodeId, PlacementGroup, Strategy,
};

fn config() -> Config {
    Config::new()
        .num_cpus(2)
        .object_store_memory(64 << 20)
        .attach(false)
}

fn with(others: usize, test: impl FnOnce(&mut Cluster)) {
    let _alone = cluster_common::alone();
    let mut cluster = cluster(config(), others);
    test(&mut cluster);
}

fn alone(cpus: u32, test: impl FnOnce()) {
    let _alone = cluster_common::alone();
    let _mobula = config().num_cpus(cpus).init().unwrap();
    test();
}

const SOON: Duration = Duration::from_secs(20);

fn group(strategy: GroupStrategy, bundles: usize, cpus: f64) -> mobula::Result<PlacementGroup> {
    PlacementGroup::options()
        .bundles(bundles, |b| b.num_cpus(cpus))
        .strategy(strategy)
        .create()
}

fn ready(strategy: GroupStrategy, bundles: usize, cpus: f64) -> PlacementGroup {
    let group = group(strategy, bundles, cpus).unwrap();
    group.wait_ready(SOON).unwrap();
    group
}

fn nodes(group: &PlacementGroup) -> Vec<NodeId> {
    group.placed().into_iter().map(Option::unwrap).collect()
}

fn distinct<T: Ord>(mut all: Vec<T>) -> usize {
    all.sort();
    all.dedup();
    all.len()
}

fn until(what: &str, so: impl FnMut() -> bool) {
    cluster_common::until(what, SOON, so);
}

#[remote]
fn pid() -> u32 {
    std::process::id()
}

/// When it ran, in microseconds.
#[remote]
fn naps(ms: u64) -> (u64, u64) {
    let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
    let begun = now();
    std::thread::sleep(Duration::from_millis(ms));
    (begun, now())
}

#[remote]
struct Host {
    calls: u64,
}

#[remote]
impl Host {
    pub fn new() -> Self {
        Host { calls: 0 }
    }

    pub fn pid(&mut self) -> u32 {
        self.calls += 1;
        std::process::id()
    }
}

/// Which process each node is.
fn processes(cluster: &Cluster) -> Vec<(NodeId, u32)> {
    let all = cluster.head.nodes().into_iter().map(|n| n.id);
    all.map(|id| {
        (
            id,
            mobula::get(pid::options().num_cpus(0).on_node(id).remote()).unwrap(),
        )
    })
    .collect()
}

fn process(all: &[(NodeId, u32)], node: NodeId) -> u32 {
    all.iter().find(|(id, _)| *id == node).unwrap().1
}

#[test]
fn bundles_lie_as_their_strategy_says_and_calls_run_there() {
    with(2, |cluster| {
        let all = processes(cluster);
        for (strategy, bundles, places) in [
            (GroupStrategy::Pack, 2, 1),
            (GroupStrategy::StrictPack, 2, 1),
            (GroupStrategy::Spread, 3, 3),
            (GroupStrategy::Spread, 5, 3),
            (GroupStrategy::StrictSpread, 3, 3),
        ] {
            until("all is free, and that is known", || {
                let nodes = cluster.head.nodes();
                nodes.iter().all(|n| n.free_cpus == mobula::Units::whole(2))
            });
            let group = ready(strategy, bundles, 1.0);
            let at = nodes(&group);
            assert_eq!(distinct(at.clone()), places, "{strategy:?}: {at:?}");
            let calls: Vec<_> = (0..bundles as u32)
                .map(|b| pid::options().group_bundle(&group, b).remote())
                .collect();
            let ran = mobula::get(&calls).unwrap();
            let expected: Vec<u32> = at.iter().map(|n| process(&all, *n)).collect();
            assert_eq!(ran, expected, "{strategy:?}");
            // Without a bundle's number, all of them are used.
            let any: Vec<_> = (0..30)
                .map(|_| pid::options().group(&group).remote())
                .collect();
            assert_eq!(distinct(mobula::get(&any).unwrap()), places);
        }
    });
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    with(2, |_| {
        let why = |g: mobula::Result<PlacementGroup>| match g {
            Err(e @ Error::Group { .. }) => e.to_string(),
            Err(e) => panic!("{e}"),
            Ok(g) => panic!("{g:?} was made"),
        };
        let e = why(group(GroupStrategy::StrictSpread, 4, 1.0));
        assert!(e.contains("only 3 of its 4 bundles"), "{e}");
        let e = why(group(GroupStrategy::Pack, 1, 3.0));
        assert!(e.contains("bundle 0 needs 3 of `cpu`"), "{e}");
        let e = why(group(GroupStrategy::StrictPack, 3, 1.0));
        assert!(e.contains("on one node"), "{e}");
        let e = why(PlacementGroup::options().create());
        assert!(e.contains("1 to 256 bundles, not 0"), "{e}");
        let e = why(PlacementGroup::options()
            .bundle(|b| b.resource("laser", 1))
            .create());
        assert!(e.contains("laser"), "{e}");
        // And calls that no bundle could hold.
        let group = ready(GroupStrategy::Spread, 3, 1.0);
        let too_large = pid::options().num_cpus(2).group(&group).remote();
        let e = mobula::get(&too_large).unwrap_err().to_string();
        assert!(
            e.contains(&group.id().to_string()) && e.contains("2 cpu"),
            "{e}"
        );
        let nowhere = pid::options().group_bundle(&group, 7).remote();
        let e = mobula::get(&nowhere).unwrap_err().to_string();
        assert!(e.contains("no bundle 7"), "{e}");
    });
}

/// Whether any two ran at the same time.
fn overlap(mut ran: Vec<(u64, u64)>) -> bool {
    ran.sort_unstable();
    ran.windows(2).any(|pair| pair[1].0 < pair[0].1)
}

#[test]
fn a_group_is_no_larger_than_what_it_reserved() {
    with(1, |_| {
        let group = ready(GroupStrategy::StrictSpread, 2, 1.0);
        for bundle in 0..2 {
            let calls: Vec<_> = (0..4)
                .map(|_| naps::options().group_bundle(&group, bundle).remote(40))
                .collect();
            assert!(!overlap(mobula::get(&calls).unwrap()), "bundle {bundle}");
        }
        let halves: Vec<_> = (0..2)
            .map(|_| {
                naps::options()
                    .num_cpus(0.5)
                    .group_bundle(&group, 1)
                    .remote(300)
            })
            .collect();
        assert!(overlap(mobula::get(&halves).unwrap()));
    });
}

#[test]
fn a_dead_nodes_bundle_is_placed_anew() {
    with(3, |cluster| {
        let all = processes(cluster);
        let group = ready(GroupStrategy::StrictSpread, 3, 2.0);
        let before = nodes(&group);
        let me = cluster.head.node_id().unwrap();
        let lost = before.iter().position(|n| *n != me).unwrap();
        let victim = process(&all, before[lost]);
        let actor = Host::options().group_bundle(&group, lost as u32).remote();
        assert_eq!(mobula::get(actor.pid()).unwrap(), victim);
        let gate = Gate::new("groups-gate");
        let running = held::options()
            .group_bundle(&group, lost as u32)
            .remote(gate.path());
        let node = cluster
            .nodes
            .iter_mut()
            .find(|n| n.process.id() == victim)
            .unwrap();
        node.kill();
        gate.open();
        // One that was there, and one that comes while the bundle is nowhere.
        let later = pid::options().group_bundle(&group, lost as u32).remote();
        let (running, later) = (mobula::get(&running).unwrap(), mobula::get(&later).unwrap());
        assert_ne!(running, victim);
        assert_eq!(running, later);
        group.wait_ready(SOON).unwrap();
        let after = nodes(&group);
        assert_eq!(distinct(after.clone()), 3);
        assert_eq!(process(&all, after[lost]), later);
        for bundle in (0..3).filter(|b| *b != lost) {
            assert_eq!(
                after[bundle], before[bundle],
                "the others stay where they are"
            );
        }
    });
}

#[remote]
fn held(gate: String) -> u32 {
    pass(&gate);
    std::process::id()
}

#[remote(isolate)]
fn hangs_apart() -> u32 {
    loop {
        std::thread::park();
    }
}

#[test]
fn what_a_group_held_comes_back_when_it_goes() {
    with(2, |cluster| {
        let ids: Vec<NodeId> = cluster.head.nodes().iter().map(|n| n.id).collect();
        for round in 0..3 {
            let group = ready(GroupStrategy::StrictSpread, 3, 2.0);
            let whole: Vec<_> = ids
                .iter()
                .map(|id| pid::options().num_cpus(2).on_node(*id).remote())
                .collect();
            let actor = Host::options().group_bundle(&group, 1).remote();
            mobula::get(actor.pid()).unwrap();
            let gate = Gate::new("groups-gate");
            let runs = held::options()
                .num_cpus(2)
                .group_bundle(&group, 2)
                .remote(gate.path());
            let waits = naps::options()
                .num_cpus(2)
                .group_bundle(&group, 2)
                .remote(0);
            for call in &whole {
                let e = mobula::get_timeout(call, Duration::from_millis(50)).unwrap_err();
                assert!(matches!(e, Error::Timeout { .. }), "round {round}: {e}");
            }
            let id = group.id();
            if round == 0 {
                group.remove();
            } else {
                drop(group);
            }
            let e = mobula::get_timeout(&waits, SOON).unwrap_err().to_string();
            assert!(e.contains(&id.to_string()), "{e}");
            gate.open();
            assert_eq!(
                mobula::get(&whole).unwrap().len(),
                3,
                "all three have their CPUs back"
            );
            // A call that ran ends as it ends; it may not have begun.
            let _ = mobula::get(&runs);
            let e = mobula::get(actor.pid()).unwrap_err();
            assert!(matches!(e, Error::ActorDied { .. }), "{e}");
            let strategy = Strategy::Group {
                group: id,
                bundle: None,
            };
            let late = pid::options().strategy(strategy.clone()).remote();
            let e = mobula::get(&late).unwrap_err().to_string();
            assert!(e.contains(&id.to_string()) && e.contains("removed"), "{e}");
            let late = Host::options().strategy(strategy).remote();
            let e = mobula::get(late.pid()).unwrap_err().to_string();
            assert!(e.contains(&id.to_string()), "{e}");
        }
    });
}

/// Makes a group as large as the cluster, and holds it, if it is ready in time, until somebody else's was not, which the file says.
/// What it has if it is not ready.
#[remote]
fn grabs(ready_within: u64, missed: String) -> Option<usize> {
    // This node may not have heard of all others yet.
    let mut made = None;
    until("it knows three nodes", || {
        made = group(GroupStrategy::StrictSpread, 3, 2.0).ok();
        made.is_some()
    });
    let group = made.unwrap();
    match group.wait_ready(Duration::from_millis(ready_within)) {
        Ok(()) => {
            until("the other has waited in vain", || {
                std::path::Path::new(&missed).exists()
            });
            None
        }
        Err(_) => {
            let placed = group.placed().iter().flatten().count();
            std::fs::write(missed, "").unwrap();
            Some(placed)
        }
    }
}

#[test]
fn of_two_that_want_the_last_room_one_gets_all_of_it() {
    with(2, |cluster| {
        let ids: Vec<NodeId> = cluster.head.nodes().iter().map(|n| n.id).collect();
        let missed = std::env::temp_dir().join(format!("mobula-missed-{}", std::process::id()));
        let missed = missed.to_str().expect("text");
        // Both may get a part first and give it back; then one is sooner.
        let racers: Vec<_> = ids[..2]
            .iter()
            .map(|id| {
                grabs::options()
                    .num_cpus(0)
                    .on_node(*id)
                    .remote(3_000, missed.to_owned())
            })
            .collect();
        let mut got = mobula::get(&racers).unwrap();
        std::fs::remove_file(missed).unwrap();
        got.sort();
        assert_eq!(
            got,
            [None, Some(0)],
            "one has everything, the other nothing"
        );
    });
}

#[remote]
fn runs_in(node: u64, number: u64, bundle: u32) -> u32 {
    let group = GroupId {
        node: NodeId::new(node).unwrap(),
        number,
    };
    let strategy = Strategy::Group {
        group,
        bundle: Some(bundle),
    };
    mobula::get(pid::options().strategy(strategy).remote()).unwrap()
}

#[test]
fn other_nodes_run_calls_in_a_group_too() {
    with(2, |cluster| {
        let all = processes(cluster);
        let group = ready(GroupStrategy::StrictSpread, 3, 1.0);
        let id = group.id();
        for (from, _) in &all {
            for (bundle, at) in nodes(&group).into_iter().enumerate() {
                let call = runs_in::options().num_cpus(0).on_node(*from).remote(
                    id.node.get(),
                    id.number,
                    bundle as u32,
                );
                assert_eq!(mobula::get(&call).unwrap(), process(&all, at));
            }
        }
    });
}

/// A value with a group in it.
#[mobula::value]
struct Work {
    group: GroupHandle,
    bundles: Vec<u32>,
}

#[remote]
fn does(work: Work) -> (Vec<u32>, GroupHandle) {
    let calls: Vec<_> = work
        .bundles
        .iter()
        .map(|b| pid::options().group_bundle(&work.group, *b).remote())
        .collect();
    (mobula::get(&calls).unwrap(), work.group)
}

#[test]
fn handles_of_groups_travel_inside_values() {
    with(2, |cluster| {
        let all = processes(cluster);
        let group = ready(GroupStrategy::StrictSpread, 3, 1.0);
        let expected: Vec<u32> = nodes(&group).iter().map(|at| process(&all, *at)).collect();
        for (from, _) in &all {
            let work = Work {
                group: group.handle(),
                bundles: vec![0, 1, 2],
            };
            let done = does::options().num_cpus(0).on_node(*from).remote(work);
            let (pids, back) = mobula::get(&done).unwrap();
            assert_eq!(pids, expected);
            assert_eq!((back, back.bundles()), (group.handle(), 3));
        }
        // It does not keep the group.
        let handle = group.handle();
        group.remove();
        for (from, _) in &all {
            let work = Work {
                group: handle,
                bundles: vec![0],
            };
            let late = does::options().num_cpus(0).on_node(*from).remote(work);
            let e = mobula::get(&late).unwrap_err().to_string();
            assert!(e.contains(&handle.id().to_string()), "{e}");
        }
    });
}

/// The worker's process, and the node's.
#[remote(isolate)]
fn apart() -> (u32, u32) {
    (std::process::id(), std::os::unix::process::parent_id())
}

#[remote(isolate)]
fn naps_apart(ms: u64) -> (u64, u64) {
    let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
    let begun = now();
    std::thread::sleep(Duration::from_millis(ms));
    (begun, now())
}

#[test]
fn isolated_calls_run_in_groups_too() {
    with(1, |cluster| {
        let all = processes(cluster);
        let group = ready(GroupStrategy::StrictSpread, 2, 1.0);
        for (bundle, at) in nodes(&group).into_iter().enumerate() {
            let call = apart::options()
                .group_bundle(&group, bundle as u32)
                .remote();
            let (worker, parent) = mobula::get(&call).unwrap();
            assert!(all.iter().all(|(_, pid)| *pid != worker), "in a worker");
            assert_eq!(parent, process(&all, at), "of the bundle's node");
            // A bundle of one CPU runs one of them at a time.
            let naps: Vec<_> = (0..3)
                .map(|_| {
                    naps_apart::options()
                        .group_bundle(&group, bundle as u32)
                        .remote(30)
                })
                .collect();
            assert!(!overlap(mobula::get(&naps).unwrap()));
        }
        // One that runs when the group goes is ended or ends; its bundle's CPU is free afterwards.
        let last = hangs_apart::options().group_bundle(&group, 1).remote();
        let on = nodes(&group)[1];
        until("it is under way", || {
            cluster
                .head
                .nodes()
                .iter()
                .any(|n| n.id == on && n.free_cpus < mobula::Units::whole(2))
        });
        group.remove();
        assert!(mobula::get(&last).is_err());
        let again = pid::options().num_cpus(2).on_node(on).remote();
        assert_eq!(
            mobula::get_timeout(&again, SOON).unwrap(),
            process(&all, on)
        );
    });
}

#[test]
fn one_node_has_groups_too() {
    alone(4, || {
        let group = ready(GroupStrategy::StrictPack, 2, 1.0);
        let ran = (0..2)
            .flat_map(|b| [(); 3].map(|()| naps::options().group_bundle(&group, b).remote(20)));
        let ran = mobula::get(&ran.collect::<Vec<_>>()).unwrap();
        assert!(!overlap(ran[..3].to_vec()) && !overlap(ran[3..].to_vec()));
        let host = Host::options().group(&group).remote();
        assert_eq!(mobula::get(host.pid()).unwrap(), std::process::id());
        let e = self::group(GroupStrategy::StrictSpread, 2, 1.0)
            .unwrap_err()
            .to_string();
        assert!(e.contains("only 1 of its 2 bundles"), "{e}");
        // What is left is 2 CPUs: a group that needs 3 waits, and its calls with it.
        let large = self::group(GroupStrategy::Pack, 3, 1.0).unwrap();
        assert!(!large.ready());
        let e = large.wait_ready(Duration::from_millis(50)).unwrap_err();
        assert!(
            e.to_string().contains("of whose 3 bundles 0 are reserved"),
            "{e}"
        );
        let waits = pid::options().group(&large).remote();
        let e = mobula::get_timeout(&waits, Duration::from_millis(20)).unwrap_err();
        assert!(e.to_string().contains("placement group"), "{e}");
        drop(group);
        large.wait_ready(SOON).unwrap();
        assert_eq!(mobula::get(&waits).unwrap(), std::process::id());
        until("the actor ends with its group", || {
            mobula::get(host.pid()).is_err()
        });
    });
}

#[test]
fn calls_in_a_bundle_wait_for_each_other_without_a_deadlock() {
    alone(2, || {
        let group = ready(GroupStrategy::Pack, 1, 1.0);
        let id = group.id();
        let outer = runs_in::options()
            .group(&group)
            .remote(id.node.get(), id.number, 0);
        assert_eq!(mobula::get(&outer).unwrap(), std::process::id());
    });
}

#[test]
fn nothing_is_left_of_a_group_that_waits_when_the_runtime_ends() {
    let _alone = cluster_common::alone();
    let mobula = config().init().unwrap();
    let all = ready(GroupStrategy::Pack, 1, 2.0);
    let waits = group(GroupStrategy::Pack, 1, 1.0).unwrap();
    let call = pid::options().group(&waits).remote();
    drop(mobula);
    let e = mobula::get(&call).unwrap_err();
    assert!(matches!(e, Error::ShutDown), "{e}");
    drop((all, waits));
}
