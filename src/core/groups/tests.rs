//! Laws of placement groups: some nodes, each a coordinator, a participant and its ledger, any order of events that FIFO
//! sessions allow, deaths included; then the faults stop and nothing is left over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, any, prop_oneof, proptest};
use proptest::strategy::Strategy as Gen;

use super::coordinator::Effect as Planned;
use super::participant::Effect as Held;
use super::*;
use crate::base::{Capacity, GroupSpec, GroupStrategy, Units};
use crate::core::Ledger;
use crate::core::ledger::Effect as Ledgered;
use crate::core::view::{NodeView, View};

/// Tickets are numbered from here on; below are the tasks of the nodes.
const TICKETS: u64 = 1 << 32;

struct Node {
    coordinator: Coordinator,
    participant: Participant,
    ledger: Ledger,
    started: BTreeSet<u64>,
    open: BTreeMap<(GroupId, u32), u64>,
    own: Vec<u64>,
}

struct World {
    now: Duration,
    view: View,
    nodes: BTreeMap<NodeId, Node>,
    links: BTreeMap<(NodeId, NodeId), VecDeque<GroupMsg>>,
    specs: BTreeMap<GroupId, GroupSpec>,
    ready: BTreeSet<GroupId>,
    degraded: usize,
    next: u64,
}

fn node(n: u64) -> NodeId {
    NodeId::new(n).unwrap()
}

impl World {
    fn new(cpus: &[u64]) -> World {
        let mut view = View::new();
        let mut nodes = BTreeMap::new();
        for (n, cpus) in (1..).zip(cpus) {
            let capacity = Capacity::new(Units::whole(*cpus), 0);
            view.merge(node(n), NodeView::idle(capacity.clone()));
            let made = Node {
                coordinator: Coordinator::new(node(n), n * 77),
                participant: Participant::new(capacity.clone(), TICKETS),
                ledger: Ledger::new(capacity),
                started: BTreeSet::new(),
                open: BTreeMap::new(),
                own: Vec::new(),
            };
            nodes.insert(node(n), made);
        }
        World {
            now: Duration::from_secs(1),
            view,
            nodes,
            links: BTreeMap::new(),
            specs: BTreeMap::new(),
            ready: BTreeSet::new(),
            degraded: 0,
            next: 0,
        }
    }

    fn pick(&self, n: usize) -> NodeId {
        *self.nodes.keys().nth(n % self.nodes.len()).unwrap()
    }

    fn send(&mut self, from: NodeId, to: NodeId, msg: GroupMsg) {
        if self.nodes.contains_key(&to) {
            self.links.entry((from, to)).or_default().push_back(msg);
        }
    }

    fn planned(&mut self, me: NodeId, out: Vec<Planned>) {
        for effect in out {
            match effect {
                Planned::Send { to, msg } => self.send(me, to, msg),
                Planned::Ready { group, nodes } => {
                    self.ready.insert(group);
                    self.check_ready(group, &nodes);
                }
                Planned::Degraded { group, bundles } => {
                    assert!(!bundles.is_empty() && group.node == me);
                    self.degraded += 1;
                    self.ready.remove(&group);
                }
            }
        }
    }

    /// Every bundle is open where it is said to be, unless that node died since, and they lie as they should.
    fn check_ready(&self, group: GroupId, nodes: &[NodeId]) {
        let spec = &self.specs[&group];
        assert_eq!(nodes.len(), spec.bundles.len());
        for (bundle, at) in nodes.iter().enumerate() {
            let open = |n: &Node| n.open.contains_key(&(group, bundle as u32));
            assert!(
                self.nodes.get(at).is_none_or(open),
                "{group} {bundle} is not open on {at}"
            );
        }
        let distinct: BTreeSet<_> = nodes.iter().collect();
        match spec.strategy {
            GroupStrategy::StrictPack => assert_eq!(distinct.len(), 1),
            GroupStrategy::StrictSpread => assert_eq!(distinct.len(), nodes.len()),
            _ => {}
        }
    }

