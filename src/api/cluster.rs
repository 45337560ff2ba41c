//! Other machines: how a program becomes one node of several, and which nodes there are.
//!
//! Invariant: a program without these settings, and without the variables, is one machine's, and opens no port. Left out:
//! starting the program elsewhere (`node::launch`).

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::Mobula;
use crate::base::{Error, NodeId, Result};
use crate::node::Config;
use crate::node::cluster::Joining;
pub use crate::node::cluster::NodeDeath;
pub use crate::node::cluster::NodeInfo;
pub use crate::node::cluster::{Leases, NetworkStats};

impl Config {
    fn joining(&mut self) -> &mut Joining {
        self.cluster.get_or_insert_with(Joining::default)
    }

    /// Makes a cluster, of which this node is the first, and listens for others on this UDP port; port 0 takes any. Others
    /// join with [`Mobula::join_token`]. Everything between nodes is encrypted, and nobody without the token or a certificate
    /// of this cluster gets past the handshake.
    ///
    /// ```no_run
    /// let mobula = mobula::Config::new().listen(([0, 0, 0, 0], 7677).into()).init()?;
    /// println!("MOBULA_JOIN={} MOBULA_TOKEN={}", mobula.address().unwrap(), mobula.join_token().unwrap());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn listen(mut self, on: SocketAddr) -> Config {
        let joining = self.joining();
        joining.listen = Some(on);
        joining.join = None;
        self
    }

    /// Keeps the authority and the records of the cluster that [`listen`](Config::listen) makes in this folder, so that it is the
    /// same cluster, with the same token and the same names of actors on nodes that live, when the program starts again.
    pub fn cluster_dir(mut self, folder: impl AsRef<Path>) -> Config {
        self.joining().folder = Some(folder.as_ref().to_owned());
        self
    }

    /// Joins the cluster whose first node is at this address, with its token. `init` returns when this node is one of it.
    pub fn join(mut self, head: SocketAddr, token: impl Into<String>) -> Config {
        self.joining().join = Some((head, token.into()));
        self
    }

    /// Where the cluster's records are, which say who has which name: `memory:`, `file:/a/folder`, or
    /// `etcd://host:2379,host:2379/prefix` with the feature `etcd`. With etcd every node needs this setting (`MOBULA_CONTROL` of
    /// a node process), and any of them may be lost, the first one too: the others go on, any of them lets newcomers in, and the next
    /// that starts as a first node, on whichever machine, has the same token and finds them. Whoever reads those records can join:
    /// the cluster's key is among them. Default: in [`cluster_dir`](Config::cluster_dir) if that
    /// is set, else in the first node's memory.
    pub fn control(mut self, address: impl Into<String>) -> Config {
        self.joining().control = Some(address.into());
        self
    }

    /// Makes everything about life and death take that many times as long, from 1 to 1,000. With 1, the default, a node's death
    /// is known to all within half a second on a network whose answers take a millisecond. Take more for machines far apart,
    /// or so overloaded that a thread with a raised priority does not run for a quarter of a second.
    pub fn cluster_pace(mut self, times: u32) -> Config {
        self.joining().pace = times;
        self
    }

    /// For how long this node goes on without the cluster's first node, and calls its address to be there when it is back.
    /// Default: not at all: calls that need the first node fail at once. With records on etcd nothing needs it, and nodes go on
    /// for ever if it is lost, and end if it leaves in order, as its program does when it is done.
    pub fn head_patience(mut self, longest: Duration) -> Config {
        self.joining().head_patience = Some(longest);
        self
    }

    /// Whether nodes of one machine and user read each other's objects in memory, and speak to each other over a Unix socket,
    /// instead of over the network. They do if both want it; what is not theirs stays on the network: finding out who is
    /// dead. [`NodeInfo::near`] says to whom a socket leads. Default: they do.
    pub fn share_memory(mut self, shares: bool) -> Config {
        self.joining().apart = !shares;
        self
    }

    /// How many bytes this node may keep for making lost results again: the calls whose results other nodes have, and the
    /// objects that they read, wherever those lie, each counted once. When it is too little the oldest calls are given up, and reading
    /// a result that is lost then says so. 0: nothing is made again. Default: a quarter of the object store's memory.
    pub fn lineage_bytes(mut self, bytes: u64) -> Config {
        self.joining().lineage_bytes = Some(bytes);
        self
    }

    /// A label of this node, by which calls may choose where they run.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Config {
        self.joining().labels.insert(name.into(), value.into());
        self
    }

    /// Has this node look for what other nodes send, for a moment after the last of it, instead of sleeping until it comes:
    /// the link's thread, one executor, and whoever waits for a call. A call there and back then takes tens of microseconds
    /// instead of hundreds, and up to three CPUs are busy with looking while calls come. Default: off.
    pub fn busy_poll(mut self, on: bool) -> Config {
        self.joining().busy_poll = on;
        self
    }

    /// What this node is called in listings. Default: the machine's name.
    pub fn node_name(mut self, name: impl Into<String>) -> Config {
        self.joining().name = name.into();
        self
    }
}

