//! Drives leases: `core::leases` decides which call goes to whose slots; this keeps the calls, and has the ledger hold the slots.
//!
//! What the two machines decide is carried out in order: messages under the books' lock; what concerns the ledger by one
//! thread at a time, since a ticket that is given back before it was asked for would never come back; the rest by whoever
//! brought it about.
//!
//! Invariant: a call of this node is in line here, or sent, or neither machine knows it. A call of another node has its slot
//! from its start to its end. Left out: choosing nodes (`place`), carrying calls (`calls`); what concerns the
//! slots that this node lends is in `lent`.

mod lent;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Cluster;
use super::books::Books;
use super::effects::Todo;
use crate::base::{Capacity, Demand, NodeId};
use crate::core::leases::submitter::{Call, Cancelled};
use crate::core::leases::{Grantor, LeaseMsg, Submitter, grantor, submitter};
use crate::exec::far::leased::LEASES;
use crate::exec::far::{Parcel, parcel};
use crate::exec::{Local, RawRef, cell};
use crate::wire::Frame;

/// How often the machines are told that time passes.
const TICK: Duration = Duration::from_millis(100);

/// A call of this node that waits for a slot, or is on its way to one.
pub(super) struct Lined {
    record: RawRef,
    /// In whose line the view counts it.
    counted: NodeId,
}

/// A call of another node, by its own number there.
struct Came {
    from: NodeId,
    number: u64,
    lease: u32,
    started: Option<Duration>,
}

/// What is to be done in order by one thread at a time.
enum Act {
    Reserve(u64, Demand, i32),
    Release(u64),
    Lend(u64),
    Reclaim(u64),
}

/// What follows once the books are not locked.
#[derive(Default)]
pub(super) struct Follow {
    runs: Vec<(RawRef, NodeId, u32)>,
    starts: Vec<(RawRef, u64)>,
    /// Calls of this node that no other node runs.
    back: Vec<RawRef>,
    /// Calls of others that went back to them.
    dropped: Vec<RawRef>,
    /// The ledger is to do something, and nobody is at that.
    acts: bool,
}

/// What this node's leases come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    /// Slots of other nodes that this one may use.
    pub borrowed: u64,
    /// Slots of this node that others have.
    pub lent: u64,
    /// Calls of this node that wait for a slot elsewhere.
    pub waiting: usize,
    /// Calls of this node that are sent to slots elsewhere and have not ended.
    pub sent: usize,
    /// Calls that were ever sent to slots elsewhere.
    pub calls: u64,
    /// How often a node was chosen for a call, or for some calls at once, since this node started.
    pub choices: u64,
    /// Messages about leases that this node sent.
    pub messages: u64,
}

/// See the file.
pub(super) struct Leasing {
    submitter: Submitter,
    grantor: Grantor,
    lined: HashMap<u64, Lined>,
    /// By the number of its record here.
    came: HashMap<u64, Came>,
    made: Vec<submitter::Effect>,
    held: Vec<grantor::Effect>,
    acts: VecDeque<Act>,
    /// Some thread carries out what is in `acts`.
    acting: bool,
    ticked: Duration,
    pub choices: u64,
    calls: u64,
    messages: u64,
}

impl Leasing {
    pub fn new(me: NodeId, capacity: Capacity) -> Leasing {
        Leasing {
            submitter: Submitter::new(),
            grantor: Grantor::new(me, capacity, LEASES..u64::MAX),
            lined: HashMap::new(),
            came: HashMap::new(),
            made: Vec::new(),
            held: Vec::new(),
            acts: VecDeque::new(),
            acting: false,
            ticked: Duration::ZERO,
            choices: 0,
            calls: 0,
            messages: 0,
        }
    }

    /// A message of another node. False: it cannot be true.
    fn heard(
        &mut self,
        now: Duration,
        from: NodeId,
        message: &LeaseMsg,
        mut unsend: impl FnMut(u64) -> Option<RawRef>,
    ) -> bool {
        if message.is_for_grantor() {
            self.grantor.handle(now, from, message, &mut self.held);
            return true;
        }
        if let LeaseMsg::Refused { calls, .. } = message {
            for call in calls {
                let Some(record) = unsend(*call) else {
                    return false;
                };
                let counted = from;
                self.lined.insert(*call, Lined { record, counted });
            }
        }
        self.submitter.handle(now, from, message, &mut self.made);
        true
    }

