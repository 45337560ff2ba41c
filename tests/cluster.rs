//! Calls, objects and actors on several nodes.
//!
//! Invariant: nodes are processes with arenas of their own; what crosses goes over QUIC, but where
//! sockets are what is tested. Left out: faults, which have tests of
//! their own.

mod cluster_common;

use std::time::Duration;

use cluster_common::files::{Gate, pass};
use cluster_common::{Cluster, cluster_with, patient_cluster};
use mobula::prelude::*;
use mobula::{Config, NodeId, Strategy};

fn config() -> Config {
    Config::new()
        .num_cpus(2)
        .object_store_memory(256 << 20)
        .attach(false)
}

fn serial(test: impl FnOnce()) {
    let _alone = cluster_common::alone();
    test();
}

fn with(others: usize, test: impl FnOnce(&Cluster)) {
    serial(|| test(&patient_cluster(config(), others)));
}

fn other(cluster: &Cluster) -> NodeId {
    cluster
        .head
        .nodes()
        .into_iter()
        .find(|n| !n.this)
        .expect("there is another")
        .id
}

#[remote]
fn pid() -> u32 {
    std::process::id()
}

#[remote]
fn square(x: u64) -> u64 {
    x * x
}

#[remote]
fn fails(why: String) -> Result<u64, String> {
    Err(why)
}

#[remote]
fn panics() -> u64 {
    panic!("on purpose")
}

#[remote]
fn many(n: usize) -> Vec<u64> {
    (0..n as u64).collect()
}

#[remote]
fn sum(v: &[u64]) -> u64 {
    v.iter().sum()
}

#[test]
fn a_call_runs_where_it_is_told_to() {
    with(1, |cluster| {
        let there = other(cluster);
        let on = |node| mobula::get(pid::options().on_node(node).remote()).unwrap();
        assert_eq!(on(there), cluster.nodes[0].process.id());
        assert_eq!(on(cluster.head.node_id().unwrap()), std::process::id());
        let squares: Vec<_> = (0..100)
            .map(|i| square::options().on_node(there).remote(i))
            .collect();
        assert_eq!(
            mobula::get(&squares).unwrap(),
            (0..100).map(|i| i * i).collect::<Vec<u64>>()
        );
    });
}

#[test]
fn failures_come_back_as_they_are() {
    with(1, |cluster| {
        let there = other(cluster);
        let e =
            mobula::get(fails::options().on_node(there).remote("no luck".to_owned())).unwrap_err();
        let mobula::Error::TaskFailed(f) = &e else {
            panic!("{e}")
        };
        assert_eq!(f.message, "no luck");
        let e = mobula::get(panics::options().on_node(there).remote()).unwrap_err();
        assert!(e.to_string().contains("on purpose"), "{e}");
    });
}

#[test]
fn large_values_stay_where_they_are_until_they_are_read() {
    with(2, |cluster| {
        let there = other(cluster);
        let n = 1_000_000;
        let big = many::options().on_node(there).remote(n);
        // It goes to where its argument is.
        let total = sum::options()
            .strategy(Strategy::Default)
            .num_cpus(0.5)
            .remote(&big);
        let expected = (n as u64 - 1) * n as u64 / 2;
        assert_eq!(mobula::get(&total).unwrap(), expected);
        assert_eq!(mobula::view(&big).unwrap().len(), n);
        assert_eq!(mobula::get(&big).unwrap()[n - 1], n as u64 - 1);
        // And an object of this node's goes there.
        let put = mobula::put(&(0..n as u64).collect::<Vec<_>>()).unwrap();
        for node in cluster.head.nodes() {
            let there = sum::options().on_node(node.id).remote(&put);
            assert_eq!(mobula::get(&there).unwrap(), expected);
        }
    });
}

/// What a trace has of this name.
fn boxes(trace: &serde_json::Value, name: &str) -> Vec<serde_json::Value> {
    let events = trace["traceEvents"].as_array().expect("a list");
    let named = events.iter().filter(|e| e["name"] == name);
    named.cloned().collect()
}

