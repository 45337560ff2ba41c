//! Laws of sessions, over a medium that loses, repeats, reorders and breaks.
//!
//! Invariant: whatever the medium did, what was accepted arrives once and in order as soon as it behaves. Left out: real
//! connections.

use proptest::prelude::*;

use super::*;
use crate::base::NodeId;

#[derive(Clone, Debug)]
enum Step {
    Push { side: usize, len: usize },
    Write { side: usize },
    Ack { side: usize },
    Deliver { side: usize },
    Lose { side: usize },
    Repeat { side: usize },
    Swap { side: usize },
    Break { at_most: usize },
}

#[derive(Clone, Copy, Debug)]
enum Packet {
    Frame(u64, u32),
    Ack(u64),
}

const LIMIT: usize = 4096;

struct Pair {
    sessions: [Session<u32>; 2],
    /// On the way to each side.
    medium: [VecDeque<Packet>; 2],
    pushed: [Vec<u32>; 2],
    /// What each side was handed.
    handed: [Vec<u32>; 2],
}

impl Pair {
    fn new() -> Pair {
        Pair {
            sessions: [Session::new(LIMIT), Session::new(LIMIT)],
            medium: Default::default(),
            pushed: Default::default(),
            handed: Default::default(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Push { side, len } => {
                let next = self.pushed[side].len() as u32;
                let held = self.sessions[side].held();
                match self.sessions[side].push(next, len) {
                    Ok(()) => self.pushed[side].push(next),
                    Err(full) => {
                        assert!(held > 0 && held + len + FRAME_OVERHEAD > LIMIT);
                        assert_eq!((full.held, full.limit), (held, LIMIT));
                    }
                }
                assert!(self.sessions[side].held() <= LIMIT.max(len + FRAME_OVERHEAD));
            }
            Step::Write { side } => {
                if let Some((number, frame)) = self.sessions[side].next() {
                    let packet = Packet::Frame(number, *frame);
                    self.medium[1 - side].push_back(packet);
                }
            }
            Step::Ack { side } => {
                if let Some(upto) = self.sessions[side].take_ack() {
                    self.medium[1 - side].push_back(Packet::Ack(upto));
                }
            }
            Step::Deliver { side } => {
                if let Some(packet) = self.medium[side].pop_front() {
                    self.arrive(side, packet);
                }
            }
            Step::Lose { side } => {
                self.medium[side].pop_front();
            }
            Step::Repeat { side } => {
                if let Some(packet) = self.medium[side].front().copied() {
                    self.arrive(side, packet);
                }
            }
            Step::Swap { side } => {
                if self.medium[side].len() > 1 {
                    self.medium[side].swap(0, 1);
                }
            }
            Step::Break { at_most } => {
                // Some of what was under way may still come, late, on the connection that broke.
                self.medium
                    .iter_mut()
                    .for_each(|medium| medium.truncate(at_most));
                self.attach();
            }
        }
    }

    fn arrive(&mut self, side: usize, packet: Packet) {
        match packet {
            Packet::Ack(upto) => self.sessions[side].acknowledged(upto).unwrap(),
            Packet::Frame(number, frame) => {
                if self.sessions[side].receive(number, 1) == Arrival::Deliver {
                    self.handed[side].push(frame);
                }
            }
        }
    }

    fn attach(&mut self) {
        let received = [self.sessions[0].received(), self.sessions[1].received()];
        self.sessions[0].attach(received[1]).unwrap();
        self.sessions[1].attach(received[0]).unwrap();
    }

    /// The medium behaves from now on.
    fn drain(&mut self) {
        self.medium = Default::default();
        self.attach();
        for side in [0, 1] {
            while let Some((number, frame)) = self.sessions[side].next() {
                let packet = Packet::Frame(number, *frame);
                self.arrive(1 - side, packet);
            }
        }
        for side in [0, 1] {
            if let Some(upto) = self.sessions[side].take_ack() {
                self.arrive(1 - side, Packet::Ack(upto));
            }
        }
        self.attach();
    }
}

fn step() -> impl Strategy<Value = Step> {
    let side = 0..2usize;
    prop_oneof![
        4 => (side.clone(), 0..2000usize).prop_map(|(side, len)| Step::Push { side, len }),
        6 => side.clone().prop_map(|side| Step::Write { side }),
        2 => side.clone().prop_map(|side| Step::Ack { side }),
        6 => side.clone().prop_map(|side| Step::Deliver { side }),
        1 => side.clone().prop_map(|side| Step::Lose { side }),
        1 => side.clone().prop_map(|side| Step::Repeat { side }),
        1 => side.prop_map(|side| Step::Swap { side }),
        1 => (0..4usize).prop_map(|at_most| Step::Break { at_most }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_arrive_once_and_in_order(steps in prop::collection::vec(step(), 0..300)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
            for side in [0, 1] {
                let (handed, pushed) = (&pair.handed[1 - side], &pair.pushed[side]);
                prop_assert!(pushed.starts_with(handed), "handed {handed:?} of {pushed:?}");
            }
        }
        pair.drain();
        for side in [0, 1] {
            prop_assert_eq!(&pair.handed[1 - side], &pair.pushed[side]);
            prop_assert!(pair.sessions[side].is_clear());
            prop_assert_eq!(pair.sessions[side].held(), 0);
        }
    }

    #[test]
    fn of_two_connections_each_side_chooses_the_same(
        one in claim(),
        two in claim(),
    ) {
        // Both, or neither when they are the same: never each the other.
        prop_assert!(!(one.beats(&two) && two.beats(&one)));
        prop_assert_eq!(one == two, !one.beats(&two) && !two.beats(&one));
    }

    #[test]
    fn the_choice_has_no_circles(one in claim(), two in claim(), three in claim()) {
        if one.beats(&two) && two.beats(&three) {
            prop_assert!(one.beats(&three));
        }
    }
}

fn claim() -> impl Strategy<Value = Claim> {
    (0..3u64, 1..3u64, 0..3u64).prop_map(|(epoch, maker, attempt)| Claim {
        epoch,
        maker: NodeId::new(maker).unwrap(),
        attempt,
    })
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_a_lie() {
    let mut session = Session::new(LIMIT);
    session.push('a', 1).unwrap();
    let lie = Lie {
        said: 1,
        lowest: 0,
        highest: 0,
    };
    assert_eq!(session.acknowledged(1), Err(lie));
    assert_eq!(session.next(), Some((1, &'a')));
    assert_eq!(session.acknowledged(1), Ok(()));
    assert_eq!(session.attach(u64::MAX).unwrap_err().highest, 1);
}

#[test]
fn a_frame_larger_than_the_limit_fits_alone() {
    let mut session = Session::new(LIMIT);
    session.push((), 2 * LIMIT).unwrap();
    assert!(session.push((), 0).is_err());
    session.next().unwrap();
    session.acknowledged(1).unwrap();
    session.push((), 0).unwrap();
}

#[test]
fn a_missing_frame_is_noticed() {
    let mut session = Session::<()>::new(LIMIT);
    assert_eq!(session.receive(2, 1), Arrival::Gap { expected: 1 });
    assert_eq!(session.receive(1, 1), Arrival::Deliver);
    assert_eq!(session.receive(1, 1), Arrival::Duplicate);
    assert_eq!(session.receive(2, 1), Arrival::Deliver);
}

#[test]
fn acknowledgements_are_due_by_bytes_and_by_frames() {
    let mut session = Session::<()>::new(LIMIT);
    assert!(!session.owes_ack() && !session.ack_due());
    let _ = session.receive(1, ACK_BYTES);
    assert!(session.ack_due());
    assert_eq!(session.take_ack(), Some(1));
    for number in 2..=ACK_FRAMES + 1 {
        assert!(!session.ack_due());
        let _ = session.receive(number, 0);
    }
    assert!(session.ack_due());
    assert_eq!(session.take_ack(), Some(ACK_FRAMES + 1));
    assert_eq!(session.take_ack(), None);
}
