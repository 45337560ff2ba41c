//! Acts before the kernel does: ends a worker when memory is nearly gone.
//!
//! A thread looks four times a second while a worker is at work, and sleeps otherwise.
//!
//! Invariant: it ends what [`Watch`] chooses and nothing else, and the death says why. Left out: choosing
//! (`core::workers`), and bounds of single workers (`limits`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::meter::{self, Place};
use super::reap::KernelKills;
use crate::base::show_bytes;
use crate::core::workers::{Reading, Running, Watch};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(250);

/// The workers, as the monitor sees them.
pub trait Workers: Send + Sync + 'static {
    /// Those at work.
    fn running(&self) -> Vec<(Running, u32)>;
    /// Ends the worker of this run with this reason, if it still runs.
    fn end(&self, run: u64, why: String);
}

/// Where readings come from.
pub type Meter = Box<dyn Fn() -> Option<(Place, Reading)> + Send>;

/// Watches the memory of this machine.
pub struct Monitor(Arc<Shared>);

struct Shared {
    /// The thread sleeps until a worker begins to work.
    asleep: AtomicBool,
    closed: Mutex<bool>,
    news: Condvar,
}

impl Monitor {
    /// Begins to watch.
    pub fn start(
        threshold: f64,
        meter: Meter,
        kills: Arc<KernelKills>,
        workers: Arc<impl Workers>,
    ) -> std::io::Result<Monitor> {
        let shared = Arc::new(Shared {
            asleep: AtomicBool::new(false),
            closed: Mutex::new(false),
            news: Condvar::new(),
        });
        let monitor = Monitor(Arc::clone(&shared));
        std::thread::Builder::new()
            .name("mobula-memory".into())
            .spawn(move || shared.run(Watch::new(threshold), &meter, &kills, &*workers))?;
        Ok(monitor)
    }

    /// A worker has begun to work, and is among those at work. Costs a fence while the monitor is awake.
    pub fn wake(&self) {
        // With the fence of the thread that falls asleep: it sees the worker, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        if self.0.asleep.load(Ordering::Relaxed) {
            let _closed = self.0.closed.lock();
            self.0.asleep.store(false, Ordering::Relaxed);
            self.0.news.notify_all();
        }
    }
}

impl Monitor {
    /// Ends it.
    pub fn close(&self) {
        *self.0.closed.lock() = true;
        self.0.news.notify_all();
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn run(&self, mut watch: Watch, meter: &Meter, kills: &KernelKills, workers: &dyn Workers) {
        kills.resume(meter::oom_kills());
        loop {
            let running = workers.running();
            if running.is_empty() {
                if !self.sleep(workers) {
                    return;
                }
                kills.resume(meter::oom_kills());
                continue;
            }
            kills.lately(meter::oom_kills(), Instant::now());
            if let Some((place, reading)) = meter() {
                let seen: Vec<Running> = running.iter().map(|(r, _)| *r).collect();
                if let Some(run) = watch.on_sample(reading, &seen) {
                    let worker = running.iter().find(|(r, _)| r.run == run);
                    let own = worker.and_then(|(_, pid)| meter::own_memory(*pid));
                    workers.end(run, reason(place, reading, watch.threshold(), own));
                }
            }
            let mut closed = self.closed.lock();
            self.news
                .wait_while_for(&mut closed, |closed| !*closed, PERIOD);
            if *closed {
                return;
            }
        }
    }

    /// Sleeps until a worker works; false if it is over.
    fn sleep(&self, workers: &dyn Workers) -> bool {
        let mut closed = self.closed.lock();
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if workers.running().is_empty() {
            self.news.wait_while(&mut closed, |closed| {
                !*closed && self.asleep.load(Ordering::Relaxed)
            });
        }
        self.asleep.store(false, Ordering::Relaxed);
        !*closed
    }
}

fn reason(place: Place, reading: Reading, threshold: f64, own: Option<u64>) -> String {
    let place = place.name();
    let percent = |share: f64| (share * 1000.0).round() / 10.0;
    let mut text = format!(
        "ended because the {place} had {} of its {} in use, {} %, which is above the threshold of {} % \
         (Config::memory_threshold)",
        show_bytes(reading.used),
        show_bytes(reading.total),
        percent(reading.share()),
        percent(threshold),
    );
    if let Some(own) = own {
        text.push_str(&format!("; this worker held {}", show_bytes(own)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::workers::Work;
    use std::sync::atomic::AtomicU64;

    #[derive(Default)]
    struct Fake {
        running: Mutex<Vec<u64>>,
        ended: Mutex<Vec<(u64, String)>>,
    }

    impl Workers for Fake {
        fn running(&self) -> Vec<(Running, u32)> {
            let work = Work::Call { retried: true };
            let running = self.running.lock();
            let one = |run: &u64| (Running { run: *run, work }, std::process::id());
            running.iter().map(one).collect()
        }

        fn end(&self, run: u64, why: String) {
            self.running.lock().retain(|r| *r != run);
            self.ended.lock().push((run, why));
        }
    }

    fn until(so: impl FnMut() -> bool) {
        crate::base::wait::until("the monitor looks", Duration::from_secs(30), so);
    }

    #[test]
    fn it_wakes_with_the_first_worker_and_ends_one_a_look() {
        let workers = Arc::new(Fake::default());
        let looks = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&looks);
        let meter = Box::new(move || {
            counts.fetch_add(1, Ordering::SeqCst);
            let (used, total) = (99 << 20, 100 << 20);
            Some((Place::Machine, Reading { used, total }))
        });
        let kills = Arc::new(KernelKills::new(0));
        let monitor = Monitor::start(0.95, meter, kills, Arc::clone(&workers)).unwrap();
        until(|| monitor.0.asleep.load(Ordering::SeqCst));
        assert_eq!(looks.load(Ordering::SeqCst), 0, "nobody works");
        workers.running.lock().extend([1, 2]);
        monitor.wake();
        until(|| workers.ended.lock().len() == 2);
        let ended = workers.ended.lock();
        assert_eq!((ended[0].0, ended[1].0), (2, 1), "the newest first");
        assert!(looks.load(Ordering::SeqCst) >= 2, "one look, one worker");
        let why = &ended[0].1;
        for part in [
            "machine had 99.0 MiB of its 100.0 MiB",
            "99 %",
            "95 %",
            "this worker held",
        ] {
            assert!(why.contains(part), "{why}");
        }
        until(|| monitor.0.asleep.load(Ordering::SeqCst));
        drop(monitor);
    }

    #[test]
    fn a_machine_that_is_not_full_ends_nobody() {
        let workers = Arc::new(Fake::default());
        workers.running.lock().push(1);
        let looks = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&looks);
        let meter = Box::new(move || {
            let n = counts.fetch_add(1, Ordering::SeqCst);
            // Unreadable at first.
            let (used, total) = (95, 100);
            (n > 0).then_some((Place::Group, Reading { used, total }))
        });
        let kills = Arc::new(KernelKills::new(0));
        let _monitor = Monitor::start(0.95, meter, kills, Arc::clone(&workers)).unwrap();
        until(|| looks.load(Ordering::SeqCst) >= 3);
        assert!(workers.ended.lock().is_empty());
    }
}
