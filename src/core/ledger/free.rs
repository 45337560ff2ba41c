//! The free amounts of a node: taking a demand out of them and giving it back.
//!
//! Invariant: GPU shares lie between nothing and one whole device; custom amounts are never
//! negative; CPUs are only after a lent CPU was taken back. A demand is taken in one fixed order of
//! resources (custom by name, then GPUs, then CPUs), which is what lets a waiting task collect
//! without deadlock or starvation. Left out: who waits and who holds.

use crate::base::{Capacity, Demand, Units};

const WHOLE: u64 = Units::PER_ONE;

/// A demand with the names of custom resources looked up.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) demand: Demand,
    /// Index into [`Free::custom`] and steps.
    custom: Vec<(usize, u64)>,
}

impl Shape {
    /// `demand` must be feasible on `capacity`; a resource that the node does not have is dropped.
    pub(super) fn new(demand: Demand, capacity: &Capacity) -> Shape {
        let find = |name: &String| {
            capacity
                .custom()
                .binary_search_by(|(n, _)| n.cmp(name))
                .ok()
        };
        let named = demand.custom().iter();
        let custom = named
            .filter_map(|(name, amount)| Some((find(name)?, amount.steps())))
            .collect();
        Shape { demand, custom }
    }

    /// CPUs in steps, signed as [`Free::cpu`] is.
    pub(super) fn cpu(&self) -> i64 {
        steps(self.demand.cpu)
    }
}

/// An amount as a signed number of steps. Amounts are at most 1e13 steps, so it always fits.
pub(super) fn steps(amount: Units) -> i64 {
    i64::try_from(amount.steps()).unwrap_or(i64::MAX)
}

/// The first resource, in the order of taking, of which there is too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// Index into the capacity's custom resources.
    Custom(usize),
    Gpu,
    Cpu,
}

/// Free amounts, in steps of 1/10,000.
#[derive(Debug)]
pub(super) struct Free {
    /// Signed: a task that blocked in `get` takes its CPUs back even when others have them by then.
    pub(super) cpu: i64,
    /// The free share of each device, by id.
    pub(super) gpus: Vec<u64>,
    /// By index into the capacity's custom resources.
    pub(super) custom: Vec<u64>,
}

impl Free {
    pub(super) fn new(capacity: &Capacity) -> Free {
        Free {
            cpu: steps(capacity.cpu),
            gpus: vec![WHOLE; capacity.gpus as usize],
            custom: capacity
                .custom()
                .iter()
                .map(|(_, amount)| amount.steps())
                .collect(),
        }
    }

    /// Becomes a copy of `other`, in the memory it has.
    pub(super) fn copy_from(&mut self, other: &Free) {
        self.cpu = other.cpu;
        self.gpus.clone_from(&other.gpus);
        self.custom.clone_from(&other.custom);
    }

    /// Which resource `shape` would lack.
    pub(super) fn lacks(&self, shape: &Shape) -> Option<Lack> {
        for &(at, need) in &shape.custom {
            if self.custom[at] < need {
                return Some(Lack::Custom(at));
            }
        }
        if !self.has_gpu(shape.demand.gpu) {
            return Some(Lack::Gpu);
        }
        if self.has_cpu(shape.cpu()) {
            None
        } else {
            Some(Lack::Cpu)
        }
    }

    /// Sets `shape` aside. `Ok`: all of it, on these GPUs. `Err`: it lacks this; what comes before
    /// that in the order stays set aside, and none of what it lacks is left for those behind.
    pub(super) fn collect(&mut self, shape: &Shape) -> Result<Vec<u32>, Lack> {
        for &(at, need) in &shape.custom {
            if self.custom[at] < need {
                self.custom[at] = 0;
                return Err(Lack::Custom(at));
            }
            self.custom[at] -= need;
        }
        if !self.has_gpu(shape.demand.gpu) {
            self.gpus.fill(0);
            return Err(Lack::Gpu);
        }
        let gpus = self.pick_gpus(shape.demand.gpu);
        self.take_gpus(shape, &gpus);
        if !self.has_cpu(shape.cpu()) {
            self.close_cpu();
            return Err(Lack::Cpu);
        }
        self.cpu -= shape.cpu();
        Ok(gpus)
    }

    /// Takes what [`Free::collect`] found on a copy of these amounts.
    pub(super) fn take(&mut self, shape: &Shape, gpus: &[u32]) {
        self.cpu -= shape.cpu();
        for &(at, need) in &shape.custom {
            self.custom[at] -= need;
        }
        self.take_gpus(shape, gpus);
    }

