//! Who is in a cluster, who died, who has which name: with real processes, signals, and a head that comes back.
//!
//! Invariant: nodes are processes of this very binary. Left out: the laws of membership, which `core` tests in virtual time.

#[cfg(feature = "etcd")]
use cluster_common::wait;
#[cfg(feature = "etcd")]
#[path = "../src/base/skip.rs"]
mod skip;

mod cluster_common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster_common::files::{Gate, Notes, note, pass};
use cluster_common::{Cluster, Node, called, cluster, until};
use mobula::prelude::*;
use mobula::{Config, Error, NodeId};
use rustix::process::{Pid, Signal, kill_process};

fn config() -> Config {
    Config::new()
        .num_cpus(2)
        .object_store_memory(256 << 20)
        .attach(false)
}

/// For tests that are not about how fast deaths are found, on a machine that may be busy.
fn slower() -> Config {
    config().cluster_pace(3)
}

/// The same, of a node of its own.
const SLOWER: (&str, &str) = ("MOBULA_CLUSTER_PACE", "3");

fn with(others: usize, test: impl FnOnce(&mut Cluster)) {
    let _alone = cluster_common::alone();
    let mut cluster = cluster(config(), others);
    test(&mut cluster);
}

fn signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).expect("it runs");
}

#[remote]
fn pid() -> u32 {
    std::process::id()
}

/// Never ends by itself.
#[remote]
fn hangs() -> u32 {
    loop {
        std::thread::park();
    }
}

#[remote]
fn held(notes: String, gate: String) -> u32 {
    note(&notes);
    pass(&gate);
    std::process::id()
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

    pub fn hangs(&mut self) -> u64 {
        loop {
            std::thread::park();
        }
    }
}

#[remote]
fn finds(name: String, n: u64) -> Result<u64, String> {
    let counter = Counter::named(&name).map_err(|e| e.to_string())?;
    mobula::get(counter.add(n)).map_err(|e| e.to_string())
}

#[test]
fn a_killed_node_is_known_to_be_dead_within_half_a_second() {
    let mut took = Vec::new();
    with(4, |cluster| {
        cluster_common::settled(&cluster.head);
        let (send, deaths) = std::sync::mpsc::channel();
        let hear = move |death| send.send((death, Instant::now())).unwrap();
        cluster.head.on_node_death(hear).unwrap();
        for round in 0..3 {
            let victim = called(&cluster.head, &format!("node{round}"));
            let actor = Counter::options().on_node(victim).remote(0);
            assert_eq!(mobula::get(actor.add(1)).unwrap(), 1);
            let awaited = actor.hangs();
            let other = hangs::options().on_node(victim).remote();
            let there = |id| cluster.head.nodes().iter().any(|n| n.id == id);
            let killed = Instant::now();
            signal(&cluster.nodes[round].process, Signal::KILL);
            let e = mobula::get(&awaited).unwrap_err();
            let told = killed.elapsed();
            assert!(matches!(e, Error::ActorDied { .. }), "{e}");
            until("it is listed no more", Duration::from_secs(5), || {
                !there(victim)
            });
            let listed = killed.elapsed();
            let e = mobula::get(&other).unwrap_err();
            let failed = killed.elapsed();
            assert!(e.to_string().contains(&victim.to_string()), "{e}");
            println!(
                "round {round}: call failed after {told:?}, not listed after {listed:?}, other call after {failed:?}"
            );
            took.push(told.max(listed).max(failed));
            let (death, heard) = deaths.recv_timeout(Duration::from_secs(5)).unwrap();
            assert_eq!(
                (death.node, &*death.name, death.left),
                (victim, &*format!("node{round}"), false)
            );
            took.push(heard - killed);
            // And another, which the head tells nothing, has found it itself.
            let third = called(&cluster.head, "node3");
            let e = mobula::get(tells::options().on_node(third).remote(actor.clone())).unwrap();
            assert!(e.contains("died"), "{e}");
        }
    });
    took.sort_unstable();
    assert!(
        took[took.len() / 2] < Duration::from_millis(500),
        "{took:?}"
    );
}

#[remote]
fn tells(actor: Handle<Counter>) -> String {
    mobula::get(actor.add(1)).map_or_else(|e| e.to_string(), |n| n.to_string())
}

