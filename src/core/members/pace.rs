//! How fast the membership machine looks, doubts and tells.
//!
//! Invariant: in a calm network the death of a node is known everywhere within [`Pace::worst`]. Left out: how a doubt
//! is resolved, which is in `doubt`.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use super::DATAGRAM_MAX;

/// The one setting of membership: all its times. [`Pace::LAN`] suits one building, [`Pace::scaled`] anything slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How often a node asks the two that it watches whether they live.
    pub watch: Duration,
    /// How long one that is watched may be silent before it is doubted.
    pub silence: Duration,
    /// How long a doubt lasts. It asks again and again meanwhile, directly and through others; any answer ends it.
    pub doubt: Duration,
    /// How often a doubt asks.
    pub ask: Duration,
    /// How often a random member is probed besides, should those who watch it have died with it.
    pub probe: Duration,
    /// How often news is passed on.
    pub gossip: Duration,
    /// A tick that comes later than this says that this process itself was stopped meanwhile.
    pub stall: Duration,
}

impl Pace {
    /// For nodes within a millisecond of each other: a death is known after 340 to 400 ms.
    pub const LAN: Pace = Pace {
        watch: Duration::from_millis(50),
        silence: Duration::from_millis(100),
        doubt: Duration::from_millis(240),
        ask: Duration::from_millis(30),
        probe: Duration::from_millis(250),
        gossip: Duration::from_millis(50),
        stall: Duration::from_millis(25),
    };

    /// All times that many times as long, from 1 to 1,000.
    #[must_use]
    pub fn scaled(self, times: u32) -> Pace {
        let times = times.clamp(1, 1000);
        Pace {
            watch: self.watch * times,
            silence: self.silence * times,
            doubt: self.doubt * times,
            ask: self.ask * times,
            probe: self.probe * times,
            gossip: self.gossip * times,
            stall: self.stall * times,
        }
    }

    /// When the last of the living knows of a death, at the latest, if nothing is lost and nobody stalls: the watch
    /// may just have asked, notices the silence at its next look but one, doubts, and the news floods in a few hops.
    pub fn worst(&self) -> Duration {
        self.silence + self.watch + self.doubt + self.gossip
    }

    /// The times with none that is zero or out of order, whatever was asked for.
    pub(super) fn sound(self) -> Pace {
        let least = Duration::from_millis(1);
        let watch = self.watch.max(least);
        let ask = self.ask.max(least);
        Pace {
            watch,
            silence: self.silence.max(watch * 2),
            doubt: self.doubt.max(ask * 4),
            ask,
            probe: self.probe.max(least * 3),
            gossip: self.gossip.max(least),
            stall: self.stall.max(least),
        }
    }

    /// What foca makes of it. Its suspicions are resolved by `doubt`, which asks more often.
    pub(super) fn foca(&self, members: usize) -> foca::Config {
        let every = foca::PeriodicParams {
            frequency: self.gossip,
            num_members: NonZeroUsize::MIN.saturating_add(2),
        };
        foca::Config {
            probe_period: self.probe,
            probe_rtt: self.probe / 3,
            num_indirect_probes: NonZeroUsize::MIN.saturating_add(2),
            max_transmissions: NonZeroU8::MIN.saturating_add(transmissions(members)),
            suspect_to_down_after: self.doubt,
            remove_down_after: Some(self.probe * 2400),
            max_packet_size: NonZeroUsize::MIN.saturating_add(DATAGRAM_MAX - 4),
            notify_down_members: false,
            periodic_announce: None,
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(every),
        }
    }
}

impl Default for Pace {
    fn default() -> Pace {
        Pace::LAN
    }
}

/// How often each member passes a piece of news on so that among so many nobody misses it.
pub(super) fn transmissions(members: usize) -> u8 {
    (members + 1).ilog2() as u8 + 4
}
