//! Where calls run, on one node: placement, leases, groups and the ledger, and the driver's part of each.
//!
//! Invariant: what the ledger is asked for is what the other machines said, and nothing runs before the ledger starts it.
//! Left out: what calls do ([`crate::node`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::base::{Capacity, Demand, GroupId, GroupSpec, NodeId, ObjectKey, Strategy, Units};
use crate::chance::Chance;
use crate::core::groups::{self, Coordinator, GroupMsg, Participant, Role};
use crate::core::leases::{Grantor, LeaseMsg, Submitter, grantor, submitter};
use crate::core::ledger::{self, Ledger};
use crate::core::owners::Stand;
use crate::core::placement::{Choice, Request, choose};
use crate::core::view::{NodeView, View};
use crate::faults::Fault;
use crate::net::{Event, Packet};
use crate::node::{Cx, Node, State};

/// Numbers of the grantor's tickets, and the first of the participant's. Below are this node's own tasks.
const TICKETS: std::ops::Range<u64> = 1 << 40..1 << 41;

/// How often a task that was lost with its node is tried.
const ATTEMPTS: u32 = 3;

/// A task that this node submitted.
#[derive(Debug)]
pub struct Task {
    pub result: ObjectKey,
    pub args: Vec<ObjectKey>,
    demand: Demand,
    strategy: Strategy,
    attempts: u32,
}

/// A call that came here, or a task of this node that the ledger started.
#[derive(Debug)]
pub struct Run {
    pub result: ObjectKey,
    pub args: Vec<ObjectKey>,
    /// What it holds.
    pub demand: Demand,
    /// Arguments that are not here.
    pub waiting: usize,
    /// One of them failed.
    pub failed: bool,
    pub started: bool,
    /// It waits for arguments, and its CPUs are lent.
    pub blocked: bool,
}

/// The machines.
#[derive(Debug)]
pub struct Places {
    capacity: Capacity,
    pub view: View,
    pub submitter: Submitter,
    pub grantor: Grantor,
    pub ledger: Ledger,
    pub coordinator: Coordinator,
    pub participant: Participant,
    /// What its groups are.
    pub specs: BTreeMap<u64, GroupSpec>,
    /// Tasks with arguments that have not settled.
    unready: BTreeSet<u64>,
    /// Tasks for which no node had room.
    pub waiting: Vec<u64>,
    version: u64,
    /// A message that a planted fault answers too early.
    early: Option<(NodeId, GroupMsg)>,
}

impl Places {
    pub fn new(me: NodeId, chance: &mut Chance) -> Places {
        let gpus = u32::from(chance.permille(400));
        let capacity = Capacity::new(Units::whole(chance.between(1, 4)), gpus);
        Places {
            view: View::new(),
            submitter: Submitter::new(),
            grantor: Grantor::new(me, capacity.clone(), TICKETS),
            ledger: Ledger::new(capacity.clone()),
            coordinator: Coordinator::new(me, chance.next()),
            participant: Participant::new(capacity.clone(), TICKETS.end),
            specs: BTreeMap::new(),
            unready: BTreeSet::new(),
            waiting: Vec::new(),
            version: 0,
            early: None,
            capacity,
        }
    }

    /// What this node tells of itself.
    pub fn news(&mut self, now: Duration) -> NodeView {
        let amounts = self.ledger.amounts();
        let free = |name| {
            amounts
                .iter()
                .find(|(n, ..)| n == name)
                .map_or(Units::ZERO, |(.., free)| *free)
        };
        self.version += 1;
        NodeView {
            free: Demand::cpu_only(free("cpu")).with_gpu(free("gpu")),
            queued: self.ledger.queued() as u32,
            version: self.version,
            seen: now,
            ..NodeView::idle(self.capacity.clone())
        }
    }

    /// Whether nothing is to be done.
    pub fn is_idle(&self) -> bool {
        self.submitter.load() == (0, 0) && self.waiting.is_empty() && self.grantor.calls() == 0
    }

    /// Whether nothing is reserved, by anyone.
    pub fn is_empty(&self) -> bool {
        let ledger = self.ledger.running() + self.ledger.queued();
        let groups = self.participant.bundles().count() + self.coordinator.groups().count();
        let leases = self.grantor.tickets() + self.grantor.leases().count();
        self.is_idle() && ledger + groups + leases == 0 && self.submitter.slots().count() == 0
    }
}

