//! Which job has what of one machine: its CPUs, GPUs and other resources, shared between programs.
//!
//! A job asks once, for amounts or for all that is left, and holds its share until it ends. What does not fit waits in
//! line, first come first served: nobody overtakes, so that a large ask is not starved by small ones. A job that would not wait
//! any longer gives up its place.
//!
//! Invariant: what is free and what is held adds up to the capacity; a share is granted whole or not at all, and a GPU is one
//! job's. At most [`MAX_LINE`] wait. Left out: calls inside a job, which its nodes' own ledgers share out; clocks.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use crate::base::{Capacity, Demand, Infeasible, Units};
use crate::core::amounts;

/// So many jobs wait at most.
pub const MAX_LINE: usize = 1024;

/// What a job wants of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// All that is left, if that is a CPU at least (or all there is, where there is less).
    Rest,
    /// So much.
    Exactly(Demand),
}

/// What a job holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Amounts of everything.
    pub amounts: Demand,
    /// Which GPUs.
    pub gpus: Vec<u32>,
}

/// What to tell a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It has this until it ends.
    Grant {
        /// Who.
        job: u64,
        /// What.
        share: Share,
    },
    /// It gets nothing.
    Refuse {
        /// Who.
        job: u64,
        /// Why.
        why: Refusal,
    },
}

/// Why a job gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The machine never has so much.
    Never(Infeasible),
    /// Others hold it.
    NoRoom {
        /// What was asked for.
        ask: Ask,
        /// What is left.
        left: Demand,
        /// Who has what, by name; the largest first, a few at most.
        held: Vec<(String, Demand)>,
        /// Those who wait before it.
        before: usize,
    },
    /// Too many wait.
    Full,
    /// It has asked before.
    Again,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Never(why) => {
                let Infeasible {
                    resource,
                    requested,
                    capacity,
                } = why;
                write!(
                    f,
                    "the job asks for {requested} of `{resource}`, of which the machine has {capacity} in all: ask for less"
                )
            }
            Refusal::NoRoom {
                ask,
                left,
                held,
                before,
            } => {
                match ask {
                    Ask::Rest => {
                        write!(f, "no room: the job asks for what is left, which is {left}")?
                    }
                    Ask::Exactly(demand) => {
                        write!(f, "no room: the job asks for {demand}, and {left} is left")?
                    }
                }
                for (name, has) in held {
                    write!(f, "; {name} holds {has}")?;
                }
                if *before > 0 {
                    write!(f, "; {before} wait before it")?;
                }
                Ok(())
            }
            Refusal::Full => write!(f, "{MAX_LINE} jobs wait already, which is the bound"),
            Refusal::Again => write!(f, "this job has asked before"),
        }
    }
}

/// All that a machine has.
pub fn whole(capacity: &Capacity) -> Demand {
    amounts::whole(capacity)
}

struct Held {
    name: String,
    share: Share,
}

/// See the module.
pub struct Jobs {
    capacity: Capacity,
    /// Without GPUs.
    left: Demand,
    gpus: BTreeSet<u32>,
    held: BTreeMap<u64, Held>,
    line: VecDeque<(u64, String, Ask)>,
}

impl Jobs {
    /// A machine that nobody uses.
    pub fn new(capacity: Capacity) -> Jobs {
        let left = amounts::whole(&capacity).with_gpu(Units::ZERO);
        let gpus = (0..capacity.gpus).collect();
        Jobs {
            capacity,
            left,
            gpus,
            held: BTreeMap::new(),
            line: VecDeque::new(),
        }
    }

    /// What the machine has.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// What nobody holds.
    pub fn left(&self) -> Demand {
        self.left
            .clone()
            .with_gpu(Units::whole(self.gpus.len() as u64))
    }

    /// Who holds what.
    pub fn held(&self) -> impl Iterator<Item = (u64, &str, &Share)> {
        self.held
            .iter()
            .map(|(job, held)| (*job, held.name.as_str(), &held.share))
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// A job asks for its share.
    pub fn ask(&mut self, job: u64, name: &str, ask: Ask, out: &mut Vec<Effect>) {
        let refuse = |why| Effect::Refuse { job, why };
        if self.held.contains_key(&job) || self.line.iter().any(|(waits, ..)| *waits == job) {
            return out.push(refuse(Refusal::Again));
        }
        if let Ask::Exactly(demand) = &ask {
            // A share of a GPU is a call's affair: to a job it is whole.
            let whole = demand
                .clone()
                .with_gpu(Units::whole(demand.gpu.steps().div_ceil(Units::PER_ONE)));
            if let Some(why) = self.capacity.lacks(&whole) {
                return out.push(refuse(Refusal::Never(why)));
            }
        }
        if self.line.len() >= MAX_LINE {
            return out.push(refuse(Refusal::Full));
        }
        self.line.push_back((job, name.to_owned(), ask));
        self.serve(out);
    }

    /// A job that waits does so no longer. `None`: it does not wait.
    pub fn give_up(&mut self, job: u64, out: &mut Vec<Effect>) -> Option<Refusal> {
        let at = self.line.iter().position(|(waits, ..)| *waits == job)?;
        let (_, _, ask) = self.line.remove(at)?;
        const NAMED: usize = 4;
        let mut held: Vec<_> = self
            .held
            .values()
            .map(|h| (h.name.clone(), h.share.amounts.clone()))
            .collect();
        held.sort_by_key(|(_, has)| std::cmp::Reverse(has.cpu));
        held.truncate(NAMED);
        let why = Refusal::NoRoom {
            ask,
            left: self.left(),
            held,
            before: at,
        };
        self.serve(out);
        Some(why)
    }

    /// A job is over, wherever it was.
    pub fn end(&mut self, job: u64, out: &mut Vec<Effect>) {
        self.line.retain(|(waits, ..)| *waits != job);
        if let Some(Held { share, .. }) = self.held.remove(&job) {
            self.gpus.extend(share.gpus);
            amounts::add(&mut self.left, &share.amounts.with_gpu(Units::ZERO));
        }
        self.serve(out);
    }

    /// Grants from the head of the line what fits.
    fn serve(&mut self, out: &mut Vec<Effect>) {
        while let Some((_, _, ask)) = self.line.front() {
            let Some(share) = self.share(ask) else { return };
            let Some((job, name, _)) = self.line.pop_front() else {
                return;
            };
            self.gpus.retain(|gpu| !share.gpus.contains(gpu));
            amounts::subtract(&mut self.left, &share.amounts.clone().with_gpu(Units::ZERO));
            self.held.insert(
                job,
                Held {
                    name,
                    share: share.clone(),
                },
            );
            out.push(Effect::Grant { job, share });
        }
    }

    fn share(&self, ask: &Ask) -> Option<Share> {
        let demand = match ask {
            Ask::Rest => {
                let least = Units::ONE.min(self.capacity.cpu);
                if self.left.cpu < least {
                    return None;
                }
                self.left()
            }
            Ask::Exactly(demand) => demand.clone(),
        };
        let gpus = demand.gpu.steps().div_ceil(Units::PER_ONE) as usize;
        if gpus > self.gpus.len() || !amounts::fits(&self.left(), &demand) {
            return None;
        }
        let amounts = demand.with_gpu(Units::whole(gpus as u64));
        Some(Share {
            amounts,
            gpus: self.gpus.iter().take(gpus).copied().collect(),
        })
    }
}
