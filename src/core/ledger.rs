//! Who may run now: the node's CPUs, GPUs and custom resources, and the tasks that wait for them.
//!
//! Two kinds of work share the CPUs. The common task (one CPU, priority 0) never comes here:
//! executor threads run those under a *lease* of one CPU each. Every other task is submitted, waits
//! in line, and is started with its resources held under its id.
//!
//! The line is strict: higher priority first, then first come first served. A task that does not
//! fit sets resources aside in one order (custom by name, GPUs, CPUs) up to the first it lacks, and
//! of that one nothing is left for anyone behind. So later tasks overtake only with what it does
//! not yet need; as everyone collects in the same order, whoever is first does get all, and nobody
//! starves within a priority. (Setting aside all at once would idle the CPUs of a node while a task
//! waits for a GPU.) Executors that were denied a lease have a turn in the same line, at priority
//! 0: tasks that hold resources cannot starve the common ones either. Negative priorities run when
//! nothing else wants to.
//!
//! Invariant: what is free, held and leased adds up to the capacity; only taking back a lent CPU
//! may overdraw, and then no CPU is granted until the debt is paid. An event costs O(log n) in the
//! waiting tasks, times at most [`MAX_LOOKS`] distinct demands. Left out: threads, and queues of
//! common tasks.

mod free;
mod queue;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::amounts;
use crate::base::{Capacity, Demand, Infeasible, Units};
use free::{Free, Lack, Shape, steps};
use queue::{Place, Queue};

/// How many distinct demands that do not fit are looked at for one event. What stands behind more
/// than these waits until it comes nearer, even if it would fit.
pub const MAX_LOOKS: usize = 64;

/// One CPU: what a lease is.
const LEASE: i64 = Units::PER_ONE as i64;

/// What the driver does after an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Run this task. Its resources are held under its id until [`Ledger::finish`].
    Start {
        /// The task.
        task: u64,
        /// The ids of its GPUs.
        gpus: Vec<u32>,
    },
    /// Fail this task: it could never run here.
    Refuse {
        /// The task.
        task: u64,
        /// What the node has too little of.
        why: Infeasible,
    },
    /// A CPU is set aside for common tasks whose executor was denied a lease. If any is queued,
    /// wake an executor (it will ask for a lease); if not, call [`Ledger::idle`].
    Offer,
}

/// Why a task has not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// How many tasks stand before it in line.
    pub position: usize,
    /// What it needs.
    pub demand: Demand,
    /// What it waits for, in words.
    pub missing: String,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Waiting {
            position,
            demand,
            missing,
        } = self;
        write!(
            f,
            "waiting for {missing} (demands {demand}; {position} before it)"
        )
    }
}

/// What a started task holds.
#[derive(Debug)]
struct Held {
    shape: Arc<Shape>,
    gpus: Vec<u32>,
    /// It is blocked in `get`, and others have its CPUs.
    lent: bool,
}

/// The resources of a node.
#[derive(Debug)]
pub struct Ledger {
    capacity: Capacity,
    free: Free,
    /// What is left during one walk down the line; kept for its memory.
    left: Free,
    held: BTreeMap<u64, Held>,
    queue: Queue,
    leases: u64,
    leases_lent: u64,
    /// The place in line of the executor that was denied a lease first.
    turn: Option<Place>,
    /// Its turn has come: one CPU is set aside.
    offered: bool,
    /// Someone of priority 0 or more would run if a CPU came free.
    pressed: bool,
}

impl Ledger {
    /// A node on which nothing runs.
    pub fn new(capacity: Capacity) -> Ledger {
        Ledger {
            free: Free::new(&capacity),
            left: Free::new(&Capacity::default()),
            capacity,
            held: BTreeMap::new(),
            queue: Queue::default(),
            leases: 0,
            leases_lent: 0,
            turn: None,
            offered: false,
            pressed: false,
        }
    }

