//! Actors that outlive the node that runs them, with their state.
//!
//! Invariant: nodes are processes that are killed; every call that was answered is in the state once, in its caller's order, and every
//! wait has a deadline. Left out: deaths of worker processes alone (`tests/recovery.rs`), and rarer orders of events, which the
//! simulator tries (`tests/sim/history`).

#[path = "cluster_recovery/between.rs"]
mod between;
mod cluster_common;
#[path = "cluster_recovery/large.rs"]
mod large;
#[path = "cluster_recovery/leaves.rs"]
mod leaves;
#[path = "cluster_recovery/shown.rs"]
mod shown;

use std::time::{Duration, Instant};

use cluster_common::files::{Gate, pass};
use cluster_common::{Cluster, Node, called, cluster_with, until};
use mobula::prelude::*;
use mobula::{Config, Error, Mobula, NodeId, ObjectRef};

/// Longer than anything takes but what hangs.
const LONG: Duration = Duration::from_secs(20);

fn config() -> Config {
    Config::new()
        .num_cpus(2)
        .object_store_memory(128 << 20)
        .attach(false)
}

/// A cluster of a head and so many other nodes. Deaths are found later than usual: many processes of unoptimised code share two
/// CPUs, and a test may not lose a node that it did not kill.
fn with(others: usize, test: impl FnOnce(&mut Cluster)) {
    at_pace(2, others, test);
}

fn at_pace(pace: u32, others: usize, test: impl FnOnce(&mut Cluster)) {
    let _alone = cluster_common::alone();
    let text = pace.to_string();
    let settings = [
        ("MOBULA_OBJECT_STORE_MEMORY", "128M"),
        ("MOBULA_CLUSTER_PACE", text.as_str()),
    ];
    let mut cluster = cluster_with(config().cluster_pace(pace), others, &settings);
    test(&mut cluster);
}

fn get<T: mobula::Value>(object: &ObjectRef<T>) -> T {
    mobula::get_timeout(object, LONG).expect("it ends well")
}

fn get_all<T: mobula::Value>(objects: &[ObjectRef<T>]) -> Vec<T> {
    mobula::get_timeout(objects, LONG).expect("they end well")
}

fn fails<T: mobula::Value + std::fmt::Debug>(object: &ObjectRef<T>) -> Error {
    mobula::get_timeout(object, LONG).expect_err("it fails")
}

fn signal(node: &Node, which: &str) {
    let pid = node.process.id().to_string();
    let sent = std::process::Command::new("kill")
        .args([&format!("-{which}"), &pid])
        .status();
    assert!(sent.expect("a signal can be sent").success());
}

#[remote(max_restarts = 5)]
struct Counter {
    total: u64,
    seen: Vec<(u32, u64)>,
}

#[remote]
impl Counter {
    pub fn new(total: u64) -> Self {
        Counter {
            total,
            seen: Vec::new(),
        }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }

    /// Waits at a gate.
    pub fn held(&mut self, n: u64, gate: String) -> u64 {
        pass(&gate);
        self.total += n;
        self.total
    }

