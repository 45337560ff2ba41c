//! A node of such a world: its caller, and what it hosts or keeps.
//!
//! Invariant: the machines are the product's; a call runs when its machine said so and its caller's earlier ones have. Left
//! out: what breaks ([`super::World`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::{Asks, Bug, Event, Shared, backup_answer, caller_answer, host_answer};
use crate::base::{ActorKey, NodeId};
use crate::chance::Chance;
use crate::core::recovery::{
    Backup, CallId, Caller, Checkpoint, Dedup, Entry, Host, Limits, Record, Settled, ToBackup,
    ToHost, backup, caller, host,
};

/// What travels and is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// A call of one of the node's threads; it changes the state or looks at it.
    Call { thread: u64, changes: bool },
    /// The calls that ran, and whose they were.
    State(Rc<Vec<(CallId, u64)>>),
    /// The place of a call, or how many there are.
    Place(u64),
}

#[derive(Clone, Debug)]
pub enum Packet {
    ToBackup(ToBackup<Load>),
    ToHost(ToHost),
    Call {
        at: ActorKey,
        number: u64,
        settled: Settled,
        load: Load,
    },
    Settled {
        at: ActorKey,
        settled: Settled,
    },
    Again {
        at: ActorKey,
        number: u64,
        settled: Settled,
    },
    Reply {
        number: u64,
        outcome: Load,
    },
    /// Nobody knows what was asked for again.
    Unknown,
    NotHere(ActorKey),
    Rouse,
    Moved {
        incarnation: u64,
        at: ActorKey,
    },
    Ended,
}

/// Apart from the numbers of nodes.
const OWN: u64 = 1000;
/// Results of one node that stay with the host, at most.
const RESULTS: usize = 6;

/// The largest call in the log.
const LARGEST: u64 = 100;

pub fn any_limits(chance: &mut Chance, alone: u64) -> Limits {
    Limits {
        replicas: chance.between(1, 2) as usize,
        every: chance.permille(400).then(|| chance.between(1, 20)),
        interval: None,
        calls: chance.between(5, 200),
        bytes: chance.between(100, 3_000),
        most: chance.between(200, 5_000),
        alone: Duration::from_micros(alone),
    }
}

/// The actor here.
struct Running {
    host: Host<Load>,
    at: ActorKey,
    state: Vec<(CallId, u64)>,
    replay: VecDeque<Entry<Load>>,
    line: VecDeque<(CallId, Load)>,
    came: BTreeMap<CallId, Load>,
    runs: Option<(CallId, Load)>,
    state_wanted: bool,
    /// Calls by handles here that have not been told, and their places.
    own: BTreeMap<u64, (Made, Option<u64>)>,
    /// Which places the calls have that were told in this step.
    told: Vec<(CallId, u64)>,
    places: BTreeMap<CallId, u64>,
}

struct Made {
    thread: u64,
    changes: bool,
    /// The highest place told when it was made.
    high: u64,
}

/// A node.
pub struct Member {
    pub me: NodeId,
    nodes: Vec<NodeId>,
    dead: BTreeSet<NodeId>,
    limits: Limits,
    actor: ActorKey,
    running: Option<Running>,
    backup: Option<Backup<Load>>,
    caller: Caller<Load>,
    made: BTreeMap<u64, Made>,
    next: u64,
    own_calls: u64,
    keys: u64,
    /// Calls to keys that this node may get.
    early: Vec<(NodeId, Packet)>,
    claims: Option<ActorKey>,
    over: bool,
    stopped: Option<VecDeque<Event>>,
    /// Results that stay with the host: the places that they say, and whether they are asked for.
    results: BTreeMap<u64, (u64, bool)>,
    pub lost: u64,
    /// Such results that nobody knew.
    pub unknown: u64,
}

