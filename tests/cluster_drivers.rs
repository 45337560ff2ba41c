//! A program that joined a cluster dies, or ends in order, in the middle of its work: what it had under way on other nodes ends with it.
//!
//! Three processes: the head, which is this one; a node; and the driver, a program of its own that has tasks and actors on both.
//! What is looked at is what `mobula list tasks`, `list actors` and `list workers` show, of the head and of the node.
//!
//! Invariant: the driver is this very test binary, and all processes end with the test. Left out: what becomes of objects (`core::owners`
//! and `cluster_replicas`); programs that launchers started, whose nodes end with them (`launch`).

mod cluster_common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster_common::{Cluster, Node, until};
use mobula::inspect::{ActorState, Part, Query, snapshot};
use mobula::prelude::*;
use mobula::{Config, Mobula, NodeId};

/// Longer than anything takes but what hangs.
const LONG: Duration = Duration::from_secs(30);
/// What the driver's calls would take.
const FOR_EVER_MS: u64 = 120_000;
/// In the environment of a driver: the head's address and token.
const DRIVER: &str = "MOBULA_TEST_DRIVER";
const CPUS: u32 = 8;

fn config() -> Config {
    Config::new()
        .num_cpus(CPUS)
        .object_store_memory(64 << 20)
        .attach(false)
        .on_unobserved_failure(|_| {})
}

/// Works until it is told to stop.
fn work() -> Result<u64, mobula::Error> {
    let until = Instant::now() + Duration::from_millis(FOR_EVER_MS);
    let mut rounds = 0;
    while Instant::now() < until {
        mobula::check_cancelled()?;
        std::thread::park_timeout(Duration::from_millis(2));
        rounds += 1;
    }
    Ok(rounds)
}

#[remote]
fn loops() -> Result<u64, mobula::Error> {
    work()
}

#[remote]
async fn awaits() -> u64 {
    std::future::pending().await
}

/// Has a process of its own, and looks at nothing.
#[remote(isolate)]
fn sleeps_apart() -> u64 {
    loop {
        std::thread::park();
    }
}

/// Has a call of its own on another node, and waits for it.
#[remote]
fn waits_for_another(on: String) -> Result<u64, String> {
    let node: NodeId = on.parse().map_err(|e| format!("{e:?}"))?;
    let call = loops::options().num_cpus(0.5).on_node(node).remote();
    mobula::get(&call).map_err(|e| e.to_string())
}

#[remote]
struct Plain {
    total: u64,
}

#[remote]
impl Plain {
    pub fn new() -> Self {
        Plain { total: 0 }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }

    pub fn loops(&mut self) -> Result<u64, mobula::Error> {
        work()
    }
}

/// In a process of its own.
#[remote(isolate)]
struct Apart {
    total: u64,
}

#[remote]
impl Apart {
    pub fn new() -> Self {
        Apart { total: 0 }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }

    pub fn sleeps(&mut self) -> u64 {
        loop {
            std::thread::park();
        }
    }
}

/// Kept by other nodes.
#[remote(max_restarts = 3)]
struct Kept {
    total: u64,
}

