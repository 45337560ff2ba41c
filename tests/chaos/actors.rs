//! The objects as actors that are kept: each is to do what its model says, with a state and methods of its own.
//!
//! Invariant: methods are deterministic. Calls are made by the test's own process, or by a task on some other node, which may die with
//! the answer. Left out: who calls, and when (`clients`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mobula::prelude::*;
use mobula::{NodeId, ObjectRef, Strategy};

use crate::LONG;
use crate::models::{
    ACCOUNTS, AT_FIRST, Bank, Banking, Count, Counter, Learning, Model, Queue, Queueing, WEIGHTS,
    Weights,
};

/// What was asked for, waited for so long.
pub type Asked<T> = Box<dyn FnOnce() -> mobula::Result<T>>;

fn asked<T: Value + 'static>(reference: ObjectRef<T>) -> Asked<T> {
    Box::new(move || mobula::get_timeout(&reference, LONG))
}

/// An object that is an actor.
pub trait Object: Model {
    type Handle: Clone + Send + Sync + 'static;

    /// Has a node make it on another one.
    fn make(from: NodeId, on: NodeId, replicas: u32) -> Asked<Self::Handle>;
    /// Makes it here.
    fn make_here() -> Self::Handle;
    /// Calls it.
    fn call(actor: &Self::Handle, deed: Self::Deed) -> Asked<Self::Gave>;
    /// Has a task call it, on that node if it lives.
    fn call_from(node: NodeId, actor: &Self::Handle, deed: Self::Deed) -> Asked<Self::Gave>;
    /// The process that it is in.
    fn process(actor: &Self::Handle) -> Asked<u32>;
    /// Has it save its state.
    fn checkpoint(actor: &Self::Handle) -> Asked<()>;
}

/// Makes the tasks that make and call an actor, and puts all of it together.
macro_rules! object {
    ($model:ident, $actor:ident, $deed:ty, $gave:ty, $make:ident, $ask:ident, $call:ident) => {
        #[remote]
        fn $make(on: String, replicas: u32) -> Result<Handle<$actor>, String> {
            let node: NodeId = on.parse().map_err(|e| format!("{e:?}"))?;
            let began = Instant::now();
            loop {
                // Nodes that came last may not be connected yet.
                let options = $actor::options().replicas(replicas).on_node(node);
                match options.try_remote() {
                    // It is handed on once it is there.
                    Ok(actor) => {
                        let there = mobula::get_timeout(&actor.process(), LONG);
                        return there.map(|_| actor).map_err(|e| e.to_string());
                    }
                    Err(e) if began.elapsed() > LONG => return Err(e.to_string()),
                    Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
                }
            }
        }

        #[remote]
        fn $ask(actor: Handle<$actor>, deed: $deed) -> Result<$gave, String> {
            // Whoever waits for this loses patience first, and says so.
            mobula::get_timeout(&$call(&actor, deed), 2 * LONG).map_err(|e| e.to_string())
        }

        impl Object for $model {
            type Handle = Handle<$actor>;

            fn make(from: NodeId, on: NodeId, replicas: u32) -> Asked<Handle<$actor>> {
                let make = $make::options().on_node(from);
                asked(make.remote(on.to_string(), replicas))
            }

            fn make_here() -> Handle<$actor> {
                $actor::remote()
            }

            fn call(actor: &Handle<$actor>, deed: $deed) -> Asked<$gave> {
                asked($call(actor, deed))
            }

            fn call_from(node: NodeId, actor: &Handle<$actor>, deed: $deed) -> Asked<$gave> {
                let there = Strategy::Node { node, soft: true };
                let ask = $ask::options().strategy(there).max_retries(0);
                asked(ask.remote(actor.clone(), deed))
            }

            fn process(actor: &Handle<$actor>) -> Asked<u32> {
                asked(actor.process())
            }

            fn checkpoint(actor: &Handle<$actor>) -> Asked<()> {
                asked(actor.checkpoint())
            }
        }
    };
}

#[remote(max_restarts = 1000)]
pub struct KeptCounter {
    total: u64,
}