    fn ledgered(&mut self, me: NodeId, out: Vec<Ledgered>) -> Vec<Held> {
        let mut held = Vec::new();
        for effect in out {
            let own = self.nodes.get_mut(&me).unwrap();
            match effect {
                Ledgered::Start { task, .. } if task >= TICKETS => {
                    own.started.insert(task);
                    own.participant.reserved(task, &mut held);
                }
                Ledgered::Start { task, .. } => own.own.push(task),
                Ledgered::Refuse { .. } => panic!("asked for what never fits"),
                Ledgered::Offer => {}
            }
        }
        held
    }

    fn held(&mut self, me: NodeId, out: Vec<Held>) {
        let mut queue: VecDeque<Held> = out.into();
        while let Some(effect) = queue.pop_front() {
            let own = self.nodes.get_mut(&me).unwrap();
            let mut ledgered = Vec::new();
            match effect {
                Held::Send { to, msg } => self.send(me, to, msg),
                Held::Reserve {
                    ticket,
                    demand,
                    priority,
                } => {
                    own.ledger.submit(ticket, demand, priority, &mut ledgered);
                }
                Held::Release { ticket } => {
                    assert!(
                        own.open.values().all(|t| *t != ticket),
                        "released while open"
                    );
                    let waited = own.ledger.cancel(ticket, &mut ledgered);
                    assert!(
                        waited || own.ledger.finish(ticket, &mut ledgered),
                        "not in the ledger"
                    );
                }
                Held::Open {
                    group,
                    bundle,
                    ticket,
                    ..
                } => {
                    assert!(own.started.contains(&ticket), "open without resources");
                    assert!(
                        own.open.insert((group, bundle), ticket).is_none(),
                        "opened twice"
                    );
                    self.check_all_reserved(group);
                }
                Held::Close { group, bundle } => {
                    assert!(own.open.remove(&(group, bundle)).is_some())
                }
            }
            queue.extend(self.ledgered(me, ledgered));
        }
    }

    /// All or nothing: when one bundle opens, each of its group is held by a living node, or went down with one that died.
    fn check_all_reserved(&self, group: GroupId) {
        let held = |bundle: u32| {
            let on = |n: &Node| {
                n.participant
                    .bundles()
                    .any(|(g, b, _)| (g, b) == (group, bundle))
            };
            self.nodes.values().any(on)
        };
        let all = (0..self.specs[&group].bundles.len() as u32).all(held);
        // A node died while the others committed, or the group is removed while they do: then it is known not to be ready.
        let started_with = self.view.len() == self.nodes.len() && !self.died();
        let living = self
            .nodes
            .get(&group.node)
            .is_some_and(|n| n.coordinator.is_ready(group.number).is_some());
        assert!(all || !started_with || !living, "{group} is open in part");
    }

    fn died(&self) -> bool {
        (1..=5).any(|n| self.view.is_gone(node(n)))
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
        let msg = self
            .links
            .get_mut(&(from, to))
            .and_then(VecDeque::pop_front)
            .unwrap();
        let own = self.nodes.get_mut(&to).unwrap();
        match msg.role() {
            Role::Coordinator => {
                let mut out = Vec::new();
                own.coordinator.handle(self.now, from, &msg, &mut out);
                self.planned(to, out);
            }
            Role::Participant => {
                let mut out = Vec::new();
                own.participant.handle(from, &msg, &mut out);
                self.held(to, out);
            }
            Role::Lookup => {}
        }
        true
    }

    fn create(&mut self, at: usize, strategy: GroupStrategy, cpus: &[u64]) {
        let me = self.pick(at);
        let bundles = cpus
            .iter()
            .map(|n| Demand::cpu_only(Units::whole(*n)))
            .collect();
        let spec = GroupSpec { strategy, bundles };
        let mut out = Vec::new();
        let own = self.nodes.get_mut(&me).unwrap();
        match own
            .coordinator
            .create(self.now, spec.clone(), 0, &self.view, &mut out)
        {
            Ok(id) => drop(self.specs.insert(id, spec)),
            Err(why) => assert!(out.is_empty(), "{why}"),
        }
        self.planned(me, out);
    }

