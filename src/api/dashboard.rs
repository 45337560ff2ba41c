//! The dashboard of the node that runs in this process.
//!
//! **Invariant:** looking keeps nothing alive but the recording's memory; once the node is down every look is an error.
//! **Left out:** serving, which is the dashboard's.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::metrics::Exposition;
use crate::base::query::Query;
use crate::base::snapshot::Snapshot;
use crate::base::{Error, Result};
use crate::dashboard::{Recording, Server, Settings, Source, Window};
use crate::exec::local;
use crate::node::{DashboardConfig, Node};
use crate::trace::{self, Recorder};

/// This process's node.
struct Here {
    recorder: Option<Arc<Recorder>>,
    metrics: Mutex<Exposition>,
}

fn gone(e: Error) -> io::Error {
    io::Error::other(e.to_string())
}

impl Source for Here {
    fn snapshot(&self, query: &Query) -> io::Result<Snapshot> {
        local::with(|local| local.engine.inspect(local, query)).map_err(gone)
    }

    fn recording(&self) -> io::Result<Recording> {
        Ok(self
            .recorder
            .as_deref()
            .map(trace::decode)
            .unwrap_or_default())
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
    let here = Here {
        recorder: node.engine().recorder().cloned(),
        metrics: Mutex::new(Exposition::new()),
    };
    Server::start(settings, Arc::new(here)).map(Some)
}