#[test]
fn the_timeline_says_from_where_bytes_came() {
    with(1, |cluster| {
        let there = other(cluster);
        let n = 100_000;
        let big = many::options().on_node(there).remote(n);
        assert_eq!(mobula::get(&big).unwrap().len(), n);
        // It is here now: nothing comes a second time.
        assert_eq!(mobula::view(&big).unwrap().len(), n);
        let name = format!("mobula-transfer-{}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        cluster.head.timeline(&path).unwrap();
        let trace = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let trace: serde_json::Value = serde_json::from_slice(&trace).unwrap();
        let transfers = boxes(&trace, "transfer");
        let [transfer] = transfers.as_slice() else {
            panic!("{transfers:?}")
        };
        let args = &transfer["args"];
        assert_eq!(args["from"], format!("node {there}"));
        assert!(args["bytes"].as_u64() >= Some(8 * n as u64), "{args}");
        assert!(transfer["dur"].as_f64() > Some(1.0), "{transfer}");
        assert_eq!(boxes(&trace, "restore").len(), 0, "nothing was on disk");
        // The id is that of the call that made it.
        let of = |e: &serde_json::Value| e["args"]["call"] == args["object"];
        let events = trace["traceEvents"].as_array().unwrap();
        assert!(events.iter().any(of), "{args} is of no call");
    });
}

#[test]
fn a_look_shows_what_is_free_on_other_nodes() {
    use mobula::inspect::{Part, Query, snapshot};
    serial(|| {
        let settings = [("MOBULA_RESOURCES", "disk=3"), ("MOBULA_CLUSTER_PACE", "5")];
        let cluster = cluster_with(config().cluster_pace(5), 1, &settings);
        let there = other(&cluster);
        let shows = |cpus: f64, disks: f64| {
            let seen = snapshot(&Query::of(&[Part::Nodes])).unwrap().nodes.items;
            let node = seen.into_iter().find(|n| n.away).expect("another node");
            assert_eq!(node.id, Some(there.to_string()));
            let of = |r: &mobula::inspect::Resource| (r.name.clone(), r.total, r.free);
            let resources: Vec<_> = node.resources.iter().map(of).collect();
            let total = resources[0].1;
            let expected = [
                ("cpu".to_owned(), total, total - cpus),
                ("disk".to_owned(), 3.0, 3.0 - disks),
            ];
            resources == expected
        };
        let within = Duration::from_secs(20);
        cluster_common::until("all is free", within, || shows(0.0, 0.0));
        let options = Tally::options().on_node(there).num_cpus(1);
        let tally = options.resource("disk", 2).remote();
        mobula::get(tally.note(1)).unwrap();
        cluster_common::until("an actor holds some", within, || shows(1.0, 2.0));
        drop(tally);
        cluster_common::until("it gave it back", within, || shows(0.0, 0.0));
    });
}

#[remote]
fn nested(of: Vec<ObjectRef<u64>>) -> u64 {
    mobula::get(&of).unwrap().iter().sum()
}

#[remote]
fn makes() -> Vec<ObjectRef<u64>> {
    (0..5).map(square::remote).collect()
}

#[test]
fn references_travel_inside_values() {
    with(2, |cluster| {
        let ids: Vec<_> = cluster.head.nodes().iter().map(|n| n.id).collect();
        let refs: Vec<_> = (0..10).map(square::remote).collect();
        let expected: u64 = (0..10).map(|i| i * i).sum();
        assert_eq!(
            mobula::get(nested::options().on_node(ids[1]).remote(&refs)).unwrap(),
            expected
        );
        // Made on one node, handed by this one to a third.
        let made = mobula::get(makes::options().on_node(ids[1]).remote()).unwrap();
        assert_eq!(mobula::get(&made).unwrap(), [0, 1, 4, 9, 16]);
        assert_eq!(
            mobula::get(nested::options().on_node(ids[2]).remote(&made)).unwrap(),
            30
        );
    });
}

#[remote]
struct Counter {
    total: u64,
}

#[remote]
impl Counter {
    pub fn new(start: u64) -> Self {
        Counter { total: start }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }

    pub fn pid(&self) -> u32 {
        std::process::id()
    }
}

#[remote]
fn adds(counter: Handle<Counter>, times: u64) -> u64 {
    for _ in 0..times {
        counter.add(1);
    }
    mobula::get(counter.add(0)).unwrap()
}

#[remote]
fn finds(name: String) -> u64 {
    mobula::get(Counter::named(&name).unwrap().add(1)).unwrap()
}

#[test]
fn actors_are_called_across_nodes_in_order() {
    with(2, |cluster| {
        let ids: Vec<_> = cluster.head.nodes().iter().map(|n| n.id).collect();
        let counter = Counter::options().on_node(ids[1]).remote(10);
        assert_ne!(mobula::get(counter.pid()).unwrap(), std::process::id());
        let answers: Vec<_> = (0..1000).map(|_| counter.add(1)).collect();
        assert_eq!(
            mobula::get(&answers).unwrap(),
            (11..=1010).collect::<Vec<u64>>()
        );
        // A handle travels to a third node, and the calls made there arrive.
        let there = adds::options().on_node(ids[2]).remote(counter.clone(), 50);
        assert_eq!(mobula::get(&there).unwrap(), 1060);
        // One of this node's is called from elsewhere, by its name.
        let named = Counter::options().name("hits").remote(0);
        assert_eq!(
            mobula::get(finds::options().on_node(ids[1]).remote("hits".to_owned())).unwrap(),
            1
        );
        assert_eq!(mobula::get(named.add(0)).unwrap(), 1);
        let e =
            mobula::get(finds::options().on_node(ids[2]).remote("nobody".to_owned())).unwrap_err();
        assert!(e.to_string().contains("nobody"), "{e}");
    });
}

#[remote]
fn naps(ms: u64) -> u32 {
    std::thread::sleep(Duration::from_millis(ms));
    std::process::id()
}

#[test]
fn what_waits_here_goes_to_who_has_nothing_to_do() {
    with(2, |cluster| {
        let calls: Vec<_> = (0..60).map(|_| naps::remote(20)).collect();
        let mut pids = mobula::get(&calls).unwrap();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), cluster.nodes.len() + 1, "all nodes took part");
    });
}

