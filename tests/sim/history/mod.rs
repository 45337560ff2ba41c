//! Lifetimes of an actor that keeps its history: hosts, backups and callers on a few nodes, and the record in a register.
//!
//! Nodes crash, are cut off, stop and come back after they were declared dead, or are declared dead while all is well; hosts die
//! one after the other and together with their backups; checkpoints come at any time. The actor is a list of the calls that
//! it ran; a call gives its place in the list, a look the length of it, so that any history can be judged: places are
//! an order of all calls, and what was told before a call was made came before it.
//!
//! Invariant: a call that was told is in the state once, at the place that was told, in its caller's order; two replies to
//! it are equal; nothing is told that a named backup lacks; nobody is told less than others were before; what is not lost
//! with all that had it ends; logs stay within their bounds. Left out: codecs, and running calls (see the tests of `node`).

pub mod node;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use crate::base::{ActorKey, NodeId};
use crate::chance::Chance;
use crate::core::recovery::{CallId, Record, backup, caller, host};
use node::{Load, Member, Packet};

/// What is wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    None,
    /// Outcomes are told before their calls are written down elsewhere.
    ReplyEarly,
    /// The record is swapped whatever it is.
    NoFencing,
    /// Checkpoints come without what callers may ask for again.
    NoDedup,
}

impl Bug {
    /// All of them.
    pub const PLANTED: &[Bug] = &[Bug::ReplyEarly, Bug::NoFencing, Bug::NoDedup];
}

/// Who asks the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    Host(u64),
    Backup,
    Caller,
}

#[derive(Clone, Debug)]
pub enum Event {
    Deliver(NodeId, Packet),
    /// An operation reaches the register.
    Look(Asks),
    Swap(Asks, Option<Record>, Option<Record>),
    /// Its answer comes back.
    Found(Asks, Option<Record>),
    Swapped(Asks),
    Ran(u64, CallId),
    Call,
    Tick,
    Learn(NodeId),
    Die,
    Stop(u64),
    Go,
    Want,
    Close,
    Fault,
}

impl Event {
    /// It changes who lives.
    fn waits(&self) -> bool {
        matches!(self, Event::Die | Event::Go | Event::Learn(_))
    }
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub told: u64,
    pub again: u64,
    pub takeovers: u64,
    pub replayed: u64,
    pub checkpoints: u64,
    pub fenced: u64,
    pub held: u64,
    pub lost: u64,
    pub killed: u64,
    pub kept: u64,
    pub own: u64,
    /// Results that were told once more.
    pub remade: u64,
}

impl Counts {
    pub fn add(&mut self, o: &Counts) {
        self.told += o.told;
        self.again += o.again;
        self.takeovers += o.takeovers;
        self.replayed += o.replayed;
        self.checkpoints += o.checkpoints;
        self.fenced += o.fenced;
        self.held += o.held;
        self.lost += o.lost;
        self.killed += o.killed;
        self.kept += o.kept;
        self.own += o.own;
        self.remade += o.remade;
    }

    /// Whether each thing happened.
    pub fn all(&self) -> bool {
        let o = self;
        [
            o.told,
            o.again,
            o.takeovers,
            o.replayed,
            o.checkpoints,
            o.fenced,
            o.held,
            o.lost,
            o.killed,
            o.kept,
            o.own,
            o.remade,
        ]
        .iter()
        .all(|n| *n > 0)
    }
}

/// What all nodes share: time, the network, what was told.
pub struct Shared {
    pub now: u64,
    pub chance: Chance,
    pub bug: Bug,
    pub show: bool,
    pub counts: Counts,
    pub wrong: Option<String>,
    /// The places told, by call.
    pub told: BTreeMap<CallId, u64>,
    /// The highest that a caller was told.
    pub high: u64,
    pub closed: bool,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, (NodeId, Event)>,
    count: u64,
    /// Events that change who lives.
    waits: u64,
    /// When the last packet of a pair arrives.
    last: BTreeMap<(NodeId, NodeId), u64>,
    /// Nodes that were cut off, and with whom.
    cut: BTreeMap<NodeId, u64>,
    latency: u64,
}

impl Shared {
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    pub fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    pub fn after(&mut self, delay: u64, node: NodeId, event: Event) {
        self.count += 1;
        self.waits += u64::from(event.waits());
        self.queue.push(Reverse((self.now + delay, self.count)));
        self.events.insert(self.count, (node, event));
    }

