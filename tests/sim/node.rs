//! One node: the machines, and a driver around them that does with counts what the real one does with records.
//!
//! Invariant: effects are carried out in order, each to its end, before whoever called the machine goes on. Left out: what
//! programs do ([`crate::world`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::{NodeId, ObjectKey};
use crate::chance::Chance;
use crate::core::owners::{Effect, Message, Owners, RefState, Stand};
use crate::core::pulls::{Limits, Pulls};
use crate::faults::Fault;
use crate::net::{Event, Net, Outcome, Packet, WireRef};
use crate::places::{Places, Run, Task};
use crate::world::Log;

/// What a step works with.
pub struct Cx<'a> {
    pub net: &'a mut Net,
    pub log: &'a mut Log,
}

impl Cx<'_> {
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.net.now)
    }
}

/// How an object stands, as a reference knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Pending,
    Ready(u64),
    Failed,
}

impl State {
    fn of(state: &RefState) -> State {
        match state {
            RefState::Pending => State::Pending,
            RefState::Ready { len, .. } => State::Ready(*len),
            RefState::Failed => State::Failed,
        }
    }
}

/// A record: an object of this node, or the proxy of another's.
#[derive(Debug)]
pub struct Record {
    refs: u64,
    pub state: State,
    /// The machine has taken a reference.
    kept: bool,
    /// The machine may know it.
    known: bool,
}

/// Somebody waits for a value.
#[derive(Debug)]
pub struct Get {
    pub key: ObjectKey,
    pub pulling: bool,
    /// It is an argument of this.
    pub run: Option<(NodeId, u64)>,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    pub id: NodeId,
    pub fault: Fault,
    pub owners: Owners,
    pub pulls: Pulls,
    pub limits: Limits,
    pub records: BTreeMap<ObjectKey, Record>,
    /// Values, each with the references in it, which it holds.
    pub store: BTreeMap<ObjectKey, Vec<ObjectKey>>,
    /// What the programs here hold.
    pub handles: Vec<ObjectKey>,
    pub gets: BTreeMap<u64, Get>,
    pub tasks: BTreeMap<u64, Task>,
    /// By who submitted them, and their numbers there.
    pub runs: BTreeMap<(NodeId, u64), Run>,
    pub places: Places,
    dead: BTreeSet<NodeId>,
    /// Nodes that messages could not be sent to, to be told of again.
    unreachable: BTreeSet<NodeId>,
    /// What was sent to whom, for a planted fault.
    sent: BTreeMap<(ObjectKey, NodeId), u64>,
    last: u64,
}

impl Node {
    pub fn new(id: NodeId, grace: u64, fault: Fault, chance: &mut Chance) -> Node {
        let grace = if fault == Fault::NoGrace { 0 } else { grace };
        let limits = Limits {
            transfers: 3,
            bytes: 1 << 20,
            attempts: 6,
        };
        Node {
            id,
            fault,
            owners: Owners::new(id, Duration::from_micros(grace)),
            pulls: Pulls::new(id, limits),
            limits,
            records: BTreeMap::new(),
            store: BTreeMap::new(),
            handles: Vec::new(),
            gets: BTreeMap::new(),
            tasks: BTreeMap::new(),
            runs: BTreeMap::new(),
            places: Places::new(id, chance),
            dead: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            sent: BTreeMap::new(),
            last: 0,
        }
    }

    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Whether something here refers to an object, and its owner is not known to be dead.
    pub fn refers(&self, key: ObjectKey) -> bool {
        self.records.get(&key).is_some_and(|record| record.refs > 0)
    }

    pub fn has_copy(&self, key: ObjectKey) -> bool {
        self.store.contains_key(&key)
    }

    pub fn state(&self, key: ObjectKey) -> Option<State> {
        self.records.get(&key).map(|record| record.state)
    }

    /// What is referred to here.
    pub fn referred(&self) -> Vec<ObjectKey> {
        self.records.keys().copied().collect()
    }

    pub fn is_dead(&self, node: NodeId) -> bool {
        self.dead.contains(&node)
    }

    pub fn open_gets(&self) -> Vec<u64> {
        self.gets.keys().copied().collect()
    }

    pub fn describe(&self, get: u64) -> String {
        let get = self.gets.get(&get);
        let record = get.and_then(|get| self.records.get(&get.key));
        format!("{get:?} of {record:?}")
    }

    pub fn held_here(&self) -> Vec<ObjectKey> {
        self.store.keys().copied().collect()
    }