impl Member {
    pub fn new(me: NodeId, actor: ActorKey, nodes: &[NodeId], limits: Limits) -> Member {
        Member {
            me,
            nodes: nodes.iter().copied().filter(|node| *node != me).collect(),
            dead: BTreeSet::new(),
            limits,
            actor,
            running: None,
            backup: None,
            caller: Caller::new(actor),
            made: BTreeMap::new(),
            next: 1,
            own_calls: 0,
            keys: 1,
            early: Vec::new(),
            claims: None,
            over: false,
            stopped: None,
            results: BTreeMap::new(),
            lost: 0,
            unknown: 0,
        }
    }

    /// The actor is made here.
    pub fn begin(&mut self, all: &mut Shared) {
        let made = (Load::State(Rc::default()), 10);
        let host = Host::new(all.time(), self.actor, made, self.limits, self.living());
        self.run_host(all, host, self.actor, Vec::new(), VecDeque::new());
    }

    fn run_host(
        &mut self,
        all: &mut Shared,
        host: Host<Load>,
        at: ActorKey,
        state: Vec<(CallId, u64)>,
        replay: VecDeque<Entry<Load>>,
    ) {
        self.running = Some(Running {
            host,
            at,
            state,
            replay,
            line: VecDeque::new(),
            came: BTreeMap::new(),
            runs: None,
            state_wanted: false,
            own: BTreeMap::new(),
            told: Vec::new(),
            places: BTreeMap::new(),
        });
        self.host_event(all, host::Event::Nodes(self.living()));
    }

    fn living(&self) -> Vec<NodeId> {
        let alive = |node: &&NodeId| !self.dead.contains(node);
        self.nodes.iter().filter(alive).copied().collect()
    }

    fn lives(&self, node: NodeId) -> bool {
        node == self.me || !self.dead.contains(&node)
    }

    pub fn hosts(&self) -> bool {
        self.running.is_some()
    }

    pub fn is_quiet(&self) -> bool {
        let rests = |r: &Running| {
            r.line.is_empty() && r.own.is_empty() && r.runs.is_none() && r.replay.is_empty()
        };
        let asks = self.results.values().any(|(_, asked)| *asked);
        let settled = self.caller.is_empty() && !self.caller.seeks() && !asks;
        settled && self.stopped.is_none() && self.running.as_ref().is_none_or(rests)
    }

    pub fn stands(&self) -> String {
        let host = self.running.as_ref().map(|r| {
            (
                r.host.orders(),
                r.host.load(),
                r.host.is_held(),
                r.line.len(),
            )
        });
        let backup = self.backup.as_ref().map(|b| (b.incarnation(), b.order()));
        format!(
            "host {host:?}, backup {backup:?}, {} calls, seeks: {}",
            self.caller.len(),
            self.caller.seeks()
        )
    }

    pub fn state(&self) -> Vec<CallId> {
        let running = self.running.iter();
        running
            .flat_map(|r| r.state.iter().map(|(call, _)| *call))
            .collect()
    }

    /// Calls of one thread ran in the order of their numbers.
    pub fn in_order(&self) -> Result<(), String> {
        let mut last = BTreeMap::new();
        for (call, thread) in self.running.iter().flat_map(|r| &r.state) {
            let before = last.insert((call.node, *thread), call.number);
            if before.is_some_and(|before| before >= call.number) {
                return Err(format!("{call:?} ran after {before:?} of its thread"));
            }
        }
        Ok(())
    }

    /// The last call that is written down here, of whatever incarnation.
    pub fn has_order(&self) -> u64 {
        let kept = self.backup.as_ref().map_or(0, Backup::order);
        // It may have taken over meanwhile.
        kept.max(self.running.as_ref().map_or(0, |r| r.host.orders().0))
    }

    /// What was told in this step.
    pub fn early(&mut self, _: Option<&Record>) -> Vec<(CallId, u64)> {
        let running = self.running.as_mut();
        running.map_or(Vec::new(), |r| std::mem::take(&mut r.told))
    }

