//! How long one call of an actor takes, and how many there are in a second.

use std::time::Instant;

use mobula::ObjectRef;

use crate::report::median;

/// The median of so many calls, one after the other, in microseconds.
pub fn p50(calls: usize, call: impl Fn() -> ObjectRef<u64>) -> f64 {
    let one = || {
        let begin = Instant::now();
        mobula::get(call()).expect("it counts");
        begin.elapsed().as_secs_f64() * 1e6
    };
    let each: Vec<f64> = (0..calls).map(|_| one()).collect();
    median(&each)
}

/// Calls in a second when none waits for the one before.
pub fn rate(call: impl Fn() -> ObjectRef<u64>) -> f64 {
    const N: usize = 50_000;
    let begin = Instant::now();
    let all: Vec<_> = (0..N).map(|_| call()).collect();
    mobula::get(&all).expect("all count");
    N as f64 / begin.elapsed().as_secs_f64()
}
