//! The cluster: what programs do on it, what breaks, and what must hold all the while.
//!
//! Invariant: checked after every step; see [`World::check`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use crate::base::{Demand, GroupId, GroupSpec, GroupStrategy, NodeId, ObjectKey, Units};
use crate::chance::Chance;
use crate::core::view::NodeView;
use crate::faults::Fault;
use crate::net::{Event, Net};
use crate::node::{Cx, Node};
use crate::plan::Plan;
use crate::report::Report;

/// What nodes note down in a step.
#[derive(Debug, Default)]
pub struct Log {
    /// The first thing that is wrong.
    wrong: Option<String>,
    /// Objects freed in this step.
    pub freed: Vec<ObjectKey>,
    /// Objects said to be lost in this step.
    pub lost: Vec<ObjectKey>,
    /// Groups said to be ready in this step, and where.
    pub ready: Vec<(GroupId, GroupSpec, Vec<NodeId>)>,
    pub report: Report,
    /// Nothing breaks in this run.
    pub calm: bool,
    pub crashed: bool,
    show: bool,
}

impl Log {
    pub fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// Prints what a machine said, if this run is shown.
    pub fn show(&self, now: u64, node: NodeId, effect: &dyn Debug) {
        if self.show {
            println!("{now:>9} {node:?}: {effect:?}");
        }
    }
}

/// Steps after which a run is taken for endless.
const MOST_STEPS: u64 = 1_000_000;

fn any_group(chance: &mut Chance) -> GroupSpec {
    let all = [
        GroupStrategy::Pack,
        GroupStrategy::Spread,
        GroupStrategy::StrictPack,
        GroupStrategy::StrictSpread,
    ];
    let strategy = chance.pick(&all).unwrap_or_default();
    let bundles =
        (0..chance.between(1, 4)).map(|_| Demand::cpu_only(Units::whole(chance.between(1, 2))));
    let bundles = bundles.collect();
    GroupSpec { strategy, bundles }
}

/// A cluster.
pub struct World {
    plan: Plan,
    fault: Fault,
    net: Net,
    nodes: BTreeMap<NodeId, Node>,
    log: Log,
    stage: Stage,
    /// When it began.
    since: u64,
    actions: u64,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Programs act.
    Acting,
    /// They wait for what they began.
    Waiting,
    /// They dropped all that they had.
    Ended,
}

/// How often nodes look at the time.
const TICK: u64 = 50_000;

/// How many others each tells of itself then.
const TOLD: usize = 3;

/// A stage that lasts longer has no end.
const LONGEST: u64 = 20_000_000;