#[remote]
impl Kept {
    pub fn new() -> Self {
        Kept { total: 0 }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}

/// What is there of a driver's work on the node where this is asked, as the lists show it.
fn look() -> Vec<String> {
    let query = Query::of(&[Part::Tasks, Part::Actors, Part::Workers]).limit(1000);
    let look = snapshot(&query).expect("a node can be looked at");
    let mine = |name: &str| !name.contains("looks");
    let tasks = look.tasks.items.into_iter().filter(|t| mine(&t.function));
    let tasks = tasks.map(|t| format!("{} is {}", t.function, t.state));
    let actors = look.actors.items.into_iter();
    let actors = actors.filter(|a| a.state != ActorState::Dead);
    let actors = actors.map(|a| {
        let name = a.name.unwrap_or_default();
        format!("actor {} \"{name}\" is {}", a.type_name, a.state)
    });
    let workers = look.workers.items.into_iter();
    let workers = workers.filter_map(|w| Some(format!("process {} runs {}", w.pid, w.runs?)));
    tasks.chain(actors).chain(workers).collect()
}

#[remote(num_cpus = 0)]
fn looks() -> Vec<String> {
    look()
}

/// What there is on every node of the two while the driver works.
const WORK: [&str; 12] = [
    "loops is running",
    "awaits is running",
    "sleeps_apart is running",
    "waits_for_another is blocked",
    "Plain::loops is running",
    "Apart::sleeps is running",
    "Plain \"\" is idle",
    "Plain \"\" is running",
    "Plain \"named",
    "Plain \"stays",
    "Apart \"\" is running",
    "Kept \"\" is idle",
];

/// No test, but what a driver does.
#[test]
fn a_driver_of_its_own() {
    let Ok(place) = std::env::var(DRIVER) else {
        return;
    };
    let (address, token) = place.split_once(' ').expect("two words");
    let address = address.parse().expect("an address");
    let config = config().join(address, token).node_name("driver");
    let mobula = config.init().expect("the driver joins");
    mobula.wait_for_nodes(3, LONG).expect("both are known");
    let others: Vec<NodeId> = mobula
        .nodes()
        .iter()
        .filter(|n| !n.this)
        .map(|n| n.id)
        .collect();
    assert_eq!(others.len(), 2);
    let (mut calls, mut actors, mut tasks) = (Vec::new(), Vec::new(), Vec::new());
    let mut kept = Vec::new();
    for (i, &node) in others.iter().enumerate() {
        let other = others[1 - i].to_string();
        tasks.push(loops::options().on_node(node).remote());
        calls.push(awaits::options().on_node(node).remote());
        calls.push(sleeps_apart::options().on_node(node).remote());
        let nested = waits_for_another::options().on_node(node).remote(other);
        let idle = Plain::options().on_node(node).remote();
        assert_eq!(mobula::get(idle.add(1)).unwrap(), 1);
        let busy = Plain::options().on_node(node).remote();
        tasks.extend([busy.loops(), busy.loops()]);
        let named = Plain::options()
            .on_node(node)
            .name(&format!("named{i}"))
            .remote();
        assert_eq!(mobula::get(named.add(1)).unwrap(), 1);
        let stays = Plain::options().on_node(node).name(&format!("stays{i}"));
        let stays = stays.detached(true).remote();
        assert_eq!(
            mobula::get(stays.add(10 + i as u64)).unwrap(),
            10 + i as u64
        );
        let apart = Apart::options().on_node(node).remote();
        calls.push(apart.sleeps());
        let counted = Kept::options().on_node(node).remote();
        assert_eq!(mobula::get(counted.add(1)).unwrap(), 1);
        actors.extend([idle, busy, named]);
        kept.push((nested, apart, counted, stays));
    }
    println!("\nDRIVER works");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().lines().next();
    // Whoever ends says so first.
    drop(mobula);
    println!("DRIVER ended");
}

struct Driver {
    process: Child,
}

impl Driver {
    fn start(head: &Mobula) -> Driver {
        let place = format!("{} {}", head.address().unwrap(), head.join_token().unwrap());
        let mut process = Command::new(std::env::current_exe().expect("a test has a path"))
            .args([
                "--exact",
                "a_driver_of_its_own",
                "--nocapture",
                "--test-threads",
                "1",
            ])
            .env(DRIVER, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test can be started");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let works = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|l| l.contains("DRIVER works"));
        assert!(works, "the driver failed");
        std::thread::spawn(move || lines.for_each(drop));
        Driver { process }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How a driver ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Killed,
    InOrder,
}

fn there(node: NodeId) -> Vec<String> {
    let asked = looks::options().on_node(node).remote();
    mobula::get_timeout(&asked, LONG).expect("the node answers")
}

/// From the driver's end until nothing of its work is left anywhere.
fn ends(how: End) -> Duration {
    let _alone = cluster_common::alone();
    let head = cluster_common::head(config());
    let cpus = CPUS.to_string();
    let node = Node::start(&head, "node", &[("MOBULA_NUM_CPUS", &cpus)]);
    head.wait_for_nodes(2, LONG).expect("the node joins");
    let cluster = Cluster {
        nodes: vec![node],
        head,
    };
    let head = &cluster.head;
    let other = head.nodes().into_iter().find(|n| !n.this).unwrap().id;
    assert_eq!((look(), there(other)), (vec![], vec![]));
    let mut driver = Driver::start(head);
    let both = || [look(), there(other)];
    until("all of its work is under way on both nodes", LONG, || {
        both().iter().all(|list| {
            WORK.iter()
                .all(|what| list.iter().any(|l| l.contains(what)))
        })
    });
    cluster_common::settled(head);
    let began = Instant::now();
    match how {
        End::Killed => driver.process.kill().expect("it runs"),
        End::InOrder => drop(driver.process.stdin.take()),
    }
    let gone = || head.nodes().len() == 2;
    let stays = |l: &String| l.starts_with("actor ") && l.contains("\"stays");
    let mut noticed = None;
    let mut left = both();
    until("only what is detached is left", LONG, || {
        if gone() && noticed.is_none() {
            noticed = Some(began.elapsed());
        }
        left = both();
        left.iter().flatten().all(stays)
    });
    let took = began.elapsed();
    println!("{how:?}: the death was known after {noticed:?}, and its work gone after {took:?}");
    // What is detached stays, with its state, for whoever asks for it.
    assert_eq!(left.iter().flatten().count(), 2, "{left:#?}");
    for i in 0..2 {
        let stays = Plain::named(&format!("stays{i}")).expect("it is there");
        let answer = mobula::get_timeout(&stays.add(1), LONG);
        assert_eq!(answer.expect("it lives"), 11 + i);
        stays.kill();
    }
    for i in 0..2 {
        assert!(
            Plain::named(&format!("named{i}")).is_err(),
            "its name went with it"
        );
    }
    took
}

#[test]
fn a_driver_that_is_killed_leaves_nothing_but_detached_actors() {
    let took = ends(End::Killed);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_driver_that_ends_in_order_leaves_nothing_but_detached_actors() {
    let took = ends(End::InOrder);
    assert!(took < Duration::from_secs(1), "{took:?}");
}