    fn remove(&mut self, n: usize) {
        let Some(n) = n.checked_rem(self.specs.len()) else {
            return;
        };
        let id = *self.specs.keys().nth(n).unwrap();
        self.ready.remove(&id);
        if let Some(own) = self.nodes.get_mut(&id.node) {
            let mut out = Vec::new();
            own.coordinator.remove(id.number, &mut out);
            self.planned(id.node, out);
        }
    }

    fn kill(&mut self, n: usize) {
        if self.nodes.len() < 2 {
            return;
        }
        let dead = self.pick(n);
        self.nodes.remove(&dead);
        self.view.remove(dead);
        self.links
            .retain(|(from, to), _| *from != dead && *to != dead);
        self.ready.retain(|group| group.node != dead);
        for me in self.nodes.keys().copied().collect::<Vec<_>>() {
            let own = self.nodes.get_mut(&me).unwrap();
            let (mut c, mut p) = (Vec::new(), Vec::new());
            own.participant.died(dead, &mut p);
            own.coordinator.died(self.now, dead, &mut c);
            self.held(me, p);
            self.planned(me, c);
        }
    }

    fn tick(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        for me in self.nodes.keys().copied().collect::<Vec<_>>() {
            let own = self.nodes.get_mut(&me).unwrap();
            let free = own.ledger.free_cpu_steps().max(0) as u64;
            self.view
                .adjust(me, Demand::cpu_only(Units::from_steps(free)), 0);
            let mut out = Vec::new();
            own.coordinator.tick(self.now, &self.view, &mut out);
            self.planned(me, out);
        }
    }

    fn local(&mut self, at: usize, start: bool) -> bool {
        let me = self.pick(at);
        let own = self.nodes.get_mut(&me).unwrap();
        let mut out = Vec::new();
        if start {
            self.next += 1;
            own.ledger.submit(self.next, Demand::ONE_CPU, 0, &mut out);
        } else if let Some(task) = own.own.pop() {
            own.ledger.finish(task, &mut out);
        } else {
            return false;
        }
        let held = self.ledgered(me, out);
        self.held(me, held);
        true
    }

    fn check(&self) {
        for own in self.nodes.values() {
            assert!(own.ledger.free_cpu_steps() >= 0, "overdrawn");
            let here = own.participant.bundles().count();
            let tasks = own.ledger.running() + own.ledger.queued();
            assert!(here <= tasks && own.open.len() <= here);
        }
    }

    /// The faults stop: what is reserved then is what a living coordinator has placed.
    fn settle(&mut self) {
        for round in 0..120 {
            for at in 0..self.nodes.len() {
                while self.local(at, false) {}
            }
            while self.deliver(round) {}
            self.check();
            self.tick(100);
        }
        while self.deliver(0) {}
    }

    fn check_settled(&self) {
        for (me, own) in &self.nodes {
            for (group, bundle, open) in own.participant.bundles() {
                let coordinator = self.nodes.get(&group.node).map(|n| &n.coordinator);
                let placed = coordinator.and_then(|c| c.placed(group.number));
                let at = placed.as_ref().and_then(|p| p[bundle as usize]);
                let preparing =
                    coordinator.is_some_and(|c| c.is_ready(group.number) == Some(false));
                assert!(
                    if open { at == Some(*me) } else { preparing },
                    "{group} {bundle} is left over on {me}"
                );
            }
            for number in own.coordinator.groups() {
                let placed = own.coordinator.placed(number).unwrap();
                let id = GroupId { node: *me, number };
                for (bundle, at) in placed.iter().enumerate() {
                    let open = |n: NodeId| self.nodes[&n].open.contains_key(&(id, bundle as u32));
                    assert!(
                        at.is_none_or(open),
                        "{id} {bundle} is not where it should be"
                    );
                }
            }
        }
    }