#[remote]
fn spins(threads: u32, ms: u64) -> u64 {
    let until = Instant::now() + Duration::from_millis(ms);
    let spin = move || {
        let mut n = 0u64;
        while Instant::now() < until {
            n = std::hint::black_box(n.wrapping_add(1));
        }
        n
    };
    let threads: Vec<_> = (0..threads).map(|_| std::thread::spawn(spin)).collect();
    threads
        .into_iter()
        .map(|t| t.join().expect("it only counts"))
        .fold(0, u64::wrapping_add)
}

#[test]
fn nobody_is_taken_for_dead_while_all_cpus_are_busy() {
    let secs: u64 =
        std::env::var("MOBULA_TEST_LOAD_SECS").map_or(8, |s| s.parse().expect("seconds"));
    with(2, |cluster| {
        let nodes: Vec<NodeId> = cluster.head.nodes().iter().map(|n| n.id).collect();
        let cpus = std::thread::available_parallelism().map_or(2, usize::from) as u32;
        let busy: Vec<_> = nodes
            .iter()
            .map(|n| spins::options().on_node(*n).remote(cpus * 2, secs * 1000))
            .collect();
        let began = Instant::now();
        let mut calls = 0u64;
        while began.elapsed() < Duration::from_secs(secs) {
            let now: Vec<NodeId> = cluster.head.nodes().iter().map(|n| n.id).collect();
            assert_eq!(now, nodes, "after {:?}", began.elapsed());
            for node in &nodes {
                mobula::get(pid::options().on_node(*node).remote()).unwrap();
                calls += 1;
            }
            // Not as fast as it can, beside those that are to be busy.
            let pause = mobula::wait(&busy).timeout(Duration::from_millis(50));
            pause.run().unwrap();
        }
        mobula::get(&busy).unwrap();
        println!(
            "{calls} calls beside {} spinning threads on {cpus} CPUs in {:?}",
            cpus * 6,
            began.elapsed()
        );
        assert_eq!(cluster.head.nodes().len(), 3);
    });
}

#[test]
fn a_node_that_was_stopped_for_too_long_hears_that_it_is_dead() {
    with(2, |cluster| {
        let victim = called(&cluster.head, "node1");
        signal(&cluster.nodes[1].process, Signal::STOP);
        let gone = || !cluster.head.nodes().iter().any(|n| n.id == victim);
        until("it is declared dead", Duration::from_secs(5), gone);
        signal(&cluster.nodes[1].process, Signal::CONT);
        let mut status = None;
        let process = &mut cluster.nodes[1].process;
        until("it ends", Duration::from_secs(10), || {
            status = process.try_wait().expect("it is a child");
            status.is_some()
        });
        assert_eq!(
            status.and_then(|s| s.code()),
            Some(1),
            "it says why and fails"
        );
        assert_eq!(cluster.head.nodes().len(), 2);
    });
}

#[test]
fn a_name_is_one_actors_wherever_it_is_made() {
    with(2, |cluster| {
        let (one, two) = (
            called(&cluster.head, "node0"),
            called(&cluster.head, "node1"),
        );
        let there = Counter::options().name("hits").on_node(one).remote(10);
        assert_eq!(mobula::get(there.add(1)).unwrap(), 11);
        // Found from everywhere, and not made twice anywhere.
        for (n, node) in cluster.head.nodes().iter().enumerate() {
            let found = mobula::get(
                finds::options()
                    .on_node(node.id)
                    .remote("hits".to_owned(), 1),
            )
            .unwrap();
            assert_eq!(found, 12 + n as u64);
        }
        for options in [
            Counter::options().name("hits").on_node(two),
            Counter::options().name("hits"),
        ] {
            let e = options.try_remote(0).unwrap_err();
            assert!(matches!(e, Error::NameTaken { .. }), "{e}");
        }
        let same = Counter::options()
            .name("hits")
            .get_or_create(true)
            .on_node(two)
            .remote(0);
        assert_eq!(mobula::get(same.add(1)).unwrap(), 15);
        // It is free once the actor has ended, or its node is dead.
        same.kill();
        drop((there, same));
        let mut again = None;
        until("the name is free", Duration::from_secs(5), || {
            let free = Counter::options().name("hits").on_node(two);
            again = free.detached(true).try_remote(100).ok();
            again.is_some()
        });
        let again = again.expect("it is free");
        assert_eq!(mobula::get(again.add(1)).unwrap(), 101);
        signal(&cluster.nodes[1].process, Signal::KILL);
        until(
            "the dead node's name is free",
            Duration::from_secs(5),
            || {
                Counter::options()
                    .name("hits")
                    .on_node(one)
                    .try_remote(7)
                    .is_ok_and(|c| mobula::get(c.add(0)).is_ok())
            },
        );
    });
}

