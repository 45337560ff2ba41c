//! One machine's node: what it has, its start, and its end.
//!
//! Invariant: at most one node is up in a process; whatever was accepted before its end has a value or an error after.
//! Left out: other machines, which join in a later room.

mod config;
pub mod timeline;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use config::Config;

use crate::base::{Error, Result};
use crate::exec::{self, Engine, local};
use crate::store::{Store, StoreOptions};

/// A running node: shuts down when dropped.
#[derive(Debug)]
#[must_use = "the node runs until this is dropped"]
pub struct Node {
    engine: Arc<Engine>,
    config: Config,
}

impl Node {
    /// Starts a node.
    pub fn start(config: Config) -> Result<Node> {
        exec::entry::check_names(&exec::entry::registry())?;
        let capacity = config.capacity()?;
        let prefault = match config.prefault_bytes {
            None => crate::shm::Prefault::Adaptive,
            Some(0) => crate::shm::Prefault::Off,
            Some(n) => crate::shm::Prefault::Bytes(n),
        };
        let options = StoreOptions {
            capacity: config.store_bytes,
            prefault,
        };
        let store = Store::open(options).map_err(|e| Error::Os {
            what: "creating the shared-memory arena",
            source: Arc::new(e),
        })?;
        let recorder = timeline::recorder(config.trace, config.trace_bytes)?;
        let engine = Engine::new(capacity, store, recorder);
        let generation = local::start(&engine)?;
        exec::report::set_reporter(config.reporter.clone());
        exec::panics::install();
        engine.start(generation);
        Ok(Node { engine, config })
    }

    /// The machinery.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn stop(&mut self) {
        // No end of time is a long time.
        const LONG: Duration = Duration::from_secs(1 << 30);
        let deadline = Instant::now() + self.config.patience.min(LONG);
        let left = local::with(|local| self.engine.shut_down(local, deadline));
        local::stop();
        local::leave();
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