    pub fn check(&mut self, all: &mut Shared) {
        let most = self.limits.most + LARGEST + 8 * RESULTS as u64;
        let host = self.running.as_ref().map_or(0, |r| r.host.bytes());
        let backup = self.backup.as_ref().map_or(0, Backup::bytes);
        if host > most || backup > most {
            all.wrong(format!(
                "{host} and {backup} bytes are in logs of {most} at most"
            ));
        }
    }

    pub fn call(&mut self, all: &mut Shared) {
        let load = Load::Call {
            thread: all.chance.below(2),
            changes: all.chance.permille(700),
        };
        if self.running.is_some() && all.chance.permille(300) {
            return self.own_call(all, load);
        }
        if let Load::Call { thread, changes } = load {
            let high = all.high;
            self.made.insert(
                self.next,
                Made {
                    thread,
                    changes,
                    high,
                },
            );
            self.next += 1;
        }
        self.caller_event(all, caller::Event::Call(load));
    }

    pub fn step(&mut self, all: &mut Shared, event: Event) {
        match (&mut self.stopped, event) {
            (stopped, Event::Go) => {
                for event in stopped.take().into_iter().flatten() {
                    self.step(all, event);
                }
            }
            (Some(stopped), event) => stopped.push_back(event),
            (None, Event::Stop(time)) => {
                self.stopped = Some(VecDeque::new());
                all.after(time, self.me, Event::Go);
            }
            (None, event) => self.does(all, event),
        }
    }

    fn does(&mut self, all: &mut Shared, event: Event) {
        match event {
            Event::Deliver(from, packet) if from == self.me || !self.dead.contains(&from) => {
                self.deliver(all, from, packet);
            }
            Event::Found(Asks::Host(of), record) if self.incarnation() == Some(of) => {
                self.host_event(all, host_answer(record));
            }
            Event::Found(Asks::Host(_), _) => {}
            Event::Found(Asks::Backup, record) => {
                let lives = record.as_ref().is_some_and(|r| self.lives(r.at.host));
                self.keys += 1;
                let number = self.keys;
                self.claims = None;
                self.backup_event(all, backup_answer(record, lives, number));
                self.reject_early(all);
            }
            Event::Found(Asks::Caller, record) => {
                let lives = record.as_ref().is_some_and(|r| self.lives(r.at.host));
                let backed = record
                    .iter()
                    .flat_map(|r| &r.backups)
                    .any(|n| self.lives(*n));
                self.caller_event(all, caller_answer(record, lives, backed));
            }
            Event::Swapped(Asks::Host(of)) if self.incarnation() == Some(of) => {
                self.host_event(all, host::Event::Swapped);
            }
            Event::Swapped(Asks::Host(_)) => {}
            Event::Swapped(_) => self.backup_event(all, backup::Event::Swapped),
            Event::Ran(of, call) if self.incarnation() == Some(of) => self.ran(all, call),
            Event::Learn(node) => {
                self.dead.insert(node);
                self.host_event(all, host::Event::Died(node));
                self.host_event(all, host::Event::Nodes(self.living()));
                self.backup_event(all, backup::Event::Died(node));
                self.caller_event(all, caller::Event::Died(node));
            }
            Event::Tick => {
                self.host_event(all, host::Event::Tick);
                self.backup_event(all, backup::Event::Tick);
                self.caller_event(all, caller::Event::Tick);
                self.wants(all);
                all.after(100_000, self.me, Event::Tick);
            }
            _ => {}
        }
    }

    fn incarnation(&self) -> Option<u64> {
        self.running.as_ref().map(|r| r.host.incarnation())
    }

