//! The reserving half: holds bundles for the coordinators of groups.
//!
//! Each bundle is a ticket in the node's ledger and waits in its line like any task until it has its resources, or until the
//! coordinator calls the attempt off. Once committed it is open: calls of the group run on what it holds.
//!
//! Invariant: a ticket is in the ledger exactly while its bundle is here; bundles of a dead coordinator are not; only a
//! group's own coordinator is listened to. Left out: the ledger, and ending what runs in a bundle that closes.

use std::collections::{BTreeMap, BTreeSet};

use super::{GroupMsg, MAX_BUNDLES, MAX_HERE, Refusal};
use crate::base::{Capacity, Demand, GroupId, NodeId};
use crate::core::amounts;

/// What the driver does after an event, in this order; what comes of it, as when the ledger starts a ticket, after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send it, in order.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        msg: GroupMsg,
    },
    /// Submit this ticket to the ledger; when the ledger starts it, call [`Participant::reserved`].
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
    /// Calls of the group may run in this bundle, on what its ticket holds.
    Open {
        /// Which group.
        group: GroupId,
        /// Its place there.
        bundle: u32,
        /// Its ticket.
        ticket: u64,
        /// What it holds.
        demand: Demand,
    },
    /// The bundle is no more: what runs or waits in it fails, because its group was removed or its coordinator died. Comes
    /// before the release of its ticket.
    Close {
        /// Which group.
        group: GroupId,
        /// Its place there.
        bundle: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Reserved,
    Open,
}

#[derive(Debug)]
struct Bundle {
    epoch: u64,
    ticket: u64,
    demand: Demand,
    state: State,
}

/// See the module.
#[derive(Debug)]
pub struct Participant {
    capacity: Capacity,
    bundles: BTreeMap<(GroupId, u32), Bundle>,
    tickets: BTreeMap<u64, (GroupId, u32)>,
    dead: BTreeSet<NodeId>,
    next_ticket: u64,
    draining: bool,
}

impl Participant {
    /// For a node of this capacity; tickets are numbered from `ticket` on, which no task of the ledger uses.
    pub fn new(capacity: Capacity, ticket: u64) -> Participant {
        Participant {
            capacity,
            bundles: BTreeMap::new(),
            tickets: BTreeMap::new(),
            dead: BTreeSet::new(),
            next_ticket: ticket,
            draining: false,
        }
    }

    /// A message of a coordinator; others are ignored, and those of whoever is not the group's own.
    pub fn handle(&mut self, from: NodeId, msg: &GroupMsg, out: &mut Vec<Effect>) {
        match msg {
            GroupMsg::Prepare {
                group,
                epoch,
                priority,
                bundles,
            } if group.node == from => {
                self.prepare(*group, *epoch, *priority, bundles, out);
            }
            GroupMsg::Commit { group, epoch } if group.node == from => {
                for ((_, bundle), known) in self.bundles.range_mut((*group, 0)..=(*group, u32::MAX))
                {
                    if known.epoch == *epoch && known.state == State::Reserved {
                        known.state = State::Open;
                        out.push(Effect::Open {
                            group: *group,
                            bundle: *bundle,
                            ticket: known.ticket,
                            demand: known.demand.clone(),
                        });
                    }
                }
                let msg = GroupMsg::Committed {
                    group: *group,
                    epoch: *epoch,
                };
                out.push(Effect::Send { to: from, msg });
            }
            GroupMsg::Abort { group, epoch } if group.node == from => {
                self.drop_bundles(*group, |known| known.epoch == *epoch, out);
            }
            GroupMsg::Remove { group } if group.node == from => {
                self.drop_bundles(*group, |_| true, out)
            }
            _ => {}
        }
    }

    fn prepare(
        &mut self,
        group: GroupId,
        epoch: u64,
        priority: i32,
        bundles: &[(u32, Demand)],
        out: &mut Vec<Effect>,
    ) {
        if let Some(why) = self.unwilling(group, epoch, bundles) {
            let msg = GroupMsg::Refused { group, epoch, why };
            out.push(Effect::Send {
                to: group.node,
                msg,
            });
            return;
        }
        for (bundle, demand) in bundles {
            if self.bundles.contains_key(&(group, *bundle)) {
                continue;
            }
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            self.tickets.insert(ticket, (group, *bundle));
            let made = Bundle {
                epoch,
                ticket,
                demand: demand.clone(),
                state: State::Asked,
            };
            self.bundles.insert((group, *bundle), made);
            out.push(Effect::Reserve {
                ticket,
                demand: demand.clone(),
                priority,
            });
        }
        self.answer(group, epoch, out);
    }

