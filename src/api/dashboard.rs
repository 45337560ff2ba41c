//! The dashboard of the node that runs in this process.
//!
//! **Invariant:** looking keeps nothing alive but the recording's memory; once the node is down every look is an error.
//! **Left out:** serving, which is the dashboard's.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::base::metrics::Exposition;
use crate::base::query::{Part, Query};
use crate::base::snapshot::Snapshot;
use crate::base::{Error, Result};
use crate::dashboard::{Recording, Server, Settings, Source, Window};
use crate::exec::local;
use crate::node::{DashboardConfig, Node};
use crate::trace::{self, Follower, Recorder};

/// This process's node.
struct Here {
    recorder: Option<Arc<Recorder>>,
    follower: Option<Mutex<Follower>>,
    metrics: Mutex<Exposition>,
    node: OnceLock<String>,
}

impl Here {
    /// What the node is called, once it can be asked.
    fn node(&self) -> Option<&String> {
        if self.node.get().is_none() {
            let snapshot = self.snapshot(&Query::of(&[Part::Nodes])).ok()?;
            let name = snapshot.nodes.items.into_iter().next()?.name;
            let _ = self.node.set(name);
        }
        self.node.get()
    }

    fn follower(&self) -> Option<MutexGuard<'_, Follower>> {
        let follower = self.follower.as_ref()?;
        Some(follower.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn gone(e: Error) -> io::Error {
    io::Error::other(e.to_string())
}

impl Source for Here {
    fn snapshot(&self, query: &Query) -> io::Result<Snapshot> {
        local::with(|local| local.engine.inspect(local, query)).map_err(gone)
    }

    fn recording(&self) -> io::Result<Recording> {
        let recording = self.follower().map(|mut follower| follower.recording());
        let mut recording = recording.unwrap_or_default();
        // Its worker processes belong to this machine's node too.
        if let Some(node) = self.node() {
            let lanes = recording.lanes.iter_mut();
            lanes.for_each(|lane| lane.node.clone_from(node));
        }
        Ok(recording)
    }

    fn generation(&self) -> Option<u64> {
        Some(self.recorder.as_ref().map_or(0, |r| r.generation()))
    }

    fn forget(&self) {
        if let Some(mut follower) = self.follower() {
            follower.forget();
        }
    }

    fn trace(&self, window: Window, out: &mut dyn Write) -> io::Result<()> {
        match &self.recorder {
            Some(recorder) => {
                trace::write_within(recorder, window.from..=window.to, out, |_, _| {}).map(|_| ())
            }
            None => out.write_all(b"{\"traceEvents\":[]}\n"),
        }
    }

    fn metrics(&self) -> io::Result<String> {
        let snapshot = self.snapshot(&Exposition::query())?;
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(metrics.text(&snapshot))
    }
}

/// Starts the dashboard, if the settings ask for one.
pub(super) fn start(config: &DashboardConfig, node: &Node) -> Result<Option<Server>> {
    if !config.on {
        return Ok(None);
    }
    let mut settings = Settings::new();
    if let Some(address) = config.address {
        settings = settings.address(address);
    }
    if let Some(token) = &config.token {
        settings = settings.token(token.clone());
    }
    let recorder = node.engine().recorder().cloned();
    let here = Here {
        follower: recorder.clone().map(|r| Mutex::new(Follower::new(r))),
        recorder,
        metrics: Mutex::new(Exposition::new()),
        node: OnceLock::new(),
    };
    Server::start(settings, Arc::new(here)).map(Some)
}
