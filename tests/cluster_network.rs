//! Nodes on machines of their own: each in a network namespace that the test makes, with real packets between.
//!
//! A test makes the network and runs itself once more inside of the head's namespace; there it starts the other nodes in
//! theirs. Needs root, and `ip` and `tc` of iproute2; elsewhere each test says why it was skipped.
//!
//! Invariant: everything made is removed, however a test ends, and no test takes longer than its deadline. Left out: several
//! real machines.

mod network_common;
#[path = "../src/base/wait.rs"]
mod wait;

use std::process::Child;
use std::time::{Duration, Instant};

use mobula::prelude::*;
use mobula::{Config, Mobula, NodeId};
use network_common::{Machines, Weather, address};

/// Deaths are found within two seconds: a network that is slow, or away for less than that, kills nobody.
const PACE: u32 = 4;
/// What one test may take.
const DEADLINE: Duration = Duration::from_secs(50);

/// The head's side of a test.
struct Scene {
    machines: Machines,
    head: Mobula,
    others: Vec<Child>,
}

impl Scene {
    fn new(machines: Machines, others: usize) -> Scene {
        let head = Config::new()
            .num_cpus(2)
            .object_store_memory(256 << 20)
            .attach(false)
            .node_name("head")
            .cluster_pace(PACE)
            .listen(format!("{}:7677", address(0)).parse().unwrap())
            .share_memory(false)
            .init()
            .expect("the head starts");
        let mut scene = Scene {
            machines,
            head,
            others: Vec::new(),
        };
        for machine in 1..=others {
            scene.start(machine);
        }
        scene
            .head
            .wait_for_nodes(others + 1, Duration::from_secs(20))
            .expect("the nodes join");
        scene
    }

    fn start(&mut self, machine: usize) {
        let me = std::env::current_exe().expect("a test has a path");
        let node = self
            .machines
            .on(machine, &me)
            .env("MOBULA_JOIN", self.head.address().unwrap().to_string())
            .env("MOBULA_SHARE_MEMORY", "0")
            .env("MOBULA_TOKEN", self.head.join_token().unwrap())
            .env("MOBULA_LISTEN", format!("{}:0", address(machine)))
            .env("MOBULA_NODE_NAME", format!("machine{machine}"))
            .env("MOBULA_CLUSTER_PACE", PACE.to_string())
            .env("MOBULA_NUM_CPUS", "2")
            .env("MOBULA_OBJECT_STORE_MEMORY", "256M")
            .spawn()
            .expect("a node starts");
        self.others.push(node);
    }

