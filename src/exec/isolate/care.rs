//! What a node has for its workers beside their calls: ears for what they print, bounds, and a watch over memory.
//!
//! Invariant: all of it starts with the first worker and ends with the node. Left out: what is kept of each worker
//! (`watched`).

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::super::engine::Engine;
use super::limits::Limiter;
use super::meter;
use super::monitor::{self, Monitor};
use super::output::Output;
use super::reap::KernelKills;
use super::sink::WorkerOutput;
use crate::core::workers::Running;

/// What the program says about its workers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where they print to.
    pub output: WorkerOutput,
    /// The share of memory above which one is ended.
    pub memory_threshold: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            output: WorkerOutput::default(),
            memory_threshold: 0.95,
        }
    }
}

/// See the file.
#[derive(Default)]
pub struct Care {
    settings: Mutex<Settings>,
    output: OnceLock<Output>,
    limiter: OnceLock<Limiter>,
    monitor: OnceLock<Monitor>,
    kills: OnceLock<Arc<KernelKills>>,
}

/// How long the end of a node waits until what its workers printed is written.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Care {
    /// What the program says, before the first worker starts.
    pub fn set(&self, settings: Settings) {
        *self.settings.lock() = settings;
    }

    /// Begins with the first worker. Called by the one thread that starts them.
    pub fn begin(&self, engine: &Arc<Engine>) -> std::io::Result<&Output> {
        if let Some(output) = self.output.get() {
            return Ok(output);
        }
        let Settings {
            output,
            memory_threshold,
        } = self.settings.lock().clone();
        let output = Output::start(output)?;
        let kills = self
            .kills
            .get_or_init(|| Arc::new(KernelKills::new(meter::oom_kills())));
        let monitor = Monitor::start(
            memory_threshold,
            Box::new(meter::fullest),
            Arc::clone(kills),
            Arc::new(Seen(Arc::downgrade(engine))),
        )?;
        let _ = self.monitor.set(monitor);
        Ok(self.output.get_or_init(|| output))
    }

    /// A worker is at work from now on.
    pub fn woken(&self) {
        if let Some(monitor) = self.monitor.get() {
            monitor.wake();
        }
    }

    /// What bounds workers.
    pub fn limiter(&self) -> &Limiter {
        self.limiter.get_or_init(Limiter::new)
    }

    /// Whether the kernel has ended a process for want of memory lately.
    pub fn kernel_killed(&self) -> bool {
        let kills = self.kills.get();
        kills.is_some_and(|k| k.lately(meter::oom_kills(), Instant::now()))
    }

    /// All workers have ended.
    pub fn end(&self) {
        if let Some(monitor) = self.monitor.get() {
            monitor.close();
        }
        if let Some(output) = self.output.get() {
            output.close(LAST_WORDS);
        }
    }
}

/// The workers of a node that may be gone.
struct Seen(Weak<Engine>);

impl monitor::Workers for Seen {
    fn running(&self) -> Vec<(Running, u32)> {
        let Some(engine) = self.0.upgrade() else {
            return Vec::new();
        };
        let all = engine.workers.all();
        let running = all.iter().filter_map(|w| w.watched.running());
        running.collect()
    }

    fn end(&self, run: u64, why: String) {
        let Some(engine) = self.0.upgrade() else {
            return;
        };
        for worker in engine.workers.all() {
            if worker.watched.sentence(run, &why, || worker.kill()) {
                return;
            }
        }
    }
}
