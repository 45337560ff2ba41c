//! What the tests of actors share: a runtime per test binary, a watchdog, and waiting for a condition.
#![allow(dead_code)]

use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use mobula::{Config, Mobula};

/// The binary's runtime: 4 CPUs, one amount of `"seat"`.
pub fn runtime() -> &'static Mobula {
    static RUNTIME: OnceLock<Mobula> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Config::new()
            .num_cpus(4.0)
            .resource("seat", 1.0)
            .object_store_memory(256 << 20)
            .on_unobserved_failure(|_| {})
            .init()
            .expect("one runtime a binary")
    })
}

/// Runs a test's body on a thread of its own; a hang fails the test instead of stopping all.
pub fn within<R: Send + 'static>(seconds: u64, f: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, wait) = channel();
    let body = std::thread::spawn(move || {
        let out = f();
        let _ = done.send(());
        out
    });
    match wait.recv_timeout(Duration::from_secs(seconds)) {
        Err(RecvTimeoutError::Timeout) => panic!("the test hangs: not done after {seconds} s"),
        _ => body.join().unwrap_or_else(|e| std::panic::resume_unwind(e)),
    }
}

/// Waits for a condition that another thread brings about; fails after 10 s.
#[track_caller]
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::yield_now();
    }
}

/// Something that a test opens and remote code waits for, outside of the runtime's knowledge. Found by number, since
/// remote code gets values only.
pub mod gates {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    #[derive(Default)]
    struct All {
        open: HashMap<u64, bool>,
        reached: HashMap<u64, u64>,
    }

    static ALL: Mutex<Option<All>> = Mutex::new(None);
    static CHANGED: Condvar = Condvar::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);

    fn with<R>(f: impl FnOnce(&mut All) -> R) -> R {
        let mut all = ALL
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let out = f(all.get_or_insert_with(All::default));
        CHANGED.notify_all();
        out
    }

    fn wait(what: &str, mut ready: impl FnMut(&mut All) -> bool) {
        let all = ALL
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let limit = Duration::from_secs(10);
        let (all, timeout) = CHANGED
            .wait_timeout_while(all, limit, |all| {
                !ready(all.get_or_insert_with(All::default))
            })
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(all);
        assert!(!timeout.timed_out(), "never came: {what}");
    }

    /// A new gate, shut.
    pub fn new() -> u64 {
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// Lets everybody through.
    pub fn open(gate: u64) {
        with(|all| all.open.insert(gate, true));
    }

    /// Says that somebody is here, and waits until it opens.
    pub fn pass(gate: u64) {
        reach(gate);
        wait("a gate's opening", |all| all.open.get(&gate) == Some(&true));
    }

    /// Whether it lets people through.
    pub fn is_open(gate: u64) -> bool {
        with(|all| all.open.get(&gate) == Some(&true))
    }

    /// Says that somebody is here.
    pub fn reach(gate: u64) {
        with(|all| *all.reached.entry(gate).or_default() += 1);
    }

    /// How many have come so far.
    pub fn reached(gate: u64) -> u64 {
        with(|all| all.reached.get(&gate).copied().unwrap_or(0))
    }

    /// Waits until `n` have come.
    pub fn await_reached(gate: u64, n: u64) {
        wait("someone at a gate", |all| {
            all.reached.get(&gate).copied().unwrap_or(0) >= n
        });
    }
}