#[remote]
fn held(gate: String) -> u32 {
    pass(&gate);
    std::process::id()
}

#[test]
fn a_dead_nodes_calls_run_again_elsewhere() {
    with(2, |cluster| {
        let there = other(cluster);
        let pids: Vec<u32> = cluster.nodes.iter().map(|n| n.process.id()).collect();
        let victim = mobula::get(pid::options().on_node(there).remote()).unwrap();
        assert!(pids.contains(&victim));
        let actor = Counter::options().on_node(there).remote(0);
        assert_eq!(mobula::get(actor.add(1)).unwrap(), 1);
        let gate = Gate::new("cluster-gate");
        let calls: Vec<_> = (0..4)
            .map(|_| held::options().prefer_node(there).remote(gate.path()))
            .collect();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(victim.cast_signed()).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        gate.open();
        let ran_on = mobula::get(&calls).unwrap();
        assert!(ran_on.iter().all(|p| *p != victim), "{ran_on:?} {victim}");
        let e = mobula::get(actor.add(1)).unwrap_err();
        assert!(matches!(e, mobula::Error::ActorDied { .. }), "{e}");
        let e = mobula::get(pid::options().on_node(there).remote()).unwrap_err();
        assert!(e.to_string().contains(&there.to_string()), "{e}");
    });
}

#[remote]
fn length(v: &[u8]) -> usize {
    v.len()
}

