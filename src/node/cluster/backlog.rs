//! Frames that the link had no room for: what comes after waits behind them.
//!
//! The link keeps some for a node that does not take them; the rest waits here, since what nodes tell of references must not be
//! lost. A node that asks and asks, and never takes its answers, would fill this one's memory: at the bound it is given up, as one
//! that is dead.
//!
//! Invariant: frames of one node leave in the order in which they came; at most `limit` bytes wait for it. Left out: who is told that it
//! is dead (`peers`).

use std::collections::{HashMap, VecDeque};
use std::fmt;

use crate::base::NodeId;
use crate::link::SendError;

/// Bytes that may wait for one node, beside those that its link keeps.
const LIMIT: usize = 512 << 20;
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

#[derive(Default)]
struct Line {
    frames: VecDeque<Vec<u8>>,
    held: usize,
    /// One had no room: the node is as good as dead.
    deaf: bool,
}

/// See the file.
pub(super) struct Backlog {
    lines: HashMap<NodeId, Line>,
    limit: usize,
}

impl Backlog {
    pub fn new() -> Backlog {
        Backlog::with_limit(LIMIT)
    }

    fn with_limit(limit: usize) -> Backlog {
        Backlog {
            lines: HashMap::new(),
            limit,
        }
    }

    /// Whether something waits for this node, which nothing else may overtake.
    pub fn has(&self, to: NodeId) -> bool {
        self.lines.contains_key(&to)
    }

    /// How many frames wait for this node, if that is so much that it should be sent nothing that can be refused: more than half of
    /// what may.
    pub fn is_long(&self, to: NodeId) -> Option<usize> {
        let line = self.lines.get(&to)?;
        (line.held > self.limit / 2).then_some(line.frames.len())
    }

    /// A frame waits for this node. False: there is no room for it, and the node is to be taken for dead.
    pub fn push(&mut self, to: NodeId, frame: Vec<u8>) -> bool {
        let line = self.lines.entry(to).or_default();
        let cost = frame.len() + OVERHEAD;
        if line.deaf || line.held + cost > self.limit {
            line.deaf = true;
            return false;
        }
        line.held += cost;
        line.frames.push_back(frame);
        true
    }

    /// Those that are to be taken for dead, and why.
    pub fn deaf(&self) -> Vec<(NodeId, Deaf)> {
        let deaf = self.lines.iter().filter(|(_, line)| line.deaf);
        let limit = self.limit;
        deaf.map(|(to, line)| {
            (
                *to,
                Deaf {
                    held: line.held,
                    limit,
                },
            )
        })
        .collect()
    }

    /// A node is gone.
    pub fn remove(&mut self, to: NodeId) {
        self.lines.remove(&to);
    }

    /// Hands on what waits, as far as it is taken; what waits for a node that is gone is dropped.
    pub fn flush(&mut self, mut send: impl FnMut(NodeId, &[u8]) -> Result<(), SendError>) {
        self.lines.retain(|to, line| {
            while let Some(frame) = line.frames.front().filter(|_| !line.deaf) {
                match send(*to, frame) {
                    Ok(()) => {
                        line.held -= frame.len() + OVERHEAD;
                        line.frames.pop_front();
                    }
                    Err(SendError::Full { .. }) => return true,
                    Err(_) => return false,
                }
            }
            line.deaf
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
        let mut backlog = Backlog::with_limit(1000);
        let (one, two) = (node(1), node(2));
        let frame = |n: u8| vec![n; 36];
        // Each counts 100.
        assert!((0..10).all(|n| backlog.push(one, frame(n))));
        assert!((0..5).all(|n| backlog.push(two, frame(n))));
        assert_eq!(
            (backlog.is_long(one), backlog.is_long(two)),
            (Some(10), None)
        );
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
    fn what_waits_leaves_in_order_and_makes_room() {
        let mut backlog = Backlog::with_limit(300);
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
