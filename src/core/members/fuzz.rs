//! Any bytes as a datagram of membership, to a machine that knows a few others.
//!
//! Invariant: what is refused changes nobody's standing, no datagram makes the machine do much, and it goes on afterwards. Left
//! out: many datagrams of a liar, which `tests/sim` has.

use std::time::Duration;

use ::core::net::Ipv4Addr;

use super::frame::{self, Frame, put_view};
use super::views::Item;
use super::{DATAGRAM_MAX, Duty, Effect, Event, Members, Pace, Peer, Rank};
use crate::base::NodeId;
use crate::base::hostile::cheaply;

fn peer(n: u16) -> Peer {
    Peer {
        node: NodeId::new(n.into()).expect("not 0"),
        addr: (Ipv4Addr::LOCALHOST, n).into(),
        head: n == 1,
    }
}

/// Nodes 1, 2 and 3, of which it is the first.
fn machine() -> (Members, Duration, Vec<Effect>) {
    let mut machine = Members::new(peer(1), Pace::LAN, 7);
    let (mut now, mut out) = (Duration::from_secs(1), Vec::new());
    let start = Event::Start { join: vec![] };
    machine.handle(now, start, &mut out).expect("it begins");
    for other in [2, 3] {
        let meet = Event::Meet(peer(other));
        machine.handle(now, meet, &mut out).expect("they meet");
    }
    now += Duration::from_millis(5);
    machine.handle(now, Event::Tick, &mut out).expect("a tick");
    (machine, now, out)
}

/// True ones: what nodes 2 and 3 would say, and one of each other kind.
pub fn samples() -> Vec<Vec<u8>> {
    let (one, two) = (peer(1), peer(2));
    let mut all: Vec<Vec<u8>> = [
        Frame::Ask {
            origin: two,
            target: one,
            suspected: Some(3),
        },
        Frame::Alive {
            origin: one,
            who: two,
            incarnation: 5,
        },
        Frame::Views,
        Frame::Pull { from: 2 },
        Frame::Page {
            members: vec![two, peer(3), peer(4)],
            last: true,
        },
        Frame::Knock,
        Frame::Verdict(Rank {
            head: true,
            living: 4,
            lowest: 9,
        }),
    ]
    .iter()
    .map(frame::write)
    .collect();
    let view = Item {
        node: two.node,
        version: 3,
        duty: Duty::Draining,
        bytes: &[7; 40],
    };
    for at in [2, 4] {
        put_view(&mut all[at], &view);
    }
    // What foca says: heard by another that meets this one.
    let mut other = Members::new(two, Pace::LAN, 8);
    let mut now = Duration::from_secs(1);
    let mut said = Vec::new();
    let start = Event::Start { join: vec![one] };
    other.handle(now, start, &mut said).expect("it begins");
    let meet = Event::Meet(one);
    other.handle(now, meet, &mut said).expect("they meet");
    for _ in 0..40 {
        now += Duration::from_millis(20);
        other.handle(now, Event::Tick, &mut said).expect("a tick");
    }
    all.extend(said.into_iter().filter_map(|effect| match effect {
        Effect::Send { bytes, .. } => Some(bytes),
        _ => None,
    }));
    all
}

/// See the file.
pub fn datagrams(bytes: &[u8]) {
    let (from, me) = (peer(2).node, peer(1).node);
    if let Ok((read, views)) = cheaply(bytes.len(), 64, || frame::read(bytes, from, me)) {
        // Written again it is the same, but for how foca orders nothing at all.
        let mut again = frame::write(&read);
        views.iter().for_each(|view| put_view(&mut again, view));
        assert_eq!(again, bytes);
    }
    let (mut machine, mut now, mut out) = machine();
    out.clear();
    let before = (machine.living().len(), machine.get(from).is_some());
    let heard = Event::Datagram { from, bytes };
    if machine.handle(now, heard, &mut out).is_err() {
        assert_eq!(
            before,
            (machine.living().len(), machine.get(from).is_some())
        );
    }
    assert!(machine.living().len() <= bytes.len());
    for _ in 0..8 {
        now += Duration::from_millis(50);
        let _ = machine.handle(now, Event::Tick, &mut out);
    }
    assert!(
        out.len() <= 64 + bytes.len(),
        "it does {} things",
        out.len()
    );
    for effect in &out {
        if let Effect::Send { bytes, .. } = effect {
            assert!(bytes.len() <= DATAGRAM_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hostile::spoiled;

    #[test]
    fn spoiled_datagrams_are_refused_or_heard() {
        assert!(samples().len() > 10, "foca said something");
        spoiled(2, 3_000, &samples(), datagrams);
    }
}
