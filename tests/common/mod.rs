//! What the integration tests share: one runtime at a time, a watchdog, and gates instead of sleeps.
//!
//! Invariant: a test that hangs is ended with its name, and no test passes because it waited long enough.
//! Left out: what is tested.
#![allow(dead_code)]

#[path = "../../src/base/wait.rs"]
mod wait;

use std::collections::HashMap;
use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use mobula::{Config, Mobula};

/// The longest that anything here waits for what must happen.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Runs `f`; ends the process with a message if it takes longer than `limit`.
pub fn within<R>(limit: Duration, f: impl FnOnce() -> R) -> R {
    let (done, watched) = channel::<()>();
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let watchdog = std::thread::spawn(move || {
        if watched.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            // Not through eprintln!, which the test harness captures and an abort loses.
            let _ = writeln!(std::io::stderr(), "{name} hangs: not done after {limit:?}");
            std::process::abort();
        }
    });
    let result = f();
    drop(done);
    watchdog.join().expect("the watchdog only watches");
    result
}

/// Waits until `condition` holds.
pub fn until(condition: impl FnMut() -> bool) {
    wait::until("what should happen", LIMIT / 3, condition);
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

static TURN: Mutex<()> = Mutex::new(());

/// Runs one test of this binary at a time, with a runtime of two CPUs that they all share.
pub fn shared<R>(f: impl FnOnce(&'static Mobula) -> R) -> R {
    static RUNTIME: OnceLock<Mobula> = OnceLock::new();
    let _turn = lock(&TURN);
    within(LIMIT, || {
        let config = || {
            Config::new()
                .num_cpus(2.0)
                .resource("slot", 1.0)
                .object_store_memory(1 << 30)
        };
        f(RUNTIME.get_or_init(|| config().init().expect("a first runtime starts")))
    })
}

/// Runs one test of this binary at a time, with a runtime of its own.
pub fn alone<R>(config: Config, f: impl FnOnce(&Mobula) -> R) -> R {
    serial(|| {
        let mobula = config.init().expect("the runtime before has ended");
        f(&mobula)
    })
}

/// Runs one test of this binary at a time.
pub fn serial<R>(f: impl FnOnce() -> R) -> R {
    let _turn = lock(&TURN);
    within(LIMIT, f)
}

#[derive(Default)]
struct State {
    open: bool,
    arrived: u64,
    left: u64,
}

#[derive(Default)]
struct Gates {
    last: u64,
    gates: HashMap<u64, State>,
}

static GATES: LazyLock<(Mutex<Gates>, Condvar)> = LazyLock::new(Default::default);

/// Tasks that call [`pass`] with its id stand still until it opens, as a task does that computes or waits for a
/// device: the runtime is not told. Opens when dropped.
#[derive(Debug)]
pub struct Gate(u64);

impl Gate {
    /// A closed one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Gate {
        let mut g = lock(&GATES.0);
        g.last += 1;
        let id = g.last;
        g.gates.insert(id, State::default());
        Gate(id)
    }

    /// By which a task finds it.
    pub fn id(&self) -> u64 {
        self.0
    }

    /// Lets everybody pass.
    pub fn open(&self) {
        lock(&GATES.0).gates.entry(self.0).or_default().open = true;
        GATES.1.notify_all();
    }

    /// How many have come so far.
    pub fn arrived(&self) -> u64 {
        lock(&GATES.0).gates[&self.0].arrived
    }

    /// How many have passed so far.
    pub fn left(&self) -> u64 {
        lock(&GATES.0).gates[&self.0].left
    }

    /// Waits until so many have come.
    pub fn await_arrivals(&self, n: u64) {
        let gates = lock(&GATES.0);
        let waited = GATES
            .1
            .wait_timeout_while(gates, LIMIT / 3, |g| g.gates[&self.0].arrived < n);
        let (gates, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(
            !timeout.timed_out(),
            "{} of {n} have come",
            gates.gates[&self.0].arrived
        );
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// Arrives at a gate and stands there until it opens. Returns how many had come before.
pub fn pass(id: u64) -> u64 {
    let mut gates = lock(&GATES.0);
    let state = gates.gates.entry(id).or_default();
    let before = state.arrived;
    state.arrived += 1;
    GATES.1.notify_all();
    let mut gates = GATES
        .1
        .wait_while(gates, |g| !g.gates[&id].open)
        .unwrap_or_else(PoisonError::into_inner);
    gates.gates.entry(id).or_default().left += 1;
    before
}

/// Arrives without waiting. Returns how many had come before.
pub fn arrive(id: u64) -> u64 {
    let mut gates = lock(&GATES.0);
    let state = gates.gates.entry(id).or_default();
    state.arrived += 1;
    let before = state.arrived - 1;
    drop(gates);
    GATES.1.notify_all();
    before
}

/// Whether it is open.
pub fn is_open(id: u64) -> bool {
    lock(&GATES.0).gates.get(&id).is_none_or(|g| g.open)
}

/// A small generator of numbers that look random: xorshift.
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    /// From a seed.
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}
