//! One node of it: its machines, what runs there, and the driver's part of what they decide.
//!
//! Invariant: the ledger is asked for what the grantor says, and nothing runs before the ledger has started its slot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Slip, World};
use crate::base::{Capacity, Demand, NodeId, ObjectKey, Units};
use crate::core::leases::{Grantor, LeaseMsg, Submitter, grantor, submitter};
use crate::core::ledger::{self, Ledger};
use crate::net::{Event, Outcome, Packet};

/// Numbers of slots; below are the tasks that nodes run for themselves.
const TICKETS: std::ops::Range<u64> = 1 << 40..1 << 60;

/// A call that runs in a slot.
#[derive(Debug)]
pub struct Run {
    pub ticket: u64,
    pub blocked: bool,
    pub since: u64,
}

/// See the file.
pub struct Node {
    pub id: NodeId,
    pub grantor: Grantor,
    pub submitter: Submitter,
    pub ledger: Ledger,
    /// Calls of others.
    pub runs: BTreeMap<(NodeId, u64), Run>,
    /// Slots that the ledger holds.
    held: BTreeSet<u64>,
    /// Whom it knows to be dead.
    pub buried: BTreeSet<NodeId>,
    pub draining: bool,
    /// How far its CPUs are overdrawn by calls that went on; only that may overdraw them.
    debt: i64,
}

impl Node {
    pub fn new(id: NodeId, cpus: u64, gpus: u32) -> Node {
        let capacity = Capacity::new(Units::whole(cpus), gpus);
        Node {
            id,
            grantor: Grantor::new(id, capacity.clone(), TICKETS),
            submitter: Submitter::new(),
            ledger: Ledger::new(capacity),
            runs: BTreeMap::new(),
            held: BTreeSet::new(),
            buried: BTreeSet::new(),
            draining: false,
            debt: 0,
        }
    }

    /// What is not given back.
    pub fn left(&self) -> Option<String> {
        let lent = (self.grantor.tickets(), self.grantor.calls());
        let ledger = (self.ledger.running(), self.ledger.queued());
        let leases = (
            self.grantor.leases().count(),
            self.submitter.slots().count(),
        );
        let clean = lent == (0, 0) && ledger == (0, 0) && leases == (0, 0);
        (!clean).then(|| {
            format!(
                "{:?} has slots and calls of others {lent:?}, tasks {ledger:?}, leases {leases:?}",
                self.id
            )
        })
    }

    /// Whether more runs than there is room for.
    pub fn overdrawn(&mut self) -> Option<String> {
        let free = self.ledger.free_cpu_steps();
        let wrong = (-free > self.debt).then(|| format!("{:?} is overdrawn by {free}", self.id));
        self.debt = (-free).max(0);
        wrong
    }
}

impl World {
    /// Has a node's grantor do something, and does what follows.
    pub fn grant(&mut self, me: NodeId, act: impl FnOnce(&mut Node, &mut Vec<grantor::Effect>)) {
        let mut out = Vec::new();
        if let Some(node) = self.nodes.get_mut(&me) {
            act(node, &mut out);
        }
        let mut queue = VecDeque::from(out);
        while let Some(effect) = queue.pop_front() {
            self.granted(me, effect, &mut queue);
        }
    }

