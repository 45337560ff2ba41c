//! A head in this process, and other nodes that are this executable again.
//!
//! Invariant: the other nodes end with the guard. Left out: nodes on other machines.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mobula::{Config, Mobula, NodeId};

/// How long nodes may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub struct Cluster {
    /// With their names.
    others: Vec<(String, Child)>,
    started: usize,
    head: Mobula,
    store: u64,
    busy_poll: bool,
    shares: bool,
}

impl Cluster {
    /// A head with no other node, whose nodes' stores have so many bytes each, and which may poll instead of sleeping.
    pub fn new(store: u64, busy_poll: bool) -> Cluster {
        // The network is what is measured.
        Cluster::with(store, busy_poll, false)
    }

    /// As [`new`](Cluster::new), with nodes that share memory and speak over a socket.
    pub fn near(store: u64) -> Cluster {
        Cluster::with(store, false, true)
    }

    fn with(store: u64, busy_poll: bool, shares: bool) -> Cluster {
        let head = Config::new()
            .num_cpus(2)
            .object_store_memory(store)
            .attach(false)
            .node_name("head")
            .busy_poll(busy_poll)
            .listen(([127, 0, 0, 1], 0).into())
            .share_memory(shares)
            .init()
            .expect("the head starts");
        Cluster {
            others: Vec::new(),
            started: 0,
            head,
            store,
            busy_poll,
            shares,
        }
    }

    /// Starts another node; it has joined when this returns.
    pub fn add(&mut self) {
        self.start(1);
    }

    /// Starts so many nodes at once; all have joined when this returns.
    pub fn start(&mut self, count: usize) {
        let me = std::env::current_exe().expect("the benchmark knows its own path");
        for _ in 0..count {
            let mut command = Command::new(&me);
            let name = format!("node{}", self.started);
            self.started += 1;
            let (address, token) = self.place();
            command
                .env("MOBULA_JOIN", address)
                .env("MOBULA_SHARE_MEMORY", u8::from(self.shares).to_string())
                .env("MOBULA_TOKEN", token)
                .env("MOBULA_NODE_NAME", &name)
                .env("MOBULA_NUM_CPUS", "2")
                .env("MOBULA_OBJECT_STORE_MEMORY", self.store.to_string())
                .env("MOBULA_BUSY_POLL", u8::from(self.busy_poll).to_string())
                .stdin(Stdio::null());
            let node = command.spawn().expect("a node starts");
            self.others.push((name, node));
        }
        self.head
            .wait_for_nodes(self.others.len() + 1, PATIENCE)
            .expect("the nodes join");
    }

    /// Where a program joins, and with which token.
    pub fn place(&self) -> (String, String) {
        let address = self.head.address().expect("the head listens");
        let token = self.head.join_token().expect("the head has a token");
        (address.to_string(), token)
    }

    /// The nodes other than the head.
    pub fn others(&self) -> Vec<NodeId> {
        let others = self.head.nodes().into_iter().filter(|n| !n.this);
        others.map(|n| n.id).collect()
    }

    /// This process.
    pub fn head(&self) -> NodeId {
        let mut nodes = self.head.nodes().into_iter();
        nodes.find(|n| n.this).expect("it is one").id
    }

    /// The node that was started last.
    pub fn last(&self) -> NodeId {
        let (name, _) = self.others.last().expect("there is one");
        let mut nodes = self.head.nodes().into_iter();
        nodes.find(|n| n.name == *name).expect("it joined").id
    }

    /// Kills it.
    pub fn kill_last(&mut self) {
        let (_, mut child) = self.others.pop().expect("there is one");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Has the node that was started first leave, and waits until its process has ended.
    pub fn retire_first(&mut self) {
        let (_, mut child) = self.others.remove(0);
        let told = Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status();
        assert!(told.expect("kill can be run").success());
        child.wait().expect("a child can be waited for");
    }

    /// All processes.
    pub fn pids(&self) -> Vec<u32> {
        let others = self.others.iter().map(|(_, node)| node.id());
        others.chain([std::process::id()]).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, other) in &mut self.others {
            let _ = other.kill();
            let _ = other.wait();
        }
    }
}
