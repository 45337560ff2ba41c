//! The borrowing half: calls for other nodes, the slots they may use there, and what to do when those go away.
//!
//! Calls of one shape (demand and priority) take any slot of their shape, wherever it is, first come first served; only
//! those *bound* to a node wait for that one's slots. While a lease has room, a call needs no choice of a node:
//! [`Submitter::reuse`] sends it at once. Else the driver chooses a node and submits the call with it, and so many slots
//! as all such calls could use are asked for there.
//!
//! How far ahead calls are sent follows from how long they run and how far the node is: one more than run in a round trip;
//! none ahead if they run much longer than that, for then it costs nothing to wait and see who has room first.
//!
//! Invariant: a call is queued or sent to exactly one node until it ended, was lost, cancelled, or handed back to be
//! placed anew; at most [`MAX_CALLS`] at a time; a node that
//! refuses is asked again after [`super::BACKOFF`]. Left out: choosing a node, carrying calls, and retries of lost ones.

mod aside;
mod lines;
mod pace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::{IDLE, LeaseMsg, MAX_SLOTS, TERM};
use crate::base::{Demand, NodeId};
use pace::Pace;

/// Calls queued and sent.
pub const MAX_CALLS: usize = 1 << 20;
/// Unbound calls of a shape that none has left for so long are placed anew.
pub const PATIENCE: Duration = Duration::from_millis(100);
/// So many of them at a time.
pub const BATCH: usize = 64;
/// Dead nodes that are remembered.
const MAX_GONE: usize = 256;
/// Refusals without a call ended in between, after which a lease is given up for [`super::BACKOFF`].
const MAX_REFUSALS: u32 = 4;

/// What the driver does after an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send it, in order.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        msg: LeaseMsg,
    },
    /// Send this call to that node, in order with the messages, with the number of its lease.
    Run {
        /// Which.
        call: u64,
        /// Where.
        node: NodeId,
        /// In which lease there.
        lease: u32,
    },
    /// This node has room: run the call here. It is no longer here.
    Here {
        /// Which.
        call: u64,
    },
    /// Nobody took this call, and it is no longer here: choose again.
    Place {
        /// Which.
        call: u64,
    },
    /// This call was sent to a node that died, and is no longer here: it may have run.
    Lost {
        /// Which.
        call: u64,
        /// Where it was.
        node: NodeId,
    },
}

/// A call to submit.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Its number, in use for no other call here.
    pub id: u64,
    /// What it holds while it runs.
    pub demand: &'a Demand,
    /// Its priority.
    pub priority: i32,
    /// It may run on the chosen node only: its strategy says so, or its input lies there.
    pub bound: bool,
}

/// There are as many calls as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyCalls {
    /// How many.
    pub limit: usize,
}

impl fmt::Display for TooManyCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls to other nodes have not ended: take results before submitting more",
            self.limit
        )
    }
}

impl Error for TooManyCalls {}

/// What became of a call to be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It had not been sent, and is gone.
    Queued,
    /// It was sent to this node, which is to be told; it ends in some way.
    Sent(NodeId),
    /// It is not here.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In line for the slots of a node that is bound to or was chosen, or for whoever comes first.
    Queued(Option<NodeId>),
    Sent {
        to: NodeId,
        lease: u32,
        since: Duration,
        /// There was a free slot for it.
        fresh: bool,
    },
}

#[derive(Debug)]
struct Known {
    shape: u32,
    bound: bool,
    /// Its place in line, kept when it is refused.
    place: u64,
    at: At,
}

#[derive(Debug, Default)]
struct Lease {
    number: u32,
    slots: u32,
    /// Calls that are blocked there, which take none of them.
    blocked: u32,
    /// What the grantor was told.
    want: u32,
    bound: BTreeMap<u64, u64>,
    /// Unbound queued calls for which this node was chosen.
    hinted: u32,
    sent: u32,
    /// The most that was needed since the last look.
    peak: u32,
    looked: Duration,
    told: Duration,
    refusals: u32,
    /// Nothing is asked for until then.
    mute: Duration,
    pace: Pace,
    /// How full it is, while it has room; its key among those of its shape.
    level: Option<u32>,
}