#[test]
fn one_object_goes_to_all_nodes() {
    with(4, |cluster| {
        let n = 8 << 20;
        let object = mobula::put(&vec![7u8; n]).unwrap();
        let nodes: Vec<_> = cluster.head.nodes().iter().map(|n| n.id).collect();
        let lengths: Vec<_> = nodes
            .iter()
            .map(|node| length::options().on_node(*node).remote(&object))
            .collect();
        assert_eq!(mobula::get(&lengths).unwrap(), vec![n; nodes.len()]);
    });
}

#[test]
fn what_this_node_cannot_run_waits_for_one_that_can() {
    with(0, |cluster| {
        let settings = [("MOBULA_RESOURCES", "disk=1"), ("MOBULA_LABELS", "zone=b")];
        let mut there = cluster_common::Node::start(&cluster.head, "disks", &settings);
        cluster
            .head
            .wait_for_nodes(2, Duration::from_secs(30))
            .unwrap();
        // Far more than there can run at once, or wait in its line.
        let napping = || {
            naps::options()
                .resource("disk", 1.0)
                .num_cpus(0.0)
                .remote(2)
        };
        let calls: Vec<_> = (0..40).map(|_| napping()).collect();
        assert_eq!(mobula::get(&calls).unwrap(), vec![there.process.id(); 40]);
        let labelled = || {
            pid::options()
                .on_label("zone", mobula::LabelMatch::Equals("b".into()))
                .remote()
        };
        let calls: Vec<_> = (0..200).map(|_| labelled()).collect();
        assert_eq!(mobula::get(&calls).unwrap(), vec![there.process.id(); 200]);
        there.kill();
        let e = mobula::get(labelled()).unwrap_err();
        assert!(e.to_string().contains("zone"), "{e}");
        // A node that nobody knows could still come, but not for ever.
        let nobody = mobula::NodeId::new(7).unwrap();
        let e = mobula::get(pid::options().on_node(nobody).remote()).unwrap_err();
        assert!(e.to_string().contains("not in this cluster"), "{e}");
    });
}

#[remote]
struct Somewhere;

#[remote]
impl Somewhere {
    pub fn new() -> Self {
        Somewhere
    }

    pub fn pid(&self) -> u32 {
        std::process::id()
    }
}

/// How many there are of each.
fn counts(all: impl IntoIterator<Item = u32>) -> Vec<usize> {
    let mut by = std::collections::BTreeMap::new();
    all.into_iter()
        .for_each(|pid| *by.entry(pid).or_insert(0) += 1);
    by.into_values().collect()
}

#[test]
fn what_is_spread_goes_round_and_this_node_has_its_turn_only() {
    with(2, |_| {
        let together = |n| {
            let calls: Vec<_> = (0..n).map(|_| pid::options().spread().remote()).collect();
            counts(mobula::get(&calls).unwrap())
        };
        // A node is given calls once it has told what it has.
        let soon = Duration::from_secs(20);
        cluster_common::until("all have calls", soon, || together(6).len() == 3);
        // One that seems busy yet is passed over.
        let fair = |counted: &[usize]| counted.len() == 3 && counted.iter().all(|n| *n >= 2);
        let counted = together(9);
        assert!(fair(&counted), "{counted:?}");
        let one_by_one = (0..9).map(|_| mobula::get(pid::options().spread().remote()).unwrap());
        let counted = counts(one_by_one);
        assert!(fair(&counted), "{counted:?}");
        let actors: Vec<_> = (0..6)
            .map(|_| Somewhere::options().num_cpus(0.0).spread().remote())
            .collect();
        let pids: Vec<_> = actors.iter().map(|a| a.pid()).collect();
        assert_eq!(counts(mobula::get(&pids).unwrap()), [2, 2, 2]);
    });
}

