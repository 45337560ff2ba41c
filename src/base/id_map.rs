//! Maps by ids that this process has drawn itself.
//!
//! Invariant: nobody outside chooses the keys, so they need no protection against keys that meet in one place. Left out: maps by what came
//! from elsewhere, which are std's.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// See the file.
pub type IdMap<V> = HashMap<u64, V, BuildHasherDefault<Mix>>;

/// Ids differ in their low bits and in those of their thread.
#[derive(Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
}
