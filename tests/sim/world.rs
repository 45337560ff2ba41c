//! The cluster: what programs do on it, what breaks, and what must hold all the while.
//!
//! Invariant: checked after every step; see [`World::check`].

use std::collections::BTreeMap;

use crate::base::{NodeId, ObjectKey};
use crate::faults::Fault;
use crate::net::{Event, Net};
use crate::node::{Cx, Node};
use crate::plan::Plan;

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub steps: u64,
    pub tasks: u64,
    pub tasks_ended: u64,
    pub retries: u64,
    pub gets: u64,
    pub gets_ended: u64,
    pub pulls: u64,
    pub failed_pulls: u64,
    pub cancelled: u64,
    pub broken: u64,
    pub evicted: u64,
    pub handed_on: u64,
    pub freed: u64,
    pub lost: u64,
    pub orphans: u64,
    pub crashes: u64,
    pub splits: u64,
}

impl Report {
    pub fn counts(&self) -> [(&'static str, u64); 17] {
        [
            ("steps", self.steps),
            ("tasks", self.tasks),
            ("ended tasks", self.tasks_ended),
            ("retries", self.retries),
            ("gets", self.gets),
            ("ended gets", self.gets_ended),
            ("pulls", self.pulls),
            ("failed pulls", self.failed_pulls),
            ("cancelled gets", self.cancelled),
            ("broken transfers", self.broken),
            ("evicted copies", self.evicted),
            ("references handed on", self.handed_on),
            ("freed objects", self.freed),
            ("lost objects", self.lost),
            ("orphaned objects", self.orphans),
            ("crashes", self.crashes),
            ("splits", self.splits),
        ]
    }

    pub fn add(&mut self, other: &Report) {
        let Report {
            steps,
            tasks,
            tasks_ended,
            retries,
            gets,
            gets_ended,
            pulls,
            failed_pulls,
            cancelled,
            broken,
            evicted,
            handed_on,
            freed,
            lost,
            orphans,
            crashes,
            splits,
        } = other;
        self.steps += steps;
        self.tasks += tasks;
        self.tasks_ended += tasks_ended;
        self.retries += retries;
        self.gets += gets;
        self.gets_ended += gets_ended;
        self.pulls += pulls;
        self.failed_pulls += failed_pulls;
        self.cancelled += cancelled;
        self.broken += broken;
        self.evicted += evicted;
        self.handed_on += handed_on;
        self.freed += freed;
        self.lost += lost;
        self.orphans += orphans;
        self.crashes += crashes;
        self.splits += splits;
    }
}

/// What nodes note down in a step.
#[derive(Debug, Default)]
pub struct Log {
    /// The first thing that is wrong.
    wrong: Option<String>,
    /// Objects freed in this step.
    pub freed: Vec<ObjectKey>,
    /// Objects said to be lost in this step.
    pub lost: Vec<ObjectKey>,
    pub report: Report,
    /// Nothing breaks in this run.
    pub calm: bool,
    pub crashed: bool,
    pub show: bool,
}

impl Log {
    pub fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }
}

/// Steps after which a run is taken for endless.
const MOST_STEPS: u64 = 1_000_000;

/// A cluster.
pub struct World {
    plan: Plan,
    fault: Fault,
    net: Net,
    nodes: BTreeMap<NodeId, Node>,
    log: Log,
    /// Everything that programs will do is done.
    ended: bool,
    actions: u64,
}

impl World {
    pub fn new(plan: Plan, fault: Fault, show: bool) -> World {
        let mut net = Net::new(plan.clone(), fault);
        let mut nodes = BTreeMap::new();
        for number in 1..=plan.nodes {
            if let Some(id) = NodeId::new(number) {
                nodes.insert(id, Node::new(id, plan.grace(), fault));
            }
        }
        // Programs act all the time; crashes and splits come somewhere in it.
        let time = plan.actions * 400;
        for _ in 0..plan.actions {
            let at = net.chance.below(time);
            net.after(at, Event::Act);
        }
        for _ in 0..plan.crashes {
            let at = net.chance.below(time);
            net.after(at, Event::Crash);
        }
        for _ in 0..plan.splits {
            let at = net.chance.below(time);
            net.after(at, Event::Split);
        }
        let log = Log {
            calm: plan.crashes + plan.broken + plan.evictions + plan.splits == 0,
            show,
            ..Log::default()
        };
        World {
            actions: plan.actions,
            plan,
            fault,
            net,
            nodes,
            log,
            ended: false,
        }
    }

