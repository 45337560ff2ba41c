//! Slots that nodes lend each other: the submitters and grantors of `core::leases`, with their ledgers, on the simulated network.
//!
//! In the first kind of run programs submit calls of several shapes, cancel some, block and go on, take calls back, run tasks of
//! their own, drain; nodes crash, connections break, the cluster is split. Then faults stop, and everything must end. In
//! the second ([`fair`]) submitters keep one node busy, and get their parts of it.
//!
//! Invariant: a call ends exactly once where it was submitted, as run, taken back, cancelled, or lost with a node that is dead;
//! it runs at most once; what runs in slots is held in the ledger, each slot by one call; what a machine believes of how many
//! calls there are is true. Afterwards no slot is lent and no lease is left. Left out: what calls are, and which node is
//! chosen for them.

pub mod fair;
mod node;

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{Demand, NodeId, Units};
use crate::core::leases::submitter::{Call, Cancelled};
use crate::faults::Fault;
use crate::net::{Event, Net, Outcome, Packet};
use crate::plan::Plan;
use node::Node;

/// What is wrong with how the machines are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slip {
    None,
    /// A slot counts as held before the ledger says so.
    StartEarly,
    /// Some slots are not given back to the ledger.
    KeepTicket,
    /// Some ends of calls are not told to who lends their slots.
    ForgetEnd,
    /// Some calls that are sent back are not heard of.
    LoseRefusal,
    /// Some nodes do not hear of a death.
    MissDeath,
    /// Some messages come twice.
    Twice,
    /// Time does not pass for who lends.
    NoTurns,
    /// One submitter's wishes for slots are cut to one.
    SmallWants,
    /// All wishes count as of one priority.
    OnePriority,
}

impl Slip {
    /// Those that the first kind of run finds.
    pub const PLANTED: &[Slip] = &[
        Slip::StartEarly,
        Slip::KeepTicket,
        Slip::ForgetEnd,
        Slip::LoseRefusal,
        Slip::MissDeath,
        Slip::Twice,
    ];

    /// Those that are unfair.
    pub const UNFAIR: &[Slip] = &[Slip::NoTurns, Slip::SmallWants, Slip::OnePriority];
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub calls: u64,
    pub ran: u64,
    pub taken_back: u64,
    pub cancelled: u64,
    pub lost: u64,
    pub refused: u64,
    pub nowhere: u64,
    pub blocked: u64,
    pub crashes: u64,
    pub drains: u64,
    pub breaks: u64,
    pub resent: u64,
}

impl Counts {
    /// Each of them.
    pub fn all(&self) -> [u64; 12] {
        [
            self.calls,
            self.ran,
            self.taken_back,
            self.cancelled,
            self.lost,
            self.refused,
            self.nowhere,
            self.blocked,
            self.crashes,
            self.drains,
            self.breaks,
            self.resent,
        ]
    }

    pub fn add(&mut self, o: &Counts) {
        self.calls += o.calls;
        self.ran += o.ran;
        self.taken_back += o.taken_back;
        self.cancelled += o.cancelled;
        self.lost += o.lost;
        self.refused += o.refused;
        self.nowhere += o.nowhere;
        self.blocked += o.blocked;
        self.crashes += o.crashes;
        self.drains += o.drains;
        self.breaks += o.breaks;
        self.resent += o.resent;
    }
}

/// A call that has not ended.
#[derive(Clone, Debug)]
struct Open {
    owner: NodeId,
    demand: Demand,
    priority: i32,
    bound: bool,
}

/// How often nodes look at the time, in microseconds.
const TICK: u64 = 50_000;

/// After the faults stopped everything ends within so long.
const LONGEST: u64 = 20_000_000;

struct World {
    slip: Slip,
    plan: Plan,
    net: Net,
    nodes: BTreeMap<NodeId, Node>,
    dead: BTreeSet<NodeId>,
    open: BTreeMap<u64, Open>,
    /// How many of them each node has.
    having: BTreeMap<NodeId, usize>,
    /// Where each call ran.
    ran: BTreeMap<u64, NodeId>,
    next: u64,
    /// How long a call runs, if all run equally long.
    length: Option<u64>,
    counts: Counts,
    wrong: Option<String>,
}

/// A run of the first kind.
pub fn run(seed: u64, slip: Slip, show: bool) -> Result<Counts, String> {
    let plan = Plan::of(seed);
    let plan = Plan {
        nodes: plan.nodes.min(7),
        crashes: plan.crashes.min(2),
        ..plan
    };
    let mut world = World::new(plan, slip, |chance| chance.between(1, 4));
    let actions = 250;
    let time = 400_000;
    for _ in 0..actions {
        let at = world.net.chance.below(time);
        world.net.after(at, Event::Act);
    }
    let faults = [
        (world.plan.crashes, Event::Crash),
        (world.plan.breaks, Event::Break),
        (world.plan.splits, Event::Split),
    ];
    for (times, event) in faults {
        for _ in 0..times {
            let at = world.net.chance.below(time);
            world.net.after(at, event.clone());
        }
    }
    while world.net.now < time {
        world.step(show)?;
    }
    world.stop();
    while !world.is_dry() {
        world.step(show)?;
        if world.net.now > time + LONGEST {
            let left: Vec<_> = world.open.iter().take(5).collect();
            let nodes: Vec<String> = world.nodes.values().filter_map(Node::left).collect();
            return Err(format!("no end: {left:?}, {nodes:#?}"));
        }
    }
    let (breaks, resent) = (world.net.breaks, world.net.resent());
    Ok(Counts {
        breaks,
        resent,
        ..world.counts
    })
}