    /// Why the common task (one CPU) can never run here, if it cannot: the node has less than one
    /// CPU. The driver refuses it with this at submission; no lease is ever granted on such a node.
    pub fn common_task_infeasible(&self) -> Option<Infeasible> {
        self.capacity.lacks(&Demand::ONE_CPU)
    }

    /// An executor woke with common tasks to run and asks for a CPU. When denied, it keeps a turn
    /// in line and sleeps: [`Effect::Offer`] follows when the turn has come.
    #[must_use]
    pub fn lease(&mut self) -> bool {
        if steps(self.capacity.cpu) < LEASE {
            return false;
        }
        if self.free.cpu >= LEASE && (self.offered || !self.pressed) {
            self.free.cpu -= LEASE;
            self.leases += 1;
            self.end_turn();
            return true;
        }
        if self.turn.is_none() {
            self.turn = Some(Place {
                priority: Reverse(0),
                ticket: self.queue.ticket(),
            });
        }
        false
    }

    /// An executor gives its lease back, because it found no more common tasks or is [`pressed`].
    ///
    /// [`pressed`]: Ledger::pressed
    pub fn unlease(&mut self, out: &mut Vec<Effect>) {
        debug_assert!(
            self.leases > self.leases_lent,
            "gave back a lease that nobody has"
        );
        if self.leases > self.leases_lent {
            self.leases -= 1;
            self.free.cpu += LEASE;
            self.walk(false, out);
        }
    }

    /// The common task under a lease blocks in `get`: its CPU goes to others meanwhile.
    pub fn lend_lease(&mut self, out: &mut Vec<Effect>) {
        debug_assert!(
            self.leases > self.leases_lent,
            "lent a lease that nobody has"
        );
        if self.leases > self.leases_lent {
            self.leases_lent += 1;
            self.free.cpu += LEASE;
            self.walk(false, out);
        }
    }

    /// That task goes on, with its CPU. May overdraw.
    pub fn reclaim_lease(&mut self) {
        debug_assert!(self.leases_lent > 0, "took back a lease that was not lent");
        if self.leases_lent > 0 {
            self.leases_lent -= 1;
            self.take_back(LEASE);
        }
    }

    /// A task that is not the common one. It is refused, started, or waits; below priority 0 it
    /// waits in any case, for [`Ledger::idle`].
    pub fn submit(&mut self, task: u64, demand: Demand, priority: i32, out: &mut Vec<Effect>) {
        debug_assert!(
            !self.held.contains_key(&task) && !self.queue.contains(task),
            "task {task} is submitted already"
        );
        if let Some(why) = self.capacity.lacks(&demand) {
            out.push(Effect::Refuse { task, why });
        } else if self.queue.push(task, demand, priority, &self.capacity) && priority >= 0 {
            self.walk(false, out);
        }
    }

    /// A started task ended, in whatever way: what it holds is free. False if it is none.
    pub fn finish(&mut self, task: u64, out: &mut Vec<Effect>) -> bool {
        let Some(held) = self.held.remove(&task) else {
            return false;
        };
        self.free.give_devices(&held.shape, &held.gpus);
        if !held.lent {
            self.free.cpu += held.shape.cpu();
        }
        self.walk(false, out);
        true
    }

    /// Takes a waiting task out of line. False: it waits no more (or never did), so it is too late.
    pub fn cancel(&mut self, task: u64, out: &mut Vec<Effect>) -> bool {
        let Some(was_first) = self.queue.remove(task) else {
            return false;
        };
        if was_first {
            self.walk(false, out);
        }
        true
    }

    /// A started task blocks in `get`: its CPUs go to others meanwhile; GPUs and the rest it keeps,
    /// for they hold its data.
    pub fn lend(&mut self, task: u64, out: &mut Vec<Effect>) {
        let Some(held) = self.held.get_mut(&task) else {
            return;
        };
        if !held.lent {
            held.lent = true;
            self.free.cpu += held.shape.cpu();
            self.walk(false, out);
        }
    }

    /// That task goes on, with its CPUs. May overdraw.
    pub fn reclaim(&mut self, task: u64) {
        let Some(held) = self.held.get_mut(&task) else {
            return;
        };
        if held.lent {
            held.lent = false;
            let cpu = held.shape.cpu();
            self.take_back(cpu);
        }
    }

