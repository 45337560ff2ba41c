//! Calls in worker processes: they give what they give in threads, and their end is only theirs.
//!
//! Invariant: no test leaves a process behind. Left out: actors (`isolate_actors`), what workers print, and memory limits.

mod common;

use common::{alone, serial, within};
use mobula::{Config, Error, remote};

fn config() -> Config {
    Config::new().num_cpus(2.0).object_store_memory(1 << 28)
}

#[remote(isolate)]
fn pid() -> u32 {
    std::process::id()
}

#[remote(isolate)]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[remote(isolate, max_retries = 0)]
fn abort() -> u64 {
    std::process::abort()
}

#[test]
fn an_isolated_task_runs_in_another_process() {
    alone(config(), |_| {
        let other = mobula::get(&pid::remote()).unwrap();
        assert_ne!(other, std::process::id());
        assert_eq!(mobula::get(&add::remote(2, 3)).unwrap(), 5);
    });
}

#[test]
fn a_crash_is_an_error_that_names_the_signal() {
    alone(config(), |_| {
        let error = mobula::get(&abort::remote()).unwrap_err();
        assert!(matches!(error, Error::WorkerDied(_)), "{error}");
        assert!(error.to_string().contains("SIGABRT"), "{error}");
        assert_eq!(mobula::get(&add::remote(2, 3)).unwrap(), 5);
    });
}