    /// A node is dead.
    pub fn died(&mut self, node: NodeId) {
        self.submitter.died(node, &mut self.made);
        self.grantor.died(node, &mut self.held);
    }

    /// This node is leaving.
    pub fn drain(&mut self) {
        self.grantor.drain(&mut self.held);
    }

    /// A call of this node was sent, and has ended.
    pub fn ended(&mut self, now: Duration, call: u64, ran: Duration) {
        self.submitter.ended(now, call, ran, &mut self.made);
    }

    /// A call of this node leaves the line, to be sent to that node.
    pub fn sends(&mut self, call: u64) {
        self.leaves(call);
        self.calls += 1;
    }

    /// A call of this node leaves the line.
    pub fn leaves(&mut self, call: u64) {
        self.lined.remove(&call);
    }

    /// Whether a call of another node asks for what its lease is for.
    pub fn fits(&self, record: &RawRef, from: NodeId, lease: u32) -> bool {
        let held = self.grantor.demand(from, lease);
        held.is_none_or(|held| *held == shape(record).0)
    }

    /// A call of another node is about to wait for its arguments here.
    pub fn comes(&mut self, record: &RawRef, from: NodeId, number: u64, lease: u32) {
        let came = Came {
            from,
            number,
            lease,
            started: None,
        };
        self.came.insert(record.id, came);
    }

    /// It ended; for how long it ran.
    pub fn ran(&mut self, now: Duration, record: &RawRef) -> Duration {
        let Some(came) = self.came.remove(&record.id) else {
            return Duration::ZERO;
        };
        self.grantor.ended(came.from, came.number, &mut self.held);
        now.saturating_sub(came.started.unwrap_or(now))
    }

    /// All calls that wait here, for nobody to send them any more. Whoever is about to send one has its claim, and ends it.
    pub fn abandon(&mut self) -> Vec<RawRef> {
        let all: Vec<u64> = self.lined.keys().copied().collect();
        let queued = all.into_iter();
        let queued = queued.filter(|call| self.submitter.cancel(*call) == Cancelled::Queued);
        let lined = queued.filter_map(|call| self.lined.remove(&call));
        lined.map(|lined| lined.record).collect()
    }

    /// Calls that wait for slots, or for the answer to their question.
    pub fn lined(&self) -> impl Iterator<Item = &RawRef> {
        self.lined.values().map(|lined| &lined.record)
    }

    /// What nobody uses of what is lent.
    pub fn idle(&self) -> Demand {
        self.grantor.idle()
    }

    /// Slots at a node for this shape, the calls sent per slot, and how many calls could use one.
    pub fn at(&self, demand: &Demand, priority: i32, node: NodeId) -> Option<(u32, u32, u32)> {
        self.submitter.lease_at(demand, priority, node)
    }

    /// Whether calls of this shape wait for whoever has room.
    pub fn has_line(&self, demand: &Demand, priority: i32) -> bool {
        self.submitter.has_line(demand, priority)
    }

    /// Whether time matters to either machine.
    pub fn is_used(&self) -> bool {
        self.grantor.lends() || !self.lined.is_empty()
    }

    fn told(&self) -> Leases {
        let (waiting, sent) = self.submitter.load();
        Leases {
            borrowed: self.submitter.slots().map(|(_, _, n)| u64::from(n)).sum(),
            lent: self.grantor.leases().map(|(_, _, n, _)| u64::from(n)).sum(),
            waiting,
            sent,
            calls: self.calls,
            choices: self.choices,
            messages: self.messages,
        }
    }
}

/// What a call of this node holds where it runs, and its priority.
pub(super) fn shape(record: &RawRef) -> (Demand, i32) {
    let extra = record.extra();
    let priority = extra.map_or(0, |e| e.priority);
    let demand = match extra.and_then(|e| e.demand.as_ref()) {
        Some(demand) => demand.clone(),
        // A future that asks for nothing takes no CPU: while it waits, others run.
        None if record.is_future() => Demand::NONE,
        None => Demand::ONE_CPU,
    };
    (demand, priority)
}

