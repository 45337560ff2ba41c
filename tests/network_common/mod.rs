//! Tests on machines of their own, which are network namespaces of this one: a test makes the network and runs itself once more inside
//! of machine 0; there it starts other processes on the other machines.
//!
//! Needs root, and `ip` of iproute2; elsewhere a test says why it was skipped.
//!
//! Invariant: everything made is removed, however a test ends, and no test takes longer than its deadline. Left out: what is tested; `wait` is
//! at the root of who uses this.

#![allow(dead_code, unused_imports, reason = "not every test uses all of it")]

#[path = "../../src/base/skip.rs"]
mod skip;

mod net;
mod wire;

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::wait;
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
    let child = Machines::of(network.name())
        .on(0, &me)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, network.name())
        .stdout(Stdio::inherit())
        .spawn()
        .expect("the test starts inside");
    let mut inside = Inside(child);
    let mut ended = None;
    wait::until(&format!("{test} ends"), deadline, || {
        ended = inside.0.try_wait().expect("a child can be waited for");
        ended.is_some()
    });
    let status = ended.expect("it has ended");
    assert!(status.success(), "{test} failed inside: {status}");
}

/// The test inside, which ends with the one outside.
struct Inside(Child);

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
