//! The planning half: makes groups, and keeps them whole.
//!
//! Invariant: of one group, at most one attempt is under way; every node that was asked to prepare is told how that ended
//! before it is asked again; a group that was removed is forgotten and whoever still speaks of it is told to remove it.
//! Attempts of one group lie at least [`WAIT`] apart. Left out: time and the view of the nodes, which come in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::plan::{Plan, Task, plan};
use super::{BadGroup, GroupMsg, MAX_BUNDLES, MAX_GROUPS, MAX_WAIT, PREPARE, WAIT};
use crate::base::{Demand, GroupId, GroupSpec, NodeId};
use crate::core::view::View;

/// Nodes that are told of changes of one group; further ones ask again.
pub const MAX_ASKERS: usize = 4_096;

/// What the driver does after an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send it, in order.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        msg: GroupMsg,
    },
    /// All of its bundles are open on these nodes, in the order of its spec: for the first time, or again.
    Ready {
        /// Which.
        group: GroupId,
        /// Where.
        nodes: Vec<NodeId>,
    },
    /// Nodes that held these bundles died; the others go on, and these will be placed anew.
    Degraded {
        /// Which.
        group: GroupId,
        /// Which bundles.
        bundles: Vec<u32>,
    },
}

#[derive(Debug)]
enum Phase {
    /// Every bundle has its place.
    Whole,
    /// The next attempt is due.
    Waiting { until: Duration },
    /// Asked to prepare; who has not.
    Preparing {
        plan: Plan,
        missing: BTreeSet<NodeId>,
        until: Duration,
    },
    /// Everybody had prepared; who has not said that it committed.
    Committing {
        plan: Plan,
        missing: BTreeSet<NodeId>,
    },
}

#[derive(Debug)]
struct Group {
    spec: GroupSpec,
    priority: i32,
    phase: Phase,
    placed: Plan,
    epoch: u64,
    /// Attempts since it was last whole.
    tries: u32,
    version: u64,
    askers: BTreeSet<NodeId>,
}

/// See the module.
#[derive(Debug)]
pub struct Coordinator {
    me: NodeId,
    seed: u64,
    groups: BTreeMap<u64, Group>,
    next: u64,
    epoch: u64,
}

impl Coordinator {
    /// Coordinates nothing. The seed keeps coordinators that want the same from always trying at the same time.
    pub fn new(me: NodeId, seed: u64) -> Coordinator {
        Coordinator {
            me,
            seed,
            groups: BTreeMap::new(),
            next: 0,
            epoch: 0,
        }
    }

    /// Makes a group; refuses at once what could not be even if nothing ran. Its bundles have the given place in the
    /// ledgers' lines.
    pub fn create(
        &mut self,
        now: Duration,
        spec: GroupSpec,
        priority: i32,
        view: &View,
        out: &mut Vec<Effect>,
    ) -> Result<GroupId, BadGroup> {
        let bundles = spec.bundles.len();
        if bundles == 0 || bundles > MAX_BUNDLES {
            return Err(BadGroup::Size { bundles });
        }
        if self.groups.len() >= MAX_GROUPS {
            return Err(BadGroup::TooManyGroups);
        }
        let made = Group {
            spec,
            priority,
            phase: Phase::Waiting { until: now },
            placed: Plan::new(),
            epoch: 0,
            tries: 0,
            version: 0,
            askers: BTreeSet::new(),
        };
        let number = self.next + 1;
        self.groups.insert(number, made);
        if let Err(why) = self.attempt(now, number, view, out) {
            self.groups.remove(&number);
            return Err(why);
        }
        self.next = number;
        Ok(GroupId {
            node: self.me,
            number,
        })
    }

    /// Removes a group: its bundles close wherever they are. False: there is none.
    pub fn remove(&mut self, number: u64, out: &mut Vec<Effect>) -> bool {
        let Some(group) = self.groups.remove(&number) else {
            return false;
        };
        let id = GroupId {
            node: self.me,
            number,
        };
        let mut nodes: BTreeSet<NodeId> = group.placed.values().copied().collect();
        if let Phase::Preparing { plan, .. } | Phase::Committing { plan, .. } = &group.phase {
            nodes.extend(plan.values());
        }
        for to in nodes {
            out.push(send(to, GroupMsg::Remove { group: id }));
        }
        for to in group.askers {
            let version = group.version + 1;
            out.push(send(
                to,
                GroupMsg::Located {
                    group: id,
                    version,
                    bundles: None,
                },
            ));
        }
        true
    }

