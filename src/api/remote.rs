//! The dashboard of another program: what it shows is asked for through that program's socket.
//!
//! **Invariant:** the program that is looked at answers looks and nothing else; arranging what it recorded, and serving the page,
//! cost this process. When it has ended, what it recorded can still be seen. **Left out:** serving, which is the
//! dashboard's; finding the program (`node::attach`).

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::metrics::Exposition;
use crate::base::query::Query;
use crate::base::snapshot::Snapshot;
use crate::dashboard::{Recording, Server, Settings, Source, Window};
use crate::node::attach::{AttachError, Client, Recorded, Running};
use crate::trace;

/// A program behind its socket.
struct There {
    program: Running,
    /// `None` after something went wrong: the next look connects anew.
    client: Mutex<Option<Client>>,
    /// `None` if it records nothing.
    recorded: Option<Recorded>,
    metrics: Mutex<Exposition>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source for There {
    fn snapshot(&self, query: &Query) -> io::Result<Snapshot> {
        let mut client = lock(&self.client);
        let connected = match client.take() {
            Some(connected) => Ok(connected),
            None => Client::connect(&self.program),
        };
        let mut connected = connected.map_err(failed)?;
        let looked = connected.snapshot(query);
        // After half an answer the next one could not be told from the rest.
        if matches!(looked, Ok(_) | Err(AttachError::Refused(_))) {
            *client = Some(connected);
        }
        looked.map_err(failed)
    }

    fn recording(&self) -> io::Result<Recording> {
        let recorder = self.recorded.as_ref().map(Recorded::recorder);
        Ok(recorder.map(trace::decode).unwrap_or_default())
    }

    fn trace(&self, window: Window, out: &mut dyn Write) -> io::Result<()> {
        match &self.recorded {
            Some(recorded) => {
                trace::write_within(recorded.recorder(), window.from..=window.to, out, |_, _| {})
                    .map(|_| ())
            }
            None => out.write_all(b"{\"traceEvents\":[]}\n"),
        }
    }

    fn metrics(&self) -> io::Result<String> {
        let snapshot = self.snapshot(&Exposition::query())?;
        Ok(lock(&self.metrics).text(&snapshot))
    }
}

fn failed(e: AttachError) -> io::Error {
    if e.has_ended() {
        return io::Error::new(io::ErrorKind::NotConnected, "the program has ended");
    }
    io::Error::other(e.to_string())
}

impl Client {
    /// Serves a dashboard of the program from this one: the page and all else that [`Config::dashboard`](crate::Config::dashboard)
    /// would have the program itself serve, by its rules about addresses and tokens. When the program ends, what it
    /// recorded is still shown.
    ///
    /// # Errors
    /// As for [`snapshot`](Client::snapshot); [`AttachError::Dashboard`] with the settings' mistake.
    pub fn dashboard(mut self, settings: Settings) -> Result<Server, AttachError> {
        let recorded = match self.recorded() {
            Ok(recorded) => Some(recorded),
            // It records nothing, or is of a version that does not hand it over; all else can be shown.
            Err(AttachError::Refused(_)) => None,
            Err(e) => return Err(e),
        };
        let there = There {
            program: self.running().clone(),
            client: Mutex::new(Some(self)),
            recorded,
            metrics: Mutex::new(Exposition::new()),
        };
        Server::start(settings, Arc::new(there)).map_err(|e| AttachError::Dashboard(Box::new(e)))
    }
}
