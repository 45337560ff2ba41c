//! Drives placement groups: `core::groups` decides, the engine's ledger reserves, the link carries.
//!
//! Events stand in line, and whoever brings one while nobody works it off does so: its effects are carried out one after the
//! other and without any lock, so the ledger and other nodes hear of everything in the order in which it was decided.
//!
//! Calls of a group wait here until it is known where its bundles are: at most [`MAX_WAITING`]. A node that is alone is its
//! own coordinator, participant and asker.
//!
//! Invariant: a call that waits here is placed, fails because its group is no more, or fails with the runtime. Left out: how
//! calls run in a bundle (`exec::groups`).

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Cluster, actors};
use crate::base::{Capacity, Demand, Error, GroupId, GroupSpec, NodeId, Strategy};
use crate::core::groups::lookup::Located;
use crate::core::groups::{BadGroup, Coordinator, GroupMsg, Lookup, Participant, Role};
use crate::core::groups::{coordinator, participant};
use crate::core::placement::{Choice, Request, choose};
use crate::core::view::{NodeView, View};
use crate::exec::entry::ActorEntry;
use crate::exec::far::Elsewhere;
use crate::exec::groups::{self, TICKETS, no_group};
use crate::exec::options::Options;
use crate::exec::{Engine, Local, RawRef};
use crate::wire::{Frame, InGroup};

/// Calls that wait until they know where their group's bundles are.
pub const MAX_WAITING: usize = 1 << 20;
/// How long making an actor waits for its group.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the coordinator is told that time passes.
const TICK: Duration = Duration::from_millis(50);

/// What happens.
enum Event {
    Create(GroupSpec, SyncSender<Result<GroupId, BadGroup>>),
    Remove(u64),
    Message(NodeId, GroupMsg),
    Reserved(u64),
    Died(NodeId),
    Tick,
}

/// What follows.
enum Act {
    Send(NodeId, GroupMsg),
    Bundle(participant::Effect),
    /// Place these anew.
    Place(Vec<RawRef>),
}

struct State {
    coordinator: Coordinator,
    participant: Participant,
    lookup: Lookup,
    /// Of this node alone, if it is.
    view: View,
    /// Calls that wait for news of their group.
    waiting: HashMap<GroupId, Vec<RawRef>>,
    waits: usize,
    /// Calls that wait for the link.
    aside: Vec<RawRef>,
    ticked: Duration,
    closed: bool,
}

#[derive(Default)]
struct Line {
    events: VecDeque<Event>,
    busy: bool,
}

/// See the file.
pub struct Groups {
    me: NodeId,
    itself: Weak<Groups>,
    engine: Weak<Engine>,
    cluster: Option<Weak<Cluster>>,
    state: Mutex<State>,
    /// Rings when a group is ready, degraded or removed, or its bundles are told.
    news: Condvar,
    line: Mutex<Line>,
    started: Instant,
    /// The thread that tells a node that is alone that time passes.
    clock: std::sync::Once,
}

/// What is to be done with a call.
enum Place {
    Here,
    At(NodeId),
    Waits(Option<GroupMsg>),
    Fails(Error),
}

