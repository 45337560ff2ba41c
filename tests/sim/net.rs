//! A simulated network and clock: what happens when.
//!
//! Between each two nodes there are the sessions of the product, over connections that keep what is sent in order, are slow
//! at times, break, and are made again. What was under way on a broken one is lost. While the nodes are split, no
//! connection leads from one side to the other.
//!
//! Invariant: events come by time, and those of one time in the order they were made. What a session hands over is checked
//! against what was sent: each once, in order. Datagrams have no session: each goes its own way, and may be lost, come twice, or after those
//! that were sent later. Left out: membership, see `members`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::base::{Demand, NodeId, ObjectKey};
use crate::chance::Chance;
use crate::core::groups::GroupMsg;
use crate::core::leases::LeaseMsg;
use crate::core::owners::{Message, RefState};
use crate::core::session::{Arrival, Session};
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
    /// A frame of a connection arrives; [`Net::next`] makes it a `Deliver`.
    Frame {
        from: NodeId,
        to: NodeId,
        epoch: u64,
        number: u64,
        packet: Packet,
    },
    /// It is time to acknowledge what came from `to`.
    AckDue {
        from: NodeId,
        to: NodeId,
    },
    /// An acknowledgement arrives.
    Ack {
        from: NodeId,
        to: NodeId,
        epoch: u64,
        upto: u64,
    },
    /// A datagram arrives; [`Net::next`] makes it a `Deliver`.
    Datagram {
        from: NodeId,
        to: NodeId,
        number: u64,
        packet: Packet,
    },
    /// Some connection breaks.
    Break,
    /// A broken connection is made again.
    Connect {
        a: NodeId,
        b: NodeId,
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

impl Event {
    /// Whether a run is not over before it.
    fn counts(&self) -> bool {
        use Event::{Ack, AckDue, Break, Connect, Datagram, Frame, Tick};
        !matches!(
            self,
            Ack { .. }
                | AckDue { .. }
                | Break
                | Connect { .. }
                | Datagram { .. }
                | Frame { .. }
                | Tick { .. }
        )
    }
}

/// What one node has to do with another.
#[derive(Debug)]
struct Pair {
    session: Session<Packet>,
    /// When the last frame arrives there.
    last: u64,
    /// What was sent and not handed over there, and the number of the first of it.
    sent: VecDeque<Packet>,
    first: u64,
    /// For a planted fault: a message that the next one overtakes.
    held: Option<Packet>,
    ack_due: bool,
}

impl Default for Pair {
    fn default() -> Pair {
        Pair {
            session: Session::new(usize::MAX),
            last: 0,
            sent: VecDeque::new(),
            first: 1,
            held: None,
            ack_due: false,
        }
    }
}

/// The connection of two nodes.
#[derive(Debug, Default)]
struct Link {
    down: bool,
    /// Counts up; frames of an earlier one are lost.
    epoch: u64,
}

/// What became of datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Datagrams {
    pub lost: u64,
    pub doubled: u64,
    /// Came after one that was sent later.
    pub overtaken: u64,
}

/// Bytes that each message counts.
const LEN: usize = 100;

/// The network.
#[derive(Debug)]
pub struct Net {
    pub now: u64,
    pub chance: Chance,
    plan: Plan,
    events: BTreeMap<(u64, u64), Event>,
    /// Those of them that are neither ticks nor the network's own, and messages under way that are no news.
    to_come: u64,
    last: u64,
    pairs: BTreeMap<(NodeId, NodeId), Pair>,
    links: BTreeMap<(NodeId, NodeId), Link>,
    dead: BTreeSet<NodeId>,
    /// The number of the latest datagram that came, of each sender at each receiver.
    heard: BTreeMap<(NodeId, NodeId), u64>,
    pub datagrams: Datagrams,
    pub breaks: u64,
    /// What a session did wrong.
    pub wrong: Option<String>,
    /// One side of a split, and when it heals.
    split: Option<(Vec<NodeId>, u64)>,
    pub fault: Fault,
    /// References under way, by object, from living nodes.
    pub under_way: BTreeMap<ObjectKey, u64>,
}

impl Net {
    /// How many there were at first.
    pub fn nodes(&self) -> u64 {
        self.plan.nodes
    }