fn any_demand(chance: &mut Chance) -> Demand {
    match chance.below(20) {
        0 | 1 => Demand::cpu_only(Units::whole(2)),
        2 => Demand::cpu_only(Units::from_steps(5_000)),
        3 => Demand::ONE_CPU.with_gpu(Units::ONE),
        4 => Demand::NONE.with_gpu(Units::from_steps(2_500)),
        5 => Demand::NONE,
        6 => Demand::cpu_only(Units::whole(64)),
        _ => Demand::ONE_CPU,
    }
}

impl Node {
    /// A program calls a task.
    pub fn submit(&mut self, cx: &mut Cx<'_>, args: Vec<ObjectKey>, other: NodeId) {
        let result = self.make_result();
        for &key in &args {
            self.hold(key);
        }
        cx.log.report.tasks += 1;
        let strategy = match cx.net.chance.below(10) {
            0..3 => Strategy::Spread,
            3 => Strategy::Node {
                node: other,
                soft: cx.net.chance.permille(500),
            },
            _ => Strategy::Default,
        };
        let task = Task {
            result,
            args,
            demand: any_demand(&mut cx.net.chance),
            strategy,
            attempts: 0,
        };
        let id = self.number();
        self.tasks.insert(id, task);
        self.places.unready.insert(id);
        self.place_ready(cx);
    }

    /// Places the tasks whose arguments have settled meanwhile: before that they hold nothing, or one might hold what another
    /// needs that it waits for.
    pub fn place_ready(&mut self, cx: &mut Cx<'_>) {
        let unready = std::mem::take(&mut self.places.unready);
        for id in unready {
            let Some(task) = self.tasks.get(&id) else {
                continue;
            };
            let states = task.args.iter().map(|key| self.state(*key));
            let states: Vec<Option<State>> = states.collect();
            if states.contains(&Some(State::Failed)) {
                self.fail_task(cx, id);
            } else if states.contains(&Some(State::Pending)) {
                self.places.unready.insert(id);
            } else {
                self.place(cx, id);
            }
        }
    }

    /// Chooses where a task runs.
    fn place(&mut self, cx: &mut Cx<'_>, id: u64) {
        let Some(task) = self.tasks.get(&id) else {
            return cx.log.wrong(format!(
                "{:?} is to place {id}, which it does not have",
                self.id
            ));
        };
        let (now, places) = (cx.now(), &mut self.places);
        let request = Request {
            seed: cx.net.chance.next(),
            ..Request::new(&task.demand, &task.strategy)
        };
        match choose(&places.view, self.id, &request) {
            Choice::Here => self.run_here(cx, id),
            Choice::At(node) => {
                let call = submitter::Call {
                    id,
                    demand: &task.demand,
                    priority: 0,
                    bound: matches!(task.strategy, Strategy::Node { soft: false, .. }),
                };
                let mut out = Vec::new();
                if places
                    .submitter
                    .submit(now, &call, Some(node), &mut out)
                    .is_err()
                {
                    cx.log.wrong(format!("{:?} has too many calls", self.id));
                }
                self.on_submitter(cx, out);
            }
            Choice::Nowhere(_) => {
                cx.log.report.infeasible += 1;
                self.fail_task(cx, id);
            }
            Choice::Wait => places.waiting.push(id),
        }
    }

    fn run_here(&mut self, cx: &mut Cx<'_>, id: u64) {
        let Some(task) = self.tasks.get(&id) else {
            return cx.log.wrong(format!(
                "{:?} is to run {id}, which it does not have",
                self.id
            ));
        };
        cx.log.report.here += 1;
        let mut out = Vec::new();
        self.places
            .ledger
            .submit(id, task.demand.clone(), 0, &mut out);
        self.on_ledger(cx, out);
    }

    fn fail_task(&mut self, cx: &mut Cx<'_>, id: u64) {
        match self.tasks.remove(&id) {
            Some(task) => self.end_task(cx, task, Stand::Failed, Vec::new()),
            None => cx
                .log
                .wrong(format!("task {id} of {:?} ended twice", self.id)),
        }
    }

