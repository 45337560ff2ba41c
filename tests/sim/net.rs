//! A simulated network and clock: what happens when.
//!
//! Between each two nodes there is what a session gives: each message once, in the order sent, however late; nothing from a
//! node that is taken for dead. Across pairs there is no order.
//!
//! Invariant: events come by time, and those of one time in the order they were made. Left out: the session itself.

use std::collections::{BTreeMap, VecDeque};

use crate::base::{Demand, NodeId, ObjectKey};
use crate::chance::Chance;
use crate::core::groups::GroupMsg;
use crate::core::leases::LeaseMsg;
use crate::core::owners::{Message, RefState};
use crate::core::view::NodeView;
use crate::faults::Fault;
use crate::plan::Plan;

/// A reference in a message.
#[derive(Clone, Debug)]
pub struct WireRef {
    pub key: ObjectKey,
    pub transit: u64,
    pub state: RefState,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The value is in the message.
    Inline(u64),
    /// The value is where it ran.
    There(u64),
    Failed,
}

/// What nodes send each other.
#[derive(Clone, Debug)]
pub enum Packet {
    Owners(Message),
    Lease(LeaseMsg),
    Group(GroupMsg),
    News(NodeView),
    Task {
        call: u64,
        lease: u32,
        demand: Demand,
        result: ObjectKey,
        args: Vec<WireRef>,
    },
    Done {
        call: u64,
        outcome: Outcome,
        /// Those in the value.
        inner: Vec<WireRef>,
        refs: Vec<WireRef>,
    },
    Refs(Vec<WireRef>),
    /// What a transfer brings: a value, and the references in it.
    Bytes {
        key: ObjectKey,
        transfer: u64,
        inner: Vec<WireRef>,
    },
}

impl Packet {
    /// The objects that are referred to in it.
    fn keys(&self) -> Vec<ObjectKey> {
        let (some, more): (&[WireRef], &[WireRef]) = match self {
            Packet::Owners(_) | Packet::Lease(_) | Packet::Group(_) | Packet::News(_) => (&[], &[]),
            Packet::Task { args: refs, .. } | Packet::Refs(refs) => (refs, &[]),
            Packet::Done { refs, inner, .. } => (refs, inner),
            Packet::Bytes { inner, .. } => (inner, &[]),
        };
        some.iter()
            .chain(more)
            .map(|reference| reference.key)
            .collect()
    }
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    Deliver {
        from: NodeId,
        to: NodeId,
        packet: Packet,
    },
    /// The next message of this pair arrives; [`Net::next`] makes it a `Deliver`.
    Arrive {
        from: NodeId,
        to: NodeId,
    },
    /// A transfer's source is asked for the bytes.
    Serve {
        to: NodeId,
        from: NodeId,
        key: ObjectKey,
        transfer: u64,
    },
    /// It fails.
    Broken {
        node: NodeId,
        key: ObjectKey,
        transfer: u64,
    },
    /// A task that runs on a node is over.
    Ran {
        node: NodeId,
        run: (NodeId, u64),
    },
    /// A lost object is made anew.
    Rebuilt {
        node: NodeId,
        number: u64,
    },
    /// Some program does something.
    Act,
    Crash,
    Split,
    /// A node hears of a death.
    Learn {
        node: NodeId,
        dead: NodeId,
    },
    Tick {
        node: NodeId,
    },
}

/// What is under way from one node to another, in order.
#[derive(Debug, Default)]
struct Pair {
    queue: VecDeque<Packet>,
    /// When the last of them arrives.
    last: u64,
}

/// The network.
#[derive(Debug)]
pub struct Net {
    pub now: u64,
    pub chance: Chance,
    plan: Plan,
    events: BTreeMap<(u64, u64), Event>,
    /// Those of them that are no ticks.
    to_come: u64,
    /// Messages under way in which a node tells of itself.
    news: u64,
    last: u64,
    pairs: BTreeMap<(NodeId, NodeId), Pair>,
    /// One side of a split, and when it heals.
    split: Option<(Vec<NodeId>, u64)>,
    pub fault: Fault,
    /// References under way, by object, from living nodes.
    pub under_way: BTreeMap<ObjectKey, u64>,
}

