//! What holds of the ledger after any sequence of legal events, checked against a plain account of
//! who holds what.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A driver that does as it is told and keeps its own books.
struct Books {
    ledger: Ledger,
    /// Started and not finished: demand, GPU ids, lent.
    running: BTreeMap<u64, (Demand, Vec<u32>, bool)>,
    /// Submitted and neither started, refused nor cancelled: demand and priority.
    waiting: BTreeMap<u64, (Demand, i32)>,
    ended: BTreeSet<u64>,
    leases: u64,
    lent_leases: u64,
    next: u64,
    offers: usize,
}

impl Books {
    fn new() -> Books {
        let capacity = Capacity::new(units(4.0), 2).with_custom("tpu", units(2.0));
        Books {
            ledger: Ledger::new(capacity),
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ended: BTreeSet::new(),
            leases: 0,
            lent_leases: 0,
            next: 0,
            offers: 0,
        }
    }

    /// One event and the check of its effects. `granting` events may start tasks.
    fn event(&mut self, event: impl FnOnce(&mut Ledger, &mut Vec<Effect>)) {
        let mut out = Vec::new();
        event(&mut self.ledger, &mut out);
        for effect in out {
            match effect {
                Effect::Start { task, gpus } => {
                    let (demand, priority) = self.waiting.remove(&task).expect("starts once");
                    // First come, first served among equals of one priority and one demand.
                    for (other, (d, p)) in &self.waiting {
                        assert!(
                            (*other, *p) > (task, priority) || *p < priority || *d != demand,
                            "{task} passed {other}"
                        );
                    }
                    // A grant never overdraws.
                    assert!(demand.cpu.is_zero() || self.ledger.free.cpu >= 0);
                    self.running.insert(task, (demand, gpus, false));
                }
                Effect::Refuse { task, .. } => {
                    self.waiting.remove(&task).expect("refused once");
                    self.ended.insert(task);
                }
                Effect::Offer => self.offers += 1,
            }
        }
        self.check();
    }

    fn check(&self) {
        let ledger = &self.ledger;
        let in_use = |demand: &Demand| steps(demand.cpu);
        let held: i64 = self
            .running
            .values()
            .filter(|r| !r.2)
            .map(|r| in_use(&r.0))
            .sum();
        let leased = (self.leases - self.lent_leases) as i64 * LEASE;
        assert_eq!(ledger.free.cpu + held + leased, 40_000, "CPUs add up");

        let mut shares = [0u64; 2];
        for (demand, gpus, _) in self.running.values() {
            let distinct: BTreeSet<_> = gpus.iter().collect();
            assert_eq!(distinct.len(), gpus.len());
            let share = demand.gpu.steps().min(Units::PER_ONE);
            assert_eq!(gpus.len() as u64 * share, demand.gpu.steps());
            gpus.iter().for_each(|id| shares[*id as usize] += share);
        }
        for (id, share) in shares.iter().enumerate() {
            assert!(*share <= Units::PER_ONE, "GPU {id} is shared beyond itself");
            assert_eq!(ledger.free.gpus[id] + share, Units::PER_ONE, "GPUs add up");
        }
        let tpu = |demand: &Demand| demand.custom().iter().map(|(_, x)| x.steps()).sum::<u64>();
        let tpus: u64 = self.running.values().map(|r| tpu(&r.0)).sum();
        assert_eq!(
            ledger.free.custom[0] + tpus,
            20_000,
            "custom amounts add up"
        );

        assert_eq!(
            (ledger.queued(), ledger.running()),
            (self.waiting.len(), self.running.len())
        );
        // The first in line never waits for what is there.
        if let Some((place, task, shape)) = ledger.queue.first_after(None) {
            let behind_turn = ledger.turn.is_some_and(|turn| turn < place);
            assert!(
                place.is_background() || behind_turn || ledger.free.lacks(shape).is_some(),
                "{task} fits and waits"
            );
        }
        assert!(!ledger.offered || (ledger.turn.is_some() && ledger.free.cpu >= LEASE));
        assert!(
            !ledger.pressed
                || self
                    .waiting
                    .values()
                    .any(|(d, p)| *p >= 0 && !d.cpu.is_zero())
        );
    }

    fn submit(&mut self, demand: Demand, priority: i32) -> u64 {
        self.next += 1;
        let task = self.next;
        self.waiting.insert(task, (demand.clone(), priority));
        self.event(|ledger, out| ledger.submit(task, demand, priority, out));
        task
    }

    fn finish(&mut self, task: u64) {
        self.running.remove(&task);
        self.ended.insert(task);
        self.event(|ledger, out| assert!(ledger.finish(task, out)));
    }

    fn lease(&mut self) -> bool {
        let room = self.ledger.free.cpu >= LEASE;
        let granted = self.ledger.lease();
        assert!(room || !granted, "a lease never overdraws");
        self.leases += u64::from(granted);
        self.check();
        granted
    }