    /// A message of a participant, or of who looks for a group; others are ignored.
    pub fn handle(&mut self, now: Duration, from: NodeId, msg: &GroupMsg, out: &mut Vec<Effect>) {
        match msg {
            GroupMsg::Prepared { group, epoch } => self.prepared(from, *group, *epoch, out),
            GroupMsg::Committed { group, epoch } => self.committed(from, *group, *epoch, out),
            GroupMsg::Refused { group, epoch, .. } => {
                if let Some(known) = self.current(*group, *epoch)
                    && let Phase::Preparing { plan, .. } = &known.phase
                    && plan.values().any(|node| *node == from)
                {
                    self.call_off(now, group.number, None, out);
                }
            }
            GroupMsg::Locate { group } => self.locate(from, *group, out),
            _ => {}
        }
    }

    fn current(&mut self, group: GroupId, epoch: u64) -> Option<&mut Group> {
        let known = self
            .groups
            .get_mut(&group.number)
            .filter(|_| group.node == self.me);
        known.filter(|known| known.epoch == epoch)
    }

    fn prepared(&mut self, from: NodeId, group: GroupId, epoch: u64, out: &mut Vec<Effect>) {
        if group.node == self.me && !self.groups.contains_key(&group.number) {
            out.push(send(from, GroupMsg::Remove { group }));
            return;
        }
        let Some(known) = self.current(group, epoch) else {
            return;
        };
        let Phase::Preparing { plan, missing, .. } = &mut known.phase else {
            return;
        };
        missing.remove(&from);
        if missing.is_empty() {
            let plan = std::mem::take(plan);
            let nodes: BTreeSet<NodeId> = plan.values().copied().collect();
            for to in &nodes {
                out.push(send(*to, GroupMsg::Commit { group, epoch }));
            }
            known.phase = Phase::Committing {
                plan,
                missing: nodes,
            };
        }
    }

    fn committed(&mut self, from: NodeId, group: GroupId, epoch: u64, out: &mut Vec<Effect>) {
        let Some(known) = self.current(group, epoch) else {
            return;
        };
        if let Phase::Committing { missing, .. } = &mut known.phase {
            missing.remove(&from);
            self.complete(group.number, out);
        }
    }

    /// Ends an attempt that all living nodes have committed.
    fn complete(&mut self, number: u64, out: &mut Vec<Effect>) {
        let Some(group) = self.groups.get_mut(&number) else {
            return;
        };
        let Phase::Committing { plan, missing } = &mut group.phase else {
            return;
        };
        if !missing.is_empty() {
            return;
        }
        group.placed.append(plan);
        if group.placed.len() == group.spec.bundles.len() {
            group.phase = Phase::Whole;
            group.tries = 0;
            let nodes = group.placed.values().copied().collect();
            out.push(Effect::Ready {
                group: GroupId {
                    node: self.me,
                    number,
                },
                nodes,
            });
        } else {
            group.phase = Phase::Waiting {
                until: Duration::ZERO,
            };
        }
        self.publish(number, out);
    }

    /// A node is dead.
    pub fn died(&mut self, now: Duration, node: NodeId, out: &mut Vec<Effect>) {
        let numbers: Vec<u64> = self.groups.keys().copied().collect();
        for number in numbers {
            let Some(group) = self.groups.get_mut(&number) else {
                continue;
            };
            group.askers.remove(&node);
            let lost: Vec<u32> = group
                .placed
                .iter()
                .filter(|(_, n)| **n == node)
                .map(|(b, _)| *b)
                .collect();
            group.placed.retain(|_, n| *n != node);
            let (mut aborts, mut completes) = (false, false);
            match &mut group.phase {
                Phase::Whole if !lost.is_empty() => group.phase = Phase::Waiting { until: now },
                Phase::Whole | Phase::Waiting { .. } => {}
                // With a bundle lost that has its place, the plan may no longer suit the rest.
                Phase::Preparing { plan, .. } => {
                    aborts = !lost.is_empty() || plan.values().any(|n| *n == node);
                }
                Phase::Committing { plan, missing } => {
                    plan.retain(|_, n| *n != node);
                    missing.remove(&node);
                    completes = true;
                }
            }
            if aborts {
                self.call_off(now, number, Some(node), out);
            }
            if !lost.is_empty() {
                let group = GroupId {
                    node: self.me,
                    number,
                };
                out.push(Effect::Degraded {
                    group,
                    bundles: lost,
                });
                self.publish(number, out);
            }
            if completes {
                self.complete(number, out);
            }
        }
    }

    /// Time passed, or the view changed: attempts that take too long are called off, and those that are due are made. To
    /// be called some ten times per second.
    pub fn tick(&mut self, now: Duration, view: &View, out: &mut Vec<Effect>) {
        let numbers: Vec<u64> = self.groups.keys().copied().collect();
        for number in numbers {
            let (late, due) = match self.groups.get(&number).map(|group| &group.phase) {
                Some(Phase::Preparing { until, .. }) => (now >= *until, false),
                Some(Phase::Waiting { until }) => (false, now >= *until),
                _ => (false, false),
            };
            if late {
                self.call_off(now, number, None, out);
            }
            // Without a plan it waits: once made, a group is not given up, for a node may join.
            if due && self.attempt(now, number, view, out).is_err() {
                self.wait(now, number);
            }
        }
    }