    fn granted(
        &mut self,
        me: NodeId,
        effect: grantor::Effect,
        queue: &mut VecDeque<grantor::Effect>,
    ) {
        use grantor::Effect;
        let some = self.net.chance.permille(100);
        let mut ledger = Vec::new();
        let Some(own) = self.nodes.get_mut(&me) else {
            return;
        };
        match effect {
            Effect::Send { to, msg } => {
                if let LeaseMsg::Refused { calls, .. } = &msg {
                    self.counts.refused += calls.len() as u64;
                    if self.slip == Slip::LoseRefusal && some {
                        return;
                    }
                }
                self.net.send(me, to, Packet::Lease(msg));
            }
            Effect::Reserve {
                ticket,
                demand,
                priority,
            } => {
                own.ledger.submit(ticket, demand, priority, &mut ledger);
                if self.slip == Slip::StartEarly && some {
                    let mut early = Vec::new();
                    own.grantor.reserved(ticket, &mut early);
                    queue.extend(early);
                }
            }
            Effect::Release { ticket } => {
                own.held.remove(&ticket);
                if self.slip == Slip::KeepTicket && some {
                    return;
                }
                let known = own.ledger.cancel(ticket, &mut ledger)
                    || own.ledger.finish(ticket, &mut ledger);
                let used = own.runs.values().any(|run| run.ticket == ticket);
                if used || !known {
                    self.wrong(format!(
                        "{me:?} gives slot {ticket} back: in use {used}, known {known}"
                    ));
                }
            }
            Effect::Start { from, call, ticket } => self.start(me, from, call, ticket),
            Effect::Lend { ticket } => own.ledger.lend(ticket, &mut ledger),
            Effect::Reclaim { ticket } => {
                own.ledger.reclaim(ticket);
                own.debt = own.debt.max(-own.ledger.free_cpu_steps());
            }
            Effect::Abandon { from, call } => {
                if !own.runs.contains_key(&(from, call)) || !self.dead.contains(&from) {
                    self.wrong(format!("{me:?} gives up call {call} of {from:?}"));
                }
            }
        }
        queue.extend(self.ledgered(me, ledger));
    }

    /// What the ledger started: slots, which the grantor hears of, and own tasks.
    fn ledgered(&mut self, me: NodeId, out: Vec<ledger::Effect>) -> Vec<grantor::Effect> {
        let mut granted = Vec::new();
        for effect in out {
            match effect {
                ledger::Effect::Start { task, .. } if TICKETS.contains(&task) => {
                    if let Some(own) = self.nodes.get_mut(&me) {
                        own.held.insert(task);
                        own.grantor.reserved(task, &mut granted);
                    }
                }
                ledger::Effect::Start { task, .. } => {
                    let length = self.net.chance.between(100, 30_000);
                    let run = (me, task);
                    self.net.after(length, Event::Ran { node: me, run });
                }
                ledger::Effect::Refuse { task, why } => {
                    self.wrong(format!("{me:?} can never hold {task}: {why}"));
                }
                ledger::Effect::Offer => {}
            }
        }
        granted
    }

    fn start(&mut self, me: NodeId, from: NodeId, call: u64, ticket: u64) {
        let length = self
            .length
            .unwrap_or_else(|| self.net.chance.between(100, 30_000));
        let since = self.net.now;
        let Some(own) = self.nodes.get_mut(&me) else {
            return;
        };
        let held = own.held.contains(&ticket);
        let used = own.runs.values().any(|run| run.ticket == ticket);
        let run = Run {
            ticket,
            blocked: false,
            since,
        };
        own.runs.insert((from, call), run);
        if !held || used {
            self.wrong(format!(
                "call {call} starts in slot {ticket} of {me:?}: held {held}, in use {used}"
            ));
        }
        if let Some(before) = self.ran.insert(call, me) {
            self.wrong(format!("call {call} runs on {me:?}, and ran on {before:?}"));
        }
        let run = (from, call);
        self.net.after(length, Event::Ran { node: me, run });
    }

