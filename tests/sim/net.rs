//! A simulated network and clock: what happens when.
//!
//! Between each two nodes there is what a session gives: each message once, in the order sent, however late; nothing from a
//! node that is taken for dead. Across pairs there is no order.
//!
//! Invariant: events come by time, and those of one time in the order they were made. Left out: the session itself.

use std::collections::BTreeMap;

use crate::base::{NodeId, ObjectKey};
use crate::chance::Chance;
use crate::core::owners::{Message, RefState};
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
    Task {
        task: u64,
        result: ObjectKey,
        args: Vec<WireRef>,
    },
    Done {
        task: u64,
        outcome: Outcome,
        refs: Vec<WireRef>,
    },
    Refs(Vec<WireRef>),
}

impl Packet {
    /// The references in it.
    pub fn refs(&self) -> &[WireRef] {
        match self {
            Packet::Owners(_) => &[],
            Packet::Task { args: refs, .. } | Packet::Done { refs, .. } | Packet::Refs(refs) => {
                refs
            }
        }
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
    /// A transfer's source is asked for the bytes.
    Serve {
        to: NodeId,
        from: NodeId,
        key: ObjectKey,
        transfer: u64,
    },
    /// It ends.
    Fetched {
        node: NodeId,
        key: ObjectKey,
        transfer: u64,
        ok: bool,
    },
    /// A task that runs on a node is over.
    Ran {
        node: NodeId,
        run: u64,
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

/// The network.
#[derive(Debug)]
pub struct Net {
    pub now: u64,
    pub chance: Chance,
    plan: Plan,
    events: BTreeMap<(u64, u64), Event>,
    last: u64,
    /// When the last message of each pair arrives.
    pairs: BTreeMap<(NodeId, NodeId), u64>,
    /// One side of a split, and when it heals.
    split: Option<(Vec<NodeId>, u64)>,
    /// Some messages come twice.
    pub duplicate: bool,
    /// References under way, by object, from living nodes.
    pub under_way: BTreeMap<ObjectKey, u64>,
}

impl Net {
    pub fn new(plan: Plan) -> Net {
        Net {
            now: 0,
            chance: Chance::new(plan.seed),
            plan,
            events: BTreeMap::new(),
            last: 0,
            pairs: BTreeMap::new(),
            split: None,
            duplicate: false,
            under_way: BTreeMap::new(),
        }
    }

    /// Something happens after so long.
    pub fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, time: u64, event: Event) {
        self.last += 1;
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
        let last = self.pairs.entry((from, to)).or_insert(0);
        // Also in order among those of one time.
        let time = time.max(*last);
        *last = time;
        self.count(&packet, true);
        if self.duplicate && self.chance.permille(20) {
            self.count(&packet, true);
            let packet = packet.clone();
            self.at(time, Event::Deliver { from, to, packet });
        }
        self.at(time, Event::Deliver { from, to, packet });
    }

    fn count(&mut self, packet: &Packet, more: bool) {
        for reference in packet.refs() {
            let count = self.under_way.entry(reference.key).or_insert(0);
            if more {
                *count += 1;
            } else {
                *count -= 1;
                if *count == 0 {
                    self.under_way.remove(&reference.key);
                }
            }
        }
    }

    /// What happens next.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let ((time, _), event) = self.events.pop_first()?;
            self.now = time;
            if let Event::Deliver { from, to, packet } = &event {
                if let Some((side, heals)) = &self.split
                    && *heals > time
                    && side.contains(from) != side.contains(to)
                {
                    // They stay in order: all of this pair wait for the same moment.
                    let heals = *heals;
                    let last = self.pairs.entry((*from, *to)).or_insert(0);
                    *last = heals.max(*last);
                    self.at(heals, event);
                    continue;
                }
                let packet = packet.clone();
                self.count(&packet, false);
            }
            return Some(event);
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

    /// A node crashes: of what it sent, each receiver gets what came before some moment. References that are under way to it
    /// or from it are under way from nobody.
    pub fn crash(&mut self, node: NodeId) {
        let events = std::mem::take(&mut self.events);
        let mut cut = BTreeMap::new();
        for (at, event) in events {
            if let Event::Deliver { from, to, packet } = &event {
                if *to == node {
                    let packet = packet.clone();
                    self.count(&packet, false);
                    continue;
                }
                if *from == node {
                    let until = cut.entry(*to).or_insert_with(|| {
                        at.0 + self.chance.below(2) * self.chance.below(self.plan.latency)
                    });
                    if at.0 > *until {
                        let packet = packet.clone();
                        self.count(&packet, false);
                        continue;
                    }
                }
            }
            self.events.insert(at, event);
        }
    }
}