#[test]
fn a_node_that_is_told_to_end_finishes_what_it_has() {
    with(2, |cluster| {
        let node = called(&cluster.head, "node0");
        let its_pid = cluster.nodes[0].process.id();
        let (notes, gate) = (Notes::new("members-notes"), Gate::new("members-gate"));
        let calls: Vec<_> = (0..2)
            .map(|_| {
                let held = held::options().prefer_node(node);
                held.remote(notes.path(), gate.path())
            })
            .collect();
        // One that is told to end before it has the calls would give them back.
        until("they run there", Duration::from_secs(5), || {
            notes.runs() == 2
        });
        let (send, deaths) = std::sync::mpsc::channel();
        let panics = cluster
            .head
            .on_node_death(|_| panic!("as this listener does"));
        panics.unwrap();
        let hear = move |death| send.send(death).unwrap();
        cluster.head.on_node_death(hear).unwrap();
        signal(&cluster.nodes[0].process, Signal::TERM);
        until("others know", Duration::from_secs(5), || {
            cluster
                .head
                .nodes()
                .iter()
                .all(|n| n.id != node || n.draining)
        });
        let elsewhere = mobula::get(pid::options().prefer_node(node).remote()).unwrap();
        assert_ne!(elsewhere, its_pid, "it takes nothing new");
        gate.open();
        assert_eq!(
            mobula::get(&calls).unwrap(),
            [its_pid, its_pid],
            "it finished what it had"
        );
        let process = &mut cluster.nodes[0].process;
        let mut status = None;
        until("it ends", Duration::from_secs(10), || {
            status = process.try_wait().expect("it is a child");
            status.is_some()
        });
        assert!(status.is_some_and(|s| s.success()), "{status:?}");
        until("it has left", Duration::from_secs(2), || {
            cluster.head.nodes().len() == 2
        });
        let death = deaths.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!((death.node, death.left), (node, true), "{death:?}");
    });
}

/// A head in a process of its own, that serves others and does nothing else.
struct Head {
    process: Child,
    address: String,
    token: String,
}