impl Cluster {
    /// Has claimed calls run in slots of the nodes chosen for them, or, unless they are `bound` to those, wherever there are slots
    /// first. Gives back those that cannot be.
    pub(super) fn submit_calls(
        self: &Arc<Cluster>,
        local: &Local,
        calls: Vec<(RawRef, NodeId)>,
        bound: bool,
    ) -> Vec<RawRef> {
        let mut refused = Vec::new();
        let mut cancelled = Vec::new();
        self.with(local, |books, _| {
            let now = self.now();
            for (record, node) in calls {
                let known = parcel::number(record.entry).is_some();
                if !known || !books.peers.contains_key(&node) {
                    refused.push(record);
                    continue;
                }
                let (demand, priority) = shape(&record);
                let call = Call {
                    id: record.id,
                    demand: &demand,
                    priority,
                    bound,
                };
                let lined = Lined {
                    record: record.clone(),
                    counted: node,
                };
                let leasing = &mut books.leasing;
                leasing.lined.insert(record.id, lined);
                let made = &mut leasing.made;
                if leasing
                    .submitter
                    .submit(now, &call, Some(node), made)
                    .is_err()
                {
                    leasing.lined.remove(&record.id);
                    refused.push(record);
                    continue;
                }
                books.view.sent(node, &demand);
                cancelled.push(record);
            }
        });
        // Who cancelled before it was in the books did not find it there.
        cancelled.retain(|record| record.state() & cell::CANCEL != 0);
        cancelled.iter().for_each(|r| self.cancel_sent(local, r));
        refused
    }

    /// Sends a call to slots that this node has and does not use, wherever they are. False: there are none; then it still waits.
    pub(super) fn reuse(self: &Arc<Cluster>, local: &Local, record: &RawRef) -> bool {
        let (demand, priority) = shape(record);
        let call = Call {
            id: record.id,
            demand: &demand,
            priority,
            bound: false,
        };
        let sent = self.with(local, |books, _| {
            let leasing = &mut books.leasing;
            let found = leasing
                .submitter
                .reuse(self.now(), &call, &mut leasing.made);
            let node = leasing.made.iter().rev().find_map(|effect| match effect {
                submitter::Effect::Run { call, node, .. } if *call == record.id => Some(*node),
                _ => None,
            });
            let (true, Some(node)) = (found, node) else {
                return false;
            };
            if !record.claim_waiting() {
                // Cancelled just now.
                leasing.made.pop();
                leasing
                    .submitter
                    .ended(self.now(), record.id, Duration::ZERO, &mut leasing.made);
                return true;
            }
            let lined = Lined {
                record: record.clone(),
                counted: node,
            };
            leasing.lined.insert(record.id, lined);
            books.view.sent(node, &demand);
            true
        });
        if sent && record.state() & cell::CANCEL != 0 {
            self.cancel_sent(local, record);
        }
        sent
    }

    /// Another node says something about a lease.
    pub(super) fn on_lease(self: &Arc<Cluster>, local: &Local, from: NodeId, message: &LeaseMsg) {
        let sound = self.with(local, |books, _| {
            if !books.peers.contains_key(&from) {
                return true;
            }
            let (sent, deaths) = (&mut books.sent, &mut books.deaths);
            let unsend = |call: u64| {
                sent.get(&call).filter(|s| s.to == from && s.leased)?;
                let back = sent.remove(&call)?;
                if !back.deaths.is_empty() {
                    deaths.insert(call, back.deaths);
                }
                Some(back.record)
            };
            books.leasing.heard(self.now(), from, message, unsend)
        });
        if !sound {
            self.misbehaves(from, "it sent back a call that it was not sent");
        }
    }

    /// Takes a call out of line that is not wanted any more. False: it is not in line.
    pub(super) fn cancel_lined(self: &Arc<Cluster>, local: &Local, call: u64) -> bool {
        let record = self.with(local, |books, _| {
            if books.leasing.submitter.cancel(call) != Cancelled::Queued {
                return None;
            }
            let lined = books.leasing.lined.remove(&call)?;
            books.view.ended(lined.counted);
            Some(lined.record)
        });
        let Some(record) = record else { return false };
        let error = crate::base::Error::Cancelled {
            function: record.name(),
        };
        local.engine.settle_error(local, &record, error);
        true
    }

