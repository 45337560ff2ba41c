//! What all answers of one server share.
//!
//! **Invariant:** everything in here is bounded: samples, watchers, traces under way. **Left out:** the answers (`routes`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::Source;
use super::history::History;
use super::keep::Keep;
use super::settings::Settings;

/// Traces that are written at one time.
const MAX_TRACES: usize = 2;

/// Who may watch at one time.
const MAX_WATCHERS: usize = 32;

/// What answers are made from.
pub struct State {
    pub source: Arc<dyn Source>,
    pub keep: Arc<Keep>,
    pub ticks: watch::Sender<Arc<str>>,
    pub watchers: Arc<Semaphore>,
    pub token: Option<String>,
    history: Mutex<History>,
    pub traces: Arc<Semaphore>,
    pub patience: Duration,
}

impl State {
    /// Nothing known yet.
    pub fn new(settings: &Settings, source: Arc<dyn Source>) -> State {
        State {
            source,
            keep: Arc::default(),
            ticks: watch::Sender::new(Arc::from("null")),
            watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
            token: settings.token.clone(),
            history: Mutex::default(),
            traces: Arc::new(Semaphore::new(MAX_TRACES)),
            patience: settings.patience,
        }
    }

    /// The last samples.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