    fn on_submitter(&mut self, cx: &mut Cx<'_>, out: Vec<submitter::Effect>) {
        for effect in out {
            cx.log.show(cx.net.now, self.id, &effect);
            match effect {
                submitter::Effect::Send { to, msg } => self.send(cx, to, Packet::Lease(msg)),
                submitter::Effect::Run { call, node, lease } => {
                    let Some(task) = self.tasks.get(&call) else {
                        return cx
                            .log
                            .wrong(format!("{:?} sends {call}, which has ended", self.id));
                    };
                    cx.log.report.away += 1;
                    let (result, demand, args) =
                        (task.result, task.demand.clone(), task.args.clone());
                    self.places.view.sent(node, &demand);
                    let args = self.wire(cx, &args, node);
                    let packet = Packet::Task {
                        call,
                        lease,
                        demand,
                        result,
                        args,
                    };
                    self.send(cx, node, packet);
                }
                submitter::Effect::Here { call } => self.run_here(cx, call),
                submitter::Effect::Place { call } => self.place(cx, call),
                submitter::Effect::Lost { call, node } => {
                    if !self.is_dead(node) {
                        cx.log
                            .wrong(format!("call {call} is lost with {node:?}, which lives"));
                    }
                    let Some(mut task) = self.tasks.remove(&call) else {
                        return cx
                            .log
                            .wrong(format!("{:?} lost {call}, which had ended", self.id));
                    };
                    task.attempts += 1;
                    if task.attempts >= ATTEMPTS {
                        self.end_task(cx, task, Stand::Failed, Vec::new());
                        continue;
                    }
                    cx.log.report.retries += 1;
                    let id = self.number();
                    self.tasks.insert(id, task);
                    self.place(cx, id);
                }
            }
        }
    }

    fn on_grantor(&mut self, cx: &mut Cx<'_>, out: Vec<grantor::Effect>) {
        let mut queue = VecDeque::from(out);
        while let Some(effect) = queue.pop_front() {
            cx.log.show(cx.net.now, self.id, &effect);
            let mut ledger = Vec::new();
            match effect {
                grantor::Effect::Send { to, msg } => {
                    if let LeaseMsg::Refused { calls, .. } = &msg {
                        for &call in calls {
                            cx.log.report.refused += 1;
                            self.drop_run(cx, (to, call));
                        }
                    }
                    self.send(cx, to, Packet::Lease(msg));
                }
                grantor::Effect::Reserve {
                    ticket,
                    demand,
                    priority,
                } => self
                    .places
                    .ledger
                    .submit(ticket, demand, priority, &mut ledger),
                grantor::Effect::Release { ticket } => self.release(cx, ticket, &mut ledger),
                grantor::Effect::Start { from, call, .. } => self.start_run(cx, (from, call)),
                grantor::Effect::Lend { ticket } => self.places.ledger.lend(ticket, &mut ledger),
                grantor::Effect::Reclaim { ticket } => self.places.ledger.reclaim(ticket),
                grantor::Effect::Abandon { .. } => {}
            }
            self.on_ledger(cx, ledger);
        }
    }

    fn release(&mut self, cx: &mut Cx<'_>, ticket: u64, out: &mut Vec<ledger::Effect>) {
        if self.fault == Fault::KeepTicket && cx.net.chance.permille(100) {
            return;
        }
        let ledger = &mut self.places.ledger;
        if !ledger.cancel(ticket, out) && !ledger.finish(ticket, out) {
            cx.log.wrong(format!(
                "{:?} releases {ticket}, which nobody holds",
                self.id
            ));
        }
    }

    fn on_ledger(&mut self, cx: &mut Cx<'_>, out: Vec<ledger::Effect>) {
        for effect in out {
            cx.log.show(cx.net.now, self.id, &effect);
            match effect {
                ledger::Effect::Start { task, .. } if TICKETS.contains(&task) => {
                    let mut out = Vec::new();
                    self.places.grantor.reserved(task, &mut out);
                    self.on_grantor(cx, out);
                }
                ledger::Effect::Start { task, .. } if task >= TICKETS.end => {
                    let mut out = Vec::new();
                    self.places.participant.reserved(task, &mut out);
                    self.on_participant(cx, out);
                }
                ledger::Effect::Start { task: id, .. } => {
                    let Some(task) = self.tasks.get(&id) else {
                        return cx
                            .log
                            .wrong(format!("{:?} starts {id}, which has ended", self.id));
                    };
                    let (args, demand) = (task.args.clone(), task.demand.clone());
                    let result = task.result;
                    for &key in &args {
                        self.hold(key);
                    }
                    self.add_run((self.id, id), result, args, demand);
                    self.start_run(cx, (self.id, id));
                }
                ledger::Effect::Refuse { task, why } => {
                    cx.log.wrong(format!(
                        "{:?} was asked for what it can never run: {task}, {why:?}",
                        self.id
                    ));
                }
                ledger::Effect::Offer => {}
            }
        }
    }