    pub fn delay(&mut self) -> u64 {
        let latency = self.latency;
        self.chance.between(latency / 10, latency)
    }

    /// Packets of a pair stay in order; those between two sides get lost.
    pub fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        if self.cut.get(&from) != self.cut.get(&to) {
            return;
        }
        let arrives = self.now + self.delay();
        let last = self.last.entry((from, to)).or_default();
        *last = (*last).max(arrives);
        let delay = *last - self.now;
        self.after(delay, to, Event::Deliver(from, packet));
    }
}

/// See the module.
pub struct World {
    all: Shared,
    members: BTreeMap<NodeId, Member>,
    record: Option<Record>,
    /// Declared dead, whether or not they run.
    doomed: BTreeSet<NodeId>,
    calls: u64,
    faults: u64,
    /// Faults wait until the actor could stand them.
    gentle: bool,
    until: u64,
    detection: u64,
    /// Somebody ended the actor.
    closing: bool,
}

/// The actor's first key.
fn first() -> ActorKey {
    ActorKey {
        host: id(1),
        number: 1,
    }
}

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap_or(NodeId::NONE)
}

/// Runs a seed.
pub fn run(seed: u64, bug: Bug, show: bool) -> Result<Counts, String> {
    World::new(seed, bug, show).run()
}

impl World {
    fn new(seed: u64, bug: Bug, show: bool) -> World {
        let mut chance = Chance::new(seed ^ 0x6869_7374);
        let nodes = chance.between(2, 6);
        let latency = chance.between(100, 5_000);
        let calls = chance.between(20, 120);
        let until = calls * chance.between(200, 5_000);
        let faults = if chance.permille(150) {
            0
        } else {
            chance.between(1, 4)
        };
        let gentle = chance.permille(600);
        let detection = chance.between(5_000, 100_000);
        let limits = node::any_limits(&mut chance, 4 * detection);
        let close = chance.permille(80);
        let mut all = Shared {
            now: 0,
            chance,
            bug,
            show,
            counts: Counts::default(),
            wrong: None,
            told: BTreeMap::new(),
            high: 0,
            closed: false,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            count: 0,
            waits: 0,
            last: BTreeMap::new(),
            cut: BTreeMap::new(),
            latency,
        };
        let ids: Vec<NodeId> = (1..=nodes).map(id).collect();
        let members = ids
            .iter()
            .map(|&node| (node, Member::new(node, first(), &ids, limits)));
        let members = members.collect();
        for &node in &ids {
            all.after(0, node, Event::Tick);
        }
        for _ in 0..calls {
            let (at, node) = (all.chance.below(until), all.chance.below(nodes) as usize);
            all.after(at, ids[node], Event::Call);
        }
        for _ in 0..faults {
            let at = all.chance.below(until);
            all.after(at, NodeId::NONE, Event::Fault);
        }
        for _ in 0..all.chance.below(4) {
            let at = all.chance.below(until);
            all.after(at, NodeId::NONE, Event::Want);
        }
        if close {
            let at = all.chance.below(until);
            all.after(at, NodeId::NONE, Event::Close);
        }
        World {
            all,
            members,
            record: None,
            doomed: BTreeSet::new(),
            calls,
            faults,
            gentle,
            until,
            detection,
            closing: false,
        }
    }

    fn run(mut self) -> Result<Counts, String> {
        self.on(id(1), |member, all| member.begin(all));
        let mut steps = 0;
        while let Some(Reverse((at, number))) = self.all.queue.pop() {
            let Some((node, event)) = self.all.events.remove(&number) else {
                continue;
            };
            self.all.now = at;
            self.all.waits -= u64::from(event.waits());
            if self.all.show && !matches!(event, Event::Tick) {
                println!("{at:>8} {node:?}: {event:?}");
            }
            self.step(node, event);
            if let Some(wrong) = self.all.wrong.take() {
                return Err(format!("after {at} us: {wrong}"));
            }
            steps += 1;
            if steps > 200_000 {
                return Err("it goes on for ever".to_owned());
            }
            if self.calls == 0 && self.faults == 0 && self.is_quiet() {
                break;
            }
            if at > self.until + 20_000_000 {
                return Err(self.stuck());
            }
        }
        self.judge()?;
        Ok(self.all.counts)
    }