    /// What the machines decided: the messages, and what changes the books again.
    pub(super) fn tell_leases(&self, books: &mut Books, todo: &mut Todo) {
        while !books.leasing.made.is_empty() || !books.leasing.held.is_empty() {
            for effect in std::mem::take(&mut books.leasing.made) {
                self.tell_submitter(books, &mut todo.leases, effect);
            }
            for effect in std::mem::take(&mut books.leasing.held) {
                self.tell_grantor(books, &mut todo.leases, effect);
            }
        }
        let leasing = &mut books.leasing;
        if !leasing.acts.is_empty() && !leasing.acting {
            leasing.acting = true;
            todo.leases.acts = true;
        }
    }

    fn tell_submitter(&self, books: &mut Books, follow: &mut Follow, effect: submitter::Effect) {
        use submitter::Effect;
        match effect {
            Effect::Send { to, msg } => self.send_lease(books, to, msg),
            Effect::Run { call, node, lease } => {
                let Some(lined) = books.leasing.lined.get_mut(&call) else {
                    return;
                };
                if lined.counted != node {
                    books
                        .view
                        .ended(std::mem::replace(&mut lined.counted, node));
                    books.view.sent(node, &Demand::NONE);
                }
                follow.runs.push((lined.record.clone(), node, lease));
            }
            Effect::Here { call } | Effect::Place { call } => {
                if let Some(lined) = books.leasing.lined.remove(&call) {
                    books.view.ended(lined.counted);
                    follow.back.push(lined.record);
                }
            }
            // Those that were sent are in the books, and looked after by whoever tells of the death; one that was about to be
            // sent is by who was about to.
            Effect::Lost { .. } => {}
        }
    }

    fn send_lease(&self, books: &mut Books, to: NodeId, message: LeaseMsg) {
        books.leasing.messages += 1;
        // If that node is gone, its death is about to be told.
        self.send_surely(books, to, &Frame::Lease { message });
    }

    /// The rest, without the books.
    pub(super) fn follow_leases(self: &Arc<Cluster>, local: &Local, follow: Follow) {
        for (record, ticket) in follow.starts {
            local.engine.start_leased(local, record, ticket);
        }
        for (record, node, lease) in follow.runs {
            // What is to be joined first may have to be fetched, for which this thread may be needed.
            if self.may_fetch() || !Parcel::may_block(&record) {
                self.send_leased(local, &record, node, lease);
            } else {
                let cluster = Arc::clone(self);
                self.wait_apart(move |local| cluster.send_leased(local, &record, node, lease));
            }
        }
        for record in follow.back {
            self.put_back(local, record);
        }
        for record in follow.dropped {
            local.engine.cancel(local, &record);
        }
        if follow.acts {
            self.act(local);
        }
    }

    /// Time passes. To be called every few milliseconds.
    pub(super) fn tick_leases(self: &Arc<Cluster>, local: &Local) {
        let now = self.now();
        let load = local.engine.own_load();
        self.with(local, |books, _| {
            let leasing = &mut books.leasing;
            if leasing.grantor.lends() {
                let (cpus, held) = &load;
                leasing.grantor.local(*cpus, held, &mut leasing.held);
            }
            if now.saturating_sub(leasing.ticked) >= TICK {
                leasing.ticked = now;
                leasing.submitter.tick(now, &mut leasing.made);
                leasing.grantor.tick(now, &mut leasing.held);
            }
        });
    }

    /// Has calls that wait for other nodes run here, as many as this one has room for.
    pub(super) fn take_back(self: &Arc<Cluster>, local: &Local) {
        let engine = &local.engine;
        let own = self.own_cpus();
        let short = own.saturating_sub(engine.queued());
        self.with(local, |books, _| {
            let leasing = &mut books.leasing;
            let lines: Vec<(Demand, i32, usize)> = leasing
                .submitter
                .lines()
                .map(|(demand, priority, n)| (demand.clone(), priority, n))
                .collect();
            for (demand, priority, n) in lines {
                let most = if demand == Demand::ONE_CPU && priority == 0 {
                    // Those that are taken last would be sent away again.
                    if short > 0 { short.max(n / 4) } else { 0 }
                } else {
                    usize::from(self.fits_here(&demand))
                };
                let now = self.now();
                leasing
                    .submitter
                    .take_back(now, &demand, priority, most, &mut leasing.made);
            }
            engine.tell_when_dry(leasing.submitter.lines().next().is_some());
        });
    }

    /// What this node's leases come to now.
    pub fn leases(&self) -> Leases {
        self.books.lock().leasing.told()
    }
}