    /// Gives back all but the CPUs, which may be lent.
    pub(super) fn give_devices(&mut self, shape: &Shape, gpus: &[u32]) {
        for &(at, need) in &shape.custom {
            self.custom[at] += need;
        }
        let share = shape.demand.gpu.steps().min(WHOLE);
        for &id in gpus {
            self.gpus[id as usize] += share;
        }
    }

    /// Leaves no CPU for those behind; a debt stays a debt.
    pub(super) fn close_cpu(&mut self) {
        self.cpu = self.cpu.min(0);
    }

    /// Needing none is always met, even while CPUs are overdrawn.
    pub(super) fn has_cpu(&self, need: i64) -> bool {
        need == 0 || self.cpu >= need
    }

    fn has_gpu(&self, need: Units) -> bool {
        if need >= Units::ONE {
            let whole = self.gpus.iter().filter(|free| **free == WHOLE).count();
            return whole as u64 >= need.steps() / WHOLE;
        }
        need.is_zero() || self.gpus.iter().any(|free| *free >= need.steps())
    }

    /// Whole devices are the free ones with the lowest ids. A fraction goes to the fullest device
    /// that has room, so that whole ones stay whole.
    fn pick_gpus(&self, need: Units) -> Vec<u32> {
        let ids = (0u32..).zip(self.gpus.iter().copied());
        if need >= Units::ONE {
            let count = usize::try_from(need.steps() / WHOLE).unwrap_or(usize::MAX);
            return ids
                .filter(|(_, free)| *free == WHOLE)
                .map(|(id, _)| id)
                .take(count)
                .collect();
        }
        if need.is_zero() {
            return Vec::new();
        }
        let roomy = ids.filter(|(_, free)| *free >= need.steps());
        roomy
            .min_by_key(|(id, free)| (*free, *id))
            .map(|(id, _)| id)
            .into_iter()
            .collect()
    }

    fn take_gpus(&mut self, shape: &Shape, gpus: &[u32]) {
        let share = shape.demand.gpu.steps().min(WHOLE);
        for &id in gpus {
            self.gpus[id as usize] -= share;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(x: f64) -> Units {
        Units::from_f64(x).unwrap()
    }

    #[test]
    fn fractions_go_to_the_fullest_gpu_with_room() {
        let capacity = Capacity::new(units(1.0), 3);
        let mut free = Free::new(&capacity);
        let gpu = |x: f64| Shape::new(Demand::NONE.with_gpu(units(x)), &capacity);
        assert_eq!(free.collect(&gpu(0.5)), Ok(vec![0]));
        assert_eq!(free.collect(&gpu(0.75)), Ok(vec![1]));
        assert_eq!(
            free.collect(&gpu(0.25)),
            Ok(vec![1]),
            "0.25 is left on 1, 0.5 on 0"
        );
        assert_eq!(free.collect(&gpu(0.25)), Ok(vec![0]));
        assert_eq!(
            free.collect(&gpu(1.0)),
            Ok(vec![2]),
            "the one that stayed whole"
        );
        free.give_devices(&gpu(0.75), &[1]);
        free.give_devices(&gpu(0.25), &[1]);
        assert_eq!(free.gpus, [2_500, 10_000, 0]);
        assert_eq!(free.lacks(&gpu(2.0)), Some(Lack::Gpu));
    }

    #[test]
    fn what_is_lacked_is_closed_and_what_comes_before_is_set_aside() {
        let capacity = Capacity::new(units(4.0), 2).with_custom("tpu", units(2.0));
        let mut free = Free::new(&capacity);
        let both = Demand::cpu_only(units(1.0))
            .with_gpu(units(2.0))
            .with_custom("tpu", units(1.0));
        let shape = Shape::new(both, &capacity);
        free.gpus[1] = 5_000;
        assert_eq!(free.lacks(&shape), Some(Lack::Gpu));
        assert_eq!(free.collect(&shape), Err(Lack::Gpu));
        assert_eq!(
            (free.cpu, free.gpus, free.custom),
            (40_000, vec![0, 0], vec![10_000])
        );
    }

    #[test]
    fn an_overdrawn_node_still_meets_a_demand_without_cpu() {
        let capacity = Capacity::new(units(1.0), 1);
        let mut free = Free::new(&capacity);
        free.cpu = -10_000;
        free.close_cpu();
        assert_eq!(free.cpu, -10_000);
        let smallest = Shape::new(Demand::cpu_only(units(0.0001)), &capacity);
        assert_eq!(free.lacks(&smallest), Some(Lack::Cpu));
        let gpu = Shape::new(Demand::NONE.with_gpu(units(1.0)), &capacity);
        assert_eq!(free.collect(&gpu), Ok(vec![0]));
    }
}
