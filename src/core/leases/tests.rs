//! Laws of leases: some nodes, each a submitter, a grantor and its ledger, any order of events that FIFO sessions allow,
//! deaths included; then everything runs dry.

mod bound;
mod steady;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::grantor::Effect as Granted;
use super::submitter::{Call, Cancelled, Effect as Submitted};
use super::*;
use crate::base::{Capacity, NodeId, Units};
use crate::core::Ledger;
use crate::core::ledger::Effect as Ledgered;

/// Ticket numbers; below are the tasks that the nodes run for themselves.
const TICKETS: std::ops::Range<u64> = 1 << 32..1 << 63;

enum Packet {
    Lease(LeaseMsg),
    Call { lease: u32, call: u64 },
    Result { call: u64 },
}

struct Node {
    grantor: Grantor,
    submitter: Submitter,
    ledger: Ledger,
    /// Calls of others that run here: whose, and on which ticket; and whether it is blocked.
    running: BTreeMap<(NodeId, u64), (u64, bool)>,
    started: BTreeSet<u64>,
    own: Vec<u64>,
    abandoned: BTreeSet<(NodeId, u64)>,
    /// How far its CPUs are overdrawn by calls that went on: only that may overdraw them.
    debt: i64,
}

struct World {
    now: Duration,
    nodes: BTreeMap<NodeId, Node>,
    links: BTreeMap<(NodeId, NodeId), VecDeque<Packet>>,
    dead: BTreeSet<NodeId>,
    /// Calls that have not ended, by submitter.
    open: BTreeMap<u64, (NodeId, Demand, i32)>,
    runs: BTreeMap<u64, u32>,
    lost: BTreeSet<u64>,
    next: u64,
    messages: usize,
    refused: usize,
}

fn node(n: u64) -> NodeId {
    NodeId::new(n).unwrap()
}

impl World {
    fn new(cpus: &[u64]) -> World {
        let make = |(n, cpus): (u64, &u64)| {
            let capacity = Capacity::new(Units::whole(*cpus), 1);
            let made = Node {
                grantor: Grantor::new(node(n), capacity.clone(), TICKETS),
                submitter: Submitter::new(),
                ledger: Ledger::new(capacity),
                running: BTreeMap::new(),
                started: BTreeSet::new(),
                own: Vec::new(),
                abandoned: BTreeSet::new(),
                debt: 0,
            };
            (node(n), made)
        };
        World {
            now: Duration::from_secs(1),
            nodes: (1..).zip(cpus).map(make).collect(),
            links: BTreeMap::new(),
            dead: BTreeSet::new(),
            open: BTreeMap::new(),
            runs: BTreeMap::new(),
            lost: BTreeSet::new(),
            next: 0,
            messages: 0,
            refused: 0,
        }
    }

    fn pick(&self, n: usize) -> Option<NodeId> {
        let all = self.nodes.len();
        self.nodes.keys().nth(n.checked_rem(all)?).copied()
    }

    /// Another node that could run it.
    fn other(&self, me: NodeId, n: usize, demand: &Demand) -> Option<NodeId> {
        let able = |own: &Node| own.ledger.capacity().lacks(demand).is_none();
        let others = self.nodes.iter().filter(|(x, own)| **x != me && able(own));
        let others: Vec<_> = others.map(|(x, _)| *x).collect();
        others.get(n.checked_rem(others.len())?).copied()
    }

    fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        self.messages += usize::from(matches!(packet, Packet::Lease(_)));
        if !self.dead.contains(&to) {
            self.links.entry((from, to)).or_default().push_back(packet);
        }
    }

    fn submitted(&mut self, me: NodeId, out: Vec<Submitted>) {
        for effect in out {
            match effect {
                Submitted::Send { to, msg } => {
                    assert!(msg.is_for_grantor());
                    self.send(me, to, Packet::Lease(msg));
                }
                Submitted::Run { call, node, lease } => {
                    assert!(!self.dead.contains(&node) && node != me);
                    self.send(me, node, Packet::Call { lease, call });
                }
                Submitted::Here { call } => {
                    self.open.remove(&call).expect("open");
                }
                Submitted::Place { call } => self.place(me, call, call as usize + self.messages),
                Submitted::Lost { call, .. } => {
                    assert!(self.lost.insert(call));
                    self.open.remove(&call).expect("open");
                }
            }
        }
    }

    /// The driver chooses anew; with nobody left, the call fails.
    fn place(&mut self, me: NodeId, id: u64, n: usize) {
        let (_, demand, priority) = self.open[&id].clone();
        let Some(to) = self.other(me, n, &demand) else {
            self.open.remove(&id);
            return;
        };
        let call = Call {
            id,
            demand: &demand,
            priority,
            bound: id.is_multiple_of(3),
        };
        let mut out = Vec::new();
        let now = self.now;
        let own = self.nodes.get_mut(&me).unwrap();
        own.submitter
            .submit(now, &call, Some(to), &mut out)
            .unwrap();
        self.submitted(me, out);
    }

    fn ledgered(&mut self, me: NodeId, out: Vec<Ledgered>) -> Vec<Granted> {
        let mut granted = Vec::new();
        for effect in out {
            let own = self.nodes.get_mut(&me).unwrap();
            match effect {
                Ledgered::Start { task, .. } if task >= TICKETS.start => {
                    own.started.insert(task);
                    own.grantor.reserved(task, &mut granted);
                }
                Ledgered::Start { task, .. } => own.own.push(task),
                Ledgered::Refuse { .. } => panic!("asked for what never fits"),
                Ledgered::Offer => {}
            }
        }
        granted
    }

    fn granted(&mut self, me: NodeId, out: Vec<Granted>) {
        let mut queue: VecDeque<Granted> = out.into();
        while let Some(effect) = queue.pop_front() {
            let own = self.nodes.get_mut(&me).unwrap();
            let mut ledgered = Vec::new();
            match effect {
                Granted::Send { to, msg } => {
                    self.refused += usize::from(matches!(msg, LeaseMsg::Refused { .. }));
                    self.send(me, to, Packet::Lease(msg));
                }
                Granted::Reserve {
                    ticket,
                    demand,
                    priority,
                } => {
                    own.ledger.submit(ticket, demand, priority, &mut ledgered);
                }
                Granted::Release { ticket } => {
                    assert!(
                        own.running.values().all(|(t, _)| *t != ticket),
                        "released in use"
                    );
                    let waited = own.ledger.cancel(ticket, &mut ledgered);
                    assert!(
                        waited || own.ledger.finish(ticket, &mut ledgered),
                        "not in the ledger"
                    );
                }
                Granted::Start { from, call, ticket } => {
                    assert!(own.started.contains(&ticket), "started without resources");
                    assert!(
                        own.running.values().all(|(t, _)| *t != ticket),
                        "two calls in one slot"
                    );
                    own.running.insert((from, call), (ticket, false));
                    *self.runs.entry(call).or_default() += 1;
                }
                Granted::Lend { ticket } => own.ledger.lend(ticket, &mut ledgered),
                Granted::Reclaim { ticket } => {
                    own.ledger.reclaim(ticket);
                    own.debt = own.debt.max(-own.ledger.free_cpu_steps());
                }
                Granted::Abandon { from, call } => {
                    assert!(own.running.contains_key(&(from, call)) && self.dead.contains(&from));
                    assert!(own.abandoned.insert((from, call)));
                }
            }
            queue.extend(self.ledgered(me, ledgered));
        }
    }

    fn deliver(&mut self, n: usize) -> bool {
        let full: Vec<_> = self
            .links
            .iter()
            .filter(|(_, q)| !q.is_empty())
            .map(|(k, _)| *k)
            .collect();
        let Some((from, to)) = n.checked_rem(full.len()).map(|n| full[n]) else {
            return false;
        };
        let packet = self
            .links
            .get_mut(&(from, to))
            .and_then(VecDeque::pop_front);
        let now = self.now;
        let own = self.nodes.get_mut(&to).unwrap();
        let (mut s, mut g) = (Vec::new(), Vec::new());
        match packet.unwrap() {
            Packet::Lease(msg) if msg.is_for_grantor() => {
                own.grantor.handle(now, from, &msg, &mut g)
            }
            Packet::Lease(msg) => own.submitter.handle(now, from, &msg, &mut s),
            Packet::Call { lease, call } => own.grantor.arrived(now, from, lease, call, &mut g),
            Packet::Result { call } => {
                own.submitter
                    .ended(now, call, Duration::from_micros(50), &mut s);
                self.open.remove(&call).expect("ends once");
            }
        }
        self.granted(to, g);
        self.submitted(to, s);
        true
    }

    fn finish(&mut self, at: usize, n: usize) -> bool {
        let Some(me) = self.pick(at) else {
            return false;
        };
        let own = self.nodes.get_mut(&me).unwrap();
        let Some(n) = n.checked_rem(own.running.len()) else {
            return false;
        };
        let (&(from, call), _) = own.running.iter().nth(n).unwrap();
        own.running.remove(&(from, call));
        own.abandoned.remove(&(from, call));
        let mut out = Vec::new();
        own.grantor.ended(from, call, &mut out);
        self.send(me, from, Packet::Result { call });
        self.granted(me, out);
        true
    }

    fn block(&mut self, at: usize, n: usize, blocked: bool) {
        let Some(me) = self.pick(at) else { return };
        let own = self.nodes.get_mut(&me).unwrap();
        let Some(n) = n.checked_rem(own.running.len()) else {
            return;
        };
        let (&(from, call), known) = own.running.iter_mut().nth(n).unwrap();
        known.1 = blocked;
        let mut out = Vec::new();
        match blocked {
            true => own.grantor.blocked(from, call, &mut out),
            false => own.grantor.unblocked(from, call, &mut out),
        }
        self.granted(me, out);
    }

    fn kill(&mut self, n: usize) {
        if self.nodes.len() < 2 {
            return;
        }
        let dead = self.pick(n).unwrap();
        self.nodes.remove(&dead);
        self.dead.insert(dead);
        self.links
            .retain(|(from, to), _| *from != dead && *to != dead);
        self.open.retain(|_, (owner, ..)| *owner != dead);
        for me in self.nodes.keys().copied().collect::<Vec<_>>() {
            let own = self.nodes.get_mut(&me).unwrap();
            let (mut s, mut g) = (Vec::new(), Vec::new());
            own.grantor.died(dead, &mut g);
            own.submitter.died(dead, &mut s);
            self.granted(me, g);
            self.submitted(me, s);
        }
    }

    fn tick(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        let now = self.now;
        for me in self.nodes.keys().copied().collect::<Vec<_>>() {
            let own = self.nodes.get_mut(&me).unwrap();
            let (mut s, mut g) = (Vec::new(), Vec::new());
            own.grantor.tick(now, &mut g);
            assert!(own.grantor.is_divided(), "{:#?}", own.grantor);
            own.submitter.tick(now, &mut s);
            self.granted(me, g);
            self.submitted(me, s);
        }
    }

    fn submit(&mut self, at: usize, to: usize, kind: u8) -> Option<()> {
        let me = self.pick(at)?;
        let (demand, priority) = match kind % 4 {
            0 => (Demand::cpu_only(Units::whole(2)), 0),
            1 => (Demand::ONE_CPU.with_gpu(Units::ONE), 0),
            2 => (Demand::ONE_CPU, 1),
            _ => (Demand::ONE_CPU, 0),
        };
        let to = self.other(me, to, &demand)?;
        self.next += 1;
        let id = self.next;
        self.open.insert(id, (me, demand.clone(), priority));
        let call = Call {
            id,
            demand: &demand,
            priority,
            bound: kind >= 200,
        };
        let to = (call.bound || kind < 150).then_some(to);
        let (now, mut out) = (self.now, Vec::new());
        let own = self.nodes.get_mut(&me)?;
        own.submitter.submit(now, &call, to, &mut out).unwrap();
        self.submitted(me, out);
        Some(())
    }

    fn cancel(&mut self, id: u64) {
        let Some((me, ..)) = self.open.get(&(id % (self.next + 1))) else {
            return;
        };
        let own = self.nodes.get_mut(me).unwrap();
        match own.submitter.cancel(id % (self.next + 1)) {
            Cancelled::Queued => {
                self.open.remove(&(id % (self.next + 1)));
            }
            Cancelled::Sent(to) => assert!(!self.dead.contains(&to)),
            Cancelled::Unknown => panic!("an open call is not here"),
        }
    }

    /// What the node does for itself: contends for its ledger, and is told to the grantor.
    fn local(&mut self, at: usize, n: usize) -> Option<()> {
        let me = self.pick(at)?;
        let own = self.nodes.get_mut(&me)?;
        let (mut ledgered, mut granted) = (Vec::new(), Vec::new());
        match n % 3 {
            0 => {
                self.next += 1;
                own.ledger
                    .submit(self.next, Demand::ONE_CPU, 0, &mut ledgered);
            }
            1 => {
                let task = own.own.pop()?;
                own.ledger.finish(task, &mut ledgered);
            }
            _ => own.grantor.local(n as u32 % 5, &Demand::NONE, &mut granted),
        }
        granted.extend(self.ledgered(me, ledgered));
        self.granted(me, granted);
        Some(())
    }

    fn take_back(&mut self, at: usize) -> Option<()> {
        let me = self.pick(at)?;
        let (now, mut out) = (self.now, Vec::new());
        let own = self.nodes.get_mut(&me)?;
        own.submitter
            .take_back(now, &Demand::ONE_CPU, 0, 2, &mut out);
        self.submitted(me, out);
        Some(())
    }

    fn check(&mut self) {
        for (me, own) in &mut self.nodes {
            let free = own.ledger.free_cpu_steps();
            assert!(-free <= own.debt, "overdrawn");
            own.debt = (-free).max(0);
            let (queued, sent) = own.submitter.load();
            let open = self.open.values().filter(|(owner, ..)| owner == me).count();
            assert_eq!(queued + sent, open, "calls add up");
        }
        for (call, runs) in &self.runs {
            assert!(*runs == 1, "call {call} ran {runs} times");
        }
    }

    /// No more faults and no more calls: everything ends and is given back.
    fn run_dry(&mut self) {
        for me in self.nodes.keys().copied().collect::<Vec<_>>() {
            let own = self.nodes.get_mut(&me).unwrap();
            let mut out = Vec::new();
            own.grantor.local(0, &Demand::NONE, &mut out);
            self.granted(me, out);
        }
        for round in 0..400 {
            for at in 0..self.nodes.len() {
                while self.nodes[&self.pick(at).unwrap()].ledger.running() > 0
                    && self.local(at, 1).is_some()
                {}
                for n in 0..9 {
                    self.block(at, n, false);
                }
            }
            while self.deliver(round) {}
            for at in 0..self.nodes.len() {
                while self.finish(at, round) {}
            }
            self.check();
            self.tick(50);
            let quiet = self.links.values().all(VecDeque::is_empty);
            if quiet && self.open.is_empty() && self.idle() {
                return;
            }
        }
        let left: Vec<_> = self
            .nodes
            .values()
            .map(|n| (&n.grantor, &n.submitter))
            .collect();
        panic!("does not run dry: {:?} {left:#?}", self.open);
    }

    fn idle(&self) -> bool {
        self.nodes.values().all(|own| {
            let lent = own.grantor.tickets() + own.grantor.calls() + own.ledger.running();
            lent + own.ledger.queued() + own.submitter.slots().count() == 0
        })
    }
}

