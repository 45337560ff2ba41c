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

mod calls;
mod waiting;

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Cluster;
use crate::base::{Capacity, GroupId, GroupSpec, NodeId};
use crate::core::groups::{BadGroup, Coordinator, GroupMsg, Lookup, Participant, Role};
use crate::core::groups::{coordinator, participant};
use crate::core::view::{NodeView, View};
use crate::exec::groups::TICKETS;
use crate::exec::{Engine, Local, RawRef};
use crate::wire::Frame;
pub(super) use calls::{group_of, strategy_of};
use waiting::Waiting;

/// Calls that wait until they know where their group's bundles are.
pub const MAX_WAITING: usize = 1 << 20;
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
    waiting: Waiting<RawRef>,
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
                waiting: Waiting::new(MAX_WAITING),
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
                    {
                        acts.push(Act::Place(state.waiting.take(*group)));
                    }
                }
            },
            Event::Reserved(ticket) => state.participant.reserved(ticket, &mut held),
            Event::Died(node) => {
                state.coordinator.died(now, node, &mut made);
                state.participant.died(node, &mut held);
                state.lookup.died(node);
                let of_it = state.waiting.take_of(node);
                acts.extend(of_it.into_iter().map(Act::Place));
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
}

/// A node that is alone makes groups too.
pub fn alone(engine: &Arc<Engine>, capacity: Capacity) {
    let mut bytes = [0; 8];
    // Ids of groups tell one runtime from the next in the same process.
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    let me = NodeId::new(u64::from_le_bytes(bytes).max(1)).expect("not 0");
    engine.set_groups(Groups::new(me, engine, capacity, None));
}