impl Lease {
    fn need(&self) -> u32 {
        let calls = self.sent as usize + self.bound.len() + self.hinted as usize;
        calls.min(MAX_SLOTS as usize) as u32
    }

    /// What the grantor is to be told as time passes, if anything.
    fn wish(&mut self, now: Duration) -> Option<u32> {
        let need = self.need();
        let look = now.saturating_sub(self.looked) >= IDLE;
        let peak = self.peak.max(need);
        if look {
            self.looked = now;
            self.peak = need;
        }
        let quiet = now.saturating_sub(self.told) > TERM / 3;
        let again = now >= self.mute && self.want < need;
        let less = look && peak < self.want;
        (again || less || (quiet && self.want > 0)).then_some(peak)
    }

    /// Calls that are sent and not blocked.
    fn ahead(&self) -> u32 {
        self.sent.saturating_sub(self.blocked)
    }

    fn has_room(&self) -> bool {
        self.ahead() < self.slots * self.pace.depth()
    }
}

#[derive(Debug)]
struct Shape {
    demand: Demand,
    priority: i32,
    leases: BTreeMap<NodeId, Lease>,
    /// Leases with room, the emptiest first.
    roomy: BTreeSet<(u32, NodeId)>,
    /// Unbound calls by place in line.
    free: BTreeMap<u64, u64>,
    /// When one of those last left, or the line began.
    moved: Duration,
    /// All its calls, sent ones too.
    calls: usize,
}

/// How many calls there may be.
#[derive(Debug)]
struct Limit(usize);

