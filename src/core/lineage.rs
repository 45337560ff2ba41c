//! Which lost results can be made again: by the calls that made them, kept within a bound.
//!
//! The owner of an object whose bytes another node has keeps its *lineage*: the call, with references to its arguments. When the
//! last copy is lost and somebody wants the object, the call runs again, once for all who want it; what it needs and is lost too
//! runs first, so that nobody waits for it inside a call. A call runs again as often as its `max_retries` says.
//!
//! Invariant: what is kept, with the objects that are kept for it, stays within the bound; the oldest is given up first, and
//! that it was is remembered for as long as the object lives. An object that is wanted is being made, waits for another that is, or has
//! failed. Left out: the calls themselves, and who asks.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::base::{NodeId, ObjectKey};

/// What the driver does after an event, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Run the call of this object again, and tell [`Lineage::ended`].
    Run(u64),
    /// This object is not made again: see [`Lineage::lack`].
    Fail(u64),
    /// The call of this object is kept no more.
    Drop(u64),
}

/// Why an object is not made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Its lineage was given up, or was larger than the bound.
    GivenUp,
    /// It was made again as often as it may be; these nodes lost it.
    Spent(Vec<NodeId>),
    /// This method of an actor made it, and that call is not run again.
    Method(&'static str),
    /// This method of an actor made it, and others' results, later ones, take all the places that there are.
    TooMany(&'static str),
    /// The call may not run a second time.
    NoRetries,
    /// It was called again, and that failed.
    Failed,
}

/// A call that is to be kept.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Bytes of the call itself.
    pub bytes: u64,
    /// The objects that it refers to, with their bytes, which are kept with it.
    pub objects: Vec<(ObjectKey, u64)>,
    /// Those of them that are arguments and this node's own: they must be there before it runs.
    pub inputs: Vec<u64>,
    /// How often it may run again.
    pub retries: u32,
}

/// How an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Some node has it.
    Safe,
    /// No node has it, and nobody has asked.
    Lost,
    /// It waits for so many of its arguments.
    Waits(usize),
    /// Its call runs.
    Runs,
}

#[derive(Debug)]
struct Line {
    place: u64,
    kept: Kept,
    phase: Phase,
    /// The nodes that lost it.
    losers: Vec<NodeId>,
    runs: u32,
}

/// The lineages of one node's objects, by the objects' numbers.
#[derive(Debug)]
pub struct Lineage {
    limit: u64,
    used: u64,
    lines: BTreeMap<u64, Line>,
    /// By age.
    order: BTreeMap<u64, u64>,
    last: u64,
    /// Objects that are kept: for how many calls, and their bytes, which count once.
    objects: BTreeMap<ObjectKey, (usize, u64)>,
    /// Who waits for an object that is being made.
    waiting: BTreeMap<u64, Vec<u64>>,
    lacks: BTreeMap<u64, Lack>,
    given_up: u64,
}

impl Lineage {
    /// Keeps nothing yet, and never more than `limit` bytes.
    pub fn new(limit: u64) -> Lineage {
        Lineage {
            limit,
            used: 0,
            lines: BTreeMap::new(),
            order: BTreeMap::new(),
            last: 0,
            objects: BTreeMap::new(),
            waiting: BTreeMap::new(),
            lacks: BTreeMap::new(),
            given_up: 0,
        }
    }

    /// The bound in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are kept now.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// How many were given up so far.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Keeps the call that made an object, which some node has.
    pub fn keep(&mut self, number: u64, kept: Kept, out: &mut Vec<Effect>) {
        if kept.retries == 0 {
            return self.bar(number, Lack::NoRetries, out);
        }
        let fresh = kept.objects.iter();
        let fresh = fresh.filter(|(key, _)| !self.objects.contains_key(key));
        let cost = fresh.fold(kept.bytes, |sum, (_, bytes)| sum.saturating_add(*bytes));
        if cost > self.limit {
            // Others' would be given up in vain.
            self.given_up += 1;
            return self.bar(number, Lack::GivenUp, out);
        }
        self.remove(number);
        self.last += 1;
        self.used = self.used.saturating_add(kept.bytes);
        for (key, bytes) in &kept.objects {
            let held = self.objects.entry(*key).or_insert((0, *bytes));
            if held.0 == 0 {
                self.used = self.used.saturating_add(*bytes);
            }
            held.0 += 1;
        }
        self.order.insert(self.last, number);
        let line = Line {
            place: self.last,
            kept,
            phase: Phase::Safe,
            losers: Vec::new(),
            runs: 0,
        };
        self.lines.insert(number, line);
        self.lacks.remove(&number);
        while self.used > self.limit {
            let safe = |n: &u64| self.lines.get(n).is_some_and(|l| l.phase == Phase::Safe);
            // Those that are being made were within the bound; the one that came is safe.
            let Some(oldest) = self.order.values().copied().find(safe) else {
                return;
            };
            self.given_up += 1;
            self.bar(oldest, Lack::GivenUp, out);
        }
    }

