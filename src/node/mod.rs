//! One machine's node: what it has, its start, and its end.
//!
//! Invariant: at most one node is up in a process; whatever was accepted before its end has a value or an error after.
//! Left out: other machines, which join in a later room.

#[cfg(feature = "attach")]
pub mod attach;
#[cfg(feature = "cluster")]
pub mod cluster;
mod config;
#[cfg(feature = "cluster")]
#[cfg_attr(
    not(feature = "attach"),
    allow(
        dead_code,
        unused_imports,
        reason = "launchers come with the command, which attaches"
    )
)]
pub mod launch;
#[cfg(feature = "otel")]
mod otel;
pub mod timeline;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use config::Config;
#[cfg(feature = "dashboard")]
pub use config::DashboardConfig;
#[cfg(feature = "otel")]
pub use otel::Otel;

use crate::base::{Error, Result};
use crate::exec::{self, Engine, local};
use crate::store::{Store, StoreOptions};

/// Says where durable copies go, where the program does not.
const DURABLE: &str = "MOBULA_DURABLE";

/// A running node: shuts down when dropped.
#[derive(Debug)]
#[must_use = "the node runs until this is dropped"]
pub struct Node {
    engine: Arc<Engine>,
    config: Config,
    #[cfg(feature = "otel")]
    exporter: Option<otel::Exporter>,
    #[cfg(feature = "attach")]
    attached: Result<attach::Server, String>,
    #[cfg(feature = "cluster")]
    cluster: Option<Arc<cluster::Cluster>>,
    #[cfg(feature = "cluster")]
    job: Option<launch::Job>,
}

impl Node {
    /// Starts a node.
    pub fn start(config: Config) -> Result<Node> {
        exec::isolate::check_start()?;
        exec::entry::check_names(&exec::entry::registry())?;
        #[cfg(feature = "cluster")]
        let mut config = config;
        #[cfg(feature = "cluster")]
        let plan = match local::is_up() {
            true => None,
            false => {
                config.listen_by_environment()?;
                launch::Plan::make(&mut config)?
            }
        };
        let capacity = config.capacity()?;
        let prefault = match config.prefault_bytes {
            None => crate::shm::Prefault::Adaptive,
            Some(0) => crate::shm::Prefault::Off,
            Some(n) => crate::shm::Prefault::Bytes(n),
        };
        let recording = timeline::recording(config.trace, config.trace_bytes)?;
        let watch = recording.as_ref().map(|r| exec::moves::watch(&r.recorder));
        let options = StoreOptions {
            capacity: config.store_bytes,
            prefault,
            spill: config.spill.clone(),
            patience: config.store_patience,
            huge_pages: config.huge_pages,
            watch,
        };
        let store = Store::open(options).map_err(|e| {
            let setting = match e.kind() {
                ErrorKind::InvalidInput => "object_store_memory",
                ErrorKind::Unsupported => "huge_pages",
                _ => {
                    let what = "creating the shared-memory arena";
                    let source = Arc::new(e);
                    return Error::Os { what, source };
                }
            };
            let why = e.to_string();
            Error::Config { setting, why }
        })?;
        #[cfg(feature = "otel")]
        let exporter = otel::start(config.otel.as_ref(), recording.as_ref())?;
        let engine = Engine::new(capacity, store, recording);
        engine.set_workers(config.workers.clone());
        let durable = config.durable.clone();
        if let Some(place) = durable.or_else(|| Some(std::env::var_os(DURABLE)?.into())) {
            let setting = "durable";
            let set = engine.durables().set_usual(&place);
            set.map_err(|why| Error::Config { setting, why })?;
        }
        let generation = local::start(&engine)?;
        exec::report::set_reporter(config.reporter.clone());
        exec::panics::install();
        engine.start(generation);
        #[cfg(feature = "cluster")]
        let cluster = match config.cluster.clone() {
            Some(how) => Some(
                cluster::Cluster::start(&engine, config.capacity()?, how).inspect_err(|_| {
                    let _ = local::with(|local| engine.shut_down(local, Instant::now()));
                    local::stop();
                    local::leave();
                })?,
            ),
            None => None,
        };
        #[cfg(feature = "cluster")]
        let job = match (plan, &cluster) {
            (Some(plan), Some(cluster)) => Some(
                plan.carry_out(cluster, config.store_bytes)
                    .inspect_err(|_| {
                        let _ = local::with(|local| cluster.stop(local));
                        let _ = local::with(|local| engine.shut_down(local, Instant::now()));
                        local::stop();
                        local::leave();
                    })?,
            ),
            _ => None,
        };
        #[cfg(feature = "cluster")]
        if cluster.is_none() {
            cluster::alone(&engine, config.capacity()?);
        }
        Ok(Node {
            #[cfg(feature = "cluster")]
            cluster,
            #[cfg(feature = "cluster")]
            job,
            #[cfg(feature = "attach")]
            attached: match config.attach {
                true => attach::Server::start().map_err(|e| e.to_string()),
                false => Err("Config::attach(false) said so".to_owned()),
            },
            #[cfg(feature = "otel")]
            exporter,
            engine,
            config,
        })
    }

    /// The machinery.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Where the command line attaches, or why it cannot.
    #[cfg(feature = "attach")]
    pub fn attached_at(&self) -> Result<&std::path::Path, &str> {
        match &self.attached {
            Ok(server) => Ok(server.path()),
            Err(why) => Err(why),
        }
    }

    /// The other nodes, if this one is of a cluster.
    #[cfg(feature = "cluster")]
    pub fn cluster(&self) -> Option<&Arc<cluster::Cluster>> {
        self.cluster.as_ref()
    }

    fn stop(&mut self) {
        // No end of time is a long time.
        const LONG: Duration = Duration::from_secs(1 << 30);
        let deadline = Instant::now() + self.config.patience.min(LONG);
        #[cfg(feature = "cluster")]
        if let Some(cluster) = self.cluster.take() {
            let _ = local::with(|local| cluster.stop(local));
        }
        #[cfg(feature = "cluster")]
        if let Some(mut job) = self.job.take() {
            job.end();
        }
        let left = local::with(|local| self.engine.shut_down(local, deadline));
        // Only now: a shutdown that takes long can be looked at. Before the runtime goes, with which questions are answered.
        #[cfg(feature = "attach")]
        if let Ok(server) = &mut self.attached {
            server.stop();
        }
        self.engine.store().stop_spilling();
        self.engine.durables().end();
        local::stop();
        local::leave();
        #[cfg(feature = "otel")]
        drop(self.exporter.take());
        timeline::write_at_end(self.engine.recorder());
        if let Ok(left @ 1..) = left {
            eprintln!(
                "mobula: {left} calls were still running {:?} after shutdown began; their threads are left behind",
                self.config.patience
            );
        }
        exec::report::set_reporter(None);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}
