//! How tests wait: for a condition, and not for ever.
//!
//! Invariant: no test passes because it waited long enough. Integration tests include this file as it is. Left out: conditions that
//! can be waited for without looking, by a channel or a future.

use std::time::{Duration, Instant};

/// Looks again and again until it is so; how long that took.
///
/// # Panics
/// With `what`, if it is not so within this time.
#[track_caller]
pub fn until(what: &str, within: Duration, mut so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < within, "{what}: not within {within:?}");
        // Not parked: a test that is a call would take what was meant to wake its thread.
        std::thread::sleep(Duration::from_millis(1));
    }
    began.elapsed()
}
