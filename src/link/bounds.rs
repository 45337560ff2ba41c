//! How much of each thing a link has at one time, and who gets a turn when many call at once.
//!
//! Strangers can begin handshakes, so no address may hold so many that others find none; and past half of a bound an address
//! must prove that it is where the packets come from, for whoever forges addresses could else use up those of others.
//!
//! Invariant: a turn is counted from its beginning until it is dropped. Left out: bounds in bytes, which `tune` and the sessions
//! have.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Peers.
    pub peers: usize,
    /// Handshakes that others began; more are not answered.
    pub handshakes: usize,
    /// Of those, handshakes from one address. An address of IPv6 is its first 64 bits: who has one has them all.
    pub handshakes_of_one: usize,
    /// Calls of our own.
    pub calls: usize,
    /// Bodies on their way out; bodies that one peer is expected to send.
    pub bodies: usize,
    /// Streams of one peer with bodies that are not expected yet; more are refused.
    pub early: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            peers: 4096,
            handshakes: 512,
            // Many nodes may begin at once behind one address.
            handshakes_of_one: 256,
            calls: 1024,
            bodies: 4096,
            early: 8,
        }
    }
}

/// The handshakes that others began.
#[derive(Default)]
pub(crate) struct Handshakes(Mutex<Under>);

#[derive(Default)]
struct Under {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// One of them; it is over when this is dropped.
pub(crate) struct Turn {
    handshakes: Arc<Handshakes>,
    of: IpAddr,
    /// There are so many that the address has to be proven before this costs us anything.
    pub prove: bool,
}

impl Handshakes {
    /// A turn for this address, if there is one.
    pub fn begin(self: &Arc<Handshakes>, addr: IpAddr, bounds: &Bounds) -> Option<Turn> {
        let of = whose(addr);
        let mut under = self.0.lock();
        let (all, own) = (under.all, under.of.get(&of).copied().unwrap_or(0));
        if all >= bounds.handshakes || own >= bounds.handshakes_of_one {
            return None;
        }
        under.all += 1;
        *under.of.entry(of).or_insert(0) += 1;
        Some(Turn {
            handshakes: Arc::clone(self),
            of,
            prove: all >= bounds.handshakes / 2 || own >= bounds.handshakes_of_one / 2,
        })
    }

    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.0.lock().all
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut under = self.handshakes.0.lock();
        under.all -= 1;
        if let Some(own) = under.of.get_mut(&self.of) {
            *own -= 1;
            if *own == 0 {
                under.of.remove(&self.of);
            }
        }
    }
}

fn whose(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) => {
            let [a, b, c, d, ..] = addr.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        addr => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn no_address_takes_the_turns_of_others() {
        let bounds = Bounds {
            handshakes: 6,
            handshakes_of_one: 4,
            ..Bounds::default()
        };
        let handshakes = Arc::<Handshakes>::default();
        let begin = |text| handshakes.begin(addr(text), &bounds);
        let turns: Vec<Option<Turn>> = (0..5).map(|_| begin("10.0.0.1")).collect();
        let proves = |turn: &Option<Turn>| turn.as_ref().map(|turn| turn.prove);
        // The first two as they come, the others once the address is proven, and the fifth never.
        let expected = [Some(false), Some(false), Some(true), Some(true), None];
        assert_eq!(turns.iter().map(proves).collect::<Vec<_>>(), expected);
        let others = [begin("10.0.0.2"), begin("::ffff:10.0.0.3")];
        assert_eq!(others.each_ref().map(proves), [Some(true); 2]);
        assert!(begin("10.0.0.4").is_none(), "six are six");
        drop(turns);
        assert_eq!(handshakes.count(), 2);
        assert_eq!(proves(&begin("10.0.0.1")), Some(false));
        drop(others);
        assert_eq!(handshakes.count(), 0);
        assert!(handshakes.0.lock().of.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        assert_eq!(whose(addr("2001:db8::1")), whose(addr("2001:db8::ffff:2")));
        assert_ne!(whose(addr("2001:db8::1")), whose(addr("2001:db8:0:1::1")));
        assert_eq!(whose(addr("::ffff:10.0.0.1")), addr("10.0.0.1"));
    }
}
