//! How tests say that they are not run, and why: where the machine lacks what they need.
//!
//! Invariant: it is seen where the test passes, since the harness holds back only what goes through `print`. Integration tests
//! include this file as it is. Left out: what is missing, which each test knows.

use std::io::Write;

/// Says it.
pub fn skipped(why: impl std::fmt::Display) {
    // In one write: other tests say things too. Nobody may be there to hear it.
    let line = format!("skipped: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