    /// An object can never be made again, for this reason.
    pub fn bar(&mut self, number: u64, lack: Lack, out: &mut Vec<Effect>) {
        self.lacks.insert(number, lack);
        self.remove(number);
        out.push(Effect::Drop(number));
    }

    /// The object is here, or nobody has a reference to it any more.
    pub fn forget(&mut self, number: u64, out: &mut Vec<Effect>) {
        self.lacks.remove(&number);
        self.remove(number);
        out.push(Effect::Drop(number));
        self.wake(number, out);
    }

    /// The last copy of an object was lost with this node. False: it cannot be made again.
    pub fn lost(&mut self, number: u64, node: NodeId) -> bool {
        let Some(line) = self.lines.get_mut(&number) else {
            return false;
        };
        if line.phase == Phase::Safe {
            line.phase = Phase::Lost;
            line.losers.push(node);
        }
        true
    }

    /// A copy of an object turned up after all, of which the loss told nothing. One that is being made again goes on.
    pub fn found(&mut self, number: u64) {
        if let Some(line) = self
            .lines
            .get_mut(&number)
            .filter(|l| l.phase == Phase::Lost)
        {
            line.phase = Phase::Safe;
        }
    }

    /// Whether an object is lost and nobody has asked for it.
    pub fn is_lost(&self, number: u64) -> bool {
        self.lines
            .get(&number)
            .is_some_and(|l| l.phase == Phase::Lost)
    }

    /// Why an object is not made again, if it is not.
    pub fn lack(&self, number: u64) -> Option<&Lack> {
        self.lacks.get(&number)
    }

    /// Somebody wants an object.
    pub fn wanted(&mut self, number: u64, out: &mut Vec<Effect>) {
        let mut wanted = vec![number];
        while let Some(number) = wanted.pop() {
            let Some(line) = self.lines.get(&number) else {
                continue;
            };
            if line.phase != Phase::Lost {
                continue;
            }
            if line.runs >= line.kept.retries {
                let losers = line.losers.clone();
                self.bar(number, Lack::Spent(losers), out);
                out.push(Effect::Fail(number));
                self.wake(number, out);
                continue;
            }
            let absent = |n: &u64| self.lines.get(n).is_some_and(|l| l.phase != Phase::Safe);
            let mut inputs: Vec<u64> = line.kept.inputs.iter().copied().filter(absent).collect();
            inputs.sort_unstable();
            inputs.dedup();
            if let Some(line) = self.lines.get_mut(&number) {
                line.runs += 1;
                line.phase = Phase::Waits(inputs.len());
                if inputs.is_empty() {
                    line.phase = Phase::Runs;
                    out.push(Effect::Run(number));
                }
            }
            for input in inputs {
                self.waiting.entry(input).or_default().push(number);
                wanted.push(input);
            }
        }
    }

    /// The call of an object ended: the object is there again, or not.
    pub fn ended(&mut self, number: u64, made: bool, out: &mut Vec<Effect>) {
        let runs = self.lines.get_mut(&number);
        if let Some(line) = runs.filter(|l| l.phase == Phase::Runs) {
            if made {
                line.phase = Phase::Safe;
            } else {
                self.bar(number, Lack::Failed, out);
                out.push(Effect::Fail(number));
            }
        }
        self.wake(number, out);
    }

    /// Those that waited for an object wait no more: if it failed they will see that.
    fn wake(&mut self, number: u64, out: &mut Vec<Effect>) {
        for waits in self.waiting.remove(&number).unwrap_or_default() {
            if let Some(line) = self.lines.get_mut(&waits)
                && let Phase::Waits(left) = &mut line.phase
            {
                *left -= 1;
                if *left == 0 {
                    line.phase = Phase::Runs;
                    out.push(Effect::Run(waits));
                }
            }
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(line) = self.lines.remove(&number) else {
            return;
        };
        self.order.remove(&line.place);
        self.used -= line.kept.bytes;
        for (key, _) in line.kept.objects {
            if let Some(held) = self.objects.get_mut(&key) {
                held.0 -= 1;
                if held.0 == 0 {
                    self.used -= held.1;
                    self.objects.remove(&key);
                }
            }
        }
        // It waits for nothing more: what it waited for must not find it, or one that comes after it under its number.
        if matches!(line.phase, Phase::Waits(_)) {
            for waiting in self.waiting.values_mut() {
                waiting.retain(|n| *n != number);
            }
        }
    }
}
