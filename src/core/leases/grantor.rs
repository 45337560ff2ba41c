//! The lending half: divides this node's slots between the submitters and runs what they send.
//!
//! A slot is a ticket: the ledger of the node, asked by [`Effect::Reserve`], holds its resources under that number until
//! [`Effect::Release`]. So slots stand in the ledger's line like any task, and what is lent is never given twice. How
//! many each lease should have, `share::divide` says anew with each change of what is wanted; a lease above its share
//! loses the next slot that falls idle, and calls that still wait for one go back to their submitter.
//!
//! If there are more leases than slots, those without one have a turn every [`QUANTUM`].
//!
//! A call that blocks in `get` lends its CPU: its slot counts no more until it goes on, and the lease gets another, so
//! that the call it waits for can run even if that is its own submitter's. Calls that wait behind blocked ones only go back.
//!
//! Invariant: a lease runs at most as many calls as it has tickets, each call on one ticket; per lease at most
//! [`MAX_DEPTH`] calls a slot wait; tickets of dead submitters come back as their calls end, all others at once. Left out:
//! the ledger, running and cancelling calls.

mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Ending, LeaseMsg, MAX_DEPTH, MAX_LEASES, MAX_SLOTS, MAX_TICKETS};
use crate::base::{Capacity, Demand, NodeId};
use crate::core::amounts;

/// So long the same leases may keep the slots that cannot be divided evenly, while others of their priority have none.
pub const QUANTUM: Duration = Duration::from_millis(200);

/// What the driver does after an event, in this order; what comes of it, as when the ledger starts a ticket, after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send it, in order.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        msg: LeaseMsg,
    },
    /// Submit this ticket to the ledger; when the ledger starts it, call [`Grantor::reserved`].
    Reserve {
        /// The ticket.
        ticket: u64,
        /// What it holds.
        demand: Demand,
        /// Its place in line.
        priority: i32,
    },
    /// Take this ticket out of the ledger: out of its line if it waits, else what it holds is free.
    Release {
        /// The ticket.
        ticket: u64,
    },
    /// Run this call on this ticket; when it ended, however, call [`Grantor::ended`].
    Start {
        /// Whose.
        from: NodeId,
        /// Which.
        call: u64,
        /// What it runs on.
        ticket: u64,
    },
    /// The call on this ticket is blocked: lend its CPUs.
    Lend {
        /// The ticket.
        ticket: u64,
    },
    /// It goes on: take them back.
    Reclaim {
        /// The ticket.
        ticket: u64,
    },
    /// Nobody waits for this running call any more: its submitter is dead.
    Abandon {
        /// Whose it was.
        from: NodeId,
        /// Which.
        call: u64,
    },
}

#[derive(Debug)]
struct Lease {
    demand: Demand,
    priority: i32,
    want: u32,
    share: u32,
    /// What the submitter was told: slots, and blocked calls.
    told: (u32, u32),
    idle: Vec<u64>,
    /// Tickets whose call runs and is not blocked.
    busy: u32,
    /// Calls that are blocked.
    blocked: u32,
    /// Asked of the ledger and not there yet.
    pending: BTreeSet<u64>,
    waiting: VecDeque<u64>,
    heard: Duration,
    /// The round in which it last had a share.
    round: u64,
}

impl Lease {
    fn working(&self) -> u32 {
        self.idle.len() as u32 + self.busy
    }

    /// What it could use: a blocked call needs none until it goes on.
    fn useful(&self) -> u32 {
        self.want.saturating_sub(self.blocked)
    }

    /// What it should have.
    fn goal(&self) -> u32 {
        self.share.min(self.useful())
    }

    fn slots(&self) -> u32 {
        self.working().min(self.goal())
    }
}

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Waiting,
    Running(u64),
    Blocked(u64),
}

#[derive(Debug)]
struct Call {
    lease: u32,
    at: At,
}

type Key = (NodeId, u32);

/// See the module.
#[derive(Debug)]
pub struct Grantor {
    me: NodeId,
    capacity: Capacity,
    whole: Demand,
    leases: BTreeMap<Key, Lease>,
    calls: BTreeMap<(NodeId, u64), Call>,
    /// Tickets asked for, and the leases they are for.
    pending: BTreeMap<u64, Key>,
    tickets: usize,
    next_ticket: u64,
    last_ticket: u64,
    /// CPUs that this node's own common calls want, and what its other tasks hold.
    local: (u32, Demand),
    /// Its share, and the round in which it last had one.
    local_share: (u32, u64),
    /// Counts the turns, and when the last was.
    round: (u64, Duration),
    draining: bool,
    /// What a lease could use has changed since slots were last divided.
    stale: bool,
}