impl Groups {
    /// The groups of a node that is alone, or of a cluster's.
    pub fn new(
        me: NodeId,
        engine: &Arc<Engine>,
        capacity: Capacity,
        cluster: Option<Weak<Cluster>>,
    ) -> Arc<Groups> {
        let mut view = View::new();
        let alone = NodeView {
            version: 1,
            ..NodeView::idle(capacity.clone())
        };
        view.merge(me, alone);
        Arc::new_cyclic(|itself| Groups {
            me,
            itself: Weak::clone(itself),
            engine: Arc::downgrade(engine),
            cluster,
            state: Mutex::new(State {
                coordinator: Coordinator::new(me, me.get()),
                participant: Participant::new(capacity, TICKETS),
                lookup: Lookup::new(),
                view,
                waiting: HashMap::new(),
                waits: 0,
                aside: Vec::new(),
                ticked: Duration::ZERO,
                closed: false,
            }),
            news: Condvar::new(),
            line: Mutex::default(),
            started: Instant::now(),
            clock: std::sync::Once::new(),
        })
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn cluster(&self) -> Option<Arc<Cluster>> {
        self.cluster.as_ref()?.upgrade()
    }

    /// Something happened.
    fn post(&self, local: &Local, event: Event) {
        {
            let mut line = self.line.lock();
            line.events.push_back(event);
            if std::mem::replace(&mut line.busy, true) {
                return;
            }
        }
        loop {
            let event = {
                let mut line = self.line.lock();
                match line.events.pop_front() {
                    Some(event) => event,
                    None => {
                        line.busy = false;
                        return;
                    }
                }
            };
            for act in self.decide(local, event) {
                self.carry_out(local, act);
            }
        }
    }

    fn decide(&self, local: &Local, event: Event) -> Vec<Act> {
        let now = self.now();
        let mut acts = Vec::new();
        let mut state = self.state.lock();
        let state = &mut *state;
        let (mut made, mut held) = (Vec::new(), Vec::new());
        match event {
            Event::Create(spec, answer) => {
                let made = self.with_view(local, &mut state.view, |view| {
                    state.coordinator.create(now, spec, 0, view, &mut made)
                });
                let _ = answer.send(made);
            }
            Event::Remove(number) => {
                state.coordinator.remove(number, &mut made);
            }
            Event::Message(from, msg) => match msg.role() {
                Role::Coordinator => state.coordinator.handle(now, from, &msg, &mut made),
                Role::Participant => state.participant.handle(from, &msg, &mut held),
                Role::Lookup => {
                    if state.lookup.handle(from, &msg)
                        && let GroupMsg::Located { group, .. } = &msg
                        && let Some(calls) = state.waiting.remove(group)
                    {
                        state.waits -= calls.len();
                        acts.push(Act::Place(calls));
                    }
                }
            },
            Event::Reserved(ticket) => state.participant.reserved(ticket, &mut held),
            Event::Died(node) => {
                state.coordinator.died(now, node, &mut made);
                state.participant.died(node, &mut held);
                state.lookup.died(node);
                let of_it: Vec<GroupId> = state
                    .waiting
                    .keys()
                    .filter(|g| g.node == node)
                    .copied()
                    .collect();
                for group in of_it {
                    let calls = state.waiting.remove(&group).unwrap_or_default();
                    state.waits -= calls.len();
                    acts.push(Act::Place(calls));
                }
            }
            Event::Tick => {
                self.with_view(local, &mut state.view, |view| {
                    state.coordinator.tick(now, view, &mut made);
                });
            }
        }
        acts.extend(held.into_iter().map(|effect| match effect {
            participant::Effect::Send { to, msg } => Act::Send(to, msg),
            other => Act::Bundle(other),
        }));
        acts.extend(made.into_iter().filter_map(|effect| match effect {
            coordinator::Effect::Send { to, msg } => Some(Act::Send(to, msg)),
            // Whoever waits looks at what the coordinator knows.
            coordinator::Effect::Ready { .. } | coordinator::Effect::Degraded { .. } => None,
        }));
        self.news.notify_all();
        acts
    }

    /// What is known of the nodes now.
    fn with_view<R>(&self, local: &Local, own: &mut View, f: impl FnOnce(&View) -> R) -> R {
        match self.cluster() {
            Some(cluster) => {
                let mut books = cluster.books.lock();
                cluster.refresh(&mut books, local);
                f(&books.view)
            }
            None => {
                own.adjust(self.me, local.engine.free(), local.engine.queued() as u32);
                f(own)
            }
        }
    }

    fn carry_out(&self, local: &Local, act: Act) {
        let engine = &local.engine;
        match act {
            Act::Send(to, msg) if to == self.me => {
                self.line.lock().events.push_back(Event::Message(to, msg));
            }
            Act::Send(to, msg) => {
                let asks = matches!(msg, GroupMsg::Locate { .. });
                let frame = Frame::Group { message: msg };
                let sent = self.cluster().is_some_and(|cluster| {
                    cluster.with(local, |books, _| {
                        books.peers.contains_key(&to) && cluster.send_surely(books, to, &frame)
                    })
                });
                // Others are told by its death, which follows; a group of a node that is long gone has nobody to ask.
                if !sent && asks {
                    self.line.lock().events.push_back(Event::Died(to));
                }
            }
            Act::Bundle(effect) => match effect {
                participant::Effect::Send { .. } => {}
                participant::Effect::Reserve {
                    ticket,
                    demand,
                    priority,
                } => engine.reserve_ticket(local, ticket, demand, priority),
                participant::Effect::Release { ticket } => engine.release_ticket(local, ticket),
                participant::Effect::Open {
                    group,
                    bundle,
                    ticket,
                    demand,
                } => engine.open_bundle(local, (group, bundle), ticket, &demand),
                participant::Effect::Close { group, bundle } => {
                    engine.close_bundle(local, group, bundle);
                }
            },
            Act::Place(calls) => {
                for record in calls {
                    self.place_again(local, record);
                }
            }
        }
    }

    fn place_again(&self, local: &Local, record: RawRef) {
        if !self.place_now(local, &record) {
            local.engine.admit_of_group(local, record);
        }
    }

    /// Where a call or an actor of this demand goes; one that waits is kept by the caller, under this lock.
    fn find(
        &self,
        state: &mut State,
        at: (GroupId, Option<u32>),
        demand: &Demand,
        seed: u64,
    ) -> Place {
        let (group, bundle) = at;
        let nodes = match state.lookup.locate(group, bundle, demand) {
            Located::Asked(ask) => return Place::Waits(ask),
            Located::At(nodes) => nodes,
            Located::Gone => {
                let why = "was removed, or the node that made it is dead: make another";
                return Place::Fails(no_group(group, why));
            }
            Located::TooSmall => {
                let which = match bundle {
                    Some(bundle) => format!("bundle {bundle}, or it does not hold"),
                    None => "bundle that holds".to_owned(),
                };
                let why = format!("has no {which} the {demand} that is asked for");
                return Place::Fails(no_group(group, &why));
            }
        };
        let Some(cluster) = self.cluster() else {
            return if nodes.is_empty() {
                Place::Waits(None)
            } else {
                Place::Here
            };
        };
        let strategy = Strategy::Group { group, bundle };
        let request = Request {
            bundles: Some(&nodes),
            seed,
            ..Request::new(demand, &strategy)
        };
        let books = cluster.books.lock();
        match choose(&books.view, self.me, &request) {
            Choice::Here => Place::Here,
            Choice::At(node) => Place::At(node),
            Choice::Wait => Place::Waits(None),
            Choice::Nowhere(why) => Place::Fails(no_group(group, &why.to_string())),
        }
    }

    fn place_now(&self, local: &Local, record: &RawRef) -> bool {
        let Some(at) = record.group() else {
            return false;
        };
        let demand = record.demand().cloned().unwrap_or(Demand::ONE_CPU);
        let (place, waits) = {
            let mut state = self.state.lock();
            let mut place = match state.closed {
                true => Place::Fails(Error::ShutDown),
                false => self.find(&mut state, at, &demand, record.id),
            };
            let waits = matches!(place, Place::Waits(_));
            if waits && state.waits >= MAX_WAITING {
                let why = format!("has {MAX_WAITING} calls waiting for it: take results first");
                place = Place::Fails(no_group(at.0, &why));
            } else if waits {
                state.waits += 1;
                state.waiting.entry(at.0).or_default().push(record.clone());
            }
            (place, waits)
        };
        match place {
            Place::Here => false,
            Place::At(node) => match self.cluster() {
                Some(cluster) => cluster.give(local, record, node),
                None => false,
            },
            Place::Waits(ask) => {
                if let Some(ask) = ask.filter(|_| waits) {
                    self.ask(local, at.0, ask);
                }
                true
            }
            Place::Fails(why) => {
                local.engine.fail_of_group(local, record, why);
                true
            }
        }
    }

    /// Waits until it is known where an actor of the group is made; `None`: here. Must not be called under a lock.
    fn find_for_actor(
        &self,
        local: &Local,
        at: (GroupId, Option<u32>),
        demand: &Demand,
    ) -> Result<Option<NodeId>, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut state = self.state.lock();
            if state.closed {
                return Err(Error::ShutDown);
            }
            match self.find(&mut state, at, demand, self.now().as_nanos() as u64) {
                Place::Here => return Ok(None),
                Place::At(node) => return Ok(Some(node)),
                Place::Fails(why) => return Err(why),
                Place::Waits(Some(ask)) => {
                    drop(state);
                    self.ask(local, at.0, ask);
                }
                Place::Waits(None) => {
                    if self.news.wait_until(&mut state, deadline).timed_out() {
                        let why = format!(
                            "was not ready within {PATIENCE:?}, and the actor waits for that: see wait_ready"
                        );
                        return Err(no_group(at.0, &why));
                    }
                }
            }
        }
    }

    /// Asks a coordinator.
    fn ask(&self, local: &Local, group: GroupId, ask: GroupMsg) {
        if group.node == self.me {
            return self.post(local, Event::Message(self.me, ask));
        }
        self.carry_out(local, Act::Send(group.node, ask));
        // In case that could not be sent.
        self.post(local, Event::Tick);
    }

    /// Another node says something.
    pub(super) fn heard(&self, local: &Local, from: NodeId, message: GroupMsg) {
        self.post(local, Event::Message(from, message));
    }

    /// A node is dead.
    pub(super) fn died(&self, local: &Local, node: NodeId) {
        self.post(local, Event::Died(node));
    }

    /// Time passes. To be called every few milliseconds.
    pub(super) fn tick(&self, local: &Local) {
        let now = self.now();
        let (aside, due) = {
            let mut state = self.state.lock();
            let due = now.saturating_sub(state.ticked) >= TICK
                && state.coordinator.groups().next().is_some();
            if due {
                state.ticked = now;
            }
            (std::mem::take(&mut state.aside), due)
        };
        for record in aside {
            self.place_again(local, record);
        }
        if due {
            self.post(local, Event::Tick);
        }
    }

    /// A node that is alone has no thread that looks at things: groups get one.
    fn start_clock(&self) {
        if self.cluster.is_some() {
            return;
        }
        self.clock.call_once(|| {
            let groups = Weak::clone(&self.itself);
            let run = move || loop {
                std::thread::sleep(TICK);
                let Some(groups) = groups.upgrade() else {
                    return;
                };
                if groups.state.lock().closed || groups.engine.strong_count() == 0 {
                    return;
                }
                let _ = crate::exec::local::with(|local| groups.tick(local));
            };
            // Without it, groups that cannot be reserved at once are not tried again.
            let _ = std::thread::Builder::new()
                .name("mobula-groups".to_owned())
                .spawn(run);
        });
    }

    /// How many calls wait for their group, of how many that may.
    pub fn waiting(&self) -> (usize, usize) {
        (self.state.lock().waits, MAX_WAITING)
    }
}