    /// The node on that machine.
    fn node(&self, machine: usize) -> NodeId {
        let name = format!("machine{machine}");
        let nodes = self.head.nodes();
        nodes
            .iter()
            .find(|n| n.name == name)
            .expect("it is there")
            .id
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for node in &mut self.others {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// Runs a test of this file inside of a network of a head and so many others.
fn inside(test: &str, others: usize, weather: Option<Weather>, scenario: impl FnOnce(&Scene)) {
    let run = |machines| scenario(&Scene::new(machines, others));
    network_common::inside(test, others + 1, weather, DEADLINE, run);
}

#[remote]
fn host() -> u32 {
    std::process::id()
}

#[remote]
fn square(x: u64) -> u64 {
    x * x
}

#[remote]
fn numbers(n: usize) -> Vec<u64> {
    (0..n as u64).collect()
}

#[remote]
fn checked(v: &[u64]) -> bool {
    v.iter().enumerate().all(|(i, x)| i as u64 == *x)
}

#[remote]
fn naps(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
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

    pub fn numbers(&self, n: usize) -> Vec<u64> {
        (0..n as u64).collect()
    }
}

/// 20 MB of numbers.
const MANY: usize = 2_500_000;

fn tasks_and_actors(scene: &Scene, calls: u64) {
    let there = scene.node(1);
    let squares: Vec<_> = (0..calls)
        .map(|x| square::options().on_node(there).remote(x))
        .collect();
    let expected: Vec<u64> = (0..calls).map(|x| x * x).collect();
    assert_eq!(mobula::get(&squares).unwrap(), expected);
    let counter = Counter::options().on_node(there).remote();
    let sums: Vec<_> = (0..calls).map(|_| counter.add(1)).collect();
    assert_eq!(
        mobula::get(&sums).unwrap(),
        (1..=calls).collect::<Vec<u64>>()
    );
}

fn large_objects(scene: &Scene, numbers_there: usize, numbers_here: usize) {
    let there = scene.node(1);
    let begin = Instant::now();
    let made = numbers::options().on_node(there).remote(numbers_there);
    let view = mobula::view(&made).unwrap();
    assert!(view.iter().enumerate().all(|(i, x)| i as u64 == *x));
    assert_eq!(view.len(), numbers_there);
    println!("{} bytes came in {:?}", numbers_there * 8, begin.elapsed());
    let begin = Instant::now();
    let put = mobula::put(&(0..numbers_here as u64).collect::<Vec<_>>()).unwrap();
    assert!(mobula::get(checked::options().on_node(there).remote(&put)).unwrap());
    println!("{} bytes went in {:?}", numbers_here * 8, begin.elapsed());
}

#[test]
fn a_slow_network_that_loses_packets_loses_nothing_else() {
    let weather = Weather {
        delay_ms: 10,
        loss: 20,
    };
    let test = "a_slow_network_that_loses_packets_loses_nothing_else";
    inside(test, 1, Some(weather), |scene| {
        tasks_and_actors(scene, 300);
        large_objects(scene, MANY / 4, MANY / 20);
        let one = square::options().on_node(scene.node(1));
        let begin = Instant::now();
        assert_eq!(mobula::get(one.remote(3)).unwrap(), 9);
        assert!(
            begin.elapsed() >= Duration::from_millis(20),
            "the network is slow"
        );
    });
}

#[test]
fn what_is_longer_than_the_network_lets_through_is_cut_smaller() {
    let test = "what_is_longer_than_the_network_lets_through_is_cut_smaller";
    inside(test, 1, None, |scene| {
        // The head's side believes in packets of an Ethernet; those that are longer than 1,280 bytes vanish.
        tasks_and_actors(scene, 50);
        scene.machines.narrow(1, 1280);
        tasks_and_actors(scene, 50);
        large_objects(scene, MANY / 4, MANY / 4);
    });
}

#[test]
fn a_network_that_breaks_and_heals_costs_time_alone() {
    let test = "a_network_that_breaks_and_heals_costs_time_alone";
    inside(test, 2, None, |scene| {
        let there = scene.node(1);
        let counter = Counter::options().on_node(there).remote();
        assert_eq!(mobula::get(counter.add(1)).unwrap(), 1);
        for cut_ms in [300, 700] {
            let before = mobula::get(counter.add(0)).unwrap();
            let begin = Instant::now();
            let slow: Vec<_> = (0..4)
                .map(|_| naps::options().on_node(there).remote(cut_ms / 2))
                .collect();
            let sums: Vec<_> = (0..50).map(|_| counter.add(1)).collect();
            scene.machines.cut(1);
            let more: Vec<_> = (0..50).map(|_| counter.add(1)).collect();
            let squares: Vec<_> = (0..50)
                .map(|x| square::options().on_node(there).remote(x))
                .collect();
            // The other node does not care.
            let other = square::options().on_node(scene.node(2));
            assert_eq!(mobula::get(other.remote(5)).unwrap(), 25);
            let cut = Duration::from_millis(cut_ms).saturating_sub(begin.elapsed());
            let (early, _) = mobula::wait(&more).timeout(cut).run().unwrap();
            assert!(early.is_empty(), "nothing gets through");
            scene.machines.mend(1);
            let expected: Vec<u64> = (before + 1..=before + 50).collect();
            assert_eq!(mobula::get(&sums).unwrap(), expected);
            let expected: Vec<u64> = (before + 51..=before + 100).collect();
            assert_eq!(mobula::get(&more).unwrap(), expected);
            assert_eq!(mobula::get(&slow).unwrap(), [cut_ms / 2; 4]);
            assert_eq!(mobula::get(&squares).unwrap()[49], 49 * 49);
            assert_eq!(scene.node(1), there, "it was never given up");
            println!("cut for {cut_ms} ms, done after {:?}", begin.elapsed());
        }
    });
}

#[test]
fn a_node_that_is_cut_off_with_the_only_copy_is_named() {
    let test = "a_node_that_is_cut_off_with_the_only_copy_is_named";
    inside(test, 2, None, |scene| {
        let there = scene.node(1);
        // An actor's answer, which cannot be made again by calling once more.
        let counter = Counter::options().on_node(there).remote();
        let big = counter.numbers(MANY);
        let (ready, _) = mobula::wait(std::slice::from_ref(&big)).run().unwrap();
        assert_eq!(ready.len(), 1);
        scene.machines.cut(1);
        let begin = Instant::now();
        let bounded = |what: &str| {
            let took = begin.elapsed();
            println!("{what} after {took:?}");
            assert!(took < Duration::from_secs(10), "{what} after {took:?}");
        };
        let e = mobula::view(&big).expect_err("its bytes are out of reach");
        bounded("the reader was told");
        assert!(e.to_string().contains(&there.to_string()), "{e}");
        let e = mobula::get(counter.add(1)).unwrap_err();
        bounded("the caller was told");
        assert!(e.to_string().contains(&there.to_string()), "{e}");
        let e = mobula::get(host::options().on_node(there).remote()).unwrap_err();
        assert!(e.to_string().contains(&there.to_string()), "{e}");
        bounded("a later call was refused");
        // The others go on.
        let other = scene.node(2);
        assert_eq!(
            mobula::get(square::options().on_node(other).remote(7)).unwrap(),
            49
        );
        assert_eq!(mobula::get(square::remote(8)).unwrap(), 64);
        assert_eq!(scene.head.nodes().len(), 2, "it is listed no more");
    });
}
