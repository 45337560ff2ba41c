//! How long to look for a message before going to sleep.
//!
//! A sleeper costs the other side a system call and itself the time until it runs again, on some machines 100 us; looking
//! costs the processor that somebody else may need. What paid lately is done again.
//!
//! Invariant: of many waits in a row that looking does not shorten, one in [`PROBE`] is spent looking. Left out: clocks.

use std::time::Duration;

/// As long as a sleep costs, about.
const SPIN: Duration = Duration::from_micros(50);
/// Misses in a row after which it no longer pays.
const MISSES: u32 = 3;
/// One in so many waits tries whether it pays again.
const PROBE: u32 = 16;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    misses: u32,
}

impl Patience {
    /// Begins by looking.
    pub const fn new() -> Patience {
        Patience { misses: 0 }
    }

    /// How long to look now.
    #[inline]
    pub const fn spin(&self) -> Duration {
        if self.misses < MISSES || self.misses.is_multiple_of(PROBE) {
            SPIN
        } else {
            Duration::ZERO
        }
    }

    /// The message came while looking.
    #[inline]
    pub const fn found(&mut self) {
        self.misses = 0;
    }

    /// The message came during sleep.
    #[inline]
    pub const fn missed(&mut self) {
        self.misses = self.misses.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_stops_when_it_does_not_pay_and_is_tried_again() {
        let mut p = Patience::new();
        let looks = |p: &Patience| !p.spin().is_zero();
        let mut looked = 0;
        for _ in 0..1600 {
            looked += u32::from(looks(&p));
            p.missed();
        }
        assert!((100..110).contains(&looked), "{looked}");
        while !looks(&p) {
            p.missed();
        }
        p.found();
        assert!(looks(&p));
    }
}