#[test]
fn nodes_of_one_machine_read_each_others_memory() {
    serial(|| {
        let pace = [("MOBULA_CLUSTER_PACE", "5")];
        let head = cluster_common::head(config().cluster_pace(5));
        let _nodes: Vec<_> = (0..2)
            .map(|i| cluster_common::Node::start(&head, &format!("near{i}"), &pace))
            .collect();
        head.wait_for_nodes(3, Duration::from_secs(30)).unwrap();
        let there = head.nodes().into_iter().find(|n| !n.this).unwrap().id;
        let n = 4 << 20;
        let big = many::options().on_node(there).remote(n);
        assert_eq!(mobula::view(&big).unwrap().len(), n);
        let put = mobula::put(&(0..n as u64).collect::<Vec<_>>()).unwrap();
        let sums: Vec<_> = head
            .nodes()
            .iter()
            .map(|n| sum::options().on_node(n.id).remote(&put))
            .collect();
        let expected = (n as u64 - 1) * n as u64 / 2;
        assert_eq!(mobula::get(&sums).unwrap(), [expected; 3]);
        let network = head.network();
        assert_eq!((network.bulk_in, network.bulk_out), (0, 0), "{network:?}");
    });
}

#[remote]
struct Tally {
    seen: Vec<u64>,
}

#[remote]
impl Tally {
    pub fn new() -> Self {
        Tally { seen: Vec::new() }
    }

    pub fn note(&mut self, x: u64) -> u64 {
        self.seen.push(x);
        x
    }

    pub fn seen(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.seen)
    }
}

/// Shuts down this process's sockets to that one, as a fault would; says how many there were.
fn cut_sockets(to: u32, how: rustix::net::Shutdown) -> usize {
    let mut cut = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let path = std::fs::read_link(entry.path()).unwrap_or_default();
        let number = entry.file_name().into_string().unwrap().parse().unwrap();
        if !path.to_string_lossy().starts_with("socket:") {
            continue;
        }
        // SAFETY: nothing but this test closes descriptors of sockets here, and it asks about them only.
        let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        let whom = rustix::net::sockopt::socket_peercred(socket);
        if whom.is_ok_and(|who| who.pid.as_raw_nonzero().get().cast_unsigned() == to) {
            rustix::net::shutdown(socket, how).unwrap();
            cut += 1;
        }
    }
    cut
}

#[test]
fn nodes_of_one_machine_speak_over_a_socket_and_survive_its_end() {
    use rustix::net::Shutdown;
    for how in [Shutdown::Read, Shutdown::Write] {
        serial(|| {
            let settings = [("MOBULA_CLUSTER_PACE", "5")];
            let cluster = cluster_with(config().cluster_pace(5), 1, &settings);
            let there = other(&cluster);
            let near = || cluster.head.nodes()[1].near;
            cluster_common::until("they speak over a socket", Duration::from_secs(20), near);
            let tally = Tally::options().on_node(there).remote();
            let squares = |from: u64| {
                let range = from..from + 1000;
                let calls: Vec<_> = range
                    .map(|i| (square::options().on_node(there).remote(i), tally.note(i)))
                    .collect();
                calls
            };
            let check = |from: u64, calls: Vec<(ObjectRef<u64>, ObjectRef<u64>)>| {
                for (i, (square, noted)) in (from..).zip(calls) {
                    assert_eq!(mobula::get(square).unwrap(), i * i);
                    assert_eq!(mobula::get(noted).unwrap(), i);
                }
            };
            check(0, squares(0));
            let by_socket = cluster.head.network().frames_near;
            assert!(by_socket >= 10, "{by_socket} frames");
            // In mid-stream.
            let calls = squares(1000);
            assert_eq!(cut_sockets(cluster.nodes[0].process.id(), how), 1);
            let more = squares(2000);
            check(1000, calls);
            check(2000, more);
            assert!(!near());
            let over = cluster.head.network();
            assert_eq!((over.near, over.connections), (0, 1), "{over:?}");
            // The network carries on, and nothing was lost or done twice.
            check(3000, squares(3000));
            assert_eq!(cluster.head.network().frames_near, over.frames_near);
            let seen: Vec<u64> = mobula::get(tally.seen()).unwrap();
            assert_eq!(seen, (0..4000).collect::<Vec<u64>>());
        });
    }
}