    fn unwilling(&self, group: GroupId, epoch: u64, bundles: &[(u32, Demand)]) -> Option<Refusal> {
        if self.draining {
            return Some(Refusal::Draining);
        }
        // A bundle that is here from another attempt: the coordinator lies, for it calls off one before the next.
        let here = |b: &(u32, Demand)| {
            self.bundles
                .get(&(group, b.0))
                .is_some_and(|k| k.epoch != epoch)
        };
        let dead = self.dead.contains(&group.node);
        let many = bundles.len() > MAX_BUNDLES || self.bundles.len() + bundles.len() > MAX_HERE;
        if dead || many || bundles.iter().any(here) {
            return Some(Refusal::Full);
        }
        let mut sum = Demand::NONE;
        for (_, demand) in bundles {
            if let Some(why) = self.capacity.lacks(demand) {
                return Some(Refusal::Infeasible(why));
            }
            amounts::add(&mut sum, demand);
        }
        // All together; an uneven sum of GPUs may well be even in parts.
        let fits = amounts::fits(&amounts::whole(&self.capacity), &sum);
        let lacks = || self.capacity.lacks(&sum).map(Refusal::Infeasible);
        if fits { None } else { lacks() }
    }

    /// The ledger started a ticket.
    pub fn reserved(&mut self, ticket: u64, out: &mut Vec<Effect>) {
        // If it is wanted no more, its release is on the way.
        let Some((group, bundle)) = self.tickets.get(&ticket).copied() else {
            return;
        };
        if let Some(known) = self.bundles.get_mut(&(group, bundle))
            && known.state == State::Asked
        {
            known.state = State::Reserved;
            let epoch = known.epoch;
            self.answer(group, epoch, out);
        }
    }

    /// Says that an attempt is prepared, if it is.
    fn answer(&self, group: GroupId, epoch: u64, out: &mut Vec<Effect>) {
        let all = self.bundles.range((group, 0)..=(group, u32::MAX));
        let asked = |(_, known): (_, &Bundle)| known.epoch == epoch && known.state == State::Asked;
        if !all.into_iter().any(asked) {
            let msg = GroupMsg::Prepared { group, epoch };
            out.push(Effect::Send {
                to: group.node,
                msg,
            });
        }
    }

    fn drop_bundles(
        &mut self,
        group: GroupId,
        which: impl Fn(&Bundle) -> bool,
        out: &mut Vec<Effect>,
    ) {
        let all = self.bundles.range((group, 0)..=(group, u32::MAX));
        let keys: Vec<_> = all
            .filter(|(_, known)| which(known))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            let Some(known) = self.bundles.remove(&key) else {
                continue;
            };
            self.tickets.remove(&known.ticket);
            if known.state == State::Open {
                out.push(Effect::Close {
                    group,
                    bundle: key.1,
                });
            }
            out.push(Effect::Release {
                ticket: known.ticket,
            });
        }
    }

    /// A node is dead: the groups it coordinated are no more.
    pub fn died(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let first = GroupId { node, number: 0 };
        let last = GroupId {
            node,
            number: u64::MAX,
        };
        let all = self.bundles.range((first, 0)..=(last, u32::MAX));
        let groups: BTreeSet<GroupId> = all.map(|((group, _), _)| *group).collect();
        for group in groups {
            self.drop_bundles(group, |_| true, out);
        }
        // What it said before may still come in.
        self.dead.insert(node);
        if self.dead.len() > MAX_HERE {
            self.dead.pop_first();
        }
    }

    /// This node is leaving: it prepares nothing new; what is open stays until the node is gone.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The ticket of an open bundle.
    pub fn ticket(&self, group: GroupId, bundle: u32) -> Option<u64> {
        let known = self.bundles.get(&(group, bundle))?;
        (known.state == State::Open).then_some(known.ticket)
    }

    /// All bundles here: group, place there, whether it is open.
    pub fn bundles(&self) -> impl Iterator<Item = (GroupId, u32, bool)> {
        let all = self.bundles.iter();
        all.map(|((group, bundle), known)| (*group, *bundle, known.state == State::Open))
    }
}
