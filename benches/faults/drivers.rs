//! Death of a program that joined: how long what it had under way on another node goes on.
//!
//! The driver is this executable again, as an ordinary process that joins; it has a call in a process of its own, one that looks
//! whether it is to stop, and an actor of each kind on a node, each busy, and one idle. The time runs from the moment before the kill
//! until that node lists none of them, asked every millisecond or so by a call from the head.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mobula::inspect::{ActorState, Part, Query, snapshot};
use mobula::prelude::*;
use mobula::{Config, NodeId};

use crate::nodes::Cluster;
use crate::report::{Bound, Report};

const ROW: &str = "driver_kill_to_job_gone";
/// In the environment of the driver: where the head is, with its token, and the node where the work is to be.
const DRIVER: &str = "MOBULA_BENCH_DRIVER";
const FOR_EVER: Duration = Duration::from_secs(60);

fn work() -> Result<u64, mobula::Error> {
    let began = Instant::now();
    while began.elapsed() < FOR_EVER {
        mobula::check_cancelled()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(0)
}

#[remote(num_cpus = 0.25)]
fn loops() -> Result<u64, mobula::Error> {
    work()
}

#[remote(isolate, num_cpus = 0.25)]
fn sleeps_apart() -> u64 {
    loop {
        std::thread::park();
    }
}

#[remote]
struct Plain {}

#[remote]
impl Plain {
    pub fn new() -> Self {
        Plain {}
    }

    pub fn is_there(&mut self) -> bool {
        true
    }

    pub fn loops(&mut self) -> Result<u64, mobula::Error> {
        work()
    }
}

#[remote(isolate)]
struct Apart {}

#[remote]
impl Apart {
    pub fn new() -> Self {
        Apart {}
    }

    pub fn sleeps(&mut self) -> u64 {
        loop {
            std::thread::park();
        }
    }
}

/// How many calls and actors of a driver's are there, and how many of its processes work.
#[remote(num_cpus = 0)]
fn work_there() -> u64 {
    let query = Query::of(&[Part::Tasks, Part::Actors, Part::Workers]);
    let look = snapshot(&query).expect("a node can be looked at");
    let tasks = look.tasks.items.iter();
    let tasks = tasks.filter(|t| !t.function.contains("work_there"));
    let actors = look.actors.items.iter();
    let actors = actors.filter(|a| a.state != ActorState::Dead);
    let workers = look.workers.items.iter().filter(|w| w.runs.is_some());
    (tasks.count() + actors.count() + workers.count()) as u64
}

/// What [`work_there`] counts while all of it goes on: four calls, three actors, two processes.
const ALL: u64 = 9;

/// If this process is to be a driver, it is one until it is killed.
pub fn driver() {
    let Ok(place) = std::env::var(DRIVER) else {
        return;
    };
    let words: Vec<&str> = place.split(' ').collect();
    let [address, token, node] = words[..] else {
        panic!("{DRIVER}={place}");
    };
    let mobula = Config::new()
        .num_cpus(1)
        .object_store_memory(64 << 20)
        .attach(false)
        .share_memory(false)
        .join(address.parse().expect("an address"), token)
        .init()
        .expect("the driver joins");
    mobula
        .wait_for_nodes(3, Duration::from_secs(30))
        .expect("all are known");
    let node: NodeId = node.parse().expect("a node");
    let idle = Plain::options().on_node(node).remote();
    assert!(mobula::get(idle.is_there()).expect("it lives"));
    let (busy, apart) = (
        Plain::options().on_node(node).remote(),
        Apart::options().on_node(node).remote(),
    );
    let _looping = (loops::options().on_node(node).remote(), busy.loops());
    let _asleep = (
        sleeps_apart::options().on_node(node).remote(),
        apart.sleeps(),
    );
    println!("works");
    loop {
        std::thread::park();
    }
}

fn count(node: NodeId) -> u64 {
    let asked = work_there::options().on_node(node).remote();
    mobula::get_timeout(&asked, Duration::from_secs(30)).expect("the node answers")
}

fn until(node: NodeId, there: u64) {
    let began = Instant::now();
    while count(node) != there {
        assert!(began.elapsed() < Duration::from_secs(30), "{there} never");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// In ms.
fn killed(cluster: &Cluster, node: NodeId) -> f64 {
    let (address, token) = cluster.place();
    let mut driver =
        Command::new(std::env::current_exe().expect("the benchmark knows its own path"))
            .env(DRIVER, format!("{address} {token} {node}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the driver starts");
    let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
    let works = lines.by_ref().map_while(Result::ok).any(|l| l == "works");
    assert!(works, "the driver failed");
    until(node, ALL);
    // Who came last is doubted for longer for two seconds.
    std::thread::sleep(Duration::from_millis(2200));
    let began = Instant::now();
    driver.kill().expect("it runs");
    until(node, 0);
    let took = began.elapsed();
    driver.wait().expect("a child can be waited for");
    took.as_secs_f64() * 1e3
}

pub fn rows(report: &mut Report) {
    if !report.wants(ROW) {
        return;
    }
    let samples = report.samples(9);
    let mut cluster = Cluster::new(64 << 20, false);
    cluster.add();
    let node = cluster.last();
    let values = (0..samples).map(|_| killed(&cluster, node)).collect();
    report.bounded(ROW, "ms", values, None, Some(Bound::AtMost(1000.0)));
}