impl World {
    fn new(
        plan: Plan,
        slip: Slip,
        mut cpus: impl FnMut(&mut crate::chance::Chance) -> u64,
    ) -> World {
        let fault = match slip {
            Slip::Twice => Fault::Duplicate,
            _ => Fault::None,
        };
        let mut net = Net::new(plan.clone(), fault);
        let mut nodes = BTreeMap::new();
        for id in (1..=plan.nodes).filter_map(NodeId::new) {
            let gpus = u32::from(net.chance.permille(500));
            nodes.insert(id, Node::new(id, cpus(&mut net.chance), gpus));
            let at = net.chance.below(TICK);
            net.after(at, Event::Tick { node: id });
        }
        World {
            slip,
            plan,
            net,
            nodes,
            dead: BTreeSet::new(),
            open: BTreeMap::new(),
            having: BTreeMap::new(),
            ran: BTreeMap::new(),
            next: 0,
            length: None,
            counts: Counts::default(),
            wrong: None,
        }
    }

    fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// The next thing happens.
    fn step(&mut self, show: bool) -> Result<(), String> {
        let event = self.net.next().ok_or("nothing happens any more")?;
        if show {
            println!("{:>9} {event:?}", self.net.now);
        }
        match event {
            Event::Deliver { from, to, packet } => self.deliver(from, to, packet),
            Event::Act => self.act(),
            Event::Ran { node, run } => self.finish(node, run),
            Event::Crash => self.crash(),
            Event::Split => {
                let side = self.nodes.keys().copied();
                let side: Vec<NodeId> = side.filter(|n| n.get() % 2 == 0).collect();
                self.net.split(side, self.plan.split);
            }
            Event::Learn { node, dead } => self.learn(node, dead),
            Event::Tick { node } => self.tick(node),
            other => return Err(format!("{other:?} is of another world")),
        }
        self.check();
        match self.net.wrong.take().or_else(|| self.wrong.take()) {
            Some(wrong) => Err(format!("at {} us: {wrong}", self.net.now)),
            None => Ok(()),
        }
    }

    /// A node that lives, or any if it is known to no better.
    fn any(&mut self) -> Option<NodeId> {
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        self.net.chance.pick(&all)
    }

    /// Something that a program does.
    fn act(&mut self) {
        let Some(me) = self.any() else { return };
        match self.net.chance.below(20) {
            0..10 => self.submit_some(me),
            10 => self.cancel(),
            11 | 12 => self.own_task(me),
            13 => {
                let cpus = self.net.chance.below(4) as u32;
                self.grant(me, |node, out| node.grantor.local(cpus, &Demand::NONE, out));
            }
            14 => {
                let now = self.now();
                self.submit_to(me, |node, out| {
                    node.submitter.take_back(now, &Demand::ONE_CPU, 0, 2, out);
                });
            }
            15 if self.net.chance.permille(50) && self.counts.drains == 0 => {
                self.counts.drains += 1;
                self.nodes.get_mut(&me).expect("it lives").draining = true;
                self.grant(me, |node, out| node.grantor.drain(out));
            }
            n => self.block(me, n % 2 == 0),
        }
    }

    fn submit_some(&mut self, me: NodeId) {
        let (demand, priority) = match self.net.chance.below(6) {
            0 => (Demand::cpu_only(Units::whole(2)), 0),
            1 => (Demand::ONE_CPU.with_gpu(Units::ONE), 0),
            2 => (Demand::ONE_CPU, 1),
            _ => (Demand::ONE_CPU, 0),
        };
        for _ in 0..self.net.chance.between(1, 12) {
            let call = Open {
                owner: me,
                demand: demand.clone(),
                priority,
                bound: self.net.chance.permille(200),
            };
            self.submit(call, None);
        }
    }

    /// Submits a call, for that node if it says so.
    fn submit(&mut self, call: Open, to: Option<NodeId>) -> u64 {
        self.next += 1;
        self.counts.calls += 1;
        let id = self.next;
        *self.having.entry(call.owner).or_default() += 1;
        self.open.insert(id, call);
        self.place(id, to);
        id
    }

    /// A call ends. False: it has ended.
    fn end(&mut self, id: u64) -> bool {
        let ended = self.open.remove(&id);
        if let Some(open) = &ended
            && let Some(having) = self.having.get_mut(&open.owner)
        {
            *having -= 1;
        }
        ended.is_some()
    }