impl Head {
    fn command(settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
        command
            .args([
                "--exact",
                "a_head_of_its_own",
                "--nocapture",
                "--test-threads",
                "1",
            ])
            .env(HEAD, "1");
        command
            .envs(settings.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    fn start(settings: &[(&str, &str)]) -> Head {
        let spawned = Head::command(settings).spawn();
        let mut process = spawned.expect("the test can be started");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let said = loop {
            let line = lines
                .next()
                .expect("the head says where it is")
                .expect("text");
            if let Some((_, said)) = line.split_once("HEAD ") {
                break said.to_owned();
            }
        };
        // What else it says is of no use, but must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        let (address, token) = said.split_once(' ').expect("two words");
        Head {
            process,
            address: address.to_owned(),
            token: token.to_owned(),
        }
    }

    /// Lets it end in order once it has heard that it was declared dead.
    #[cfg(feature = "etcd")]
    fn end_once_alone(mut self) {
        let input = self.process.stdin.as_mut().expect("piped");
        writeln!(input, "{ONCE_ALONE}").expect("it reads");
        self.end();
    }

    /// Lets it leave in order.
    #[cfg(feature = "etcd")]
    fn end(mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.kill();
    }
}

const HEAD: &str = "MOBULA_TEST_HEAD";
/// What tells it to end as soon as it knows of no other node.
const ONCE_ALONE: &str = "once alone";

/// No test, but what [`Head`] runs.
#[test]
fn a_head_of_its_own() {
    let Some(_) = std::env::var_os(HEAD) else {
        return;
    };
    let listen = std::env::var("HEAD_LISTEN").unwrap_or("127.0.0.1:0".to_owned());
    let mut config = slower()
        .listen(listen.parse().expect("an address"))
        .node_name("head");
    if let Ok(folder) = std::env::var("HEAD_DIR") {
        config = config.cluster_dir(folder);
    }
    if let Ok(control) = std::env::var("HEAD_CONTROL") {
        config = config.control(control);
    }
    let mobula = config.init().expect("the head starts");
    println!(
        "\nHEAD {} {}",
        mobula.address().unwrap(),
        mobula.join_token().unwrap()
    );
    std::io::stdout().flush().unwrap();
    let said = std::io::stdin().lines().next();
    if said.is_some_and(|line| line.is_ok_and(|line| line == ONCE_ALONE)) {
        until("the others are gone", Duration::from_secs(30), || {
            mobula.nodes().len() == 1
        });
    }
}

#[test]
fn a_head_that_comes_back_finds_the_actors_that_live() {
    let _alone = cluster_common::alone();
    let folder = std::env::temp_dir().join(format!("mobula-head-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let dir = folder.to_str().expect("text");
    let mut head = Head::start(&[("HEAD_DIR", dir)]);
    let _node = Node::join(
        &head.address,
        &head.token,
        "node",
        &[("MOBULA_HEAD_PATIENCE", "60"), SLOWER],
    );
    let address = head.address.parse().expect("an address");
    let mobula = slower()
        .join(address, head.token.clone())
        .node_name("own")
        .head_patience(Duration::from_secs(60));
    let mobula = mobula.init().expect("it joins");
    mobula.wait_for_nodes(3, Duration::from_secs(30)).unwrap();
    let old = called(&mobula, "head");
    let node = called(&mobula, "node");
    let actor = Counter::options()
        .name("kept")
        .detached(true)
        .on_node(node)
        .remote(5);
    let here = Counter::options().name("own").detached(true).remote(50);
    assert_eq!(mobula::get(actor.add(1)).unwrap(), 6);
    assert_eq!(mobula::get(here.add(1)).unwrap(), 51);
    // The head's own are lost with it, and their names are free.
    let lost = Counter::options()
        .name("lost")
        .detached(true)
        .on_node(old)
        .remote(0);
    assert_eq!(mobula::get(lost.add(1)).unwrap(), 1);

    head.kill();
    until("the head is gone", Duration::from_secs(5), || {
        mobula.nodes().iter().all(|n| n.id != old)
    });
    assert_eq!(mobula::get(actor.add(1)).unwrap(), 7, "the others go on");
    let asked =
        std::thread::spawn(|| Counter::named("kept").map(|c| mobula::get(c.add(1)).unwrap()));

    let back = Instant::now();
    let again = Head::start(&[("HEAD_DIR", dir), ("HEAD_LISTEN", &head.address)]);
    assert_eq!((&again.address, &again.token), (&head.address, &head.token));
    mobula.wait_for_nodes(3, Duration::from_secs(30)).unwrap();
    println!(
        "the head was started and all were connected again after {:?}",
        back.elapsed()
    );
    assert_eq!(
        asked.join().unwrap().unwrap(),
        8,
        "who asked meanwhile was answered"
    );
    let new = called(&mobula, "head");
    assert_ne!(new, old);
    drop(actor);
    for (n, at) in [new, node, mobula.node_id().unwrap()]
        .into_iter()
        .enumerate()
    {
        let found = mobula::get(finds::options().on_node(at).remote("kept".to_owned(), 1)).unwrap();
        assert_eq!(found, 9 + n as u64);
    }
    assert_eq!(
        mobula::get(finds::options().on_node(new).remote("own".to_owned(), 1)).unwrap(),
        52
    );
    let e = Counter::named("lost").unwrap_err();
    assert!(matches!(e, Error::NoSuchActor { .. }), "{e}");
    drop((mobula, again));
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn a_node_leaves_in_order_when_its_program_says_so() {
    let _alone = cluster_common::alone();
    let head = Head::start(&[]);
    let _node = Node::join(&head.address, &head.token, "node", &[SLOWER]);
    let address = head.address.parse().expect("an address");
    let mobula = slower()
        .join(address, head.token.clone())
        .init()
        .expect("it joins");
    mobula.wait_for_nodes(3, Duration::from_secs(30)).unwrap();
    mobula.drain(Duration::from_secs(10)).unwrap();
    // Without a head a node of a job ends at once, and without patience so does this one's part.
    let again = slower()
        .join(address, head.token.clone())
        .init()
        .expect("it joins again");
    again.wait_for_nodes(3, Duration::from_secs(30)).unwrap();
    assert_eq!(again.nodes().len(), 3, "the one that left is not there");
}

/// A program stays on one machine without the settings; nothing here runs then.
#[test]
fn drain_without_a_cluster_says_what_is_missing() {
    let _alone = cluster_common::alone();
    let e = config().init().unwrap().drain(Duration::ZERO).unwrap_err();
    assert!(
        matches!(
            e,
            Error::Config {
                setting: "listen",
                ..
            }
        ),
        "{e}"
    );
}

#[path = "cluster_members/kept.rs"]
mod kept;

#[cfg(feature = "etcd")]
#[path = "cluster_members/etcd.rs"]
mod etcd;