    pub fn new(plan: Plan, fault: Fault) -> Net {
        Net {
            now: 0,
            chance: Chance::new(plan.seed),
            plan,
            events: BTreeMap::new(),
            to_come: 0,
            last: 0,
            pairs: BTreeMap::new(),
            links: BTreeMap::new(),
            dead: BTreeSet::new(),
            heard: BTreeMap::new(),
            datagrams: Datagrams::default(),
            breaks: 0,
            wrong: None,
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
        self.to_come += u64::from(event.counts());
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
        if self.dead.contains(&to) {
            return;
        }
        self.count(&packet, true);
        let hold = self.fault == Fault::Reorder && self.chance.permille(20);
        let pair = self.pairs.entry((from, to)).or_default();
        if hold && pair.held.is_none() {
            pair.held = Some(packet);
            return;
        }
        for packet in std::iter::once(packet).chain(pair.held.take()) {
            pair.sent.push_back(packet.clone());
            if pair.session.push(packet, LEN).is_err() {
                self.wrong = Some(format!("the session of {from:?} with {to:?} is full"));
            }
        }
        self.pump(from, to);
    }

    /// Sends what nobody waits for.
    pub fn datagram(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        let down = self.links.get(&link(from, to)).is_some_and(|l| l.down);
        if down || self.chance.permille(self.plan.losses) {
            self.datagrams.lost += 1;
            return;
        }
        let twice = self.chance.permille(self.plan.losses);
        self.datagrams.doubled += u64::from(twice);
        for _ in 0..1 + u64::from(twice) {
            let time = self.now + self.latency();
            let datagram = Event::Datagram {
                from,
                to,
                number: self.last,
                packet: packet.clone(),
            };
            self.at(time, datagram);
        }
    }

    /// A datagram arrives.
    fn hear(&mut self, from: NodeId, to: NodeId, number: u64, packet: Packet) -> Option<Event> {
        if self.dead.contains(&to) || self.apart(from, to) {
            self.datagrams.lost += 1;
            return None;
        }
        let latest = self.heard.entry((from, to)).or_default();
        self.datagrams.overtaken += u64::from(number < *latest);
        *latest = number.max(*latest);
        Some(Event::Deliver { from, to, packet })
    }

    /// Puts frames on the connection.
    fn pump(&mut self, from: NodeId, to: NodeId) {
        let apart = self.apart(from, to);
        let link = self.links.entry(link(from, to)).or_default();
        if !link.down && apart {
            self.cut(from, to, 0);
            return;
        }
        if link.down {
            return;
        }
        let epoch = link.epoch;
        while let Some(pair) = self.pairs.get_mut(&(from, to))
            && let Some((number, packet)) = pair.session.next()
        {
            let packet = packet.clone();
            let time = self.now + self.latency();
            let Some(pair) = self.pairs.get_mut(&(from, to)) else {
                return;
            };
            pair.last = time.max(pair.last);
            let time = pair.last;
            let frame = Event::Frame {
                from,
                to,
                epoch,
                number,
                packet,
            };
            // A connection does not do that, but the session is there for it.
            if self.chance.permille(self.plan.losses / 10) {
                self.at(time, frame.clone());
            }
            self.at(time, frame);
        }
    }

    /// Breaks a connection, and makes it again later.
    fn cut(&mut self, a: NodeId, b: NodeId, after: u64) {
        let link = self.links.entry(link(a, b)).or_default();
        if link.down {
            return;
        }
        link.down = true;
        link.epoch += 1;
        self.breaks += 1;
        let heals = self
            .split
            .as_ref()
            .filter(|_| self.apart(a, b))
            .map_or(0, |(_, heals)| *heals);
        self.at(heals.max(self.now + after), Event::Connect { a, b });
        for pair in [(a, b), (b, a)] {
            if let Some(pair) = self.pairs.get_mut(&pair) {
                pair.last = 0;
            }
            if self.dead.contains(&pair.0) {
                self.lose(pair.0, pair.1, 0);
            }
        }
    }

    /// All but the first so many messages that are under way are lost for good.
    fn lose(&mut self, from: NodeId, to: NodeId, keep: usize) {
        if let Some(pair) = self.pairs.get_mut(&(from, to)) {
            let keep = keep.min(pair.sent.len());
            for packet in pair
                .sent
                .split_off(keep)
                .into_iter()
                .chain(pair.held.take())
            {
                self.count(&packet, false);
            }
        }
    }

    /// A node holds another for dead: what is still under way from that one never comes.
    pub fn forget(&mut self, dead: NodeId, at: NodeId) {
        self.lose(dead, at, 0);
    }

    fn connect(&mut self, a: NodeId, b: NodeId) {
        if self.apart(a, b) {
            let heals = self.split.as_ref().map_or(self.now, |(_, heals)| *heals);
            return self.at(heals, Event::Connect { a, b });
        }
        if self.dead.contains(&a) || self.dead.contains(&b) {
            return;
        }
        self.links.entry(link(a, b)).or_default().down = false;
        for (from, to) in [(a, b), (b, a)] {
            let has = self.pairs.entry((to, from)).or_default().session.received();
            let session = &mut self.pairs.entry((from, to)).or_default().session;
            if let Err(lie) = session.attach(has) {
                self.wrong = Some(format!("{from:?} takes {to:?} to lie: {lie:?}"));
            }
            self.pump(from, to);
        }
    }

    /// A frame arrives: what the receiver's session makes of it.
    fn arrive(&mut self, from: NodeId, to: NodeId, number: u64, packet: Packet) -> Option<Event> {
        if self.dead.contains(&to) {
            return None;
        }
        let back = self.pairs.entry((to, from)).or_default();
        let arrival = back.session.receive(number, LEN);
        if !std::mem::replace(&mut back.ack_due, true) {
            let wait = if back.session.ack_due() { 0 } else { 5_000 };
            self.after(wait, Event::AckDue { from: to, to: from });
        }
        let pair = self.pairs.entry((from, to)).or_default();
        match arrival {
            Arrival::Deliver if number >= pair.first + pair.sent.len() as u64 => return None,
            Arrival::Deliver if number == pair.first => {
                pair.first += 1;
                if let Some(sent) = pair.sent.pop_front() {
                    self.count(&sent, false);
                }
                if self.fault == Fault::Duplicate && self.chance.permille(20) {
                    let packet = packet.clone();
                    self.after(0, Event::Deliver { from, to, packet });
                }
            }
            Arrival::Duplicate => return None,
            Arrival::Deliver | Arrival::Gap { .. } => {
                self.wrong = Some(format!("frame {number} of {from:?} to {to:?}: {arrival:?}"));
            }
        }
        Some(Event::Deliver { from, to, packet })
    }

    fn acknowledge(&mut self, from: NodeId, to: NodeId) {
        let epoch = self.links.entry(link(from, to)).or_default().epoch;
        let pair = self.pairs.entry((from, to)).or_default();
        pair.ack_due = false;
        if let Some(upto) = pair.session.take_ack() {
            let time = self.latency();
            let ack = Event::Ack {
                from,
                to,
                epoch,
                upto,
            };
            self.after(time, ack);
        }
    }

    /// Frames that were sent again.
    pub fn resent(&self) -> u64 {
        self.pairs.values().map(|pair| pair.session.resent()).sum()
    }

    /// Whether something is to come, other than ticks and what nodes tell of themselves at each.
    pub fn is_busy(&self) -> bool {
        self.to_come > 0
    }

    fn count(&mut self, packet: &Packet, more: bool) {
        if !matches!(packet, Packet::News(_)) {
            self.to_come = if more {
                self.to_come + 1
            } else {
                self.to_come - 1
            };
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

    /// What happens next, to nodes.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let ((time, _), event) = self.events.pop_first()?;
            self.now = time;
            self.to_come -= u64::from(event.counts());
            let current = |from, to, epoch| {
                let link = self.links.get(&link(from, to));
                link.is_none_or(|link| link.epoch == epoch)
            };
            match event {
                Event::Frame {
                    from,
                    to,
                    epoch,
                    number,
                    packet,
                } => {
                    if current(from, to, epoch)
                        && let Some(event) = self.arrive(from, to, number, packet)
                    {
                        return Some(event);
                    }
                }
                Event::Datagram {
                    from,
                    to,
                    number,
                    packet,
                } => {
                    if let Some(event) = self.hear(from, to, number, packet) {
                        return Some(event);
                    }
                }
                Event::AckDue { from, to } => self.acknowledge(from, to),
                Event::Ack {
                    from,
                    to,
                    epoch,
                    upto,
                } => {
                    if current(from, to, epoch)
                        && let Some(pair) = self.pairs.get_mut(&(to, from))
                        && let Err(lie) = pair.session.acknowledged(upto)
                    {
                        self.wrong = Some(format!("{to:?} takes {from:?} to lie: {lie:?}"));
                    }
                }
                Event::Break => {
                    let links: Vec<(NodeId, NodeId)> = self.links.keys().copied().collect();
                    if let Some((a, b)) = self.chance.pick(&links) {
                        let after = self.chance.below(self.plan.reconnect);
                        self.cut(a, b, after);
                    }
                }
                Event::Connect { a, b } => self.connect(a, b),
                event => return Some(event),
            }
        }
    }

    /// Splits the nodes in two for so long.
    pub fn split(&mut self, side: Vec<NodeId>, time: u64) {
        self.split = Some((side, self.now + time));
        let links: Vec<(NodeId, NodeId)> = self.links.keys().copied().collect();
        for (a, b) in links {
            if self.apart(a, b) {
                self.cut(a, b, 0);
            }
        }
    }

    /// Whether they cannot reach each other now.
    pub fn apart(&self, a: NodeId, b: NodeId) -> bool {
        self.split.as_ref().is_some_and(|(side, heals)| {
            *heals > self.now && side.contains(&a) != side.contains(&b)
        })
    }

    /// A node crashes: of what it sent, each receiver gets what came before some moment, and nothing that a broken connection
    /// lost. What is under way to it is lost.
    pub fn crash(&mut self, node: NodeId) {
        self.dead.insert(node);
        let pairs: Vec<(NodeId, NodeId)> = self.pairs.keys().copied().collect();
        for (from, to) in pairs {
            if node == to {
                self.lose(from, to, 0);
            } else if node == from {
                let down = self
                    .links
                    .get(&link(from, to))
                    .is_some_and(|link| link.down);
                let most = self
                    .pairs
                    .get(&(from, to))
                    .map_or(0, |pair| pair.sent.len());
                let keep = if down {
                    0
                } else {
                    self.chance.below(most as u64 + 1)
                };
                self.lose(from, to, keep as usize);
            }
        }
    }
}

fn link(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}
