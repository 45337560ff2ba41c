//! A process that is a node for another's program: the same executable, which never reaches its `main`.
//!
//! Invariant: it ends when the head is gone for longer than it has patience, when the others hold it for dead, or on SIGTERM, then
//! in order. Left out: who starts it (a launcher, Kubernetes, a person).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::base::{Error, Result};
use crate::exec::far::NodeMain;
use crate::exec::local;
use crate::node::{Config, Node};

/// How long a node that is to end may take to finish what it runs, in seconds.
const DRAIN: f64 = 25.0;

inventory::submit! { NodeMain(run) }

/// Serves until the cluster's head is gone; the process's exit code.
fn run(head: String) -> i32 {
    match serve(&head) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("mobula: {e}");
            1
        }
    }
}

fn serve(head: &str) -> Result<()> {
    let node = Node::start(Config::from_environment(head)?)?;
    let Some(cluster) = node.cluster() else {
        return Ok(());
    };
    let ends = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ends);
    let io = |e| Error::Os {
        what: "waiting for SIGTERM",
        source: Arc::new(e),
    };
    crate::exec::terminate::when_told(move || told.store(true, Ordering::Release)).map_err(io)?;
    cluster.serve(&|| ends.load(Ordering::Acquire))?;
    if !ends.load(Ordering::Acquire) {
        return Ok(());
    }
    // A supervisor wants this process to end: what was taken is finished first.
    let within = Duration::from_secs_f64(
        setting::<f64>("MOBULA_DRAIN_SECS")?
            .unwrap_or(DRAIN)
            .clamp(0.0, 1e9),
    );
    local::with(|local| cluster.drain(local, within))?
}

fn setting<T: std::str::FromStr>(name: &'static str) -> Result<Option<T>>
where
    T::Err: std::fmt::Display,
{
    let Ok(text) = std::env::var(name) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|e| Error::Config {
        setting: name,
        why: format!("\"{text}\": {e}"),
    })
}

impl Config {
    /// The settings of a node that is to join, from `MOBULA_JOIN`, `MOBULA_TOKEN`, `MOBULA_LISTEN`, `MOBULA_NUM_CPUS`,
    /// `MOBULA_NUM_GPUS`, `MOBULA_RESOURCES`, `MOBULA_OBJECT_STORE_MEMORY`, `MOBULA_NODE_NAME`, `MOBULA_LABELS`, `MOBULA_CONTROL`,
    /// `MOBULA_SHARE_MEMORY` (0: no), `MOBULA_BUSY_POLL`, `MOBULA_CLUSTER_PACE`, `MOBULA_LINEAGE_BYTES` and `MOBULA_HEAD_PATIENCE` (in seconds).
    fn from_environment(head: &str) -> Result<Config> {
        let missing = |setting, why: &str| Error::Config {
            setting,
            why: why.to_owned(),
        };
        let head =
            crate::node::launch::resolve(head).map_err(|why| missing("MOBULA_JOIN", &why))?;
        let token = std::env::var("MOBULA_TOKEN").map_err(|_| {
            missing(
                "MOBULA_TOKEN",
                "it is to be the token that lets nodes into the cluster",
            )
        })?;
        let mut config = Config::new().join_with(head, token, setting("MOBULA_LISTEN")?);
        config.amounts_by_environment()?;
        config.name_by_environment()?;
        Ok(config)
    }

    /// Makes the program the head of a cluster without a change of its code: `MOBULA_LISTEN` says where it listens, and
    /// `MOBULA_CLUSTER_DIR` where its authority is kept. What the program itself says about clusters goes before.
    pub(in crate::node) fn listen_by_environment(&mut self) -> Result<()> {
        let Some(listen) = setting::<SocketAddr>("MOBULA_LISTEN")? else {
            return Ok(());
        };
        let said = |c: &crate::node::cluster::Joining| c.listen.is_some() || c.join.is_some();
        if self.cluster.as_ref().is_some_and(said) {
            return Ok(());
        }
        let joining = self.cluster.get_or_insert_default();
        joining.listen = Some(listen);
        if let Some(folder) = std::env::var_os("MOBULA_CLUSTER_DIR") {
            joining.folder = Some(folder.into());
        }
        self.amounts_by_environment()?;
        self.name_by_environment()
    }

    /// What the node has, where its code does not say.
    fn amounts_by_environment(&mut self) -> Result<()> {
        let mut config = std::mem::take(self);
        if let Some(cpus) = setting::<f64>("MOBULA_NUM_CPUS")?
            && config.cpus().is_none()
        {
            config = config.num_cpus(cpus);
        }
        if let Some(gpus) = setting::<u32>("MOBULA_NUM_GPUS")? {
            config = config.num_gpus(gpus);
        }
        if let Ok(bytes) = std::env::var("MOBULA_OBJECT_STORE_MEMORY")
            && config.store_bytes.is_none()
        {
            let parsed = crate::base::parse_bytes(&bytes);
            let why = |e| Error::BadBytes {
                option: "MOBULA_OBJECT_STORE_MEMORY",
                text: bytes.clone(),
                why: e,
            };
            config = config.object_store_memory(parsed.map_err(why)?);
        }
        if let Ok(list) = std::env::var("MOBULA_RESOURCES") {
            for (name, amount) in crate::node::launch::amounts("MOBULA_RESOURCES", &list)? {
                config = config.resource(name, amount);
            }
        }
        *self = config;
        Ok(())
    }

    fn name_by_environment(&mut self) -> Result<()> {
        let missing = |setting, why: &str| Error::Config {
            setting,
            why: why.to_owned(),
        };
        let joining = self.cluster.get_or_insert_default();
        if let Ok(name) = std::env::var("MOBULA_NODE_NAME") {
            joining.name = name;
        }
        joining.apart |= setting::<u8>("MOBULA_SHARE_MEMORY")? == Some(0);
        if let Ok(control) = std::env::var("MOBULA_CONTROL") {
            joining.control = Some(control);
        }
        joining.busy_poll |= setting::<u8>("MOBULA_BUSY_POLL")?.is_some_and(|on| on != 0);
        joining.pace = setting("MOBULA_CLUSTER_PACE")?.unwrap_or(joining.pace.max(1));
        if let Some(bytes) = setting("MOBULA_LINEAGE_BYTES")? {
            joining.lineage_bytes = Some(bytes);
        }
        if let Some(patience) = setting::<f64>("MOBULA_HEAD_PATIENCE")? {
            joining.head_patience = Some(Duration::from_secs_f64(patience.clamp(0.0, 1e9)));
        }
        if let Ok(labels) = std::env::var("MOBULA_LABELS") {
            for label in labels.split(',').filter(|l| !l.is_empty()) {
                let (name, value) = label.split_once('=').ok_or_else(|| {
                    missing(
                        "MOBULA_LABELS",
                        "labels are name=value, with commas between them",
                    )
                })?;
                joining
                    .labels
                    .insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
        Ok(())
    }

    fn join_with(mut self, head: SocketAddr, token: String, listen: Option<SocketAddr>) -> Config {
        let joining = self.cluster.get_or_insert_default();
        joining.join = Some((head, token));
        joining.listen = listen;
        self
    }
}