impl Default for Limit {
    fn default() -> Limit {
        Limit(MAX_CALLS)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Submitter {
    limit: Limit,
    shapes: BTreeMap<u32, Shape>,
    by_demand: BTreeMap<(Demand, i32), u32>,
    by_lease: BTreeMap<(NodeId, u32), u32>,
    calls: BTreeMap<u64, Known>,
    sent: BTreeMap<NodeId, BTreeSet<u64>>,
    /// A call may be chosen for a node that dies before it is submitted. At most [`MAX_GONE`], the oldest forgotten first.
    gone: VecDeque<NodeId>,
    /// The next number of a shape, of a lease, and place in line.
    next: (u32, u32, u64),
}

impl Submitter {
    /// Nothing submitted.
    pub fn new() -> Submitter {
        Submitter::default()
    }

    /// One that takes at most so many calls.
    #[cfg(test)]
    pub(super) fn with_limit(calls: usize) -> Submitter {
        Submitter {
            limit: Limit(calls),
            ..Submitter::default()
        }
    }

    /// Sends a call to a lease of its shape that has room. False: there is none, and the call is not taken.
    pub fn reuse(&mut self, now: Duration, call: &Call<'_>, out: &mut Vec<Effect>) -> bool {
        if call.bound || self.calls.contains_key(&call.id) || self.calls.len() >= self.limit.0 {
            return false;
        }
        let Some(id) = self.find(call.demand, call.priority) else {
            return false;
        };
        let first = self.shapes[&id].roomy.first().copied();
        let Some((_, node)) = first.filter(|_| self.shapes[&id].free.is_empty()) else {
            return false;
        };
        let place = self.place();
        let known = Known {
            shape: id,
            bound: false,
            place,
            at: At::Queued(None),
        };
        self.remember(call.id, known);
        self.run(now, id, node, call.id, out);
        true
    }

    /// Takes a call for the chosen node, or for whoever has room first. It may run on another one unless it is bound.
    pub fn submit(
        &mut self,
        now: Duration,
        call: &Call<'_>,
        node: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) -> Result<(), TooManyCalls> {
        debug_assert!(
            !self.calls.contains_key(&call.id),
            "call {} is here already",
            call.id
        );
        debug_assert!(node.is_some() || !call.bound, "bound to nobody");
        if self.calls.len() >= self.limit.0 {
            let limit = self.limit.0;
            return Err(TooManyCalls { limit });
        }
        if self.reuse(now, call, out) || self.calls.contains_key(&call.id) {
            return Ok(());
        }
        if node.is_some_and(|node| self.gone.contains(&node)) {
            out.push(Effect::Place { call: call.id });
            return Ok(());
        }
        let id = match self.find(call.demand, call.priority) {
            Some(id) => id,
            None => self.shape(now, call.demand, call.priority),
        };
        let bound = call.bound && node.is_some();
        let known = Known {
            shape: id,
            bound,
            place: self.place(),
            at: At::Queued(node),
        };
        self.remember(call.id, known);
        self.queue(now, call.id, out);
        Ok(())
    }

    /// Hands back up to `n` calls of a shape that nobody has taken yet: this node has room for them.
    pub fn take_back(
        &mut self,
        now: Duration,
        demand: &Demand,
        priority: i32,
        n: usize,
        out: &mut Vec<Effect>,
    ) {
        let Some(id) = self.find(demand, priority) else {
            return;
        };
        for _ in 0..n {
            let Some(call) = self.first_free(now, id) else {
                break;
            };
            self.forget(call);
            out.push(Effect::Here { call });
        }
        self.tidy(id);
    }

    /// A message of a grantor; those for grantors are ignored.
    pub fn handle(&mut self, now: Duration, from: NodeId, msg: &LeaseMsg, out: &mut Vec<Effect>) {
        match msg {
            LeaseMsg::Want { .. } => {}
            LeaseMsg::Slots {
                lease,
                slots,
                blocked,
            } => {
                // One that was given up for a while is asked for again first.
                if let Some((id, known)) = self.lease(from, *lease)
                    && now >= known.mute
                {
                    known.slots = (*slots).min(MAX_SLOTS);
                    known.blocked = *blocked;
                    self.pump(now, id, from, out);
                }
            }
            LeaseMsg::Refused {
                lease,
                slots,
                calls,
            } => self.refused(now, from, *lease, *slots, calls, out),
            LeaseMsg::Ended { lease, why } => self.lease_ended(now, from, *lease, why, out),
        }
    }

    /// A sent call ended, in whatever way; it ran for so long there.
    pub fn ended(&mut self, now: Duration, call: u64, ran: Duration, out: &mut Vec<Effect>) {
        let Some((id, node, known)) = self.unsend(call) else {
            return;
        };
        self.forget(call);
        let At::Sent {
            lease: number,
            since,
            fresh,
            ..
        } = known
        else {
            return;
        };
        if let Some(lease) = self
            .shapes
            .get_mut(&id)
            .and_then(|s| s.leases.get_mut(&node))
            && lease.number == number
        {
            lease.refusals = 0;
            lease.pace.ended(now.saturating_sub(since), ran, fresh);
        }
        self.pump(now, id, node, out);
    }

    /// A call is wanted no more.
    pub fn cancel(&mut self, call: u64) -> Cancelled {
        let Some(known) = self.calls.get(&call) else {
            return Cancelled::Unknown;
        };
        match known.at {
            At::Sent { to, .. } => Cancelled::Sent(to),
            At::Queued(_) => {
                let id = known.shape;
                self.unqueue(call);
                self.forget(call);
                self.tidy(id);
                Cancelled::Queued
            }
        }
    }

    /// A node is dead: what it had is lost, what was to go there is placed anew.
    pub fn died(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        self.gone.push_back(node);
        if self.gone.len() > MAX_GONE {
            self.gone.pop_front();
        }
        for call in self.sent.remove(&node).unwrap_or_default() {
            self.forget(call);
            out.push(Effect::Lost { call, node });
        }
        let shapes: Vec<u32> = self.shapes.keys().copied().collect();
        for id in shapes {
            self.give_up(id, node, out);
            self.tidy(id);
        }
    }

    /// Time passed: gives back what is idle, keeps what is used, asks again where it was refused, and hands back calls
    /// that wait too long. To be called some ten times per second.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let shapes: Vec<u32> = self.shapes.keys().copied().collect();
        for id in shapes {
            let Some(shape) = self.shapes.get_mut(&id) else {
                continue;
            };
            for (node, lease) in &mut shape.leases {
                if let Some(slots) = lease.wish(now) {
                    lease.want = slots;
                    lease.told = now;
                    out.push(want(*node, &shape.demand, shape.priority, lease));
                }
            }
            self.drop_unused(now, id);
            self.hand_back(now, id, out);
            self.tidy(id);
        }
    }

    /// Calls queued, and calls sent.
    pub fn load(&self) -> (usize, usize) {
        let sent = self.sent.values().map(BTreeSet::len).sum();
        (self.calls.len() - sent, sent)
    }

    /// Of the lease of a shape at a node: its slots, the calls sent per slot, and how many could use one.
    pub fn lease_at(
        &self,
        demand: &Demand,
        priority: i32,
        node: NodeId,
    ) -> Option<(u32, u32, u32)> {
        let shape = self.shapes.get(&self.find(demand, priority)?)?;
        let lease = shape.leases.get(&node)?;
        Some((lease.slots, lease.pace.depth(), lease.need()))
    }

    /// Shapes with unbound calls in line, and how many.
    pub fn lines(&self) -> impl Iterator<Item = (&Demand, i32, usize)> {
        let waits = self.shapes.values().filter(|s| !s.free.is_empty());
        waits.map(|s| (&s.demand, s.priority, s.free.len()))
    }

    /// Whether unbound calls of a shape are in line.
    pub fn has_line(&self, demand: &Demand, priority: i32) -> bool {
        let shape = self
            .find(demand, priority)
            .and_then(|id| self.shapes.get(&id));
        shape.is_some_and(|s| !s.free.is_empty())
    }

    /// Slots held of each node, by shape.
    pub fn slots(&self) -> impl Iterator<Item = (NodeId, &Demand, u32)> {
        let all = self.shapes.values();
        all.flat_map(|s| {
            s.leases
                .iter()
                .map(|(node, lease)| (*node, &s.demand, lease.slots))
        })
    }

    fn find(&self, demand: &Demand, priority: i32) -> Option<u32> {
        // The common shape is found without a copy of its demand.
        let last = self.shapes.last_key_value();
        if let Some((id, shape)) = last
            && shape.demand == *demand
            && shape.priority == priority
        {
            return Some(*id);
        }
        self.by_demand.get(&(demand.clone(), priority)).copied()
    }

    fn shape(&mut self, now: Duration, demand: &Demand, priority: i32) -> u32 {
        self.next.0 = self.next.0.wrapping_add(1);
        let id = self.next.0;
        let made = Shape {
            demand: demand.clone(),
            priority,
            leases: BTreeMap::new(),
            roomy: BTreeSet::new(),
            free: BTreeMap::new(),
            moved: now,
            calls: 0,
        };
        self.shapes.insert(id, made);
        self.by_demand.insert((demand.clone(), priority), id);
        id
    }

    fn remember(&mut self, call: u64, known: Known) {
        if let Some(shape) = self.shapes.get_mut(&known.shape) {
            shape.calls += 1;
        }
        self.calls.insert(call, known);
    }

    /// A call that is neither queued nor sent any more is not here.
    fn forget(&mut self, call: u64) {
        if let Some(known) = self.calls.remove(&call)
            && let Some(shape) = self.shapes.get_mut(&known.shape)
        {
            shape.calls -= 1;
        }
    }

    fn place(&mut self) -> u64 {
        self.next.2 += 1;
        self.next.2
    }

    fn lease(&mut self, node: NodeId, number: u32) -> Option<(u32, &mut Lease)> {
        let id = *self.by_lease.get(&(node, number))?;
        Some((id, self.shapes.get_mut(&id)?.leases.get_mut(&node)?))
    }
}

fn want(to: NodeId, demand: &Demand, priority: i32, lease: &Lease) -> Effect {
    let msg = LeaseMsg::Want {
        lease: lease.number,
        demand: demand.clone(),
        priority,
        slots: lease.want,
    };
    Effect::Send { to, msg }
}