impl Mobula {
    fn cluster(&self) -> Result<&std::sync::Arc<crate::node::cluster::Cluster>> {
        self.node.cluster().ok_or(Error::Config {
            setting: "listen",
            why: "this node is of no cluster: say Config::listen or Config::join".to_owned(),
        })
    }

    /// The nodes of the cluster, this one first; this one alone if there is no cluster.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.cluster().map(|c| c.nodes()).unwrap_or_default()
    }

    /// This node among others; `None` if there is no cluster.
    pub fn node_id(&self) -> Option<NodeId> {
        self.cluster().ok().map(|c| c.id())
    }

    /// What lets others into the cluster that this node made. A secret: who has it may run the program's functions.
    pub fn join_token(&self) -> Option<String> {
        Some(self.cluster().ok()?.token()?.to_string())
    }

    /// Where this node listens for others.
    pub fn address(&self) -> Option<SocketAddr> {
        self.cluster().ok()?.address()
    }

    /// Calls this at every death of another node from now on, and when one leaves in order, until this node ends. By then the
    /// node's calls run elsewhere or have failed, as have references to what only it had. Each listener has a thread of its own,
    /// on which it may block; a panic in it ends that one call.
    ///
    /// ```no_run
    /// let mobula = mobula::init()?;
    /// mobula.on_node_death(|death| {
    ///     if !death.left {
    ///         eprintln!("{} ({}) is gone: {}", death.name, death.node, death.cause);
    ///     }
    /// })?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] if there is no cluster, [`Error::Os`] if no thread could be started.
    pub fn on_node_death(&self, hear: impl FnMut(NodeDeath) + Send + 'static) -> Result<()> {
        self.cluster()?.on_death(hear).map_err(|e| Error::Os {
            what: "starting the thread that is told of deaths of nodes",
            source: std::sync::Arc::new(e),
        })
    }

    /// Leaves the cluster in order, and ends: nothing new is taken, calls of other nodes that run here are finished, and results
    /// that are only here are waited for until they were fetched or dropped. Actors that are here end.
    ///
    /// # Errors
    /// [`Error::Timeout`] with what was left when the time was over; the node left all the same. [`Error::Config`] if there is no
    /// cluster.
    pub fn drain(self, timeout: Duration) -> Result<()> {
        let cluster = std::sync::Arc::clone(self.cluster()?);
        crate::exec::local::with(|local| cluster.drain(local, timeout))?
    }

    /// What went over the network so far; all zero if there is no cluster.
    pub fn network(&self) -> NetworkStats {
        self.cluster().map(|c| c.network()).unwrap_or_default()
    }

    /// The slots that nodes lend each other, and the calls that wait for some; all zero if there is no cluster.
    ///
    /// ```
    /// let cluster = mobula::Config::new().num_cpus(1).init()?;
    /// assert_eq!(cluster.leases().borrowed, 0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn leases(&self) -> Leases {
        self.cluster().map(|c| c.leases()).unwrap_or_default()
    }

    /// Waits until the cluster has so many nodes, this one included.
    ///
    /// # Errors
    /// [`Error::Timeout`] with how many there are.
    pub fn wait_for_nodes(&self, count: usize, timeout: Duration) -> Result<()> {
        let cluster = self.cluster()?;
        if cluster.wait_for_nodes(count, timeout) {
            return Ok(());
        }
        let there = cluster.nodes().len();
        Err(Error::Timeout {
            waited: timeout,
            awaited: format!("{count} nodes, of which {there} are there"),
        })
    }
}
