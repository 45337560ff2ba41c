//! What the objects under fire are without machines, deaths or threads: one state, one operation after the other.
//!
//! Invariant: each operation's answer says how many have changed the state before: one that is lost, or counted twice, shows in the
//! next answer, and the search for an order of many that ran at once stays short. Left out: the actors that are to be like this (`actors`), and the comparison (`history`).

use std::collections::VecDeque;
use std::fmt::Debug;
use std::hash::Hash;

use crate::chance::Chance;

/// An object as it is to be.
pub trait Model: Clone + Eq + Hash + Debug + Send + 'static {
    /// What it is called.
    const NAME: &'static str;
    /// An operation.
    type Deed: Clone + Debug + Send + 'static;
    /// What it gives.
    type Gave: Clone + Debug + PartialEq + Send + 'static;

    /// How it begins.
    fn new() -> Self;
    /// Does it.
    fn run(&mut self, deed: &Self::Deed) -> Self::Gave;
    /// Some operation; `number` is given to no other, `last` is what was given last to whoever asks.
    fn draw(chance: &mut Chance, number: u64, last: Option<&Self::Gave>) -> Self::Deed;
    /// One that only looks at all of it.
    fn look() -> Self::Deed;
    /// Whether it changed the state.
    fn changed(deed: &Self::Deed, gave: &Self::Gave) -> bool;
}

/// A number that grows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Counter(u64);

#[mobula::value]
#[derive(Clone, Debug)]
pub enum Count {
    Add(u64),
    Total,
}

impl Model for Counter {
    const NAME: &'static str = "counter";
    type Deed = Count;
    type Gave = u64;

    fn new() -> Counter {
        Counter(0)
    }

    fn run(&mut self, deed: &Count) -> u64 {
        if let Count::Add(n) = deed {
            self.0 += n;
        }
        self.0
    }

    fn draw(chance: &mut Chance, number: u64, _: Option<&u64>) -> Count {
        if chance.permille(200) {
            Count::Total
        } else {
            // No two sums of a few of these are alike by mere chance.
            Count::Add(number * 1000 + chance.below(1000))
        }
    }

    fn look() -> Count {
        Count::Total
    }

    fn changed(deed: &Count, _: &u64) -> bool {
        matches!(deed, Count::Add(_))
    }
}

/// How many accounts there are, and what is in each at first.
pub const ACCOUNTS: usize = 5;
pub const AT_FIRST: u64 = 1000;

/// Accounts between which money moves, and how often it did.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Bank([u64; ACCOUNTS], u64);

#[mobula::value]
#[derive(Clone, Debug)]
pub enum Banking {
    Transfer { from: u8, to: u8, amount: u64 },
    Balances,
}

impl Model for Bank {
    const NAME: &'static str = "bank";
    type Deed = Banking;
    /// How many transfers there were, and what all accounts have; of a transfer what those two have, nothing if it was refused.
    type Gave = (u64, Vec<u64>);

    fn new() -> Bank {
        Bank([AT_FIRST; ACCOUNTS], 0)
    }

    fn run(&mut self, deed: &Banking) -> (u64, Vec<u64>) {
        let Banking::Transfer { from, to, amount } = *deed else {
            return (self.1, self.0.to_vec());
        };
        let (from, to) = (from as usize, to as usize);
        if self.0[from] < amount {
            return (self.1, Vec::new());
        }
        self.1 += 1;
        self.0[from] -= amount;
        self.0[to] += amount;
        (self.1, vec![self.0[from], self.0[to]])
    }

    fn draw(chance: &mut Chance, _: u64, _: Option<&(u64, Vec<u64>)>) -> Banking {
        if chance.permille(200) {
            return Banking::Balances;
        }
        let from = chance.below(ACCOUNTS as u64) as u8;
        let other = 1 + chance.below(ACCOUNTS as u64 - 1) as u8;
        Banking::Transfer {
            from,
            to: (from + other) % ACCOUNTS as u8,
            amount: chance.between(1, 600),
        }
    }

    fn look() -> Banking {
        Banking::Balances
    }

    fn changed(deed: &Banking, gave: &(u64, Vec<u64>)) -> bool {
        matches!(deed, Banking::Transfer { .. }) && !gave.1.is_empty()
    }
}

/// First in, first out, and how often something went in or out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Queue(VecDeque<u64>, u64);

#[mobula::value]
#[derive(Clone, Debug)]
pub enum Queueing {
    Push(u64),
    Pop,
    Len,
}

impl Model for Queue {
    const NAME: &'static str = "queue";
    type Deed = Queueing;
    /// How often something went in or out, and what was taken out; else how many are in it.
    type Gave = (u64, Option<u64>);

    fn new() -> Queue {
        Queue(VecDeque::new(), 0)
    }

    fn run(&mut self, deed: &Queueing) -> (u64, Option<u64>) {
        match deed {
            Queueing::Push(n) => {
                self.0.push_back(*n);
                self.1 += 1;
            }
            Queueing::Pop => {
                let item = self.0.pop_front();
                self.1 += u64::from(item.is_some());
                return (self.1, item);
            }
            Queueing::Len => {}
        }
        (self.1, Some(self.0.len() as u64))
    }

    fn draw(chance: &mut Chance, number: u64, _: Option<&(u64, Option<u64>)>) -> Queueing {
        match chance.below(10) {
            0..=4 => Queueing::Push(number),
            5..=8 => Queueing::Pop,
            _ => Queueing::Len,
        }
    }

    fn look() -> Queueing {
        Queueing::Len
    }

    fn changed(deed: &Queueing, gave: &(u64, Option<u64>)) -> bool {
        !matches!(deed, Queueing::Len) && gave.1.is_some()
    }
}

/// How many weights there are.
pub const WEIGHTS: usize = 4;

/// Weights that take gradients computed from their newest version, and refuse others.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Weights {
    version: u64,
    weights: [i64; WEIGHTS],
}

#[mobula::value]
#[derive(Clone, Debug)]
pub enum Learning {
    Apply { version: u64, gradient: Vec<i64> },
    Read,
}

impl Model for Weights {
    const NAME: &'static str = "parameter server";
    type Deed = Learning;
    /// The version, and the weights unless a gradient was refused.
    type Gave = (u64, Vec<i64>);

    fn new() -> Weights {
        Weights {
            version: 0,
            weights: [0; WEIGHTS],
        }
    }

    fn run(&mut self, deed: &Learning) -> (u64, Vec<i64>) {
        if let Learning::Apply { version, gradient } = deed {
            if *version != self.version {
                return (self.version, Vec::new());
            }
            self.version += 1;
            for (weight, step) in self.weights.iter_mut().zip(gradient) {
                *weight -= step;
            }
        }
        (self.version, self.weights.to_vec())
    }

    fn draw(chance: &mut Chance, _: u64, last: Option<&(u64, Vec<i64>)>) -> Learning {
        match last {
            Some((version, _)) if !chance.permille(150) => Learning::Apply {
                version: *version,
                gradient: (0..WEIGHTS).map(|_| chance.below(1 << 20) as i64).collect(),
            },
            _ => Learning::Read,
        }
    }

    fn look() -> Learning {
        Learning::Read
    }

    fn changed(deed: &Learning, gave: &(u64, Vec<i64>)) -> bool {
        matches!(deed, Learning::Apply { .. }) && !gave.1.is_empty()
    }
}