    /// Where the bundles of a group are; `None` for those that have no place now.
    pub fn placed(&self, number: u64) -> Option<Vec<Option<NodeId>>> {
        let group = self.groups.get(&number)?;
        let all = 0..group.spec.bundles.len() as u32;
        Some(
            all.map(|bundle| group.placed.get(&bundle).copied())
                .collect(),
        )
    }

    /// Whether all of its bundles are open; `None`: there is no such group.
    pub fn is_ready(&self, number: u64) -> Option<bool> {
        let group = self.groups.get(&number)?;
        Some(matches!(group.phase, Phase::Whole))
    }

    /// The numbers of its groups.
    pub fn groups(&self) -> impl Iterator<Item = u64> {
        self.groups.keys().copied()
    }

    fn attempt(
        &mut self,
        now: Duration,
        number: u64,
        view: &View,
        out: &mut Vec<Effect>,
    ) -> Result<(), BadGroup> {
        let Some(group) = self.groups.get_mut(&number) else {
            return Ok(());
        };
        let task = Task {
            strategy: group.spec.strategy,
            bundles: &group.spec.bundles,
            placed: &group.placed,
        };
        let plan = plan(view, task)?;
        self.epoch += 1;
        group.epoch = self.epoch;
        let mut asked: BTreeMap<NodeId, Vec<(u32, Demand)>> = BTreeMap::new();
        for (bundle, node) in &plan {
            let demand = group.spec.bundles[*bundle as usize].clone();
            asked.entry(*node).or_default().push((*bundle, demand));
        }
        let missing = asked.keys().copied().collect();
        let id = GroupId {
            node: self.me,
            number,
        };
        for (to, bundles) in asked {
            let (epoch, priority) = (group.epoch, group.priority);
            out.push(send(
                to,
                GroupMsg::Prepare {
                    group: id,
                    epoch,
                    priority,
                    bundles,
                },
            ));
        }
        group.phase = Phase::Preparing {
            plan,
            missing,
            until: now + PREPARE,
        };
        Ok(())
    }

    /// Ends an attempt that does not succeed.
    fn call_off(
        &mut self,
        now: Duration,
        number: u64,
        dead: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) {
        let Some(group) = self.groups.get_mut(&number) else {
            return;
        };
        if let Phase::Preparing { plan, .. } = &group.phase {
            let nodes: BTreeSet<NodeId> = plan.values().copied().collect();
            let (id, epoch) = (
                GroupId {
                    node: self.me,
                    number,
                },
                group.epoch,
            );
            for to in nodes.into_iter().filter(|node| Some(*node) != dead) {
                out.push(send(to, GroupMsg::Abort { group: id, epoch }));
            }
            self.wait(now, number);
        }
    }

    fn wait(&mut self, now: Duration, number: u64) {
        let Some(group) = self.groups.get_mut(&number) else {
            return;
        };
        let wait = (WAIT * 2u32.saturating_pow(group.tries.min(16))).min(MAX_WAIT);
        group.tries += 1;
        // Between one and two times as long, as if by chance.
        let mixed =
            (self.seed ^ number.rotate_left(32) ^ group.epoch).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let more = wait * ((mixed >> 40) as u32 % 1024) / 1024;
        group.phase = Phase::Waiting {
            until: now + wait + more,
        };
    }

    fn locate(&mut self, from: NodeId, id: GroupId, out: &mut Vec<Effect>) {
        if id.node != self.me {
            return;
        }
        let Some(group) = self.groups.get_mut(&id.number) else {
            let msg = GroupMsg::Located {
                group: id,
                version: u64::MAX,
                bundles: None,
            };
            out.push(send(from, msg));
            return;
        };
        if group.askers.len() < MAX_ASKERS {
            group.askers.insert(from);
        }
        out.push(send(from, located(id, group)));
    }

    /// Tells a change to whoever asked.
    fn publish(&mut self, number: u64, out: &mut Vec<Effect>) {
        let Some(group) = self.groups.get_mut(&number) else {
            return;
        };
        group.version += 1;
        let id = GroupId {
            node: self.me,
            number,
        };
        for to in &group.askers {
            out.push(send(*to, located(id, group)));
        }
    }
}

fn located(id: GroupId, group: &Group) -> GroupMsg {
    let bundles = group.spec.bundles.iter().zip(0u32..);
    let bundles = bundles.map(|(demand, at)| (group.placed.get(&at).copied(), demand.clone()));
    GroupMsg::Located {
        group: id,
        version: group.version,
        bundles: Some(bundles.collect()),
    }
}

fn send(to: NodeId, msg: GroupMsg) -> Effect {
    Effect::Send { to, msg }
}