    /// An executor found no common task: whoever is in line may start, those below priority 0 too,
    /// and a CPU set aside for common tasks is given up. To be called when [`Ledger::wants_idle`].
    /// Before it sleeps, the executor looks for common tasks once more: one pushed meanwhile has
    /// lost its turn.
    pub fn idle(&mut self, out: &mut Vec<Effect>) {
        self.end_turn();
        self.walk(true, out);
    }

    /// Whether an executor without work should call [`Ledger::idle`].
    pub fn wants_idle(&self) -> bool {
        self.background_waiting() || self.turn.is_some()
    }

    /// Whether executors should give their leases back between two tasks: someone of priority 0 or
    /// more waits for CPUs, and for nothing else.
    pub fn pressed(&self) -> bool {
        self.pressed
    }

    /// Whether tasks below priority 0 wait.
    pub fn background_waiting(&self) -> bool {
        self.queue.has_background()
    }

    /// The started tasks and what they hold, by id.
    pub fn holders(&self) -> Vec<(u64, Demand)> {
        self.held
            .iter()
            .map(|(task, held)| (*task, held.shape.demand.clone()))
            .collect()
    }

    /// Of all but the tasks numbered from `first` on: how many CPUs are leased and not lent, and what tasks hold, with what the
    /// first of them in line asks for.
    pub fn load_below(&self, first: u64) -> (u64, Demand) {
        const LOOKS: usize = 16;
        let mut load = Demand::NONE;
        for held in self.held.range(..first).map(|(_, held)| held) {
            let mut demand = held.shape.demand.clone();
            if held.lent {
                demand.cpu = Units::ZERO;
            }
            amounts::add(&mut load, &demand);
        }
        let line = self
            .queue
            .line(if self.queue.is_empty() { 0 } else { LOOKS });
        let next = line
            .iter()
            .find(|(place, task, _)| *task < first && !place.is_background());
        if let Some((_, _, shape)) = next {
            amounts::add(&mut load, &shape.demand);
        }
        (self.leases - self.leases_lent, load)
    }

    /// Why a task waits; `None` if it does not. For messages: looks at every waiting task.
    pub fn waiting(&self, task: u64) -> Option<Waiting> {
        let (place, position, shape) = self.queue.position(task)?;
        Some(self.waits_for(place, position, shape))
    }

    fn waits_for(&self, place: Place, position: usize, shape: &Shape) -> Waiting {
        let missing = match self.free.lacks(shape) {
            Some(lack) => self.describe(lack, shape),
            None if place.is_background() => {
                "an idle executor (below priority 0, a task runs when nothing else wants to)"
                    .to_owned()
            }
            None => "its turn: those before it wait for the same resources".to_owned(),
        };
        Waiting {
            position,
            demand: shape.demand.clone(),
            missing,
        }
    }

    /// The first `n` waiting tasks in line, and why each waits.
    pub fn line(&self, n: usize) -> Vec<(u64, Waiting)> {
        let places = self.queue.line(n).into_iter().enumerate();
        places
            .map(|(position, (place, task, shape))| (task, self.waits_for(place, position, shape)))
            .collect()
    }

    /// What the node has and what of it is free: CPUs, GPUs if there are any, then the custom resources.
    pub fn amounts(&self) -> Vec<(String, Units, Units)> {
        let free = |steps: i64| Units::from_steps(u64::try_from(steps).unwrap_or(0));
        let mut all = vec![("cpu".to_owned(), self.capacity.cpu, free(self.free.cpu))];
        if self.capacity.gpus > 0 {
            let gpus = Units::from_steps(self.free.gpus.iter().sum());
            all.push(("gpu".to_owned(), self.capacity.gpu(), gpus));
        }
        for ((name, total), left) in self.capacity.custom().iter().zip(&self.free.custom) {
            all.push((name.clone(), *total, Units::from_steps(*left)));
        }
        all
    }