    fn deliver(&mut self, all: &mut Shared, from: NodeId, packet: Packet) {
        match packet {
            Packet::ToBackup(message) => {
                // Who hosts it, or did, keeps no copy of it.
                if let Some(incarnation) = self.incarnation() {
                    if let ToBackup::Save {
                        incarnation: theirs,
                        ..
                    } = &message
                        && *theirs < incarnation
                    {
                        all.send(
                            self.me,
                            from,
                            Packet::ToHost(ToHost::Refused { incarnation }),
                        );
                        return;
                    } else if matches!(message, ToBackup::Save { .. }) {
                        self.fenced(all);
                    }
                }
                if self.backup.is_none() {
                    self.backup = Some(Backup::new(self.me));
                }
                self.backup_event(all, backup::Event::Message { from, message });
            }
            Packet::ToHost(message) => self.host_event(all, host::Event::Message { from, message }),
            Packet::Call { at, .. } | Packet::Again { at, .. } if self.claims == Some(at) => {
                self.early.push((from, packet));
            }
            Packet::Again {
                at,
                number,
                settled,
            } => {
                let call = CallId { node: from, number };
                match &self.running {
                    Some(running) if running.at == at => {
                        self.host_event(all, host::Event::Again { call, settled });
                    }
                    _ if self.over => all.send(self.me, from, Packet::Ended),
                    _ => all.send(self.me, from, Packet::NotHere(at)),
                }
            }
            Packet::Call {
                at,
                number,
                settled,
                load,
            } => {
                let call = CallId { node: from, number };
                match &mut self.running {
                    Some(running) if running.at == at => {
                        running.came.insert(call, load);
                        self.host_event(all, host::Event::Call { call, settled });
                    }
                    _ if self.over => all.send(self.me, from, Packet::Ended),
                    _ => all.send(self.me, from, Packet::NotHere(at)),
                }
            }
            Packet::Settled { at, settled } => {
                if self.running.as_ref().is_some_and(|r| r.at == at) {
                    self.host_event(
                        all,
                        host::Event::Settled {
                            node: from,
                            settled,
                        },
                    );
                }
            }
            Packet::Reply { number, outcome } => {
                let changes = self.made.get(&number).is_some_and(|made| made.changes);
                let room = self.results.len() < RESULTS && number.is_multiple_of(3);
                let stays = self.results.contains_key(&number) || changes && room;
                let event = caller::Event::Outcome {
                    number,
                    outcome,
                    stays,
                };
                self.caller_event(all, event);
            }
            Packet::Unknown => self.unknown += 1,
            Packet::Rouse => {
                if self.running.is_none() {
                    let me = self.me;
                    self.backup.get_or_insert_with(|| Backup::new(me));
                    self.backup_event(all, backup::Event::Roused);
                }
            }
            Packet::NotHere(at) => self.caller_event(all, caller::Event::NotHere(at)),
            Packet::Moved { incarnation, at } => {
                self.caller_event(all, caller::Event::Moved { incarnation, at });
            }
            Packet::Ended => self.caller_event(all, caller::Event::Ended),
        }
    }

    /// Somebody else hosts the actor: whoever called is to look for it.
    fn fenced(&mut self, all: &mut Shared) {
        all.counts.fenced += 1;
        if let Some(running) = self.running.take() {
            for to in self.living().into_iter().chain([self.me]) {
                all.send(self.me, to, Packet::NotHere(running.at));
            }
        }
    }

    fn reject_early(&mut self, all: &mut Shared) {
        if self.claims.is_none() {
            for (from, packet) in std::mem::take(&mut self.early) {
                self.deliver(all, from, packet);
            }
        }
    }

