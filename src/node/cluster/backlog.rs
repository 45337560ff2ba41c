//! Frames that the link had no room for: what comes after waits behind them.
//!
//! The link keeps some for a node that does not take them; the rest waits here, since what nodes tell of references must not be
//! lost. A node that asks and asks, and never takes its answers, would fill this one's memory: beyond a bound it is given up, as one
//! that is dead, unless it took something lately; one that is only slow has more room.
//!
//! Invariant: frames of one node leave in the order in which they came; at most `most` bytes wait for it. Left out: who is told that it
//! is dead (`peers`).

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use crate::base::NodeId;
use crate::link::{MAX_FRAME, SendError};

/// Bytes that may wait for one node that takes nothing, beside those that its link keeps.
const LIMIT: usize = 512 << 20;
/// How many times as many may wait for one that takes some.
const SLOW: usize = 8;
/// What each frame counts beside its bytes.
const OVERHEAD: usize = 64;

/// A node does not take what is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deaf {
    pub held: usize,
    pub limit: usize,
}

impl fmt::Display for Deaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Deaf { held, limit } = self;
        write!(
            f,
            "it does not take what is sent to it: {held} bytes wait, of {limit} that may"
        )
    }
}

struct Line {
    frames: VecDeque<Vec<u8>>,
    held: usize,
    /// When the node last took something, or began to take nothing.
    moved: Instant,
    /// One had no room: the node is as good as dead. The bound that it met.
    deaf: Option<usize>,
}

/// See the file.
pub(super) struct Backlog {
    lines: HashMap<NodeId, Line>,
    limit: usize,
    most: usize,
    /// Who takes nothing for longer is not only slow.
    patience: Duration,
}

impl Backlog {
    pub fn new(patience: Duration) -> Backlog {
        Backlog::with_limits(LIMIT, LIMIT * SLOW, patience)
    }

    fn with_limits(limit: usize, most: usize, patience: Duration) -> Backlog {
        Backlog {
            lines: HashMap::new(),
            limit,
            most,
            patience,
        }
    }

    /// Whether something waits for this node, which nothing else may overtake.
    pub fn has(&self, to: NodeId) -> bool {
        self.lines.contains_key(&to)
    }

    /// How many bytes wait for this node, if that is so much that it should be sent nothing that can be refused: more than half of
    /// what may.
    pub fn is_long(&self, to: NodeId) -> Option<Deaf> {
        let line = self.lines.get(&to)?;
        let (held, limit) = (line.held, self.most);
        (held > limit / 2).then_some(Deaf { held, limit })
    }

    /// A frame waits for this node. False: it is longer than any may be, or there is no room for it, and then the node is to be taken
    /// for dead.
    pub fn push(&mut self, to: NodeId, frame: Vec<u8>) -> bool {
        if frame.len() > MAX_FRAME {
            return false;
        }
        let line = self.lines.entry(to).or_insert_with(|| Line {
            frames: VecDeque::new(),
            held: 0,
            moved: Instant::now(),
            deaf: None,
        });
        let held = line.held + frame.len() + OVERHEAD;
        let stands = || line.moved.elapsed() >= self.patience;
        if held > self.limit && stands() {
            line.deaf.get_or_insert(self.limit);
        } else if held > self.most {
            line.deaf.get_or_insert(self.most);
        }
        if line.deaf.is_some() {
            return false;
        }
        line.held = held;
        line.frames.push_back(frame);
        true
    }

    /// Those that are to be taken for dead, and why.
    pub fn deaf(&self) -> Vec<(NodeId, Deaf)> {
        let deaf = self.lines.iter().filter_map(|(to, line)| {
            let (held, limit) = (line.held, line.deaf?);
            Some((*to, Deaf { held, limit }))
        });
        deaf.collect()
    }

    /// A node is gone.
    pub fn remove(&mut self, to: NodeId) {
        self.lines.remove(&to);
    }