impl Grantor {
    /// For a node of this capacity; tickets are numbered within `tickets`, which no task of the ledger uses.
    pub fn new(me: NodeId, capacity: Capacity, tickets: std::ops::Range<u64>) -> Grantor {
        Grantor {
            me,
            whole: amounts::whole(&capacity),
            capacity,
            leases: BTreeMap::new(),
            calls: BTreeMap::new(),
            pending: BTreeMap::new(),
            tickets: 0,
            next_ticket: tickets.start,
            last_ticket: tickets.end,
            local: (0, Demand::NONE),
            local_share: (0, 0),
            round: (0, Duration::ZERO),
            draining: false,
            stale: false,
        }
    }

    /// This node's own load, one submitter among the others: the CPUs that its common calls could use, running and
    /// waiting, and what its other tasks hold. To be told when it changes, at most every few milliseconds.
    pub fn local(&mut self, cpus: u32, held: &Demand, out: &mut Vec<Effect>) {
        if self.local.0 != cpus || self.local.1 != *held {
            self.local = (cpus, held.clone());
            self.rebalance(false, out);
        }
    }

    /// A message of a submitter; those for submitters are ignored.
    pub fn handle(&mut self, now: Duration, from: NodeId, msg: &LeaseMsg, out: &mut Vec<Effect>) {
        let LeaseMsg::Want {
            lease,
            demand,
            priority,
            slots,
        } = msg
        else {
            return;
        };
        let key = (from, *lease);
        let slots = (*slots).min(MAX_SLOTS);
        if let Some(known) = self.leases.get_mut(&key) {
            known.heard = now;
            let changed = known.want != slots;
            known.want = slots;
            if slots == 0 {
                self.end(key, None, out);
            } else {
                // Also an answer to a submitter that has doubts.
                known.told = (known.slots(), known.blocked);
                let (slots, blocked) = known.told;
                out.push(send(
                    key,
                    LeaseMsg::Slots {
                        lease: *lease,
                        slots,
                        blocked,
                    },
                ));
            }
            if changed {
                self.rebalance(false, out);
                // What it could use has changed, even if its share has not.
                self.settle(key, out);
            }
            return;
        }
        if slots == 0 {
            return;
        }
        if let Some(why) = self.unwilling(from, demand) {
            out.push(send(key, LeaseMsg::Ended { lease: *lease, why }));
            return;
        }
        let made = Lease {
            demand: demand.clone(),
            priority: *priority,
            want: slots,
            share: 0,
            told: (0, 0),
            idle: Vec::new(),
            busy: 0,
            blocked: 0,
            pending: BTreeSet::new(),
            waiting: VecDeque::new(),
            heard: now,
            round: 0,
        };
        self.leases.insert(key, made);
        self.rebalance(false, out);
    }

    fn unwilling(&self, from: NodeId, demand: &Demand) -> Option<Ending> {
        if self.draining {
            return Some(Ending::Draining);
        }
        if let Some(why) = self.capacity.lacks(demand) {
            return Some(Ending::Infeasible(why));
        }
        let theirs = self.leases.range((from, 0)..=(from, u32::MAX)).count();
        let full = theirs >= MAX_LEASES || self.leases.len() >= MAX_TICKETS;
        full.then_some(Ending::Full)
    }

    /// What each call of a lease holds, if there is one.
    pub fn demand(&self, from: NodeId, lease: u32) -> Option<&Demand> {
        self.leases.get(&(from, lease)).map(|known| &known.demand)
    }

    /// A call came in.
    pub fn arrived(
        &mut self,
        now: Duration,
        from: NodeId,
        lease: u32,
        call: u64,
        out: &mut Vec<Effect>,
    ) {
        if self.calls.contains_key(&(from, call)) {
            return;
        }
        let key = (from, lease);
        let Some(known) = self.leases.get_mut(&key) else {
            let calls = vec![call];
            out.push(send(
                key,
                LeaseMsg::Refused {
                    lease,
                    slots: 0,
                    calls,
                },
            ));
            return;
        };
        known.heard = now;
        known.waiting.push_back(call);
        self.calls.insert(
            (from, call),
            Call {
                lease,
                at: At::Waiting,
            },
        );
        self.settle(key, out);
    }