    fn healthy(&self) -> impl Iterator<Item = &Member> {
        let all = self.members.values();
        all.filter(|m| !self.doomed.contains(&m.me))
    }

    fn is_quiet(&self) -> bool {
        self.all.waits == 0
            && self.healthy().all(Member::is_quiet)
            && self.members.keys().all(|node| !self.doomed.contains(node))
    }

    fn stuck(&self) -> String {
        let of = |m: &Member| format!("{:?}: {}", m.me, m.stands());
        let all: Vec<String> = self.healthy().map(of).collect();
        format!("it does not end: {:?}, {}", self.record, all.join("; "))
    }

    fn on(&mut self, node: NodeId, f: impl FnOnce(&mut Member, &mut Shared)) {
        if let Some(member) = self.members.get_mut(&node) {
            f(member, &mut self.all);
            member.check(&mut self.all);
            let early = member.early(self.record.as_ref());
            for (call, order) in early {
                self.check_told(node, call, order);
            }
        }
    }

    /// A host told what came of a call: every named backup has it.
    fn check_told(&mut self, by: NodeId, call: CallId, order: u64) {
        let Some(record) = self.record.clone() else {
            return;
        };
        if record.at.host != by {
            return;
        }
        for node in &record.backups {
            let has = self
                .members
                .get(node)
                .is_none_or(|m| m.has_order() >= order);
            if !has {
                self.all
                    .wrong(format!("{call:?} was told before {node:?} had it"));
            }
        }
    }

    fn step(&mut self, node: NodeId, event: Event) {
        match event {
            Event::Fault => {
                self.faults -= 1;
                self.fault();
            }
            // In a gentle world the record is where the larger side is.
            Event::Look(_) | Event::Swap(..) if self.gentle && self.all.cut.contains_key(&node) => {
            }
            Event::Look(asks) => {
                let (delay, record) = (self.all.delay(), self.record.clone());
                self.all.after(delay, node, Event::Found(asks, record));
            }
            Event::Swap(asks, expect, record) => {
                let delay = self.all.delay();
                let answer = if self.record == expect || self.all.bug == Bug::NoFencing {
                    self.record = record;
                    Event::Swapped(asks)
                } else {
                    Event::Found(asks, self.record.clone())
                };
                self.all.after(delay, node, answer);
            }
            Event::Call => {
                self.calls -= 1;
                let pending = self.all.chance.between(1, 3);
                self.on(node, |member, all| {
                    for _ in 0..pending {
                        member.call(all);
                    }
                });
            }
            Event::Want | Event::Close => {
                let hosts: Vec<NodeId> =
                    self.healthy().filter(|m| m.hosts()).map(|m| m.me).collect();
                if let Some(node) = self.all.chance.pick(&hosts) {
                    self.closing |= matches!(event, Event::Close);
                    let what = if matches!(event, Event::Want) {
                        host::Event::Want
                    } else {
                        host::Event::Close
                    };
                    self.on(node, |member, all| member.host_event(all, what));
                }
            }
            Event::Die => {
                self.members.remove(&node);
                self.doomed.remove(&node);
            }
            event => self.on(node, |member, all| member.step(all, event)),
        }
    }

    /// All others hear that a node is dead.
    fn declare(&mut self, node: NodeId) {
        if !self.doomed.insert(node) {
            return;
        }
        let others: Vec<NodeId> = self
            .members
            .keys()
            .copied()
            .filter(|o| *o != node)
            .collect();
        for other in others {
            let after = self.all.chance.below(self.detection);
            self.all.after(after, other, Event::Learn(node));
        }
    }

    /// Whether the actor can stand the loss of these.
    fn bears(&self, nodes: &[NodeId]) -> bool {
        let left = self.healthy().filter(|m| !nodes.contains(&m.me)).count();
        let safe = self.record.as_ref().is_some_and(|record| {
            let well =
                |node: &NodeId| !self.doomed.contains(node) && self.members.contains_key(node);
            let stays = |node: &&NodeId| well(node) && !nodes.contains(node);
            let host = [record.at.host];
            let some = record.backups.iter().any(|node| stays(&node));
            // A host that is here and goes on finds others.
            some || host
                .iter()
                .any(|node| stays(&node) && self.members[node].hosts())
        });
        left >= 1 && safe
    }