    /// Has a node's submitter do something, and does what follows.
    pub fn submit_to(
        &mut self,
        me: NodeId,
        act: impl FnOnce(&mut Node, &mut Vec<submitter::Effect>),
    ) {
        use submitter::Effect;
        let mut out = Vec::new();
        if let Some(node) = self.nodes.get_mut(&me) {
            act(node, &mut out);
        }
        for effect in out {
            match effect {
                Effect::Send { to, msg } => {
                    let msg = self.spoil(me, msg);
                    self.net.send(me, to, Packet::Lease(msg));
                }
                Effect::Run { call, node, lease } => {
                    let Some(open) = self.open.get(&call) else {
                        return self.wrong(format!("{me:?} sends call {call}, which has ended"));
                    };
                    let packet = Packet::Task {
                        call,
                        lease,
                        demand: open.demand.clone(),
                        result: ObjectKey {
                            owner: me,
                            number: call,
                        },
                        args: Vec::new(),
                    };
                    self.net.send(me, node, packet);
                }
                Effect::Here { call } => {
                    self.counts.taken_back += 1;
                    self.close(me, call);
                }
                Effect::Place { call } => self.place(call, None),
                Effect::Lost { call, node } => {
                    self.counts.lost += 1;
                    if !self.dead.contains(&node) {
                        self.wrong(format!("call {call} is lost with {node:?}, which lives"));
                    }
                    self.close(me, call);
                }
            }
        }
    }

    /// Wishes, as a driver that makes a mistake hands them on.
    fn spoil(&self, me: NodeId, mut msg: LeaseMsg) -> LeaseMsg {
        if let LeaseMsg::Want {
            priority, slots, ..
        } = &mut msg
        {
            match self.slip {
                Slip::SmallWants if me.get() == 2 => *slots = (*slots).min(1),
                Slip::OnePriority => *priority = 0,
                _ => {}
            }
        }
        msg
    }

    fn close(&mut self, me: NodeId, call: u64) {
        if !self.end(call) {
            self.wrong(format!("call {call} of {me:?} ended twice"));
        }
    }

    /// A call of another node is over, or a task of this one's own.
    pub fn finish(&mut self, me: NodeId, (from, call): (NodeId, u64)) {
        let forgets = self.slip == Slip::ForgetEnd && self.net.chance.permille(50);
        let now = self.net.now;
        let Some(own) = self.nodes.get_mut(&me) else {
            return;
        };
        let mut ledger = Vec::new();
        if from == me {
            own.ledger.finish(call, &mut ledger);
            let follows = self.ledgered(me, ledger);
            return self.grant(me, |_, out| out.extend(follows));
        }
        let Some(run) = own.runs.remove(&(from, call)) else {
            return;
        };
        let done = Packet::Done {
            call,
            outcome: Outcome::Inline(now - run.since),
            inner: Vec::new(),
            refs: Vec::new(),
        };
        self.net.send(me, from, done);
        if !forgets {
            self.grant(me, |node, out| node.grantor.ended(from, call, out));
        }
    }

    /// A task of the node's own, which stands in the ledger's line with the slots.
    pub fn own_task(&mut self, me: NodeId) {
        self.next += 1;
        let (task, mut ledger) = (self.next, Vec::new());
        if let Some(own) = self.nodes.get_mut(&me) {
            own.ledger.submit(task, Demand::ONE_CPU, 0, &mut ledger);
        }
        let follows = self.ledgered(me, ledger);
        self.grant(me, |_, out| out.extend(follows));
    }

    /// A call waits for something, or goes on.
    pub fn block(&mut self, me: NodeId, waits: bool) {
        let Some(own) = self.nodes.get_mut(&me) else {
            return;
        };
        let all: Vec<(NodeId, u64)> = own.runs.keys().copied().collect();
        let Some((from, call)) = self.net.chance.pick(&all) else {
            return;
        };
        if !waits {
            return self.go_on(me, from, call);
        }
        if let Some(run) = self
            .nodes
            .get_mut(&me)
            .and_then(|n| n.runs.get_mut(&(from, call)))
        {
            run.blocked = true;
            self.counts.blocked += 1;
            self.grant(me, |node, out| node.grantor.blocked(from, call, out));
        }
    }

    pub fn go_on(&mut self, me: NodeId, from: NodeId, call: u64) {
        if let Some(run) = self
            .nodes
            .get_mut(&me)
            .and_then(|n| n.runs.get_mut(&(from, call)))
        {
            run.blocked = false;
            self.grant(me, |node, out| node.grantor.unblocked(from, call, out));
        }
    }
}