#[derive(Clone, Debug)]
enum Step {
    Submit(usize, usize, u8),
    Deliver(usize, usize),
    Finish(usize, usize),
    Block(usize, usize, bool),
    Tick(u64),
    Cancel(u64),
    Local(usize, usize),
    TakeBack(usize),
    Kill(usize),
    Drain(usize),
}

fn steps() -> impl Strategy<Value = Step> {
    let n = 0..1000usize;
    prop_oneof![
        8 => (n.clone(), n.clone(), any::<u8>()).prop_map(|(a, b, c)| Step::Submit(a, b, c)),
        12 => (n.clone(), 1..6usize).prop_map(|(a, b)| Step::Deliver(a, b)),
        6 => (n.clone(), n.clone()).prop_map(|(a, b)| Step::Finish(a, b)),
        2 => (n.clone(), n.clone(), any::<bool>()).prop_map(|(a, b, c)| Step::Block(a, b, c)),
        3 => (1..300u64).prop_map(Step::Tick),
        1 => any::<u64>().prop_map(Step::Cancel),
        3 => (n.clone(), n.clone()).prop_map(|(a, b)| Step::Local(a, b)),
        1 => n.clone().prop_map(Step::TakeBack),
        1 => n.clone().prop_map(Step::Kill),
        1 => n.prop_map(Step::Drain),
    ]
}