    fn fault(&mut self) {
        let nodes: Vec<NodeId> = self.healthy().map(|m| m.me).collect();
        let hosts: Vec<NodeId> = self.healthy().filter(|m| m.hosts()).map(|m| m.me).collect();
        let near = self.all.chance.permille(600);
        let from = if near && !hosts.is_empty() {
            &hosts
        } else {
            &nodes
        };
        let Some(node) = self.all.chance.pick(from) else {
            return;
        };
        let mut side = vec![node];
        let kind = self.all.chance.below(5);
        if kind == 1 {
            for other in &nodes {
                if *other != node && side.len() + 1 < nodes.len() && self.all.chance.permille(300) {
                    side.push(*other);
                }
            }
        }
        if nodes.len() < 2 || (self.gentle && !self.bears(&side)) {
            return;
        }
        let later = |all: &mut Shared, most: u64| all.chance.below(most * 3);
        match kind {
            // It is gone.
            0 => {
                self.declare(node);
                self.members.remove(&node);
                self.doomed.remove(&node);
            }
            // Cut off, on the side that will not go on.
            1 => {
                let which = self.all.now;
                self.all.cut.extend(side.iter().map(|node| (*node, which)));
                for node in side.clone() {
                    self.declare(node);
                    let rest: Vec<NodeId> = nodes
                        .iter()
                        .copied()
                        .filter(|n| !side.contains(n))
                        .collect();
                    for other in rest {
                        let after = self.all.chance.below(self.detection);
                        self.all.after(after, node, Event::Learn(other));
                    }
                    let after = later(&mut self.all, self.detection);
                    self.all.after(after, node, Event::Die);
                }
            }
            // It stops, too short to be missed.
            2 => {
                let time = self.all.chance.below(self.detection);
                self.all.after(0, node, Event::Stop(time));
            }
            // It stops, is declared dead, comes back, and learns that it is dead some time later.
            3 => {
                let time = later(&mut self.all, self.detection);
                self.all.after(0, node, Event::Stop(time));
                self.declare(node);
                let after = time + later(&mut self.all, self.detection) + 1;
                self.all.after(after, node, Event::Die);
            }
            // It is declared dead, and all is well with it.
            _ => {
                self.declare(node);
                let after = later(&mut self.all, self.detection);
                self.all.after(after, node, Event::Die);
            }
        }
    }

    /// What must hold in the end.
    fn judge(&mut self) -> Result<(), String> {
        if self.healthy().any(|m| m.unknown > 0) && !self.closing {
            return Err(
                "what a call gave was asked for again, and nobody knew the call".to_owned(),
            );
        }
        let lost: u64 = self.healthy().map(|m| m.lost).sum();
        self.all.counts.lost += lost;
        if lost > 0 && self.gentle && !self.closing {
            return Err(format!(
                "{lost} calls were lost with nobody who had them: {:?}",
                self.record
            ));
        }
        if self.closing || lost > 0 {
            return Ok(());
        }
        // Who was cut off or is about to be fenced may still think that it hosts the actor.
        let at = self.record.as_ref().map_or(first(), |record| record.at);
        let Some(host) = self.healthy().find(|m| m.me == at.host && m.hosts()) else {
            // A smaller side that reaches the record may have taken the actor with it.
            return match self.gentle && !self.all.told.is_empty() {
                true => Err(format!("nobody hosts the actor: {}", self.stuck())),
                false => Ok(()),
            };
        };
        let state = host.state();
        let once: BTreeSet<_> = state.iter().collect();
        if once.len() != state.len() {
            return Err(format!("a call is in the state twice: {state:?}"));
        }
        for (call, place) in &self.all.told {
            if state.get(*place as usize - 1) != Some(call) {
                return Err(format!("{call:?} was told its place {place}: {state:?}"));
            }
        }
        host.in_order()
    }
}

/// The register's answer, as its asker takes it.
pub fn host_answer(record: Option<Record>) -> host::Event<Load> {
    host::Event::Differs(record)
}

/// The same for a backup.
pub fn backup_answer(record: Option<Record>, lives: bool, number: u64) -> backup::Event<Load> {
    backup::Event::Record {
        record,
        lives,
        number,
    }
}

/// The same for a caller.
pub fn caller_answer(record: Option<Record>, lives: bool, backed: bool) -> caller::Event<Load> {
    caller::Event::Record {
        record,
        lives,
        backed,
    }
}