    /// Chooses a node for a call; with nobody to choose from, it fails.
    fn place(&mut self, id: u64, to: Option<NodeId>) {
        let Some(open) = self.open.get(&id).cloned() else {
            return self.wrong(format!("call {id} is to be placed, and has ended"));
        };
        let me = open.owner;
        let Some(own) = self.nodes.get(&me) else {
            return;
        };
        let able = |other: &Node| {
            let fits = other.ledger.capacity().lacks(&open.demand).is_none();
            fits && !other.draining && other.id != me && !own.buried.contains(&other.id)
        };
        let others = self.nodes.values().filter(|n| able(n)).map(|n| n.id);
        let others: Vec<NodeId> = others.collect();
        let chosen = to.or_else(|| self.net.chance.pick(&others));
        let Some(chosen) = chosen else {
            self.end(id);
            self.counts.nowhere += 1;
            return;
        };
        let call = Call {
            id,
            demand: &open.demand,
            priority: open.priority,
            bound: open.bound,
        };
        let now = self.now();
        self.submit_to(me, |node, out| {
            let taken = node.submitter.submit(now, &call, Some(chosen), out);
            taken.expect("it is far from full");
        });
    }

    fn cancel(&mut self) {
        let all: Vec<u64> = self.open.keys().copied().collect();
        let Some(id) = self.net.chance.pick(&all) else {
            return;
        };
        let owner = self.open[&id].owner;
        let Some(own) = self.nodes.get_mut(&owner) else {
            return;
        };
        match own.submitter.cancel(id) {
            Cancelled::Queued => {
                self.end(id);
                self.counts.cancelled += 1;
            }
            Cancelled::Sent(_) => {}
            Cancelled::Unknown => self.wrong(format!("{owner:?} does not know its call {id}")),
        }
    }

    fn crash(&mut self) {
        if self.nodes.len() < 3 {
            return;
        }
        let Some(dead) = self.any() else { return };
        self.counts.crashes += 1;
        self.nodes.remove(&dead);
        self.dead.insert(dead);
        self.net.crash(dead);
        self.open.retain(|_, open| open.owner != dead);
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            let missed = self.slip == Slip::MissDeath && self.net.chance.permille(300);
            if !missed {
                let after = self.net.chance.below(self.plan.detection);
                self.net.after(after, Event::Learn { node, dead });
            }
        }
    }

    /// Nothing more breaks, nobody begins anything, and who is blocked goes on.
    fn stop(&mut self) {
        for me in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.grant(me, |node, out| node.grantor.local(0, &Demand::NONE, out));
            let blocked = |node: &Node| node.runs.iter().find(|(_, run)| run.blocked).map(|r| *r.0);
            while let Some((from, call)) = self.nodes.get(&me).and_then(blocked) {
                self.go_on(me, from, call);
            }
        }
    }

    fn is_dry(&self) -> bool {
        self.open.is_empty() && self.nodes.values().all(|node| node.left().is_none())
    }

    fn check(&mut self) {
        for (me, own) in &mut self.nodes {
            let (queued, sent) = own.submitter.load();
            let open = self.having.get(me).copied().unwrap_or_default();
            if queued + sent != open {
                let what = format!("{me:?} has {open} calls and knows of {queued} + {sent}");
                self.wrong.get_or_insert(what);
            }
            if let Some(what) = own.overdrawn() {
                self.wrong.get_or_insert(what);
            }
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        let now = self.now();
        let Some(own) = self.nodes.get_mut(&to) else {
            return;
        };
        if own.buried.contains(&from) {
            return;
        }
        match packet {
            Packet::Lease(msg) if msg.is_for_grantor() => {
                self.grant(to, |node, out| node.grantor.handle(now, from, &msg, out));
            }
            Packet::Lease(msg) => {
                self.submit_to(to, |node, out| node.submitter.handle(now, from, &msg, out));
            }
            Packet::Task { call, lease, .. } => {
                self.grant(to, |node, out| {
                    node.grantor.arrived(now, from, lease, call, out)
                });
            }
            Packet::Done {
                call,
                outcome: Outcome::Inline(ran),
                ..
            } => {
                if !self.end(call) {
                    return self.wrong(format!("call {call} ended twice"));
                }
                self.counts.ran += 1;
                let ran = std::time::Duration::from_micros(ran);
                self.submit_to(to, |node, out| node.submitter.ended(now, call, ran, out));
            }
            other => self.wrong(format!("{other:?} is of another world")),
        }
    }

    fn learn(&mut self, me: NodeId, dead: NodeId) {
        let Some(own) = self.nodes.get_mut(&me) else {
            return;
        };
        own.buried.insert(dead);
        self.grant(me, |node, out| node.grantor.died(dead, out));
        self.submit_to(me, |node, out| node.submitter.died(dead, out));
    }

    fn tick(&mut self, me: NodeId) {
        if !self.nodes.contains_key(&me) {
            return;
        }
        let now = self.now();
        if self.slip != Slip::NoTurns {
            self.grant(me, |node, out| node.grantor.tick(now, out));
        }
        self.submit_to(me, |node, out| node.submitter.tick(now, out));
        self.net.after(TICK, Event::Tick { node: me });
    }

    fn now(&self) -> std::time::Duration {
        std::time::Duration::from_micros(self.net.now)
    }
}