    fn add_run(
        &mut self,
        run: (NodeId, u64),
        result: ObjectKey,
        args: Vec<ObjectKey>,
        demand: Demand,
    ) {
        let made = Run {
            result,
            args,
            demand,
            waiting: 0,
            failed: false,
            started: false,
            blocked: false,
        };
        self.runs.insert(run, made);
    }

    /// A call that came here and did not start goes away.
    fn drop_run(&mut self, cx: &mut Cx<'_>, run: (NodeId, u64)) {
        if let Some(dropped) = self.runs.remove(&run) {
            if dropped.started {
                cx.log
                    .wrong(format!("{:?} sends {run:?} back, which runs", self.id));
            }
            for key in dropped.args {
                self.unhold(cx, key);
            }
        }
    }

    fn start_run(&mut self, cx: &mut Cx<'_>, run: (NodeId, u64)) {
        let Some(running) = self.runs.get_mut(&run) else {
            return cx
                .log
                .wrong(format!("{:?} starts {run:?}, which is not there", self.id));
        };
        if running.started {
            if self.fault != Fault::StartEarly {
                cx.log.wrong(format!("{:?} starts {run:?} again", self.id));
            }
            return;
        }
        running.started = true;
        // One more, so that it does not go on before all are asked for.
        let args = running.args.clone();
        running.waiting = args.len() + 1;
        for key in args {
            self.get(cx, key, Some(run));
        }
        let waits = self
            .runs
            .get(&run)
            .is_some_and(|running| running.waiting > 1);
        if waits {
            self.block(cx, run, true);
        }
        self.argument(cx, run, true);
    }

    /// One argument of a run is here, or will not come.
    pub fn argument(&mut self, cx: &mut Cx<'_>, run: (NodeId, u64), ok: bool) {
        let Some(running) = self.runs.get_mut(&run) else {
            return;
        };
        running.waiting -= 1;
        running.failed |= !ok;
        if running.waiting > 0 {
            return;
        }
        if running.blocked {
            self.block(cx, run, false);
        }
        let (node, time) = (self.id, cx.net.chance.below(20_000));
        cx.net.after(time, Event::Ran { node, run });
    }

    fn block(&mut self, cx: &mut Cx<'_>, run: (NodeId, u64), blocked: bool) {
        if let Some(running) = self.runs.get_mut(&run) {
            running.blocked = blocked;
        }
        let (from, call) = run;
        let (mut ledger, mut grantor) = (Vec::new(), Vec::new());
        match (from == self.id, blocked) {
            (true, true) => self.places.ledger.lend(call, &mut ledger),
            (true, false) => self.places.ledger.reclaim(call),
            (false, true) => self.places.grantor.blocked(from, call, &mut grantor),
            (false, false) => self.places.grantor.unblocked(from, call, &mut grantor),
        }
        self.on_ledger(cx, ledger);
        self.on_grantor(cx, grantor);
    }

    /// What a run held is free.
    pub fn end_run(&mut self, cx: &mut Cx<'_>, (from, call): (NodeId, u64)) {
        let (mut ledger, mut grantor) = (Vec::new(), Vec::new());
        if from == self.id {
            self.release(cx, call, &mut ledger);
        } else {
            self.places.grantor.ended(from, call, &mut grantor);
        }
        self.on_ledger(cx, ledger);
        self.on_grantor(cx, grantor);
    }

    /// A call came from another node.
    pub fn on_task(
        &mut self,
        cx: &mut Cx<'_>,
        run: (NodeId, u64),
        lease: u32,
        result: ObjectKey,
        args: Vec<ObjectKey>,
        demand: Demand,
    ) {
        self.add_run(run, result, args, demand);
        if self.fault == Fault::StartEarly && cx.net.chance.permille(500) {
            self.start_run(cx, run);
        }
        let mut out = Vec::new();
        self.places
            .grantor
            .arrived(cx.now(), run.0, lease, run.1, &mut out);
        self.on_grantor(cx, out);
    }

