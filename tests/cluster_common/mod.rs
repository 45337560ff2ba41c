//! A cluster of processes on this machine, each with an arena of its own, and QUIC between them.
//!
//! Invariant: the processes end with the guard. Left out: other machines; see `tests/cluster_network.rs`.

#![allow(dead_code, reason = "not every test uses all of it")]

pub mod files;
#[path = "../../src/base/wait.rs"]
pub mod wait;

pub use wait::until;

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use mobula::inspect::{Part, Query, snapshot};
use mobula::{Config, Mobula, NodeId};

/// The turn of one test of this binary; see [`alone`].
pub struct Alone {
    _done: Sender<()>,
    _turn: MutexGuard<'static, ()>,
}

/// Runs one test of this binary at a time, and none for ever: a test that has its turn for too long ends the process, with its name.
pub fn alone() -> Alone {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let asked = ["MOBULA_TEST_LOAD_SECS", "MOBULA_CHAOS_SECS"].map(|name| {
        let secs = std::env::var(name);
        secs.map_or(0.0, |s| s.parse::<f64>().expect("seconds"))
    });
    let limit = Duration::from_secs(180) + Duration::from_secs_f64(asked.iter().sum());
    let (done, watched) = channel();
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if watched.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            use std::io::Write;
            // Not through eprintln!, which the test harness captures and an abort loses.
            let _ = writeln!(std::io::stderr(), "{name} hangs: not done after {limit:?}");
            std::process::abort();
        }
    });
    Alone {
        _done: done,
        _turn: turn,
    }
}

/// Whether this node takes longer to find a death, since somebody came a moment ago.
#[mobula::remote]
fn is_settling() -> bool {
    let query = Query::of(&[Part::Nodes]);
    let look = snapshot(&query).expect("a node can be looked at");
    look.nodes.items.first().is_some_and(|own| own.settling)
}

/// Waits until all nodes find deaths as fast as they do usually.
pub fn settled(head: &Mobula) {
    let nodes: Vec<NodeId> = head.nodes().iter().map(|n| n.id).collect();
    until("all have settled", Duration::from_secs(30), || {
        let ask = |node: &NodeId| is_settling::options().on_node(*node).remote();
        let asked: Vec<_> = nodes.iter().map(ask).collect();
        let all = mobula::get_timeout(&asked, Duration::from_secs(30));
        !all.expect("all nodes answer").contains(&true)
    });
}

/// A node in another process: this very test binary, which never reaches its `main`.
pub struct Node {
    pub process: Child,
}

impl Node {
    pub fn start(head: &Mobula, name: &str, settings: &[(&str, &str)]) -> Node {
        let address = head.address().expect("the head listens").to_string();
        Node::join(
            &address,
            &head.join_token().expect("the head has a token"),
            name,
            settings,
        )
    }

    pub fn join(address: &str, token: &str, name: &str, settings: &[(&str, &str)]) -> Node {
        let me = std::env::current_exe().expect("a test has a path");
        Node::join_by(Command::new(me), address, token, name, settings)
    }

    /// As [`join`](Node::join), by a command that runs this very test binary.
    pub fn join_by(
        mut command: Command,
        address: &str,
        token: &str,
        name: &str,
        settings: &[(&str, &str)],
    ) -> Node {
        command
            .env("MOBULA_JOIN", address)
            .env("MOBULA_TOKEN", token)
            .env("MOBULA_NODE_NAME", name)
            .env("MOBULA_NUM_CPUS", "2")
            .env("MOBULA_OBJECT_STORE_MEMORY", "256M")
            .stdin(Stdio::null());
        for (name, value) in settings {
            command.env(name, value);
        }
        Node {
            process: command.spawn().expect("the test can be started"),
        }
    }

    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The head, in this process, and so many others.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub head: Mobula,
}

/// The node of this name.
pub fn called(mobula: &Mobula, name: &str) -> NodeId {
    let mut nodes = mobula.nodes().into_iter();
    nodes.find(|n| n.name == name).expect("it joined").id
}

/// The value, which comes within half a minute or is a failure.
pub fn within<G: mobula::Get>(objects: G) -> mobula::Result<G::Output> {
    mobula::get_timeout(objects, Duration::from_secs(30))
}

pub fn head(config: Config) -> Mobula {
    config
        .listen(([127, 0, 0, 1], 0).into())
        .node_name("head")
        .init()
        .expect("a head starts")
}

/// As [`cluster`], for tests that are not about how fast deaths are found: many processes of unoptimised code share two CPUs.
pub fn patient_cluster(config: Config, others: usize) -> Cluster {
    const PACE: u32 = 5;
    let pace = PACE.to_string();
    let settings = [
        ("MOBULA_CLUSTER_PACE", pace.as_str()),
        ("MOBULA_SHARE_MEMORY", "0"),
    ];
    let config = config.cluster_pace(PACE).share_memory(false);
    cluster_with(config, others, &settings)
}

pub fn cluster(config: Config, others: usize) -> Cluster {
    cluster_with(config, others, &[])
}

pub fn cluster_with(config: Config, others: usize, settings: &[(&str, &str)]) -> Cluster {
    let head = head(config);
    let nodes: Vec<_> = (0..others)
        .map(|i| Node::start(&head, &format!("node{i}"), settings))
        .collect();
    head.wait_for_nodes(others + 1, Duration::from_secs(30))
        .expect("all nodes join");
    Cluster { nodes, head }
}