impl World {
    pub fn new(plan: Plan, fault: Fault, show: bool) -> World {
        let mut net = Net::new(plan.clone(), fault);
        let mut nodes = BTreeMap::new();
        for number in 1..=plan.nodes {
            if let Some(id) = NodeId::new(number) {
                nodes.insert(id, Node::new(id, plan.grace(), fault, &mut net.chance));
            }
        }
        // All know all.
        let news: Vec<(NodeId, NodeView)> = nodes
            .iter_mut()
            .map(|(id, node)| (*id, node.places.news(Duration::ZERO)))
            .collect();
        for (&id, node) in &mut nodes {
            for (other, news) in &news {
                node.places.view.merge(*other, news.clone());
            }
            let at = net.chance.below(TICK);
            net.after(at, Event::Tick { node: id });
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
        for _ in 0..plan.breaks {
            let at = net.chance.below(time);
            net.after(at, Event::Break);
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
            stage: Stage::Acting,
            since: 0,
        }
    }

    /// Runs to the end; what was wrong first, if anything was.
    pub fn run(mut self) -> Result<Report, String> {
        loop {
            if self.stage == Stage::Acting && self.actions == 0 {
                self.stop();
            } else if self.stage == Stage::Waiting && self.quiet() {
                self.end();
            } else if self.stage == Stage::Ended && !self.net.is_busy() && self.left().is_none() {
                break;
            }
            if self.stage != Stage::Acting && self.net.now - self.since > LONGEST {
                let stuck: Vec<String> = self.nodes.values().filter_map(Node::stuck).collect();
                return Err(format!(
                    "{:?} has no end: {stuck:#?}, {:?}",
                    self.stage,
                    self.left()
                ));
            }
            let Some(event) = self.net.next() else {
                break;
            };
            self.log.report.steps += 1;
            if self.log.show {
                println!("{:>9} {event:?}", self.net.now);
            }
            self.step(event);
            self.check();
            if let Some(wrong) = self.net.wrong.take().or_else(|| self.log.wrong.take()) {
                return Err(format!("at {} us: {wrong}", self.net.now));
            }
            if self.log.report.steps > MOST_STEPS {
                return Err(format!(
                    "no end after {MOST_STEPS} steps: {:?}",
                    self.log.report
                ));
            }
        }
        self.drained()?;
        let (breaks, resent) = (self.net.breaks, self.net.resent());
        let datagrams = self.net.datagrams;
        Ok(Report {
            breaks,
            resent,
            datagrams_lost: datagrams.lost,
            doubled: datagrams.doubled,
            overtaken: datagrams.overtaken,
            ..self.log.report
        })
    }

    /// Programs begin nothing new.
    fn stop(&mut self) {
        self.stage = Stage::Waiting;
        self.since = self.net.now;
        for id in self.living() {
            self.on(id, |node, cx| {
                let groups: Vec<u64> = node.places.specs.keys().copied().collect();
                for group in groups {
                    node.ungroup(cx, group);
                }
            });
        }
    }

    /// Whether nothing is under way, and nobody runs or waits to run anything.
    fn quiet(&self) -> bool {
        let idle =
            |node: &Node| node.places.is_idle() && node.runs.is_empty() && node.tasks.is_empty();
        !self.net.is_busy() && self.nodes.values().all(idle)
    }

    /// Programs end: all they waited for has come, and all is dropped.
    fn end(&mut self) {
        self.stage = Stage::Ended;
        self.since = self.net.now;
        for id in self.living() {
            self.on(id, |node, cx| {
                for get in node.open_gets() {
                    cx.log.wrong(format!(
                        "{id:?}: get {get} never ends: {}",
                        node.describe(get)
                    ));
                }
                for (task, what) in &node.tasks {
                    cx.log
                        .wrong(format!("{id:?}: task {task} never ends: {what:?}"));
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
                    self.log.wrong(format!(
                        "{id:?} takes {key} to be {state:?}, it is {truth:?}"
                    ));
                }
                if id != &key.owner || node.owners.copies_of(key).next().is_none() {
                    continue;
                }
                let known: Vec<NodeId> = node.owners.copies_of(key).collect();
                let truth = self.nodes.iter().filter(|(_, node)| node.has_copy(key));
                let truth: Vec<NodeId> = truth.map(|(id, _)| *id).collect();
                if known != truth {
                    self.log.wrong(format!(
                        "{key} is at {truth:?}, its owner believes {known:?}"
                    ));
                }
                let keeps = truth.iter().filter_map(|id| self.nodes.get(id));
                let keeps = keeps.filter(|node| node.owners.must_keep(key)).count();
                if keeps != 1 {
                    self.log.wrong(format!("{keeps} nodes keep {key}"));
                }
            }
        }
    }

    /// What is left, somewhere.
    fn left(&self) -> Option<String> {
        self.nodes.values().find_map(Node::leftovers)
    }

    fn drained(&self) -> Result<(), String> {
        if let Some(left) = self.left() {
            return Err(format!("not all is forgotten: {left}"));
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
        if let Some(full) = node.overfull() {
            cx.log.wrong(full);
        }
        Some(answer)
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, packet } => {
                let ended = self.stage == Stage::Ended;
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
            // The network keeps those to itself.
            Event::Datagram { .. }
            | Event::Frame { .. }
            | Event::AckDue { .. }
            | Event::Ack { .. }
            | Event::Break
            | Event::Connect { .. } => {}
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
                self.on(node, |node, cx| node.learn(cx, dead));
            }
            Event::Tick { node } => {
                let mut tell = self.living();
                tell.retain(|other| *other != node);
                while tell.len() > TOLD {
                    let at = self.net.chance.below(tell.len() as u64) as usize;
                    tell.swap_remove(at);
                }
                if self.on(node, |node, cx| node.tick(cx, &tell)).is_some() {
                    self.net.after(TICK, Event::Tick { node });
                }
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
        let others: Vec<NodeId> = living
            .iter()
            .copied()
            .filter(|other| *other != id)
            .collect();
        let evictions = self.plan.evictions;
        self.on(id, |node, cx| {
            // Many act on what they have, some on little.
            let kind = if node.handles.is_empty() {
                0
            } else {
                cx.net.chance.below(14)
            };
            let others: Vec<NodeId> = others
                .into_iter()
                .filter(|other| !node.is_dead(*other))
                .collect();
            let other = cx.net.chance.pick(&others);
            let handles = node.handles.clone();
            let key = cx.net.chance.pick(&handles);
            match (kind, key, other) {
                (0, _, _) => {
                    let len = cx.net.chance.pick(&[10, 1000, 300_000, 900_000]);
                    let inner = cx
                        .net
                        .chance
                        .pick(&handles)
                        .filter(|key| cx.net.chance.permille(300) && node.refers(*key));
                    node.put(len.unwrap_or(1), inner.into_iter().collect());
                }
                (1..=3, Some(key), Some(other)) => {
                    let mut keys = vec![key];
                    keys.extend(cx.net.chance.pick(&handles));
                    node.pass(cx, &keys, other);
                }
                (4 | 5, Some(key), Some(other)) => {
                    let mut args = vec![key];
                    args.extend(
                        cx.net
                            .chance
                            .pick(&handles)
                            .filter(|_| evictions.is_multiple_of(2)),
                    );
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
                (9, _, _) => {
                    let groups: Vec<u64> = node.places.specs.keys().copied().collect();
                    match cx.net.chance.pick(&groups) {
                        Some(group) if cx.net.chance.permille(600) => node.ungroup(cx, group),
                        _ => {
                            let spec = any_group(&mut cx.net.chance);
                            node.group(cx, spec);
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
                self.log
                    .wrong(format!("{key} is said to be lost, and {id:?} has it"));
            }
        }
        for (group, spec, on) in std::mem::take(&mut self.log.ready) {
            for (bundle, id) in on.iter().enumerate() {
                let node = self.nodes.get(id);
                if node.is_some_and(|node| !node.has_bundle(group, bundle as u32)) {
                    self.log.wrong(format!(
                        "{group} is said to be ready, without bundle {bundle} on {id:?}"
                    ));
                }
            }
            let nodes: BTreeSet<NodeId> = on.iter().copied().collect();
            let strict = match spec.strategy {
                GroupStrategy::StrictPack => nodes.len() == 1,
                GroupStrategy::StrictSpread => nodes.len() == on.len(),
                GroupStrategy::Pack | GroupStrategy::Spread => true,
            };
            if !strict || on.len() != spec.bundles.len() {
                self.log.wrong(format!("{group}, {spec:?}, is on {on:?}"));
            }
        }
        for key in std::mem::take(&mut self.log.freed) {
            self.log.report.freed += 1;
            if let Some(count) = self.net.under_way.get(&key) {
                self.log.wrong(format!(
                    "{key} is freed while {count} references are under way"
                ));
            }
            if let Some(node) = self.nodes.values().find(|node| node.refers(key)) {
                let id = node.id;
                self.log
                    .wrong(format!("{key} is freed while {id:?} has a reference"));
            }
        }
    }
}