    /// Hands on what waits, as far as it is taken; what waits for a node that is gone is dropped.
    pub fn flush(&mut self, mut send: impl FnMut(NodeId, &[u8]) -> Result<(), SendError>) {
        self.lines.retain(|to, line| {
            while let Some(frame) = line.frames.front().filter(|_| line.deaf.is_none()) {
                match send(*to, frame) {
                    Ok(()) => {
                        line.moved = Instant::now();
                        line.held -= frame.len() + OVERHEAD;
                        line.frames.pop_front();
                    }
                    Err(SendError::Full { .. }) => return true,
                    Err(_) => return false,
                }
            }
            line.deaf.is_some()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u64) -> NodeId {
        NodeId::new(n).unwrap()
    }

    #[test]
    fn who_takes_nothing_is_given_up_at_the_bound_and_others_are_not() {
        let mut backlog = Backlog::with_limits(1000, 8000, Duration::ZERO);
        let (one, two) = (node(1), node(2));
        let frame = |n: u8| vec![n; 36];
        // Each counts 100.
        assert!((0..10).all(|n| backlog.push(one, frame(n))));
        assert!((0..5).all(|n| backlog.push(two, frame(n))));
        assert_eq!(backlog.deaf(), []);
        assert!(!backlog.push(one, frame(10)), "an eleventh");
        let deaf = backlog.deaf();
        assert_eq!(
            deaf,
            [(
                one,
                Deaf {
                    held: 1000,
                    limit: 1000
                }
            )]
        );
        let why = deaf[0].1.to_string();
        assert!(why.contains("1000 bytes wait, of 1000"), "{why}");
        // Nothing more goes to it, in whatever order: a frame is missing.
        let mut sent = Vec::new();
        backlog.flush(|to, frame| {
            sent.push((to, frame[0]));
            Ok(())
        });
        assert_eq!(sent, (0..5).map(|n| (two, n)).collect::<Vec<_>>());
        assert!(backlog.has(one) && !backlog.has(two));
        assert!(!backlog.push(one, frame(11)));
        // Another process may come with the same address, under another number.
        backlog.remove(one);
        assert!(!backlog.has(one) && backlog.deaf().is_empty());
    }

    #[test]
    fn who_takes_something_has_more_room() {
        let mut backlog = Backlog::with_limits(1000, 3000, Duration::from_secs(3600));
        let one = node(1);
        assert!((0..15).all(|n| backlog.push(one, vec![n; 36])));
        assert_eq!(backlog.is_long(one), None);
        assert!((15..30).all(|n| backlog.push(one, vec![n; 36])));
        let (held, limit) = (3000, 3000);
        assert_eq!(backlog.is_long(one), Some(Deaf { held, limit }));
        assert_eq!(backlog.deaf(), []);
        assert!(!backlog.push(one, vec![0; 36]), "the most");
        assert_eq!(backlog.deaf(), [(one, Deaf { held, limit })]);
        // What no link takes is not kept, and nobody's fault.
        assert!(!backlog.push(node(2), vec![0; MAX_FRAME + 1]));
        assert!(!backlog.has(node(2)));
    }

    #[test]
    fn what_waits_leaves_in_order_and_makes_room() {
        let mut backlog = Backlog::with_limits(300, 300, Duration::ZERO);
        let one = node(1);
        let mut sent = Vec::new();
        for n in 0..30u8 {
            assert!(backlog.push(one, vec![n; 36]), "{n}");
            if n % 3 < 2 {
                continue;
            }
            // The link takes two, then all.
            let mut room = 2;
            for _ in 0..2 {
                backlog.flush(|to, frame| {
                    if room == 0 {
                        room = 9;
                        let (held, limit) = (9, 9);
                        return Err(SendError::Full { to, held, limit });
                    }
                    room -= 1;
                    sent.push(frame[0]);
                    Ok(())
                });
            }
            assert!(!backlog.has(one));
        }
        assert_eq!(sent, (0..30).collect::<Vec<u8>>());
        backlog.push(one, vec![1]);
        backlog.flush(|to, _| Err(SendError::Gone(to)));
        assert!(!backlog.has(one), "nobody is there to take it");
    }
}
