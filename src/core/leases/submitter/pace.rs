//! How far ahead of a lease's slots calls are sent.
//!
//! Invariant: between 1 and [`MAX_DEPTH`] calls a slot. Left out: clocks.

use std::time::Duration;

use crate::core::leases::MAX_DEPTH;

/// Calls that run so many round trips long lose little by one.
const LONG: u32 = 16;

/// What is known of the calls of one lease.
#[derive(Debug, Default)]
pub struct Pace {
    /// How long calls run, on average, the late ones more.
    ran: Option<Duration>,
    /// How long a call and its result are on their way, likewise.
    trip: Option<Duration>,
}

impl Pace {
    /// A call ended so long after it was sent, and ran for so long. One that was not `fresh` may have waited for a slot:
    /// its time says nothing of the way.
    pub fn ended(&mut self, took: Duration, ran: Duration, fresh: bool) {
        let mean = |old: &mut Option<Duration>, new: Duration| {
            *old = Some(old.map_or(new, |old| (old * 7 + new) / 8));
        };
        mean(&mut self.ran, ran);
        if fresh {
            mean(&mut self.trip, took.saturating_sub(ran));
        }
    }

    /// Calls to send per slot.
    pub fn depth(&self) -> u32 {
        let (Some(ran), Some(trip)) = (self.ran, self.trip) else {
            return 2;
        };
        if ran >= trip * LONG {
            return 1;
        }
        let ahead = trip.as_nanos().div_ceil(ran.as_nanos().max(1));
        u32::try_from(ahead)
            .unwrap_or(MAX_DEPTH)
            .saturating_add(1)
            .min(MAX_DEPTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_calls_are_sent_ahead_for_a_round_trip_and_long_ones_not() {
        let us = Duration::from_micros;
        let depth = |ran, trip| {
            let mut pace = Pace::default();
            assert_eq!(pace.depth(), 2);
            for _ in 0..50 {
                pace.ended(us(ran + trip), us(ran), true);
                pace.ended(us(ran * 9 + trip), us(ran), false);
            }
            pace.depth()
        };
        assert_eq!(depth(1, 100), 101);
        assert_eq!(depth(1, 10_000), MAX_DEPTH);
        assert_eq!(depth(20, 100), 6);
        assert_eq!(depth(100, 100), 2);
        assert_eq!(depth(1_000, 100), 2);
        assert_eq!(depth(2_000, 100), 1);
        assert_eq!(depth(0, 0), 1);
    }
}