    /// The submitter wants a call no more. True: it had not started, and is gone. False: it runs, or is not here.
    pub fn cancel(&mut self, from: NodeId, call: u64) -> bool {
        let Some(Call {
            lease,
            at: At::Waiting,
        }) = self.calls.get(&(from, call))
        else {
            return false;
        };
        if let Some(lease) = self.leases.get_mut(&(from, *lease)) {
            lease.waiting.retain(|c| *c != call);
        }
        self.calls.remove(&(from, call));
        true
    }

    /// The ledger started a ticket.
    pub fn reserved(&mut self, ticket: u64, out: &mut Vec<Effect>) {
        let key = self.pending.remove(&ticket);
        let lease = key.and_then(|key| Some((key, self.leases.get_mut(&key)?)));
        // If it is wanted no more, its release is on the way.
        if let Some((key, lease)) = lease {
            lease.pending.remove(&ticket);
            lease.idle.push(ticket);
            self.settle(key, out);
        }
    }

    /// A running call ended, in whatever way.
    pub fn ended(&mut self, from: NodeId, call: u64, out: &mut Vec<Effect>) {
        let Some(Call { lease, at }) = self.calls.remove(&(from, call)) else {
            return;
        };
        let key = (from, lease);
        let known = self.leases.get_mut(&key);
        match (at, known) {
            (At::Waiting, Some(known)) => known.waiting.retain(|c| *c != call),
            (At::Waiting, None) => {}
            (At::Running(ticket) | At::Blocked(ticket), None) => self.release(ticket, out),
            (At::Running(ticket), Some(known)) => {
                known.busy -= 1;
                known.idle.push(ticket);
                self.settle(key, out);
            }
            (At::Blocked(ticket), Some(known)) => {
                known.blocked -= 1;
                self.release(ticket, out);
                self.turned(key, out);
            }
        }
    }

    /// A running call blocks in `get`.
    pub fn blocked(&mut self, from: NodeId, call: u64, out: &mut Vec<Effect>) {
        let Some(known) = self.calls.get_mut(&(from, call)) else {
            return;
        };
        if let At::Running(ticket) = known.at {
            known.at = At::Blocked(ticket);
            out.push(Effect::Lend { ticket });
            let key = (from, known.lease);
            if let Some(lease) = self.leases.get_mut(&key) {
                lease.busy -= 1;
                lease.blocked += 1;
                self.turned(key, out);
            }
        }
    }

    /// It goes on.
    pub fn unblocked(&mut self, from: NodeId, call: u64, out: &mut Vec<Effect>) {
        let Some(known) = self.calls.get_mut(&(from, call)) else {
            return;
        };
        if let At::Blocked(ticket) = known.at {
            known.at = At::Running(ticket);
            out.push(Effect::Reclaim { ticket });
            let key = (from, known.lease);
            if let Some(lease) = self.leases.get_mut(&key) {
                lease.busy += 1;
                lease.blocked -= 1;
                self.turned(key, out);
            }
        }
    }

    /// A submitter is dead: its leases end, what waits is dropped.
    pub fn died(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let leases: Vec<Key> = self.keys_of(node).collect();
        for key in leases {
            self.end(key, None, out);
        }
        // What is left runs, or was sent back and is not heard of again.
        for ((from, call), _) in self.calls.range((node, 0)..=(node, u64::MAX)) {
            out.push(Effect::Abandon {
                from: *from,
                call: *call,
            });
        }
        out.retain(|effect| !matches!(effect, Effect::Send { to, .. } if *to == node));
        self.rebalance(false, out);
    }

    /// A call of a lease blocked, or goes on or ended after that: what the lease could use is not what it was when slots were
    /// last divided. They are divided again with the next tick, since calls may block often; at once if the lease has no share,
    /// for then nothing of it can run and nobody else has to say anything.
    fn turned(&mut self, key: Key, out: &mut Vec<Effect>) {
        self.stale = true;
        let lease = self.leases.get(&key);
        if lease.is_some_and(|lease| lease.share == 0 && lease.useful() > 0) {
            self.rebalance(false, out);
        }
        self.settle(key, out);
    }

    fn keys_of(&self, node: NodeId) -> impl Iterator<Item = Key> {
        let all = self.leases.range((node, 0)..=(node, u32::MAX));
        all.map(|(key, _)| *key)
    }

    /// This node is leaving: every lease ends, no new one is made; what runs goes on.
    pub fn drain(&mut self, out: &mut Vec<Effect>) {
        self.draining = true;
        let leases: Vec<Key> = self.leases.keys().copied().collect();
        for key in leases {
            self.end(key, Some(Ending::Draining), out);
        }
    }

