//! A process that is a node for another's program: the same executable, which never reaches its `main`.
//!
//! Invariant: it ends when the head is gone. Left out: who starts it (a launcher, Kubernetes, a person).

use std::net::SocketAddr;

use crate::base::{Error, Result};
use crate::exec::far::NodeMain;
use crate::node::{Config, Node};

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
    if let Some(cluster) = node.cluster() {
        cluster.serve();
    }
    Ok(())
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
    /// `MOBULA_NUM_GPUS`, `MOBULA_OBJECT_STORE_MEMORY`, `MOBULA_NODE_NAME`, `MOBULA_BUSY_POLL` and `MOBULA_LABELS`.
    fn from_environment(head: &str) -> Result<Config> {
        let missing = |setting, why: &str| Error::Config {
            setting,
            why: why.to_owned(),
        };
        let head: SocketAddr = head.parse().map_err(|e| {
            missing(
                "MOBULA_JOIN",
                &format!("\"{head}\" is no address of a head: {e}"),
            )
        })?;
        let token = std::env::var("MOBULA_TOKEN").map_err(|_| {
            missing(
                "MOBULA_TOKEN",
                "it is to be the token that lets nodes into the cluster",
            )
        })?;
        let mut config = Config::new().join_with(head, token, setting("MOBULA_LISTEN")?);
        if let Some(cpus) = setting::<f64>("MOBULA_NUM_CPUS")? {
            config = config.num_cpus(cpus);
        }
        if let Some(gpus) = setting::<u32>("MOBULA_NUM_GPUS")? {
            config = config.num_gpus(gpus);
        }
        if let Ok(bytes) = std::env::var("MOBULA_OBJECT_STORE_MEMORY") {
            let parsed = crate::base::parse_bytes(&bytes);
            let why = |e| Error::BadBytes {
                option: "MOBULA_OBJECT_STORE_MEMORY",
                text: bytes.clone(),
                why: e,
            };
            config = config.object_store_memory(parsed.map_err(why)?);
        }
        let joining = config.cluster.get_or_insert_default();
        if let Ok(name) = std::env::var("MOBULA_NODE_NAME") {
            joining.name = name;
        }
        joining.busy_poll = setting::<u8>("MOBULA_BUSY_POLL")?.is_some_and(|on| on != 0);
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
        Ok(config)
    }

    fn join_with(mut self, head: SocketAddr, token: String, listen: Option<SocketAddr>) -> Config {
        let joining = self.cluster.get_or_insert_default();
        joining.join = Some((head, token));
        joining.listen = listen;
        self
    }
}