    fn caller_event(&mut self, all: &mut Shared, event: caller::Event<Load>) {
        let mut out = Vec::new();
        self.caller.handle(all.time(), event, &mut out);
        for effect in out {
            match effect {
                caller::Effect::Send {
                    at,
                    number,
                    settled,
                    load,
                } => {
                    let packet = Packet::Call {
                        at,
                        number,
                        settled,
                        load,
                    };
                    all.send(self.me, at.host, packet);
                }
                caller::Effect::Settled { at, settled } => {
                    all.send(self.me, at.host, Packet::Settled { at, settled });
                }
                caller::Effect::Settle { number, outcome } => self.settle(all, number, &outcome),
                caller::Effect::Again {
                    at,
                    number,
                    settled,
                } => {
                    let packet = Packet::Again {
                        at,
                        number,
                        settled,
                    };
                    all.send(self.me, at.host, packet);
                }
                caller::Effect::Remade { number, outcome } => {
                    let Some((place, true)) = self
                        .results
                        .get_mut(&number)
                        .map(|r| (r.0, std::mem::take(&mut r.1)))
                    else {
                        all.wrong(format!("nobody asked for what call {number} gave"));
                        continue;
                    };
                    all.counts.remade += 1;
                    if !matches!(outcome, Load::Place(now) if now == place) {
                        all.wrong(format!("call {number} gave {place}, and now {outcome:?}"));
                    }
                }
                caller::Effect::GiveUp(number) => {
                    self.results.remove(&number);
                }
                caller::Effect::Fail { number, .. } => {
                    self.made.remove(&number);
                    self.results.remove(&number);
                    self.lost += 1;
                }
                caller::Effect::Look => {
                    let delay = all.delay();
                    all.after(delay, self.me, Event::Look(Asks::Caller));
                }
                caller::Effect::Rouse(nodes) => {
                    for to in nodes {
                        if self.lives(to) {
                            all.send(self.me, to, Packet::Rouse);
                        }
                    }
                }
                caller::Effect::At(_) => {}
            }
        }
    }

    /// Results that stay with the host are lost and wanted, or needed no more, now and then.
    fn wants(&mut self, all: &mut Shared) {
        for number in self.results.keys().copied().collect::<Vec<_>>() {
            let asked = self.results.get(&number).is_some_and(|(_, asked)| *asked);
            if !asked && all.chance.permille(60) {
                self.results.remove(&number);
                self.caller_event(all, caller::Event::Let(number));
            } else if all.chance.permille(100) {
                if let Some(result) = self.results.get_mut(&number) {
                    result.1 = true;
                }
                self.caller_event(all, caller::Event::Again(number));
            }
        }
    }

    fn settle(&mut self, all: &mut Shared, number: u64, outcome: &Load) {
        let (Some(made), &Load::Place(place)) = (self.made.remove(&number), outcome) else {
            return all.wrong(format!("{:?}: call {number} ended twice", self.me));
        };
        all.counts.told += 1;
        let least = made.high + u64::from(made.changes);
        if place < least {
            all.wrong(format!(
                "{:?}: call {number} of thread {} was told {place}, and {} was told before it was made",
                self.me, made.thread, made.high
            ));
        }
        all.high = all.high.max(place);
        if made.changes {
            let call = CallId {
                node: self.me,
                number,
            };
            all.told.insert(call, place);
        }
        if self.caller.stays(number) {
            self.results.insert(number, (place, false));
        }
    }

    fn backup_event(&mut self, all: &mut Shared, event: backup::Event<Load>) {
        let mut out = Vec::new();
        if let Some(backup) = &mut self.backup {
            backup.handle(all.time(), event, &mut out);
        }
        for effect in out {
            match effect {
                backup::Effect::Send { to, message } => {
                    if self.lives(to) {
                        all.send(self.me, to, Packet::ToHost(message));
                    }
                }
                backup::Effect::Look => {
                    let delay = all.delay();
                    all.after(delay, self.me, Event::Look(Asks::Backup));
                }
                backup::Effect::Swap { expect, record } => {
                    self.claims = Some(record.at);
                    let delay = all.delay();
                    let swap = Event::Swap(Asks::Backup, Some(expect), Some(record));
                    all.after(delay, self.me, swap);
                }
                backup::Effect::TakeOver { record, history } => {
                    self.backup = None;
                    self.take_over(all, &record, history);
                }
                backup::Effect::Drop => self.backup = None,
            }
        }
    }