#[remote]
impl KeptCounter {
    pub fn new() -> Self {
        KeptCounter { total: 0 }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn process(&self) -> u32 {
        std::process::id()
    }
}

fn call_counter(actor: &Handle<KeptCounter>, deed: Count) -> ObjectRef<u64> {
    match deed {
        Count::Add(n) => actor.add(n),
        Count::Total => actor.total(),
    }
}

object!(
    Counter,
    KeptCounter,
    Count,
    u64,
    makes_counter,
    asks_counter,
    call_counter
);

#[remote(max_restarts = 1000, checkpoint_every = 7)]
pub struct KeptBank {
    accounts: Vec<u64>,
    moved: u64,
}

#[remote]
impl KeptBank {
    pub fn new() -> Self {
        KeptBank {
            accounts: vec![AT_FIRST; ACCOUNTS],
            moved: 0,
        }
    }

    pub fn transfer(&mut self, from: u8, to: u8, amount: u64) -> (u64, Vec<u64>) {
        let (from, to) = (usize::from(from), usize::from(to));
        let Some(left) = self.accounts[from].checked_sub(amount) else {
            return (self.moved, Vec::new());
        };
        self.accounts[from] = left;
        self.accounts[to] += amount;
        self.moved += 1;
        (self.moved, vec![left, self.accounts[to]])
    }

    pub fn balances(&self) -> (u64, Vec<u64>) {
        (self.moved, self.accounts.clone())
    }

    pub fn process(&self) -> u32 {
        std::process::id()
    }
}

fn call_bank(actor: &Handle<KeptBank>, deed: Banking) -> ObjectRef<(u64, Vec<u64>)> {
    match deed {
        Banking::Transfer { from, to, amount } => actor.transfer(from, to, amount),
        Banking::Balances => actor.balances(),
    }
}

object!(
    Bank,
    KeptBank,
    Banking,
    (u64, Vec<u64>),
    makes_bank,
    asks_bank,
    call_bank
);

#[remote(max_restarts = 1000, checkpoint_every = 1)]
pub struct KeptQueue {
    items: VecDeque<u64>,
    changes: u64,
}

#[remote]
impl KeptQueue {
    pub fn new() -> Self {
        KeptQueue {
            items: VecDeque::new(),
            changes: 0,
        }
    }

    pub fn push(&mut self, item: u64) -> (u64, Option<u64>) {
        self.items.push_back(item);
        self.changes += 1;
        self.len()
    }

    pub async fn pop(&mut self) -> (u64, Option<u64>) {
        let item = self.items.pop_front();
        self.changes += u64::from(item.is_some());
        (self.changes, item)
    }

    pub fn len(&self) -> (u64, Option<u64>) {
        (self.changes, Some(self.items.len() as u64))
    }

    pub fn process(&self) -> u32 {
        std::process::id()
    }
}

fn call_queue(actor: &Handle<KeptQueue>, deed: Queueing) -> ObjectRef<(u64, Option<u64>)> {
    match deed {
        Queueing::Push(item) => actor.push(item),
        Queueing::Pop => actor.pop(),
        Queueing::Len => actor.len(),
    }
}

object!(
    Queue,
    KeptQueue,
    Queueing,
    (u64, Option<u64>),
    makes_queue,
    asks_queue,
    call_queue
);

#[remote(max_restarts = 1000, log_bytes = 4096)]
pub struct KeptWeights {
    version: u64,
    weights: Vec<i64>,
}

#[remote]
impl KeptWeights {
    pub fn new() -> Self {
        KeptWeights {
            version: 0,
            weights: vec![0; WEIGHTS],
        }
    }

    /// Takes a gradient of this version of the weights.
    pub fn apply(&mut self, version: u64, gradient: Vec<i64>) -> (u64, Vec<i64>) {
        if version != self.version {
            return (self.version, Vec::new());
        }
        self.version += 1;
        for (weight, step) in self.weights.iter_mut().zip(&gradient) {
            *weight -= step;
        }
        self.read()
    }

    pub fn read(&self) -> (u64, Vec<i64>) {
        (self.version, self.weights.clone())
    }

    pub fn process(&self) -> u32 {
        std::process::id()
    }
}

fn call_weights(actor: &Handle<KeptWeights>, deed: Learning) -> ObjectRef<(u64, Vec<i64>)> {
    match deed {
        Learning::Apply { version, gradient } => actor.apply(version, gradient),
        Learning::Read => actor.read(),
    }
}

object!(
    Weights,
    KeptWeights,
    Learning,
    (u64, Vec<i64>),
    makes_weights,
    asks_weights,
    call_weights
);