    fn run_out(&mut self) {
        self.settle();
        self.check_settled();
        for n in 0..self.specs.len() {
            self.remove(n);
        }
        self.settle();
        for (me, own) in &self.nodes {
            assert_eq!(
                own.ledger.running() + own.ledger.queued(),
                0,
                "left over on {me}"
            );
            assert!(own.participant.bundles().next().is_none() && own.open.is_empty());
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Create(usize, GroupStrategy, Vec<u64>),
    Remove(usize),
    Deliver(usize, usize),
    Tick(u64),
    Local(usize, bool),
    Kill(usize),
}

fn steps() -> impl Gen<Value = Step> {
    let n = 0..1000usize;
    let strategy = prop_oneof![
        Just(GroupStrategy::Pack),
        Just(GroupStrategy::Spread),
        Just(GroupStrategy::StrictPack),
        Just(GroupStrategy::StrictSpread),
    ];
    prop_oneof![
        3 => (n.clone(), strategy, vec(0..3u64, 1..5)).prop_map(|(a, s, b)| Step::Create(a, s, b)),
        2 => n.clone().prop_map(Step::Remove),
        12 => (n.clone(), 1..6usize).prop_map(|(a, b)| Step::Deliver(a, b)),
        4 => (1..900u64).prop_map(Step::Tick),
        2 => (n.clone(), any::<bool>()).prop_map(|(a, b)| Step::Local(a, b)),
        1 => n.prop_map(Step::Kill),
    ]
}

fn play(cpus: &[u64], steps: Vec<Step>, faults: bool) {
    let mut world = World::new(cpus);
    for step in steps {
        match step {
            Step::Create(a, strategy, cpus) => world.create(a, strategy, &cpus),
            Step::Remove(a) => world.remove(a),
            Step::Deliver(a, times) => {
                for _ in 0..times {
                    world.deliver(a);
                }
            }
            Step::Tick(ms) => world.tick(ms),
            Step::Local(a, start) => {
                world.local(a, start);
            }
            Step::Kill(a) if faults => world.kill(a),
            Step::Kill(_) => {}
        }
        world.check();
    }
    world.run_out();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn all_or_nothing_and_nothing_is_left_over(steps in vec(steps(), 0..150)) {
        play(&[2, 3, 4], steps, false);
    }

    #[test]
    fn so_it_is_when_nodes_die(steps in vec(steps(), 0..150)) {
        play(&[2, 3, 2, 4, 2], steps, true);
    }
}

#[test]
fn a_group_is_ready_after_two_rounds_and_comes_back_after_a_death() {
    let mut world = World::new(&[2, 2, 2, 2]);
    world.create(0, GroupStrategy::StrictSpread, &[1, 2, 1]);
    while world.deliver(0) {}
    let id = *world.ready.first().unwrap();
    let at = world.nodes[&node(1)].coordinator.placed(id.number).unwrap();
    let victim = at.iter().flatten().find(|n| **n != node(1)).unwrap().get();
    world.kill(victim as usize - 1);
    assert!(world.ready.is_empty() && world.degraded == 1);
    world.tick(200);
    while world.deliver(0) {}
    assert!(world.ready.contains(&id));
    world.run_out();
}

#[test]
fn two_groups_that_want_everything_take_turns() {
    let mut world = World::new(&[2, 2]);
    for at in 0..2 {
        world.create(at, GroupStrategy::StrictSpread, &[2, 2]);
    }
    for _ in 0..100 {
        while world.deliver(7) {}
        world.tick(100);
    }
    assert_eq!(world.ready.len(), 1);
    let first = *world.ready.first().unwrap();
    world.remove(world.specs.keys().position(|id| *id == first).unwrap());
    for _ in 0..100 {
        while world.deliver(3) {}
        world.tick(100);
    }
    assert_eq!(world.ready.len(), 1);
    world.run_out();
}

#[test]
fn what_could_never_be_is_refused_at_once() {
    let mut world = World::new(&[2, 2]);
    world.create(0, GroupStrategy::Spread, &[3]);
    world.create(0, GroupStrategy::StrictSpread, &[1, 1, 1]);
    assert!(world.specs.is_empty() && !world.deliver(0));
}