impl groups::Groups for Groups {
    fn create(&self, local: &Local, spec: GroupSpec) -> Result<GroupId, Error> {
        self.start_clock();
        let (answer, made) = sync_channel(1);
        self.post(local, Event::Create(spec, answer));
        match made.recv() {
            Ok(made) => made.map_err(|why| Error::Group {
                why: Arc::from(why.to_string()),
            }),
            Err(_) => Err(Error::ShutDown),
        }
    }

    fn remove(&self, local: &Local, group: GroupId) {
        if group.node == self.me {
            self.post(local, Event::Remove(group.number));
        }
    }

    fn placed(&self, group: GroupId) -> Option<Vec<Option<NodeId>>> {
        self.state.lock().coordinator.placed(group.number)
    }

    fn wait_ready(&self, group: GroupId, deadline: Option<Instant>) -> Result<bool, Error> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Err(Error::ShutDown);
            }
            match state.coordinator.is_ready(group.number) {
                None => return Err(no_group(group, "was removed")),
                Some(true) => return Ok(true),
                Some(false) => {}
            }
            match deadline {
                None => self.news.wait(&mut state),
                Some(deadline) => {
                    if self.news.wait_until(&mut state, deadline).timed_out() {
                        return Ok(state.coordinator.is_ready(group.number) == Some(true));
                    }
                }
            }
        }
    }

    fn place(&self, local: &Local, record: &RawRef) -> bool {
        self.place_now(local, record)
    }

    fn place_later(&self, local: &Local, record: RawRef) {
        let mut state = self.state.lock();
        if !state.closed {
            return state.aside.push(record);
        }
        drop(state);
        local.engine.fail_of_group(local, &record, Error::ShutDown);
    }

    fn place_actor(
        &self,
        local: &Local,
        entry: &'static ActorEntry,
        options: &Options,
        demand: &Demand,
    ) -> Result<Option<Elsewhere>, Error> {
        let Strategy::Group { group, bundle } = options.strategy else {
            return Ok(None);
        };
        let wait = || self.find_for_actor(local, (group, bundle), demand);
        let Some(node) = local.engine.wait_apart(local, "a placement group", wait)? else {
            return Ok(None);
        };
        let Some(cluster) = self.cluster() else {
            return Err(Error::ShutDown);
        };
        let terms = actors::terms(entry, options, demand)?;
        let adopt = options.get_or_create;
        Ok(Some(Box::new(move |local, init, name| {
            cluster.books.lock().view.sent(node, &Demand::NONE);
            cluster.send_create(local, node, entry, (terms, name, adopt), init)
        })))
    }

    fn reserved(&self, local: &Local, ticket: u64) {
        self.post(local, Event::Reserved(ticket));
    }

    fn close(&self, local: &Local) {
        let calls: Vec<RawRef> = {
            let mut state = self.state.lock();
            state.closed = true;
            state.waits = 0;
            let aside = std::mem::take(&mut state.aside);
            let waiting = std::mem::take(&mut state.waiting);
            waiting.into_values().flatten().chain(aside).collect()
        };
        self.news.notify_all();
        for record in calls {
            local.engine.fail_of_group(local, &record, Error::ShutDown);
        }
    }
}

/// The groups that a call could be in, as it travels.
pub(super) fn group_of(strategy: &Strategy) -> Option<InGroup> {
    match strategy {
        Strategy::Group { group, bundle } => Some((*group, *bundle)),
        _ => None,
    }
}

/// The same, as a record here carries it.
pub(super) fn strategy_of(group: Option<InGroup>) -> Strategy {
    group.map_or(Strategy::Default, |(group, bundle)| Strategy::Group {
        group,
        bundle,
    })
}

/// A node that is alone makes groups too.
pub fn alone(engine: &Arc<Engine>, capacity: Capacity) {
    let mut bytes = [0; 8];
    // Ids of groups tell one runtime from the next in the same process.
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    let me = NodeId::new(u64::from_le_bytes(bytes).max(1)).expect("not 0");
    engine.set_groups(Groups::new(me, engine, capacity, None));
}
