//! Two sides with a network between them that keeps order, and a socket that breaks when chance wants it.
//!
//! Invariant: every frame arrives once and in order, and in the end nobody waits. Left out: networks that break (`session`).

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::core::session::{Arrival, Session};

#[derive(Clone, Copy, Debug)]
enum Said {
    Offer,
    Move,
    Back(u64),
    Frame(u64, u32),
    Ack(u64),
}

struct Side {
    carrier: Carrier,
    session: Session<u32>,
    /// What comes to it.
    network: VecDeque<Said>,
    socket: VecDeque<Said>,
    heard: Vec<u32>,
    handed: u32,
}

impl Side {
    fn new() -> Side {
        Side {
            carrier: Carrier::default(),
            session: Session::new(1 << 30),
            network: VecDeque::new(),
            socket: VecDeque::new(),
            heard: Vec::new(),
            handed: 0,
        }
    }

    fn hear(&mut self, said: Said, way: Way) {
        match said {
            Said::Offer => self.carrier.offered().unwrap(),
            Said::Move => self.carrier.peer_moved().unwrap(),
            Said::Back(has) => {
                self.session.acknowledged(has).unwrap();
                self.carrier.peer_back(has).unwrap();
            }
            Said::Ack(upto) => {
                self.carrier.check(way).unwrap();
                self.session.acknowledged(upto).unwrap();
            }
            Said::Frame(number, frame) => {
                self.carrier.check(way).unwrap();
                match self.session.receive(number, 4) {
                    Arrival::Deliver => self.heard.push(frame),
                    Arrival::Duplicate => {}
                    Arrival::Gap { expected } => panic!("{number} where {expected} is due"),
                }
            }
        }
    }
}

/// One step of the writer of `sides[at]`.
fn write(sides: &mut [Side; 2], at: usize) {
    let side = &mut sides[at];
    let turn = side.carrier.turn();
    let said = match turn {
        Turn::Move => Some((Way::Network, Said::Move)),
        Turn::Back => {
            let _ = side.session.take_ack();
            Some((Way::Network, Said::Back(side.session.received())))
        }
        Turn::Resume(has) => {
            side.session.attach(has).unwrap();
            None
        }
        Turn::Wait => None,
        Turn::Write(way) => {
            let session = &mut side.session;
            // Now and then before the frames, and else when there are none.
            let early = session.received().is_multiple_of(3);
            let ack = if early { session.take_ack() } else { None };
            let said = ack.map(Said::Ack);
            let said = said.or_else(|| session.next().map(|(n, frame)| Said::Frame(n, *frame)));
            let said = said.or_else(|| session.take_ack().map(Said::Ack));
            said.map(|said| (way, said))
        }
    };
    match said {
        Some((Way::Network, said)) => sides[1 - at].network.push_back(said),
        Some((Way::Socket, said)) => sides[1 - at].socket.push_back(said),
        None => {}
    }
}

fn read(sides: &mut [Side; 2], at: usize, way: Way) {
    let side = &mut sides[at];
    let said = match way {
        Way::Network => side.network.pop_front(),
        Way::Socket if side.carrier.reads_socket() => side.socket.pop_front(),
        Way::Socket => None,
    };
    if let Some(said) = said {
        side.hear(said, way);
    }
}

proptest! {
    #[test]
    fn frames_arrive_once_and_in_order(steps in prop::collection::vec((0..2usize, 0..9u8), 0..400)) {
        let mut sides = [Side::new(), Side::new()];
        sides[0].carrier.offered().unwrap();
        sides[1].network.push_back(Said::Offer);
        for (at, step) in steps {
            match step {
                0 | 1 => {
                    let side = &mut sides[at];
                    side.session.push(side.handed, 4).unwrap();
                    side.handed += 1;
                }
                2 | 3 => write(&mut sides, at),
                4 | 5 => read(&mut sides, at, Way::Network),
                6 => read(&mut sides, at, Way::Socket),
                7 => {
                    sides[at].carrier.opened();
                }
                // Seldom, and what is under way is lost. Whoever has no socket yet does not break one.
                _ if sides[at].handed % 7 == 6 && sides[at].carrier.socket == Socket::Open => {
                    sides[at].carrier.broke();
                    sides[at].socket.clear();
                    sides[1 - at].socket.clear();
                }
                _ => {}
            }
        }
        // One that was offered and never came is given up, as the driver does after a time.
        for side in &mut sides {
            while let Some(said) = side.network.pop_front() {
                side.hear(said, Way::Network);
            }
        }
        let both = sides.iter().all(|side| side.carrier.socket == Socket::Open);
        if !both {
            sides.iter_mut().for_each(|side| side.carrier.broke());
        }
        for _ in 0..2000 {
            for at in 0..2 {
                write(&mut sides, at);
                read(&mut sides, at, Way::Network);
                read(&mut sides, at, Way::Socket);
            }
        }
        let [one, two] = &sides;
        for (heard, handed) in [(&one.heard, two.handed), (&two.heard, one.handed)] {
            prop_assert_eq!(heard, &(0..handed).collect::<Vec<u32>>());
        }
        prop_assert!(one.session.is_clear() && two.session.is_clear(), "everything is acknowledged");
    }
}

#[test]
fn what_was_not_agreed_on_is_refused() {
    let mut side = Carrier::default();
    assert!(side.peer_moved().is_err());
    assert!(side.peer_back(0).is_err());
    side.offered().unwrap();
    assert!(side.offered().is_err());
    side.peer_moved().unwrap();
    assert!(side.peer_moved().is_err());
    // It moved: nothing may come over the network.
    assert!(side.check(Way::Network).is_err());
    assert!(side.opened());
    assert!(side.check(Way::Socket).is_ok());
    side.peer_back(3).unwrap();
    assert!(side.peer_back(3).is_err());
    assert!(side.peer_moved().is_err());
    assert!(side.check(Way::Network).is_ok());
    assert!(side.check(Way::Socket).is_err());
    assert!(!side.opened());
}