    /// A call elsewhere ended.
    pub fn on_done(&mut self, cx: &mut Cx<'_>, from: NodeId, call: u64) {
        let (now, mut out) = (cx.now(), Vec::new());
        self.places.view.ended(from);
        let ran = Duration::from_micros(5_000);
        self.places.submitter.ended(now, call, ran, &mut out);
        self.on_submitter(cx, out);
    }

    pub fn on_lease(&mut self, cx: &mut Cx<'_>, from: NodeId, msg: &LeaseMsg) {
        let now = cx.now();
        if msg.is_for_grantor() {
            let mut out = Vec::new();
            self.places.grantor.handle(now, from, msg, &mut out);
            self.on_grantor(cx, out);
        } else {
            let mut out = Vec::new();
            self.places.submitter.handle(now, from, msg, &mut out);
            self.on_submitter(cx, out);
        }
    }

    pub fn on_news(&mut self, cx: &mut Cx<'_>, from: NodeId, news: NodeView) {
        self.places.view.merge(from, news);
        self.place_waiting(cx);
    }

    fn place_waiting(&mut self, cx: &mut Cx<'_>) {
        for id in std::mem::take(&mut self.places.waiting) {
            self.place(cx, id);
        }
    }

    // Groups.

    /// A program makes a placement group.
    pub fn group(&mut self, cx: &mut Cx<'_>, spec: GroupSpec) {
        let (now, mut out, places) = (cx.now(), Vec::new(), &mut self.places);
        let made = places
            .coordinator
            .create(now, spec.clone(), 0, &places.view, &mut out);
        if let Ok(id) = made {
            cx.log.report.groups += 1;
            places.specs.insert(id.number, spec);
        }
        self.on_coordinator(cx, out);
    }

    /// A program removes one.
    pub fn ungroup(&mut self, cx: &mut Cx<'_>, number: u64) {
        let mut out = Vec::new();
        self.places.specs.remove(&number);
        self.places.coordinator.remove(number, &mut out);
        self.on_coordinator(cx, out);
    }

    pub fn on_group(&mut self, cx: &mut Cx<'_>, from: NodeId, msg: &GroupMsg) {
        match msg.role() {
            Role::Coordinator => {
                let mut out = Vec::new();
                self.places
                    .coordinator
                    .handle(cx.now(), from, msg, &mut out);
                self.on_coordinator(cx, out);
            }
            Role::Participant => {
                if let GroupMsg::Prepare { group, epoch, .. } = *msg
                    && self.fault == Fault::CommitEarly
                {
                    let early = GroupMsg::Prepared { group, epoch };
                    self.places.early = Some((from, early));
                }
                let mut out = Vec::new();
                self.places.participant.handle(from, msg, &mut out);
                self.on_participant(cx, out);
                if let Some((to, msg)) = self.places.early.take() {
                    self.send(cx, to, Packet::Group(msg));
                }
            }
            Role::Lookup => {}
        }
    }

    fn on_coordinator(&mut self, cx: &mut Cx<'_>, out: Vec<groups::coordinator::Effect>) {
        use groups::coordinator::Effect;
        for effect in out {
            cx.log.show(cx.net.now, self.id, &effect);
            match effect {
                Effect::Send { to, msg } => self.send(cx, to, Packet::Group(msg)),
                Effect::Ready { group, nodes } => {
                    cx.log.report.ready += 1;
                    match self.places.specs.get(&group.number) {
                        Some(spec) => cx.log.ready.push((group, spec.clone(), nodes)),
                        None => cx.log.wrong(format!("{group} is ready, and was removed")),
                    }
                }
                Effect::Degraded { .. } => cx.log.report.degraded += 1,
            }
        }
    }

