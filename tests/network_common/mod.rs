//! Tests on machines of their own, which are network namespaces of this one: a test makes the network and runs itself once more inside
//! of machine 0; there it starts other processes on the other machines.
//!
//! Needs root, and `ip` of iproute2; elsewhere a test says why it was skipped.
//!
//! Invariant: everything made is removed, however a test ends, and no test takes longer than its deadline. Left out: what is tested.

#![allow(dead_code, unused_imports, reason = "not every test uses all of it")]

#[path = "../../src/base/skip.rs"]
mod skip;

mod net;
mod wire;

use std::process::Stdio;
use std::time::{Duration, Instant};

use net::Network;
pub use net::{Machines, Way, Weather, address};

/// In the environment of a test that runs inside: the network's name.
const INSIDE: &str = "MOBULA_TEST_NETWORK";

/// Runs a test, by its name, inside of a network of so many machines, on machine 0.
pub fn inside(
    test: &str,
    machines: usize,
    weather: Option<Weather>,
    deadline: Duration,
    scenario: impl FnOnce(Machines),
) {
    if let Ok(name) = std::env::var(INSIDE) {
        return scenario(Machines::of(&name));
    }
    let network = match Network::new(machines, weather) {
        Ok(network) => network,
        Err(why) => {
            let why = format!("{test}: no network namespaces can be made: {why}");
            return skip::skipped(why);
        }
    };
    let me = std::env::current_exe().expect("a test has a path");
    let mut child = Machines::of(network.name())
        .on(0, &me)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, network.name())
        .stdout(Stdio::inherit())
        .spawn()
        .expect("the test starts inside");
    let begin = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status,
            None if begin.elapsed() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{test} hangs: it took more than {deadline:?}");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert!(status.success(), "{test} failed inside: {status}");
}