    /// Runs to the end; what was wrong first, if anything was.
    pub fn run(mut self) -> Result<Report, String> {
        loop {
            let Some(event) = self.net.next() else {
                if self.ended {
                    break;
                }
                self.end();
                continue;
            };
            self.log.report.steps += 1;
            if self.log.show {
                println!("{:>9} {event:?}", self.net.now);
            }
            let at = format!("{event:?}");
            self.step(event);
            self.check();
            if let Some(wrong) = self.log.wrong.take() {
                return Err(format!("at {} us, {at}: {wrong}", self.net.now));
            }
            if self.log.report.steps > MOST_STEPS {
                return Err(format!("no end after {MOST_STEPS} steps: {:?}", self.log.report));
            }
        }
        self.drained()?;
        Ok(self.log.report)
    }

    /// Programs end: first those that wait get what they wait for, then all is dropped.
    fn end(&mut self) {
        self.ended = true;
        for id in self.living() {
            self.on(id, |node, cx| {
                for get in node.open_gets() {
                    cx.log.wrong(format!("{id:?}: get {get} never ends: {}", node.describe(get)));
                }
            });
        }
        self.agreed();
        for id in self.living() {
            self.on(id, |node, cx| node.drop_all(cx));
        }
        self.check();
    }

    /// When nothing is under way, all know the same.
    fn agreed(&mut self) {
        for (id, node) in &self.nodes {
            for key in node.referred() {
                let state = node.state(key);
                let Some(owner) = self.nodes.get(&key.owner) else {
                    continue;
                };
                if state != owner.state(key) {
                    let truth = owner.state(key);
                    self.log.wrong(format!("{id:?} takes {key} to be {state:?}, it is {truth:?}"));
                }
                if id != &key.owner || node.owners.copies_of(key).next().is_none() {
                    continue;
                }
                let known: Vec<NodeId> = node.owners.copies_of(key).collect();
                let truth = self.nodes.iter().filter(|(_, node)| node.has_copy(key));
                let truth: Vec<NodeId> = truth.map(|(id, _)| *id).collect();
                if known != truth {
                    self.log.wrong(format!("{key} is at {truth:?}, its owner believes {known:?}"));
                }
                let keeps = truth.iter().filter_map(|id| self.nodes.get(id));
                let keeps = keeps.filter(|node| node.owners.must_keep(key)).count();
                if keeps != 1 {
                    self.log.wrong(format!("{keeps} nodes keep {key}"));
                }
            }
        }
    }

    fn drained(&self) -> Result<(), String> {
        if let Some(wrong) = &self.log.wrong {
            return Err(wrong.clone());
        }
        for node in self.nodes.values() {
            if let Some(left) = node.leftovers() {
                return Err(format!("not all is forgotten: {left}"));
            }
        }
        if !self.net.under_way.is_empty() {
            return Err(format!("messages left: {:?}", self.net.under_way));
        }
        let report = &self.log.report;
        if !self.log.crashed && report.tasks != report.tasks_ended {
            return Err(format!("tasks did not end: {report:?}"));
        }
        Ok(())
    }

    fn living(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn on<R>(&mut self, id: NodeId, f: impl FnOnce(&mut Node, &mut Cx<'_>) -> R) -> Option<R> {
        let node = self.nodes.get_mut(&id)?;
        let mut cx = Cx {
            net: &mut self.net,
            log: &mut self.log,
        };
        let answer = f(node, &mut cx);
        node.settle_down(&mut cx);
        Some(answer)
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, packet } => {
                let ended = self.ended;
                self.on(to, |node, cx| {
                    node.deliver(cx, from, packet);
                    if ended {
                        node.drop_all(cx);
                    }
                });
            }
            Event::Serve {
                to,
                from,
                key,
                transfer,
            } => {
                let broken = self.net.chance.permille(self.plan.broken);
                let reached = !broken && !self.net.apart(from, to);
                let serve = |node: &mut Node, cx: &mut Cx<'_>| node.serve(cx, to, key, transfer);
                if !reached || self.on(from, serve) != Some(true) {
                    let delay = self.net.latency();
                    let node = to;
                    self.net.after(
                        delay,
                        Event::Broken {
                            node,
                            key,
                            transfer,
                        },
                    );
                }
            }
            Event::Broken {
                node,
                key,
                transfer,
            } => {
                self.on(node, |node, cx| node.broken(cx, key, transfer));
            }
            Event::Ran { node, run } => {
                self.on(node, |node, cx| node.ran(cx, run));
            }
            Event::Rebuilt { node, number } => {
                let key = ObjectKey {
                    owner: node,
                    number,
                };
                self.on(node, |node, cx| node.rebuilt(cx, key));
            }
            Event::Arrive { .. } => {}
            Event::Act => self.act(),
            Event::Crash => self.crash(),
            Event::Split => {
                let mut side = self.living();
                side.retain(|_| self.net.chance.permille(500));
                let time = self.net.chance.below(self.plan.split);
                self.log.report.splits += 1;
                self.net.split(side, time);
            }
            Event::Learn { node, dead } => {
                let others: Vec<NodeId> = self.living().into_iter().filter(|n| *n != node).collect();
                self.on(node, |node, cx| node.learn(cx, dead, &others));
            }
            Event::Tick { node } => {
                self.on(node, |node, cx| node.tick(cx));
            }
        }
    }