fn play(cpus: &[u64], steps: Vec<Step>, faults: bool) {
    let mut world = World::new(cpus);
    let mut drained = false;
    for step in steps {
        match step {
            Step::Submit(a, b, c) => {
                world.submit(a, b, c);
            }
            Step::Deliver(a, times) => (0..times).for_each(|_| {
                world.deliver(a);
            }),
            Step::Finish(a, b) => {
                world.finish(a, b);
            }
            Step::Block(a, b, c) => world.block(a, b, c),
            Step::Tick(ms) => world.tick(ms),
            Step::Cancel(id) => world.cancel(id),
            Step::Local(a, b) => {
                world.local(a, b);
            }
            Step::TakeBack(a) => {
                world.take_back(a);
            }
            Step::Kill(n) if faults => world.kill(n),
            // At most one node leaves, so that there is somebody to go to.
            Step::Drain(n) if faults && !drained => {
                drained = true;
                let me = world.pick(n).unwrap();
                let mut out = Vec::new();
                world.nodes.get_mut(&me).unwrap().grantor.drain(&mut out);
                world.granted(me, out);
                world.kill(n);
            }
            Step::Kill(_) | Step::Drain(_) => {}
        }
        world.check();
    }
    world.run_dry();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_call_ends_once_and_every_slot_comes_back(steps in vec(steps(), 0..300)) {
        play(&[2, 3, 4], steps, false);
    }

    #[test]
    fn so_it_is_when_nodes_die(steps in vec(steps(), 0..200)) {
        play(&[2, 3, 2, 4, 2], steps, true);
    }
}