    pub fn panics(&mut self) -> u64 {
        panic!("on purpose")
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn node(&self) -> u32 {
        std::process::id()
    }

    /// The place of this call among all.
    pub fn see(&mut self, caller: u32, n: u64) -> u64 {
        self.seen.push((caller, n));
        self.seen.len() as u64
    }

    pub fn seen(&self) -> Vec<(u32, u64)> {
        self.seen.clone()
    }

    pub fn sum(&mut self, of: Vec<u64>) -> u64 {
        self.total += of.iter().sum::<u64>();
        self.total
    }

    pub fn fails(&mut self) -> Result<u64, String> {
        self.total += 1;
        Err(format!("at {}", self.total))
    }

    /// What it would tell an outside system, once.
    pub fn charge(&mut self, file: String) -> Option<String> {
        let id = mobula::call_id()?.to_string();
        let mut notes = std::fs::read_to_string(&file).unwrap_or_default();
        notes.push_str(&id);
        notes.push('\n');
        std::fs::write(&file, notes).ok()?;
        self.total += 1;
        Some(id)
    }

    pub async fn later(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}

/// A state without an archive.
struct Bare {
    total: u64,
}

#[remote(max_restarts = 5)]
impl Bare {
    pub fn new() -> Self {
        Bare { total: 0 }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}

/// Calls from another node, one after the other or all at once; the places that were told.
#[remote]
fn calls(counter: Handle<Counter>, caller: u32, many: u64, wait: bool) -> Result<Vec<u64>, String> {
    let get = |objects: &[ObjectRef<u64>]| {
        mobula::get_timeout(objects, LONG).map_err(|e| format!("caller {caller}: {e}"))
    };
    if !wait {
        let all: Vec<_> = (0..many).map(|n| counter.see(caller, n)).collect();
        return get(&all);
    }
    let mut told = Vec::new();
    for n in 0..many {
        told.extend(get(&[counter.see(caller, n)])?);
    }
    Ok(told)
}

/// Keeps a handle until it is told to use it.
#[remote]
struct Holds {
    of: Handle<Counter>,
}

#[remote]
impl Holds {
    pub fn new(of: Handle<Counter>) -> Self {
        Holds { of }
    }

    pub fn add(&self, n: u64) -> Result<u64, String> {
        mobula::get_timeout(&self.of.add(n), LONG).map_err(|e| e.to_string())
    }

    pub fn hands_out(&self) -> Handle<Counter> {
        self.of.clone()
    }
}

/// Each call of each caller is in the state once, in its order, at the place that was told.
fn judge(counter: &Handle<Counter>, told: &[(u32, Vec<u64>)]) {
    let seen = get(&counter.seen());
    for (caller, places) in told {
        for (n, place) in places.iter().enumerate() {
            let at = seen.get(*place as usize - 1);
            assert_eq!(at, Some(&(*caller, n as u64)), "the place that was told");
        }
        let its: Vec<_> = seen.iter().filter(|s| s.0 == *caller).collect();
        assert_eq!(its.len(), places.len(), "each once");
    }
    let all: usize = told.iter().map(|(_, places)| places.len()).sum();
    assert_eq!(seen.len(), all, "and no other");
}

#[test]
fn after_ten_increments_and_the_death_of_its_node_the_counter_says_eleven() {
    at_pace(1, 2, |cluster| {
        let there = called(&cluster.head, "node0");
        let counter = Counter::options().on_node(there).remote(0);
        for n in 1..=10 {
            assert_eq!(get(&counter.add(1)), n);
        }
        cluster_common::settled(&cluster.head);
        let killed = Instant::now();
        cluster.nodes[0].kill();
        assert_eq!(get(&counter.add(1)), 11);
        let took = killed.elapsed();
        println!("from the kill to the answer: {took:?}");
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(get(&counter.total()), 11);
    });
}

#[test]
fn calls_in_flight_of_several_nodes_count_once_and_in_order() {
    with(3, |cluster| {
        let there = called(&cluster.head, "node0");
        let counter = Counter::options()
            .on_node(there)
            .checkpoint_every(150)
            .remote(0);
        get(&counter.total());
        let elsewhere = |name, caller, wait| {
            let node = called(&cluster.head, name);
            let many = if wait { 60 } else { 300 };
            calls::options()
                .on_node(node)
                .remote(counter.clone(), caller, many, wait)
        };
        let theirs = [
            (1, elsewhere("node1", 1, false)),
            (2, elsewhere("node2", 2, false)),
            (3, elsewhere("node2", 3, true)),
        ];
        let own: Vec<_> = (0..300).map(|n| counter.see(0, n)).collect();
        until("some have run", LONG, || get(&counter.seen()).len() > 100);
        cluster.nodes[0].kill();
        let mut told = vec![(0, get_all(&own))];
        for (caller, calls) in &theirs {
            told.push((*caller, get(calls)));
        }
        judge(&counter, &told);
    });
}

/// An actor on `node0` that `node1` made, which is its first backup.
fn made_by_another(cluster: &Cluster, restarts: u32) -> Handle<Counter> {
    let there = called(&cluster.head, "node0").to_string();
    let makes = makes::options().on_node(called(&cluster.head, "node1"));
    get(&makes.remote(there, restarts))
}

#[test]
fn it_outlives_one_death_after_the_other_and_ends_with_its_restarts() {
    with(3, |cluster| {
        let counter = made_by_another(cluster, 2);
        let pids: Vec<u32> = cluster.nodes.iter().map(|n| n.process.id()).collect();
        let mut total = 0;
        for death in 0..3 {
            for _ in 0..5 {
                total += 1;
                assert_eq!(get(&counter.add(1)), total, "after {death} deaths");
            }
            let host = get(&counter.node());
            let Some(at) = pids.iter().position(|pid| *pid == host) else {
                return; // it came to the head, which runs this test
            };
            cluster.nodes[at].kill();
        }
        let e = fails(&counter.add(1)).to_string();
        assert!(e.contains("all 2 of its restarts are used up"), "{e}");
    });
}

#[test]
fn a_new_backup_is_found_when_one_dies() {
    with(3, |cluster| {
        let there = called(&cluster.head, "node0");
        let holds = Holds::options().on_node(called(&cluster.head, "node1"));
        let counter = Counter::options().replicas(2).on_node(there).remote(0);
        let holds = holds.remote(counter.clone());
        assert_eq!(get(&counter.add(1)), 1);
        // One of its backups goes, then its host.
        cluster.nodes[2].kill();
        assert_eq!(get(&counter.add(1)), 2);
        cluster.nodes[0].kill();
        assert_eq!(get(&counter.add(1)), 3);
        assert_eq!(get(&holds.add(1)), 4);
    });
}

#[test]
fn it_is_found_by_its_name_and_by_handles_of_before() {
    with(3, |cluster| {
        let there = called(&cluster.head, "node0");
        let third = called(&cluster.head, "node1");
        let counter = Counter::options().name("kept").on_node(there).remote(5);
        let holds = Holds::options().on_node(third).remote(counter.clone());
        assert_eq!(get(&holds.add(1)), 6);
        // A reference to a handle that nobody reads until the actor has moved.
        let unread = holds.hands_out();
        cluster.nodes[0].kill();
        assert_eq!(get(&counter.add(1)), 7);
        let named = Counter::named("kept").expect("the name went with it");
        assert_eq!(get(&named.add(1)), 8);
        assert_eq!(get(&holds.add(1)), 9);
        assert_eq!(get(&get(&unread).add(1)), 10);
        // Handed on by the node that has it now, under a handle of before.
        let again = Holds::options().on_node(third).remote(counter.clone());
        assert_eq!(get(&again.add(1)), 11);
        assert_eq!(get(&get(&again.hands_out()).add(1)), 12);
        let e = Counter::options().name("kept").try_remote(0).unwrap_err();
        assert!(matches!(e, Error::NameTaken { .. }), "{e}");
        // Ended, it gives its name back.
        counter.kill();
        until("its name is free", LONG, || {
            Counter::options().name("kept").try_remote(0).is_ok()
        });
        let e = fails(&holds.add(1)).to_string();
        assert!(e.contains("kill") || e.contains("died"), "{e}");
    });
}

#[test]
fn a_host_that_was_stopped_and_comes_back_counts_for_nothing() {
    with(2, |cluster| {
        let there = called(&cluster.head, "node0");
        let counter = Counter::options().on_node(there).remote(0);
        for n in 1..=5 {
            assert_eq!(get(&counter.add(1)), n);
        }
        signal(&cluster.nodes[0], "STOP");
        let slow: Vec<_> = (0..20).map(|_| counter.add(1)).collect();
        assert_eq!(get_all(&slow), (6..=25).collect::<Vec<u64>>());
        signal(&cluster.nodes[0], "CONT");
        until("it knows that it is out", LONG, || {
            let ended = cluster.nodes[0].process.try_wait();
            ended.is_ok_and(|status| status.is_some()) || cluster.head.nodes().len() == 2
        });
        assert_eq!(get(&counter.add(1)), 26);
        assert_eq!(get(&counter.total()), 26);
    });
}

#[test]
fn checkpoints_cut_the_log_over_the_network_and_change_nothing() {
    with(2, |cluster| {
        let there = called(&cluster.head, "node0");
        let made = [
            Counter::options().checkpoint_every(1),
            Counter::options().checkpoint_every(7),
            Counter::options().checkpoint_interval(Duration::from_millis(1)),
            Counter::options().log_bytes(1000),
        ];
        let counters: Vec<_> = made.map(|o| o.on_node(there).remote(0)).into();
        for counter in &counters {
            let calls: Vec<_> = (0..40).map(|_| counter.add(1)).collect();
            assert_eq!(get_all(&calls), (1..=40).collect::<Vec<u64>>());
            // An object among the arguments, whose owner may go.
            assert_eq!(get(&counter.sum(vec![1; 3000])), 3040);
            assert_eq!(get(&counter.later(5)), 3045);
            let e = fails(&counter.fails()).to_string();
            assert!(e.contains("at 3046"), "{e}");
        }
        cluster.nodes[0].kill();
        for counter in &counters {
            assert_eq!(get(&counter.add(1)), 3047);
        }
    });
}

#[test]
fn a_call_has_one_id_wherever_it_runs() {
    with(2, |cluster| {
        let file = format!("mobula-call-ids-{}", std::process::id());
        let file = std::env::temp_dir().join(file);
        let path = file.to_string_lossy().into_owned();
        let there = called(&cluster.head, "node0");
        let counter = Counter::options().on_node(there).remote(0);
        let ids: Vec<_> = (0..3)
            .map(|_| get(&counter.charge(path.clone())).expect("it is kept"))
            .collect();
        cluster.nodes[0].kill();
        assert_eq!(get(&counter.total()), 3);
        let noted = std::fs::read_to_string(&file).expect("they noted something");
        let noted: Vec<&str> = noted.lines().collect();
        assert_eq!(noted, [&ids[..], &ids[..]].concat(), "each ran twice");
        std::fs::remove_file(&file).expect("it is there");
        assert!(ids[0] != ids[1] && ids[1] != ids[2]);
    });
}

#[test]
fn a_state_without_an_archive_ends_with_its_node_and_that_is_said() {
    with(2, |cluster| {
        let there = called(&cluster.head, "node0");
        let bare = Bare::options().on_node(there).remote();
        assert_eq!(get(&bare.add(3)), 3);
        let none = Counter::options().replicas(0).on_node(there).remote(0);
        assert_eq!(get(&none.add(3)), 3);
        cluster.nodes[0].kill();
        for e in [fails(&bare.add(1)), fails(&none.add(1))] {
            assert!(matches!(e, Error::ActorDied { .. }), "{e}");
            assert!(e.to_string().contains(&there.to_string()), "{e}");
        }
    });
}

#[test]
fn calls_of_its_own_node_wait_for_its_backups_too_and_never_for_ever() {
    with(2, |cluster| {
        let counter = Counter::options().max_concurrency(4).remote(0);
        for round in 0..3 {
            let calls: Vec<_> = (0..50).map(|_| counter.add(1)).collect();
            let looks: Vec<_> = (0..20).map(|_| counter.total()).collect();
            let last = 50 * (round + 1);
            assert_eq!(get_all(&calls).last(), Some(&last));
            assert_eq!(get_all(&looks), vec![last; 20]);
            assert_eq!(get(&counter.later(0)), last);
            get(&counter.checkpoint());
            let e = fails(&counter.panics()).to_string();
            assert!(e.contains("on purpose"), "{e}");
            // One backup goes after the other; then there is none.
            if let Some(node) = cluster.nodes.get_mut(round as usize) {
                node.kill();
            }
        }
        let gate = Gate::new("recovery-gate");
        let held = counter.held(1, gate.path());
        let more = counter.add(1);
        gate.open();
        assert_eq!(get(&held), 151);
        assert_eq!(get(&more), 152);
        counter.kill();
        let e = fails(&counter.add(1));
        assert!(matches!(e, Error::ActorDied { .. }), "{e}");
    });
}

#[test]
fn a_checkpoint_that_is_asked_for_at_the_end_is_answered() {
    with(1, |_| {
        for end in [Handle::stop, Handle::kill, |_: &_| {}] {
            let counter = Counter::remote(0);
            get(&counter.add(1));
            let kept = counter.checkpoint();
            end(&counter);
            drop(counter);
            match mobula::get_timeout(&kept, LONG) {
                Ok(()) | Err(Error::ActorDied { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        }
    });
}

#[test]
fn an_isolated_actor_outlives_its_process_and_then_its_node() {
    with(2, |cluster| {
        let there = called(&cluster.head, "node0");
        let counter = Counter::options().isolate(true).on_node(there).remote(3);
        for n in 4..=6 {
            assert_eq!(get(&counter.add(1)), n);
        }
        let worker = get(&counter.node()).to_string();
        let kill = std::process::Command::new("kill")
            .args(["-KILL", &worker])
            .status();
        assert!(kill.expect("a signal can be sent").success());
        assert_eq!(get(&counter.add(1)), 7);
        cluster.nodes[0].kill();
        assert_eq!(get(&counter.add(1)), 8);
        // It is isolated there, too, and begins from what it was.
        let worker = get(&counter.node()).to_string();
        assert_ne!(worker, std::process::id().to_string());
        let kill = std::process::Command::new("kill")
            .args(["-KILL", &worker])
            .status();
        assert!(kill.expect("a signal can be sent").success());
        assert_eq!(get(&counter.add(1)), 9);
    });
}

#[test]
fn what_is_lost_with_everybody_who_had_it_fails_and_says_so() {
    with(3, |cluster| {
        let counter = made_by_another(cluster, 3);
        assert_eq!(get(&counter.add(1)), 1);
        signal(&cluster.nodes[0], "KILL");
        cluster.nodes[1].kill();
        cluster.nodes[0].kill();
        let e = fails(&counter.add(1));
        assert!(matches!(e, Error::ActorDied { .. }), "{e}");
        assert!(e.to_string().contains("its state is lost"), "{e}");
    });
}

#[remote]
fn makes(on: String, restarts: u32) -> Result<Handle<Counter>, String> {
    let node: NodeId = on.parse().expect("a node");
    let began = Instant::now();
    loop {
        // Nodes that came last may not be connected yet.
        let options = Counter::options().max_restarts(restarts).on_node(node);
        match options.try_remote(0) {
            // It is handed on once it is there: another node's call might overtake its creation.
            Ok(counter) => {
                let there = mobula::get_timeout(&counter.total(), LONG);
                return there.map(|_| counter).map_err(|e| e.to_string());
            }
            Err(e) if began.elapsed() > LONG => return Err(e.to_string()),
            Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
        }
    }
}