    /// What is left when nothing should be.
    pub fn leftovers(&self) -> Option<String> {
        let size = self.owners.size();
        let machines =
            size != Default::default() || !self.owners.is_idle() || !self.pulls.is_empty();
        let driver = !self.records.is_empty() || !self.store.is_empty() || !self.gets.is_empty();
        let tasks = !self.tasks.is_empty() || !self.runs.is_empty();
        let left = machines
            || driver
            || tasks
            || !self.places.is_empty()
            || self.pulls.under_way() != (0, 0);
        left.then(|| {
            format!(
                "{:?}: {size:?}, {} pulls, records {:?}, store {:?}, gets {:?}, tasks {:?}, runs {:?}, {:?}",
                self.id,
                self.pulls.len(),
                self.records,
                self.store,
                self.gets,
                self.tasks,
                self.runs,
                self.places
            )
        })
    }

    /// What waits here for something, in short.
    pub fn stuck(&self) -> Option<String> {
        let stuck = !self.tasks.is_empty() || !self.gets.is_empty() || !self.runs.is_empty();
        stuck.then(|| {
            let Node {
                id,
                tasks,
                gets,
                runs,
                places,
                ..
            } = self;
            let (line, load) = (places.ledger.line(9), places.submitter.load());
            let holders = places.ledger.holders();
            format!("{id:?}: {tasks:?} {gets:?} {runs:?} line {line:?} holders {holders:?} load {load:?}")
        })
    }

    // References.

    pub fn hold(&mut self, key: ObjectKey) {
        if let Some(record) = self.records.get_mut(&key) {
            record.refs += 1;
        }
    }

    pub fn unhold(&mut self, cx: &mut Cx<'_>, key: ObjectKey) {
        let Some(record) = self.records.get_mut(&key) else {
            return cx.log.wrong(format!("{:?} drops {key} twice", self.id));
        };
        if record.refs == 0 {
            return cx
                .log
                .wrong(format!("{:?} has no reference to {key} to drop", self.id));
        }
        record.refs -= 1;
        if record.refs > 0 {
            return;
        }
        let known = record.known;
        self.records.remove(&key);
        if key.owner != self.id {
            self.owners(cx, |o, out| o.dropped(key, out));
        } else {
            cx.log.freed.push(key);
            self.discard(cx, key);
            if known {
                self.owners(cx, |o, out| o.forget(key, out));
            }
        }
    }

    /// Puts a value into the store. The references in it, each held once, are its own now.
    pub fn store(&mut self, cx: &mut Cx<'_>, key: ObjectKey, inner: Vec<ObjectKey>) {
        for key in self.store.insert(key, inner).unwrap_or_default() {
            self.unhold(cx, key);
        }
    }

    /// Drops a value; false if there is none.
    pub fn discard(&mut self, cx: &mut Cx<'_>, key: ObjectKey) -> bool {
        let Some(inner) = self.store.remove(&key) else {
            return false;
        };
        for key in inner {
            self.unhold(cx, key);
        }
        true
    }

    pub fn make(&mut self, state: State, inner: Vec<ObjectKey>) -> ObjectKey {
        let key = ObjectKey {
            owner: self.id,
            number: self.number(),
        };
        if let State::Ready(_) = state {
            self.store.insert(key, inner);
        }
        let record = Record {
            refs: 1,
            state,
            kept: false,
            known: false,
        };
        self.records.insert(key, record);
        key
    }

    /// A program puts an object, with references in it.
    pub fn put(&mut self, len: u64, inner: Vec<ObjectKey>) {
        for &key in &inner {
            self.hold(key);
        }
        let key = self.make(State::Ready(len), inner);
        self.handles.push(key);
    }

    fn stand(&self, key: ObjectKey) -> Stand {
        match self.records.get(&key).map(|record| record.state) {
            Some(State::Ready(len)) => Stand::Ready { len, at: self.id },
            Some(State::Failed) => Stand::Failed,
            Some(State::Pending) | None => Stand::Pending,
        }
    }

    /// Puts references into a message.
    pub fn wire(&mut self, cx: &mut Cx<'_>, keys: &[ObjectKey], to: NodeId) -> Vec<WireRef> {
        let mut refs = Vec::new();
        for &key in keys {
            let (transit, state) = if key.owner == self.id {
                let stand = self.stand(key);
                if let Some(record) = self.records.get_mut(&key) {
                    record.known = true;
                }
                *self.sent.entry((key, to)).or_insert(0) += 1;
                (0, self.owners(cx, |o, out| o.export(key, to, stand, out)))
            } else {
                let transit = self.owners.hand_on(key, to);
                cx.log.report.handed_on += 1;
                let state = self.owners.known(key);
                if self.fault == Fault::LetGoEarly {
                    self.owners(cx, |o, out| o.handle(to, Message::Arrived { transit }, out));
                }
                (transit, state)
            };
            refs.push(WireRef {
                key,
                transit,
                state,
            });
        }
        refs
    }