    /// How many tasks wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// How many tasks were started and have not finished.
    pub fn running(&self) -> usize {
        self.held.len()
    }

    /// How many leases are out, the lent ones included.
    #[cfg(test)]
    pub fn leases(&self) -> u64 {
        self.leases
    }

    /// Free CPUs in steps of 1/10,000; negative while overdrawn.
    pub fn free_cpu_steps(&self) -> i64 {
        self.free.cpu
    }

    /// What nobody holds now.
    pub fn free_now(&self) -> Demand {
        let mut free = Demand::cpu_only(Units::from_steps(self.free.cpu.max(0).cast_unsigned()));
        free.gpu = Units::from_steps(self.free.gpus.iter().sum());
        let names = self.capacity.custom().iter().map(|(name, _)| name);
        for (name, steps) in names.zip(&self.free.custom) {
            free = free.with_custom(name, Units::from_steps(*steps));
        }
        free
    }

    /// What the node has.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Walks down the line and starts what fits into what those before have left.
    fn walk(&mut self, background: bool, out: &mut Vec<Effect>) {
        self.pressed = false;
        if self.queue.is_empty() && self.turn.is_none() {
            return;
        }
        self.left.copy_from(&self.free);
        let (mut at, mut blocked, mut turn) = (None, 0, self.turn);
        while let Some((place, task, shape)) = self.queue.first_after(at) {
            if place.is_background() && !background {
                break;
            }
            let shape = Arc::clone(shape);
            if turn.is_some_and(|turn| turn < place) {
                turn = None;
                self.serve_turn(out);
            }
            at = Some(place);
            match self.left.collect(&shape) {
                Ok(gpus) => {
                    self.queue.remove(task);
                    self.free.take(&shape, &gpus);
                    out.push(Effect::Start {
                        task,
                        gpus: gpus.clone(),
                    });
                    self.held.insert(
                        task,
                        Held {
                            shape,
                            gpus,
                            lent: false,
                        },
                    );
                }
                Err(lack) => {
                    self.pressed |= lack == Lack::Cpu && !place.is_background();
                    blocked += 1;
                    if blocked == MAX_LOOKS {
                        break;
                    }
                }
            }
        }
        if turn.is_some() {
            self.serve_turn(out);
        }
    }

    /// The turn of the common tasks: sets one CPU aside for them, or waits for it like anyone.
    fn serve_turn(&mut self, out: &mut Vec<Effect>) {
        let served = self.left.cpu >= LEASE;
        if served {
            self.left.cpu -= LEASE;
        } else {
            self.left.close_cpu();
        }
        if served && !self.offered {
            out.push(Effect::Offer);
        }
        self.offered = served;
    }

    /// A lent CPU comes back out of what is free, perhaps out of what was set aside: then the
    /// executor that was told of it is denied again, and must be told again later.
    fn take_back(&mut self, cpu: i64) {
        self.free.cpu -= cpu;
        self.offered &= self.free.cpu >= LEASE;
    }

    fn end_turn(&mut self) {
        self.turn = None;
        self.offered = false;
    }

    fn describe(&self, lack: Lack, shape: &Shape) -> String {
        let amount = |x: u64| Units::from_steps(x);
        let demand = &shape.demand;
        match lack {
            Lack::Cpu => {
                let free = amount(u64::try_from(self.free.cpu).unwrap_or(0));
                format!("{} cpu: {free} of {} free", demand.cpu, self.capacity.cpu)
            }
            Lack::Gpu => {
                let free = amount(self.free.gpus.iter().sum());
                format!("{} gpu: {free} of {} free", demand.gpu, self.capacity.gpus)
            }
            Lack::Custom(at) => {
                let (name, all) = &self.capacity.custom()[at];
                let need = demand.custom().iter().find(|(n, _)| n == name);
                let need = need.map_or(Units::ZERO, |(_, need)| *need);
                format!(
                    "{need} {name}: {} of {all} free",
                    amount(self.free.custom[at])
                )
            }
        }
    }
}