    fn take_over(
        &mut self,
        all: &mut Shared,
        record: &Record,
        history: crate::core::recovery::History<Load>,
    ) {
        if all.closed {
            all.wrong(format!("{:?} takes over what has ended", self.me));
        }
        all.counts.takeovers += 1;
        let Load::State(state) = &history.checkpoint.state else {
            return;
        };
        let (state, replay) = (state.to_vec(), history.entries.clone());
        let host = Host::resume(all.time(), record, history, self.limits, self.living());
        self.claims = None;
        self.run_host(all, host, record.at, state, replay);
        for node in self.dead.clone() {
            self.host_event(all, host::Event::Died(node));
        }
        let (incarnation, at) = (record.incarnation, record.at);
        let others = self.living();
        for to in others.into_iter().chain([self.me]) {
            all.send(self.me, to, Packet::Moved { incarnation, at });
        }
        self.reject_early(all);
        self.next_run(all);
    }

    /// One by a handle on the actor's own node, which is in the mailbox at once.
    fn own_call(&mut self, all: &mut Shared, load: Load) {
        let node = self.own();
        let (Some(running), &Load::Call { thread, changes }) = (&mut self.running, &load) else {
            return;
        };
        self.own_calls += 1;
        let number = self.own_calls;
        let high = all.high;
        let made = Made {
            thread,
            changes,
            high,
        };
        running.own.insert(number, (made, None));
        running.line.push_back((CallId { node, number }, load));
        self.next_run(all);
    }

    /// Who makes the calls of handles here, and dies with this node.
    fn own(&self) -> NodeId {
        NodeId::new(self.me.get() + OWN).expect("it is not 0")
    }

    /// An own call was told.
    fn own_told(&mut self, all: &mut Shared, call: CallId) {
        let running = self.running.as_mut();
        let told = running.and_then(|r| Some((r.own.remove(&call.number)?, r)));
        let Some(((made, Some(place)), running)) = told else {
            return all.wrong(format!("{call:?} was told twice, or before it ended"));
        };
        all.counts.told += 1;
        all.counts.own += 1;
        if place < made.high + u64::from(made.changes) {
            all.wrong(format!(
                "{call:?} was told {place}, and {} was told before it was made",
                made.high
            ));
        }
        all.high = all.high.max(place);
        if made.changes {
            running.told.push((call, place));
            all.told.insert(call, place);
        }
    }

    pub fn host_event(&mut self, all: &mut Shared, event: host::Event<Load>) {
        let mut out = Vec::new();
        let Some(running) = &mut self.running else {
            return;
        };
        running.host.handle(all.time(), event, &mut out);
        for effect in out {
            let Some(running) = &mut self.running else {
                return;
            };
            match effect {
                host::Effect::Send { to, mut message } => {
                    if all.bug == Bug::NoDedup {
                        forget_outcomes(&mut message);
                    }
                    all.send(self.me, to, Packet::ToBackup(message));
                }
                host::Effect::Run(call) => {
                    if let Some(load) = running.came.remove(&call) {
                        running.line.push_back((call, load));
                    }
                }
                host::Effect::Reply { call, outcome } => {
                    if let Some(order) = running.places.get(&call) {
                        running.told.push((call, *order));
                    }
                    if running.came.remove(&call).is_some() {
                        all.counts.again += 1;
                    }
                    let number = call.number;
                    if self.lives(call.node) {
                        all.send(self.me, call.node, Packet::Reply { number, outcome });
                    }
                }
                host::Effect::Own(call) => self.own_told(all, call),
                host::Effect::Lost(call) => all.send(self.me, call.node, Packet::Unknown),
                host::Effect::Swap { expect, record } => {
                    let asks = Asks::Host(running.host.incarnation());
                    let delay = all.delay();
                    all.after(delay, self.me, Event::Swap(asks, expect, record));
                }
                host::Effect::Checkpoint => running.state_wanted = true,
                host::Effect::Kept(_) => all.counts.kept += 1,
                host::Effect::Hold => all.counts.held += 1,
                host::Effect::Go => {}
                host::Effect::Fenced { .. } => self.fenced(all),
                host::Effect::Closed => {
                    all.closed = true;
                    all.counts.killed += 1;
                    self.over = true;
                    self.running = None;
                    for to in self.living().into_iter().chain([self.me]) {
                        all.send(self.me, to, Packet::Ended);
                    }
                }
            }
        }
        self.next_run(all);
    }

