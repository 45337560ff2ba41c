//! A library with remote functions and an actor. The program that depends on it calls one of them.
//!
//! Invariant: all of them are in that program's registry. Left out: the program, which is
//! `registry-app`.

use mobula::remote;

mod unused;

/// The one that the program calls.
#[remote]
pub fn double(x: u64) -> u64 {
    2 * x
}

/// Nobody calls this one.
#[remote]
pub fn triple(x: u64) -> u64 {
    3 * x
}

/// Runs in a worker process.
#[remote(isolate)]
pub fn triple_there(x: u64) -> u64 {
    3 * x
}