impl Net {
    pub fn new(plan: Plan, fault: Fault) -> Net {
        Net {
            now: 0,
            chance: Chance::new(plan.seed),
            plan,
            events: BTreeMap::new(),
            to_come: 0,
            news: 0,
            last: 0,
            pairs: BTreeMap::new(),
            split: None,
            fault,
            under_way: BTreeMap::new(),
        }
    }

    /// Something happens after so long.
    pub fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, time: u64, event: Event) {
        self.last += 1;
        self.to_come += u64::from(!matches!(event, Event::Tick { .. }));
        self.events.insert((time, self.last), event);
    }

    /// How long one message takes.
    pub fn latency(&mut self) -> u64 {
        let most = self.plan.latency;
        let usual = self.chance.between(most / 10, most);
        if self.chance.permille(self.plan.losses) {
            usual + self.chance.below(self.plan.late)
        } else {
            usual
        }
    }

    pub fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        let time = self.now + self.latency();
        let times = match self.fault {
            Fault::Duplicate if self.chance.permille(20) => 2,
            _ => 1,
        };
        let first = self.fault == Fault::Reorder && self.chance.permille(20);
        for _ in 0..times {
            self.count(&packet, true);
            let pair = self.pairs.entry((from, to)).or_default();
            pair.last = time.max(pair.last);
            if first {
                pair.queue.push_front(packet.clone());
            } else {
                pair.queue.push_back(packet.clone());
            }
            let last = pair.last;
            self.at(last, Event::Arrive { from, to });
        }
    }

    /// Whether something is to come, other than ticks and what nodes tell of themselves at each.
    pub fn is_busy(&self) -> bool {
        self.to_come > self.news
    }

    fn count(&mut self, packet: &Packet, more: bool) {
        if let Packet::News(_) = packet {
            self.news = if more { self.news + 1 } else { self.news - 1 };
        }
        for key in packet.keys() {
            let count = self.under_way.entry(key).or_insert(0);
            if more {
                *count += 1;
            } else {
                *count -= 1;
                if *count == 0 {
                    self.under_way.remove(&key);
                }
            }
        }
    }

    /// What happens next.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let ((time, _), event) = self.events.pop_first()?;
            self.now = time;
            self.to_come -= u64::from(!matches!(event, Event::Tick { .. }));
            let Event::Arrive { from, to } = event else {
                return Some(event);
            };
            if self.apart(from, to) {
                let heals = self.split.as_ref().map_or(time, |(_, heals)| *heals);
                self.at(heals, event);
            } else if let Some(pair) = self.pairs.get_mut(&(from, to))
                && let Some(packet) = pair.queue.pop_front()
            {
                self.count(&packet, false);
                return Some(Event::Deliver { from, to, packet });
            }
        }
    }

    /// Splits the nodes in two for so long.
    pub fn split(&mut self, side: Vec<NodeId>, time: u64) {
        self.split = Some((side, self.now + time));
    }

    /// Whether they cannot reach each other now.
    pub fn apart(&self, a: NodeId, b: NodeId) -> bool {
        self.split.as_ref().is_some_and(|(side, heals)| {
            *heals > self.now && side.contains(&a) != side.contains(&b)
        })
    }

    /// A node crashes: of what it sent, each receiver gets what came before some moment. What is under way to it is lost.
    pub fn crash(&mut self, node: NodeId) {
        let pairs: Vec<(NodeId, NodeId)> = self.pairs.keys().copied().collect();
        for (from, to) in pairs {
            let Some(pair) = self.pairs.get_mut(&(from, to)) else {
                continue;
            };
            let keep = match node {
                _ if node == to => 0,
                _ if node == from => self.chance.below(pair.queue.len() as u64 + 1) as usize,
                _ => continue,
            };
            for packet in pair.queue.split_off(keep) {
                self.count(&packet, false);
            }
        }
    }
}