    /// Runs what comes next, if nothing runs.
    fn next_run(&mut self, all: &mut Shared) {
        let Some(running) = &mut self.running else {
            return;
        };
        if running.runs.is_some() {
            return;
        }
        let incarnation = running.host.incarnation();
        // Whoever drains heeds it for each call, whether it runs again or not.
        if !running.replay.is_empty() && running.host.is_held() {
            return;
        }
        if let Some(entry) = running.replay.pop_front() {
            all.counts.replayed += 1;
            running.runs = Some((entry.call, entry.load));
            all.after(20, self.me, Event::Ran(incarnation, entry.call));
            return;
        }
        if std::mem::take(&mut running.state_wanted) {
            all.counts.checkpoints += 1;
            let state = Load::State(Rc::new(running.state.clone()));
            let bytes = 10 * running.state.len() as u64;
            return self.host_event(all, host::Event::State { state, bytes });
        }
        if running.host.is_held() {
            return;
        }
        // Any whose thread has none before it.
        let mut seen = BTreeSet::new();
        let mut free = Vec::new();
        for (at, (call, load)) in running.line.iter().enumerate() {
            if let Load::Call { thread, .. } = load
                && seen.insert((call.node, *thread))
            {
                free.push(at);
            }
        }
        let Some(at) = all.chance.pick(&free) else {
            return;
        };
        let Some((call, load)) = running.line.remove(at) else {
            return;
        };
        running.runs = Some((call, load.clone()));
        let time = all.chance.between(10, 3_000);
        all.after(time, self.me, Event::Ran(incarnation, call));
        if let Load::Call { changes: true, .. } = load {
            let bytes = all.chance.between(10, LARGEST);
            let own = call.node == self.own();
            let event = match own {
                true => host::Event::OwnTurn { call, bytes, load },
                false => host::Event::Turn { call, bytes, load },
            };
            self.host_event(all, event);
        }
    }

    fn ran(&mut self, all: &mut Shared, call: CallId) {
        let own = self.own();
        let Some(running) = &mut self.running else {
            return;
        };
        let Some((_, Load::Call { thread, changes })) = running.runs.take() else {
            return;
        };
        if changes {
            running.state.push((call, thread));
        }
        let place = running.state.len() as u64;
        if changes {
            running.places.insert(call, place);
        }
        // Nobody waits for one that runs again.
        if call.node == own
            && let Some((_, told)) = running.own.get_mut(&call.number)
        {
            *told = Some(place);
            return self.host_event(all, host::Event::OwnEnded(call));
        }
        let outcome = Load::Place(place);
        if all.bug == Bug::ReplyEarly && self.lives(call.node) {
            let (number, outcome) = (call.number, outcome.clone());
            all.send(self.me, call.node, Packet::Reply { number, outcome });
        }
        self.host_event(all, host::Event::Ended { call, outcome });
    }
}

/// The planted fault: a checkpoint without its table.
fn forget_outcomes(message: &mut ToBackup<Load>) {
    if let ToBackup::Save {
        checkpoint: Some(checkpoint),
        ..
    } = message
    {
        let plain = Checkpoint {
            ran: Dedup::default(),
            ..(**checkpoint).clone()
        };
        *checkpoint = plain.into();
    }
}