    /// Slots that work for each lease, by submitter and lease, and the calls that wait for them.
    pub fn leases(&self) -> impl Iterator<Item = (NodeId, &Demand, u32, usize)> {
        let all = self.leases.iter();
        all.map(|((node, _), lease)| (*node, &lease.demand, lease.working(), lease.waiting.len()))
    }

    /// What the ledger holds for slots in which nothing runs: whoever asks may have a part of it.
    pub fn idle(&self) -> Demand {
        let mut all = Demand::NONE;
        for lease in self.leases.values() {
            lease
                .idle
                .iter()
                .for_each(|_| amounts::add(&mut all, &lease.demand));
        }
        all
    }

    /// Whether anybody has a lease here.
    pub fn lends(&self) -> bool {
        !self.leases.is_empty()
    }

    /// Tickets that the ledger holds for it or was asked for.
    pub fn tickets(&self) -> usize {
        self.tickets
    }

    /// Calls that wait or run.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Brings one lease to its share as far as its running calls allow, and starts what waits.
    fn settle(&mut self, key: Key, out: &mut Vec<Effect>) {
        let Some(lease) = self.leases.get_mut(&key) else {
            return;
        };
        let share = lease.goal();
        let mut have = lease.working() + lease.pending.len() as u32;
        while have > share {
            let (dropped, asked) = match lease.pending.pop_last() {
                Some(ticket) => (Some(ticket), true),
                None => (lease.idle.pop(), false),
            };
            let Some(ticket) = dropped else { break };
            if asked {
                self.pending.remove(&ticket);
            }
            self.tickets -= 1;
            out.push(Effect::Release { ticket });
            have -= 1;
        }
        while let (Some(ticket), Some(call)) = (lease.idle.last(), lease.waiting.front()) {
            let (ticket, call) = (*ticket, *call);
            lease.idle.pop();
            lease.waiting.pop_front();
            lease.busy += 1;
            if let Some(known) = self.calls.get_mut(&(key.0, call)) {
                known.at = At::Running(ticket);
            }
            out.push(Effect::Start {
                from: key.0,
                call,
                ticket,
            });
        }
        while have < share && self.tickets < MAX_TICKETS && self.next_ticket < self.last_ticket {
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            self.tickets += 1;
            lease.pending.insert(ticket);
            self.pending.insert(ticket, key);
            let (demand, priority) = (lease.demand.clone(), lease.priority);
            out.push(Effect::Reserve {
                ticket,
                demand,
                priority,
            });
            have += 1;
        }
        let slots = lease.slots();
        let number = key.1;
        let blocked = lease.blocked;
        if lease.told != (slots, blocked) {
            lease.told = (slots, blocked);
            out.push(send(
                key,
                LeaseMsg::Slots {
                    lease: number,
                    slots,
                    blocked,
                },
            ));
        }
        let room = (slots * MAX_DEPTH) as usize;
        if lease.waiting.len() > room {
            let calls: Vec<u64> = lease.waiting.drain(room..).collect();
            for call in &calls {
                self.calls.remove(&(key.0, *call));
            }
            out.push(send(
                key,
                LeaseMsg::Refused {
                    lease: number,
                    slots,
                    calls,
                },
            ));
        }
    }

    /// The lease is no more; calls that run in it go on, and their tickets go when they end.
    fn end(&mut self, key: Key, why: Option<Ending>, out: &mut Vec<Effect>) {
        let Some(lease) = self.leases.remove(&key) else {
            return;
        };
        for ticket in lease.pending {
            self.pending.remove(&ticket);
            self.release(ticket, out);
        }
        for ticket in lease.idle {
            self.release(ticket, out);
        }
        if !lease.waiting.is_empty() {
            let calls: Vec<u64> = lease.waiting.into();
            for call in &calls {
                self.calls.remove(&(key.0, *call));
            }
            out.push(send(
                key,
                LeaseMsg::Refused {
                    lease: key.1,
                    slots: 0,
                    calls,
                },
            ));
        }
        if let Some(why) = why {
            out.push(send(key, LeaseMsg::Ended { lease: key.1, why }));
        }
    }

    fn release(&mut self, ticket: u64, out: &mut Vec<Effect>) {
        self.tickets -= 1;
        out.push(Effect::Release { ticket });
    }
}

fn send(key: Key, msg: LeaseMsg) -> Effect {
    Effect::Send { to: key.0, msg }
}