    fn on_participant(&mut self, cx: &mut Cx<'_>, out: Vec<groups::participant::Effect>) {
        use groups::participant::Effect;
        let mut queue = VecDeque::from(out);
        while let Some(effect) = queue.pop_front() {
            cx.log.show(cx.net.now, self.id, &effect);
            let mut ledger = Vec::new();
            match effect {
                Effect::Send { to, msg } => self.send(cx, to, Packet::Group(msg)),
                Effect::Reserve {
                    ticket,
                    demand,
                    priority,
                } => self
                    .places
                    .ledger
                    .submit(ticket, demand, priority, &mut ledger),
                Effect::Release { ticket } => self.release(cx, ticket, &mut ledger),
                Effect::Open { .. } | Effect::Close { .. } => {}
            }
            self.on_ledger(cx, ledger);
        }
    }

    /// Whether a bundle is open here, on resources that the ledger holds.
    pub fn has_bundle(&self, group: GroupId, bundle: u32) -> bool {
        let ticket = self.places.participant.ticket(group, bundle);
        ticket.is_some_and(|ticket| {
            self.places
                .ledger
                .holders()
                .iter()
                .any(|(held, _)| *held == ticket)
        })
    }

    // Deaths and time.

    pub fn place_died(&mut self, cx: &mut Cx<'_>, dead: NodeId) {
        let now = cx.now();
        self.places.view.remove(dead);
        let mut out = Vec::new();
        self.places.grantor.died(dead, &mut out);
        self.on_grantor(cx, out);
        let its = self
            .runs
            .iter()
            .filter(|((from, _), run)| *from == dead && !run.started);
        let its: Vec<(NodeId, u64)> = its.map(|(run, _)| *run).collect();
        for run in its {
            self.drop_run(cx, run);
        }
        let mut out = Vec::new();
        self.places.participant.died(dead, &mut out);
        self.on_participant(cx, out);
        let mut out = Vec::new();
        self.places.coordinator.died(now, dead, &mut out);
        self.on_coordinator(cx, out);
        let mut out = Vec::new();
        self.places.submitter.died(dead, &mut out);
        self.on_submitter(cx, out);
        self.place_waiting(cx);
    }

    pub fn place_tick(&mut self, cx: &mut Cx<'_>, tell: &[NodeId]) {
        let now = cx.now();
        let mut out = Vec::new();
        self.places.submitter.tick(now, &mut out);
        self.on_submitter(cx, out);
        let places = &mut self.places;
        if places.ledger.queued() == 0 && places.ledger.free_cpu_steps() > 0 {
            let mut out = Vec::new();
            places
                .submitter
                .take_back(now, &Demand::ONE_CPU, 0, 1, &mut out);
            self.on_submitter(cx, out);
        }
        let places = &self.places;
        // What this node runs and would like to run itself.
        let here = places
            .ledger
            .line(usize::MAX)
            .into_iter()
            .map(|(id, waits)| (id, waits.demand));
        let here = here
            .chain(places.ledger.holders())
            .filter(|(id, _)| *id < TICKETS.start);
        let steps = here.map(|(_, demand)| demand.cpu.to_f64()).sum::<f64>();
        let mut out = Vec::new();
        self.places
            .grantor
            .local(steps.ceil() as u32, &Demand::NONE, &mut out);
        self.places.grantor.tick(now, &mut out);
        self.on_grantor(cx, out);
        let mut out = Vec::new();
        let places = &mut self.places;
        places.coordinator.tick(now, &places.view, &mut out);
        self.on_coordinator(cx, out);
        let news = self.places.news(now);
        self.places.view.merge(self.id, news.clone());
        for &to in tell {
            self.tell(cx, to, Packet::News(news.clone()));
        }
        self.place_waiting(cx);
    }

    /// What runs here fits.
    pub fn overfull(&self) -> Option<String> {
        let started = || self.runs.values().filter(|run| run.started);
        let steps = |units: Units| (units.to_f64() * 10_000.0).round() as i64;
        let busy = started()
            .filter(|run| !run.blocked)
            .map(|run| steps(run.demand.cpu))
            .sum::<i64>();
        // Those that go on after they were blocked may overdraw.
        let debt = (-self.places.ledger.free_cpu_steps()).max(0);
        let gpus = started().map(|run| steps(run.demand.gpu)).sum::<i64>();
        let (cpu, gpu) = (
            steps(self.places.capacity.cpu),
            steps(self.places.capacity.gpu()),
        );
        (busy > cpu + debt || gpus > gpu).then(|| {
            format!(
                "{:?} of {cpu} CPU and {gpu} GPU steps runs {busy} and {gpus}, {debt} overdrawn",
                self.id
            )
        })
    }
}