    /// Takes references out of a message; each is held once.
    fn unwire(&mut self, cx: &mut Cx<'_>, refs: Vec<WireRef>, from: NodeId) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        for WireRef {
            key,
            transit,
            state,
        } in refs
        {
            if key.owner == self.id {
                if !self.records.contains_key(&key) {
                    cx.log
                        .wrong(format!("{key} came back to its owner, which has freed it"));
                    continue;
                }
                self.hold(key);
            } else {
                let record = Record {
                    refs: 0,
                    state: State::Pending,
                    kept: false,
                    known: false,
                };
                self.records.entry(key).or_insert(record).refs += 1;
            }
            self.owners(cx, |o, out| o.import(key, from, transit, state, out));
            keys.push(key);
        }
        keys
    }

    /// A program sends references.
    pub fn pass(&mut self, cx: &mut Cx<'_>, keys: &[ObjectKey], to: NodeId) {
        let refs = self.wire(cx, keys, to);
        self.send(cx, to, Packet::Refs(refs));
    }

    // Tasks.

    /// The result of a task that is about to be submitted.
    pub fn make_result(&mut self) -> ObjectKey {
        let result = self.make(State::Pending, Vec::new());
        self.handles.push(result);
        result
    }

    pub fn end_task(&mut self, cx: &mut Cx<'_>, task: Task, stand: Stand, inner: Vec<ObjectKey>) {
        cx.log.report.tasks_ended += 1;
        let key = task.result;
        let remote = matches!(stand, Stand::Ready { at, .. } if at != self.id);
        if let Some(record) = self.records.get_mut(&key) {
            if record.state != State::Pending {
                cx.log.wrong(format!("{key} settled twice"));
            }
            record.known |= remote;
            self.settle(cx, key, stand, inner);
        } else {
            // Nobody waits for it any more.
            for key in inner {
                self.unhold(cx, key);
            }
            if remote {
                self.owners(cx, |o, out| o.settled(key, stand, out));
                self.owners(cx, |o, out| o.forget(key, out));
            }
        }
        for key in task.args {
            self.unhold(cx, key);
        }
    }

    /// An object of this node has a value, or failed.
    pub fn settle(&mut self, cx: &mut Cx<'_>, key: ObjectKey, stand: Stand, inner: Vec<ObjectKey>) {
        let state = match stand {
            Stand::Ready { len, at } => {
                if at == self.id {
                    self.store(cx, key, inner);
                }
                State::Ready(len)
            }
            Stand::Failed => State::Failed,
            Stand::Pending => return,
        };
        let Some(record) = self.records.get_mut(&key) else {
            return;
        };
        record.state = state;
        if record.known {
            self.owners(cx, |o, out| o.settled(key, stand, out));
        }
        if self.store.contains_key(&key) {
            self.pulls(cx, |p, out| p.found(key, out));
        }
        self.wake(cx, key);
    }

    /// A task that runs here is over.
    pub fn ran(&mut self, cx: &mut Cx<'_>, id: (NodeId, u64)) {
        let Some(run) = self.runs.remove(&id) else {
            return;
        };
        let (to, call) = id;
        let here = to == self.id;
        let len = cx
            .net
            .chance
            .pick(&[10, 1000, 300_000, 900_000])
            .unwrap_or(1);
        // Some give back a reference to something that they made, or were given; some put one into their value.
        let mut given = Vec::new();
        if cx.net.chance.permille(300) {
            given.push(self.make(State::Ready(len), Vec::new()));
        }
        let mut inner: Vec<ObjectKey> = run.args.iter().chain(&given).copied().collect();
        inner.retain(|_| cx.net.chance.permille(300));
        let outcome = match cx.net.chance.below(10) {
            _ if run.failed => Outcome::Failed,
            0 => Outcome::Failed,
            1..4 => Outcome::Inline(len),
            _ if here => Outcome::Inline(len),
            _ => Outcome::There(len),
        };
        if outcome != Outcome::Inline(len) && outcome != Outcome::There(len) {
            inner.clear();
        }
        if here {
            for &key in &inner {
                self.hold(key);
            }
            let stand = match outcome {
                Outcome::Failed => Stand::Failed,
                _ => Stand::Ready { len, at: to },
            };
            match self.tasks.remove(&call) {
                Some(task) => self.end_task(cx, task, stand, inner),
                None => cx.log.wrong(format!("task {call} of {to:?} ended twice")),
            }
        } else {
            let mut wired = Vec::new();
            if outcome == Outcome::There(len) {
                for &key in &inner {
                    self.hold(key);
                }
                self.store(cx, run.result, inner);
                self.owners.hosts(run.result);
                self.pulls(cx, |p, out| p.found(run.result, out));
            } else {
                wired = self.wire(cx, &inner, to);
            }
            let refs: Vec<ObjectKey> = given.iter().chain(run.args.first()).copied().collect();
            let refs = self.wire(cx, &refs, to);
            let inner = wired;
            let packet = Packet::Done {
                call,
                outcome,
                inner,
                refs,
            };
            self.send(cx, to, packet);
        }
        for key in run.args.into_iter().chain(given) {
            self.unhold(cx, key);
        }
        self.end_run(cx, id);
    }

    // What comes from outside.

    pub fn deliver(&mut self, cx: &mut Cx<'_>, from: NodeId, packet: Packet) {
        if self.dead.contains(&from) {
            return;
        }
        match packet {
            Packet::Owners(Message::At {
                key,
                ask,
                from: source,
            }) => {
                self.pulls(cx, |p, out| p.on_at(from, key, ask, source, out));
            }
            Packet::Owners(Message::Buried { node }) => self.hear_burial(cx, from, node),
            Packet::Owners(mut message) => {
                if let Message::Release { key, received } = &mut message {
                    let sent = self.sent.entry((*key, from)).or_insert(0);
                    if self.fault == Fault::ReleaseAll {
                        *received = *sent;
                    }
                    *sent = sent.saturating_sub(*received);
                }
                if let Message::Borrow { key, .. } = &message {
                    *self.sent.entry((*key, from)).or_insert(0) += 1;
                }
                self.owners(cx, |o, out| o.handle(from, message, out));
            }
            Packet::Bytes {
                key,
                transfer,
                inner,
            } => {
                let inner = self.unwire(cx, inner, from);
                self.fetched(cx, key, transfer, inner);
            }
            Packet::Refs(refs) => {
                let keys = self.unwire(cx, refs, from);
                self.handles.extend(keys);
            }
            Packet::Task {
                call,
                lease,
                demand,
                result,
                args,
            } => {
                let args = self.unwire(cx, args, from);
                self.on_task(cx, (from, call), lease, result, args, demand);
            }
            Packet::Lease(msg) => self.on_lease(cx, from, &msg),
            Packet::Group(msg) => self.on_group(cx, from, &msg),
            Packet::News(news) => self.on_news(cx, from, news),
            Packet::Done {
                call,
                outcome,
                inner,
                refs,
            } => {
                let inner = self.unwire(cx, inner, from);
                let keys = self.unwire(cx, refs, from);
                self.handles.extend(keys);
                let Some(task) = self.tasks.remove(&call) else {
                    return cx
                        .log
                        .wrong(format!("task {call} of {:?} ended twice", self.id));
                };
                let stand = match outcome {
                    Outcome::Inline(len) => Stand::Ready { len, at: self.id },
                    Outcome::There(len) => Stand::Ready { len, at: from },
                    Outcome::Failed => Stand::Failed,
                };
                self.end_task(cx, task, stand, inner);
                self.on_done(cx, from, call);
            }
        }
    }

    /// A node is dead.
    pub fn learn(&mut self, cx: &mut Cx<'_>, dead: NodeId) {
        self.dead.insert(dead);
        cx.net.forget(dead, self.id);
        self.bury(cx, dead);
        self.tell_burial(cx, dead);
        self.place_died(cx, dead);
    }

    fn bury(&mut self, cx: &mut Cx<'_>, dead: NodeId) {
        let now = cx.now();
        self.owners(cx, |o, out| o.peer_died(now, dead, out));
        self.pulls(cx, |p, out| p.peer_died(dead, out));
    }

    pub fn tick(&mut self, cx: &mut Cx<'_>, tell: &[NodeId]) {
        let now = cx.now();
        self.owners(cx, |o, out| o.tick(now, out));
        self.place_tick(cx, tell);
    }

    /// After a step: deals with what could not be sent in it.
    pub fn settle_down(&mut self, cx: &mut Cx<'_>) {
        while let Some(dead) = self.unreachable.pop_first() {
            self.bury(cx, dead);
        }
    }

    // Carrying effects out.

    pub fn send(&mut self, cx: &mut Cx<'_>, to: NodeId, packet: Packet) {
        if self.dead.contains(&to) {
            self.unreachable.insert(to);
        } else {
            cx.net.send(self.id, to, packet);
        }
    }

    /// As [`send`](Self::send), of what may be lost.
    pub fn tell(&self, cx: &mut Cx<'_>, to: NodeId, packet: Packet) {
        if !self.dead.contains(&to) {
            cx.net.datagram(self.id, to, packet);
        }
    }

    pub fn post(&mut self, cx: &mut Cx<'_>, to: NodeId, message: Message) {
        let lost = match message {
            Message::Release { .. } => self.fault == Fault::LoseRelease,
            Message::Free { .. } => self.fault == Fault::LoseFree,
            _ => false,
        };
        if lost && cx.net.chance.permille(100) {
            return;
        }
        if self.fault == Fault::ArriveEarly
            && let Message::Borrow { from, transit, .. } = message
        {
            self.send(cx, from, Packet::Owners(Message::Arrived { transit }));
        }
        if to != self.id {
            self.send(cx, to, Packet::Owners(message));
        } else if let Message::At { key, ask, from } = message {
            self.pulls(cx, |p, out| p.on_at(to, key, ask, from, out));
        } else {
            self.owners(cx, |o, out| o.handle(to, message, out));
        }
    }

    pub fn owners<R>(
        &mut self,
        cx: &mut Cx<'_>,
        f: impl FnOnce(&mut Owners, &mut Vec<Effect>) -> R,
    ) -> R {
        let mut out = Vec::new();
        let answer = f(&mut self.owners, &mut out);
        for effect in out {
            self.carry_out(cx, effect);
        }
        answer
    }

    fn carry_out(&mut self, cx: &mut Cx<'_>, effect: Effect) {
        cx.log.show(cx.net.now, self.id, &effect);
        match effect {
            Effect::Send { to, message } => self.post(cx, to, message),
            Effect::Keep(key) | Effect::Find(key) => {
                let find = matches!(effect, Effect::Find(_));
                match self.records.get_mut(&key) {
                    Some(record) if !record.kept => {
                        record.refs += 1;
                        record.kept = true;
                        record.known = true;
                        if find && record.state != State::Pending {
                            let stand = self.stand(key);
                            self.owners(cx, |o, out| o.settled(key, stand, out));
                        }
                    }
                    None if find => self.owners(cx, |o, out| o.gone(key, out)),
                    _ => cx.log.wrong(format!(
                        "{effect:?}, but there is {:?}",
                        self.records.get(&key)
                    )),
                }
            }
            Effect::Let(key) => match self.records.get_mut(&key) {
                Some(record) if record.kept => {
                    record.kept = false;
                    self.unhold(cx, key);
                }
                other => cx.log.wrong(format!("let {key}, but it is {other:?}")),
            },
            Effect::Settled { key, state } => {
                if let Some(record) = self.records.get_mut(&key) {
                    record.state = State::of(&state);
                    self.wake(cx, key);
                } else {
                    cx.log.wrong(format!(
                        "{:?} is told of {key}, which it does not have",
                        self.id
                    ));
                }
            }
            Effect::Gone(key) => {
                cx.log
                    .wrong(format!("{:?} registers for {key}, which is gone", self.id));
            }
            Effect::OwnerDied(key) => {
                if !self.dead.contains(&key.owner) {
                    cx.log
                        .wrong(format!("the owner of {key} is said to be dead"));
                }
                cx.log.report.orphans += 1;
                if let Some(record) = self.records.get_mut(&key) {
                    record.state = State::Failed;
                    self.wake(cx, key);
                }
            }
            Effect::Lost(key) => {
                cx.log.report.lost += 1;
                cx.log.lost.push(key);
                if !cx.log.crashed {
                    cx.log.wrong(format!("{key} is lost, and nobody crashed"));
                }
                let Some(record) = self.records.get(&key) else {
                    return;
                };
                if record.state == State::Pending || cx.net.chance.permille(500) {
                    self.settle(cx, key, Stand::Failed, Vec::new());
                } else {
                    let (node, number) = (self.id, key.number);
                    cx.net.after(5_000, Event::Rebuilt { node, number });
                }
            }
            Effect::Free(key) => {
                if !self.discard(cx, key) {
                    cx.log.wrong(format!(
                        "{:?} frees a copy of {key} that it does not have",
                        self.id
                    ));
                }
            }
            Effect::Misbehaves(node) => {
                cx.log.wrong(format!(
                    "{:?} is said by {:?} to break the protocol",
                    node, self.id
                ));
            }
        }
    }

    /// The programs here end: all that they hold goes.
    pub fn drop_all(&mut self, cx: &mut Cx<'_>) {
        for key in std::mem::take(&mut self.handles) {
            self.unhold(cx, key);
        }
    }
}