    fn crash(&mut self) {
        let living = self.living();
        let Some(dead) = self.net.chance.pick(&living).filter(|_| living.len() > 1) else {
            return;
        };
        self.nodes.remove(&dead);
        self.net.crash(dead);
        self.log.crashed = true;
        self.log.report.crashes += 1;
        for node in self.living() {
            if self.fault == Fault::MissDeath && self.net.chance.permille(200) {
                continue;
            }
            let after = self.net.chance.below(self.plan.detection);
            self.net.after(after, Event::Learn { node, dead });
        }
    }

    /// A program somewhere does something.
    fn act(&mut self) {
        self.actions -= 1;
        let living = self.living();
        let Some(id) = self.net.chance.pick(&living) else {
            return;
        };
        let others: Vec<NodeId> = living.iter().copied().filter(|other| *other != id).collect();
        let evictions = self.plan.evictions;
        self.on(id, |node, cx| {
            // Many act on what they have, some on little.
            let kind = if node.handles.is_empty() { 0 } else { cx.net.chance.below(12) };
            let others: Vec<NodeId> = others.into_iter().filter(|other| !node.is_dead(*other)).collect();
            let other = cx.net.chance.pick(&others);
            let handles = node.handles.clone();
            let key = cx.net.chance.pick(&handles);
            match (kind, key, other) {
                (0, _, _) => {
                    let len = cx.net.chance.pick(&[10, 1000, 300_000, 900_000]);
                    let inner = cx.net.chance.pick(&handles).filter(|key| cx.net.chance.permille(300) && node.refers(*key));
                    node.put(len.unwrap_or(1), inner.into_iter().collect());
                }
                (1..=3, Some(key), Some(other)) => {
                    let mut keys = vec![key];
                    keys.extend(cx.net.chance.pick(&handles));
                    node.pass(cx, &keys, other);
                }
                (4 | 5, Some(key), Some(other)) => {
                    let mut args = vec![key];
                    args.extend(cx.net.chance.pick(&handles).filter(|_| evictions % 2 == 0));
                    node.submit(cx, args, other);
                }
                (6, _, Some(other)) => node.submit(cx, Vec::new(), other),
                (7, Some(key), _) => node.get(cx, key, None),
                (8, _, _) => {
                    let gets = node.open_gets();
                    if let Some(get) = cx.net.chance.pick(&gets) {
                        node.cancel(cx, get);
                    }
                    for key in node.held_here() {
                        if cx.net.chance.permille(evictions) {
                            node.evict(cx, key);
                        }
                    }
                }
                (_, Some(_), _) => {
                    let at = cx.net.chance.below(handles.len() as u64) as usize;
                    let key = node.handles.swap_remove(at);
                    node.unhold(cx, key);
                }
                _ => {}
            }
        });
    }

    /// What must hold after every step: what was freed in it, nobody needs; what was lost, nobody has.
    fn check(&mut self) {
        for key in std::mem::take(&mut self.log.lost) {
            if let Some(node) = self.nodes.values().find(|node| node.has_copy(key)) {
                let id = node.id;
                self.log.wrong(format!("{key} is said to be lost, and {id:?} has it"));
            }
        }
        for key in std::mem::take(&mut self.log.freed) {
            self.log.report.freed += 1;
            if let Some(count) = self.net.under_way.get(&key) {
                self.log.wrong(format!("{key} is freed while {count} references are under way"));
            }
            if let Some(node) = self.nodes.values().find(|node| node.refers(key)) {
                let id = node.id;
                self.log.wrong(format!("{key} is freed while {id:?} has a reference"));
            }
        }
    }
}