    fn step(&mut self, step: &Step) {
        let pick = |index: &prop::sample::Index, ids: Vec<u64>| {
            (!ids.is_empty()).then(|| ids[index.index(ids.len())])
        };
        match step {
            Step::Submit(demand, priority) => {
                self.submit(demand.clone(), *priority);
            }
            Step::Finish(index) => {
                if let Some(task) = pick(index, self.running.keys().copied().collect()) {
                    self.finish(task);
                }
            }
            Step::Cancel(index) => {
                if let Some(task) = pick(index, self.waiting.keys().copied().collect()) {
                    self.waiting.remove(&task);
                    self.ended.insert(task);
                    self.event(|ledger, out| assert!(ledger.cancel(task, out)));
                }
            }
            Step::Block(index) => {
                if let Some(task) = pick(index, self.running.keys().copied().collect()) {
                    let running = self.running.get_mut(&task).unwrap();
                    running.2 = !running.2;
                    if running.2 {
                        self.event(|ledger, out| ledger.lend(task, out));
                    } else {
                        self.ledger.reclaim(task);
                    }
                }
            }
            Step::Lease => {
                self.lease();
            }
            Step::Unlease if self.leases > self.lent_leases => {
                self.leases -= 1;
                self.event(Ledger::unlease);
            }
            Step::LendLease if self.leases > self.lent_leases => {
                self.lent_leases += 1;
                self.event(Ledger::lend_lease);
            }
            Step::ReclaimLease if self.lent_leases > 0 => {
                self.lent_leases -= 1;
                self.ledger.reclaim_lease();
            }
            Step::Idle => self.event(Ledger::idle),
            Step::Unlease | Step::LendLease | Step::ReclaimLease => {}
        }
        self.check();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Submit(Demand, i32),
    Finish(prop::sample::Index),
    Cancel(prop::sample::Index),
    Block(prop::sample::Index),
    Lease,
    Unlease,
    LendLease,
    ReclaimLease,
    Idle,
}

fn any_demand() -> impl Strategy<Value = Demand> {
    let cpu = prop::sample::select(vec![0.0, 0.5, 1.0, 3.0, 4.0, 5.0]);
    let gpu = prop::sample::select(vec![0.0, 0.0, 0.25, 0.5, 1.0, 2.0]);
    let tpu = prop::sample::select(vec![0.0, 0.0, 0.0, 0.5, 2.0]);
    (cpu, gpu, tpu).prop_map(|(cpu, gpu, tpu)| {
        cpus(cpu)
            .with_gpu(units(gpu))
            .with_custom("tpu", units(tpu))
    })
}

fn feasible_demand() -> impl Strategy<Value = Demand> {
    any_demand().prop_map(|demand| {
        let cpu = demand.cpu.min(units(4.0));
        demand.with_cpu(cpu)
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => (any_demand(), -1i32..3).prop_map(|(demand, priority)| Step::Submit(demand, priority)),
        4 => index().prop_map(Step::Finish),
        1 => index().prop_map(Step::Cancel),
        2 => index().prop_map(Step::Block),
        2 => Just(Step::Lease),
        1 => Just(Step::Unlease),
        1 => Just(Step::LendLease),
        1 => Just(Step::ReclaimLease),
        1 => Just(Step::Idle),
    ]
}

proptest! {
    /// The books add up after every event, and in the end nobody is forgotten.
    #[test]
    fn the_books_add_up_and_everyone_ends(steps in prop::collection::vec(any_step(), 0..120)) {
        let mut books = Books::new();
        for step in &steps {
            books.step(step);
        }
        // Wind down: who blocked goes on, what runs ends, executors find nothing to do.
        while books.lent_leases > 0 {
            books.step(&Step::ReclaimLease);
        }
        while books.leases > 0 {
            books.step(&Step::Unlease);
        }
        books.step(&Step::Idle);
        while let Some((&task, running)) = books.running.first_key_value() {
            if running.2 {
                books.running.get_mut(&task).unwrap().2 = false;
                books.ledger.reclaim(task);
            }
            books.finish(task);
            books.step(&Step::Idle);
        }
        prop_assert!(books.waiting.is_empty());
        prop_assert_eq!(books.ended.len() as u64, books.next);
        prop_assert_eq!(books.ledger.free.cpu, 40_000);
        prop_assert!(!books.ledger.pressed() && !books.ledger.wants_idle());
    }

    /// However others come and go, a task of priority 0 starts while everyone who runs ends after a
    /// while, and so does a common task.
    #[test]
    fn nobody_starves(
        big in feasible_demand(),
        common in any::<bool>(),
        stream in prop::collection::vec((any_demand(), -1i32..1), 400),
        ages in prop::collection::vec(1usize..12, 400),
    ) {
        let mut books = Books::new();
        let mut deadlines: BTreeMap<u64, usize> = BTreeMap::new();
        let mut lease_ends: Vec<usize> = Vec::new();
        let mut watched = None;
        let mut denied = false;
        for (now, (demand, priority)) in stream.iter().enumerate() {
            if now == 20 {
                if common {
                    denied = !books.lease();
                    if !denied {
                        return Ok(());
                    }
                } else {
                    watched = Some(books.submit(big.clone(), 0));
                }
            }
            books.submit(demand.clone(), *priority);
            let offered = books.offers;
            for task in books.running.keys() {
                deadlines.entry(*task).or_insert(now + ages[now]);
            }
            let due: Vec<u64> = deadlines.iter().filter(|d| *d.1 <= now).map(|d| *d.0).collect();
            for task in due {
                deadlines.remove(&task);
                books.finish(task);
            }
            // Executors: they give leases back between tasks when pressed, and always want more.
            let pressed = books.ledger.pressed();
            let ends = lease_ends.iter().filter(|end| **end <= now || pressed).count();
            lease_ends.retain(|end| *end > now && !pressed);
            for _ in 0..ends {
                books.step(&Step::Unlease);
            }
            if denied && (books.ledger.offered || books.offers > offered) {
                return Ok(());
            }
            if !denied && books.lease() {
                lease_ends.push(now + ages[now] * 3);
            }
            if watched.is_some_and(|task| books.ended.contains(&task)) {
                return Ok(());
            }
        }
        let waits = watched.map(|task| books.ledger.waiting(task));
        prop_assert!(false, "380 rounds were not enough: {waits:?}");
    }
}
