//! Resource amounts: what a task demands and what a node has, as plain fixed-point data.
//!
//! Invariant: amounts are whole multiples of 1/10,000 and never negative, so sums are exact and
//! what a task takes is what it gives back. Custom resources are sorted by name, named once, and
//! never zero. Left out: who holds what (`core::ledger`), and the options of a call that carry a
//! demand.

use std::error::Error;
use std::fmt;

/// An amount of one resource, in steps of 1/10,000: exact to add and to subtract, unlike a float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Units(u64);

impl Units {
    /// Nothing.
    pub const ZERO: Units = Units(0);
    /// One whole unit: one CPU, one GPU.
    pub const ONE: Units = Units(Units::PER_ONE);
    /// Steps in one whole unit.
    pub const PER_ONE: u64 = 10_000;
    /// The largest amount accepted, in whole units.
    pub const MAX_WHOLE: u64 = 1_000_000_000;

    /// `n` whole units, at most [`Units::MAX_WHOLE`].
    pub const fn whole(n: u64) -> Units {
        let n = if n > Units::MAX_WHOLE {
            Units::MAX_WHOLE
        } else {
            n
        };
        Units(n * Units::PER_ONE)
    }

    /// The amount nearest below `amount`.
    ///
    /// Rounding is downwards so that n tasks of 1/n each always fit into one; what a float loses in
    /// writing a decimal (0.29 is stored as a little less) is given back first.
    pub fn from_f64(amount: f64) -> Result<Units, BadAmount> {
        if amount.is_nan() {
            return Err(BadAmount::NotANumber);
        }
        if amount < 0.0 {
            return Err(BadAmount::Negative(amount));
        }
        if amount > Units::MAX_WHOLE as f64 {
            return Err(BadAmount::TooLarge(amount));
        }
        let scaled = amount * Units::PER_ONE as f64;
        let steps = (scaled * (1.0 + 4.0 * f64::EPSILON)).floor() as u64;
        if steps == 0 && amount > 0.0 {
            return Err(BadAmount::TooSmall(amount));
        }
        Ok(Units(steps))
    }

    /// The amount in steps of 1/10,000.
    pub const fn steps(self) -> u64 {
        self.0
    }

    /// An amount given in steps of 1/10,000, at most [`Units::MAX_WHOLE`] whole units.
    pub const fn from_steps(steps: u64) -> Units {
        let max = Units::MAX_WHOLE * Units::PER_ONE;
        Units(if steps > max { max } else { steps })
    }

    /// The amount as a float, for display and metrics.
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / Units::PER_ONE as f64
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether this has no fractional part.
    pub const fn is_whole(self) -> bool {
        self.0.is_multiple_of(Units::PER_ONE)
    }
}

impl fmt::Display for Units {
    /// Without trailing zeros: `4`, `0.5`, `0.0001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / Units::PER_ONE, self.0 % Units::PER_ONE);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{rest:04}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// Why a number is no resource amount.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum BadAmount {
    /// NaN.
    NotANumber,
    /// Less than zero.
    Negative(f64),
    /// More than [`Units::MAX_WHOLE`], infinity included.
    TooLarge(f64),
    /// Above zero, but less than the smallest step: it would silently become "nothing".
    TooSmall(f64),
}

impl fmt::Display for BadAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadAmount::NotANumber => write!(f, "a resource amount must be a number, not NaN"),
            BadAmount::Negative(x) => write!(f, "a resource amount cannot be negative, but is {x}"),
            BadAmount::TooLarge(x) => {
                write!(
                    f,
                    "a resource amount is at most {}, but is {x}",
                    Units::MAX_WHOLE
                )
            }
            BadAmount::TooSmall(x) => {
                write!(
                    f,
                    "{x} is below the smallest resource amount 0.0001: ask for that or for 0"
                )
            }
        }
    }
}

impl Error for BadAmount {}

/// What a task holds while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Demand {
    /// CPUs.
    pub cpu: Units,
    /// GPUs: a fraction of one, or a whole number of them.
    pub gpu: Units,
    custom: Vec<(String, Units)>,
}

impl Demand {
    /// Needs nothing: always runs at once.
    pub const NONE: Demand = Demand::cpu_only(Units::ZERO);
    /// The demand of a task that says nothing about its resources.
    pub const ONE_CPU: Demand = Demand::cpu_only(Units::ONE);

    /// So many CPUs and nothing else.
    pub const fn cpu_only(cpu: Units) -> Demand {
        Demand {
            cpu,
            gpu: Units::ZERO,
            custom: Vec::new(),
        }
    }

    /// The same with so many CPUs.
    #[must_use]
    pub fn with_cpu(mut self, cpu: Units) -> Demand {
        self.cpu = cpu;
        self
    }

    /// The same with so many GPUs.
    #[must_use]
    pub fn with_gpu(mut self, gpu: Units) -> Demand {
        self.gpu = gpu;
        self
    }

    /// The same with so much of the resource `name`; a later call for one name replaces the
    /// earlier.
    /// `cpu` and `gpu` are the names of the built-in two, so that a name means one thing in
    /// messages.
    #[must_use]
    pub fn with_custom(mut self, name: &str, amount: Units) -> Demand {
        match name {
            CPU => self.cpu = amount,
            GPU => self.gpu = amount,
            _ => put(&mut self.custom, name, amount),
        }
        self
    }

    /// The custom resources, sorted by name, none of them zero.
    pub fn custom(&self) -> &[(String, Units)] {
        &self.custom
    }

    /// Whether this is exactly one CPU: the common task, which executors run under a lease.
    pub fn is_one_cpu(&self) -> bool {
        self.cpu == Units::ONE && self.gpu.is_zero() && self.custom.is_empty()
    }
}

impl fmt::Display for Demand {
    /// `2 cpu, 0.5 gpu, 1 tpu`, or `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let builtin = [(CPU, self.cpu), (GPU, self.gpu)];
        let custom = self
            .custom
            .iter()
            .map(|(name, amount)| (name.as_str(), *amount));
        let mut first = true;
        for (name, amount) in builtin.into_iter().chain(custom) {
            if !amount.is_zero() {
                write!(f, "{}{amount} {name}", if first { "" } else { ", " })?;
                first = false;
            }
        }
        if first { write!(f, "nothing") } else { Ok(()) }
    }
}

/// What a node has. GPUs are whole devices with ids from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capacity {
    /// CPUs; may be a fraction.
    pub cpu: Units,
    /// GPU devices.
    pub gpus: u32,
    custom: Vec<(String, Units)>,
}

impl Capacity {
    /// A node with so many CPUs and GPU devices.
    pub const fn new(cpu: Units, gpus: u32) -> Capacity {
        Capacity {
            cpu,
            gpus,
            custom: Vec::new(),
        }
    }

    /// The same with so much of the custom resource `name`; a later call for one name replaces the
    /// earlier. `cpu` and `gpu` are the built-in two, of GPUs the whole part.
    #[must_use]
    pub fn with_custom(mut self, name: &str, amount: Units) -> Capacity {
        match name {
            CPU => self.cpu = amount,
            GPU => self.gpus = u32::try_from(amount.0 / Units::PER_ONE).unwrap_or(u32::MAX),
            _ => put(&mut self.custom, name, amount),
        }
        self
    }

    /// The custom resources, sorted by name, none of them zero.
    pub fn custom(&self) -> &[(String, Units)] {
        &self.custom
    }

    /// All GPUs together.
    pub const fn gpu(&self) -> Units {
        Units::whole(self.gpus as u64)
    }

    /// The first resource for which `demand` could not be met even if the node were empty.
    pub fn lacks(&self, demand: &Demand) -> Option<Infeasible> {
        let short = |resource: &str, requested: Units, capacity: Units| {
            Some(Infeasible {
                resource: resource.to_owned(),
                requested,
                capacity,
            })
        };
        if demand.cpu > self.cpu {
            return short(CPU, demand.cpu, self.cpu);
        }
        // More than one GPU means whole devices: 1.5 cannot be met by any node.
        if demand.gpu > self.gpu() || is_uneven(demand.gpu) {
            return short(GPU, demand.gpu, self.gpu());
        }
        for (name, requested) in &demand.custom {
            let have = self.custom.binary_search_by(|(n, _)| n.cmp(name));
            let have = have.map_or(Units::ZERO, |at| self.custom[at].1);
            if *requested > have {
                return short(name, *requested, have);
            }
        }
        None
    }
}

/// A demand that a node can never meet. Its message says what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Infeasible {
    /// `cpu`, `gpu` or the name of a custom resource.
    pub resource: String,
    /// How much the task demands.
    pub requested: Units,
    /// How much the node has when nothing runs.
    pub capacity: Units,
}

impl fmt::Display for Infeasible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Infeasible {
            resource,
            requested,
            capacity,
        } = self;
        if resource == GPU && is_uneven(*requested) {
            let below = requested.0 / Units::PER_ONE;
            return write!(
                f,
                "needs {requested} of `gpu`, but more than one GPU is given as whole devices only: \
                 ask for {below} or {}",
                below + 1
            );
        }
        write!(
            f,
            "needs {requested} of `{resource}` but this node has {capacity}: \
             lower the request or start the node with "
        )?;
        match resource.as_str() {
            CPU => write!(f, "Config::num_cpus({requested})"),
            GPU => write!(
                f,
                "Config::num_gpus({})",
                requested.0.div_ceil(Units::PER_ONE)
            ),
            name => write!(f, "Config::resource({name:?}, {requested})"),
        }
    }
}

impl Error for Infeasible {}

const CPU: &str = "cpu";
const GPU: &str = "gpu";

/// More than one GPU, but not a whole number of them.
fn is_uneven(gpu: Units) -> bool {
    gpu > Units::ONE && !gpu.is_whole()
}

/// Sets one entry of a sorted list, where zero means absent.
fn put(list: &mut Vec<(String, Units)>, name: &str, amount: Units) {
    match list.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
        Ok(at) if amount.is_zero() => {
            list.remove(at);
        }
        Ok(at) => list[at].1 = amount,
        Err(_) if amount.is_zero() => {}
        Err(at) => list.insert(at, (name.to_owned(), amount)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(x: f64) -> Units {
        Units::from_f64(x).unwrap()
    }

    #[test]
    fn floats_become_exact_steps() {
        for (x, steps) in [
            (0.0, 0),
            (-0.0, 0),
            (1.0, 10_000),
            (0.29, 2_900),
            (0.7, 7_000),
        ] {
            assert_eq!(units(x).steps(), steps, "{x}");
        }
        assert_eq!(units(0.0001).steps(), 1);
        assert_eq!(units(1e9), Units::whole(1_000_000_000));
    }

    #[test]
    fn every_amount_of_four_decimals_is_exact() {
        for steps in (0..200_000).chain(9_999_999_990_000..10_000_000_000_000) {
            let x = steps as f64 / 10_000.0;
            assert_eq!(units(x).steps(), steps);
        }
    }

    #[test]
    fn n_shares_of_an_nth_fit_into_one() {
        for n in 1..2_000u64 {
            assert!(units(1.0 / n as f64).steps() * n <= Units::PER_ONE, "{n}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        assert_eq!(Units::from_f64(f64::NAN), Err(BadAmount::NotANumber));
        assert_eq!(Units::from_f64(-0.5), Err(BadAmount::Negative(-0.5)));
        assert_eq!(Units::from_f64(1.1e9), Err(BadAmount::TooLarge(1.1e9)));
        assert_eq!(
            Units::from_f64(f64::INFINITY),
            Err(BadAmount::TooLarge(f64::INFINITY))
        );
        assert_eq!(Units::from_f64(0.00001), Err(BadAmount::TooSmall(0.00001)));
        assert_eq!(
            Units::from_f64(f64::MIN_POSITIVE),
            Err(BadAmount::TooSmall(f64::MIN_POSITIVE))
        );
    }

    #[test]
    fn amounts_print_short() {
        let text = |x: f64| units(x).to_string();
        assert_eq!(
            [text(4.0), text(0.5), text(0.0001), text(2.25)],
            ["4", "0.5", "0.0001", "2.25"]
        );
    }

    #[test]
    fn custom_resources_are_sorted_once_and_never_zero() {
        let demand = Demand::ONE_CPU
            .with_custom("tpu", units(2.0))
            .with_custom("disk", units(1.0))
            .with_custom("tpu", units(3.0))
            .with_custom("net", units(1.0))
            .with_custom("net", Units::ZERO)
            .with_custom("gpu", units(0.5));
        let expect = [
            ("disk".to_owned(), units(1.0)),
            ("tpu".to_owned(), units(3.0)),
        ];
        assert_eq!(demand.custom(), expect);
        assert_eq!(demand.gpu, units(0.5));
        assert_eq!(demand.to_string(), "1 cpu, 0.5 gpu, 1 disk, 3 tpu");
        assert_eq!(Demand::NONE.to_string(), "nothing");
        assert!(Demand::ONE_CPU.is_one_cpu() && !demand.is_one_cpu());
    }

    #[test]
    fn what_cannot_be_met_says_what_to_change() {
        let node = Capacity::new(units(2.0), 0).with_custom("tpu", units(1.0));
        let message = |demand: Demand| node.lacks(&demand).map(|why| why.to_string());
        assert_eq!(
            message(Demand::cpu_only(units(2.0)).with_custom("tpu", units(1.0))),
            None
        );
        assert_eq!(
            message(Demand::NONE.with_gpu(units(4.0))).unwrap(),
            "needs 4 of `gpu` but this node has 0: \
             lower the request or start the node with Config::num_gpus(4)"
        );
        assert_eq!(
            message(Demand::cpu_only(units(2.5))).unwrap(),
            "needs 2.5 of `cpu` but this node has 2: \
             lower the request or start the node with Config::num_cpus(2.5)"
        );
        assert_eq!(
            message(Demand::NONE.with_custom("tpu", units(1.5))).unwrap(),
            "needs 1.5 of `tpu` but this node has 1: \
             lower the request or start the node with Config::resource(\"tpu\", 1.5)"
        );
        assert_eq!(
            message(Demand::NONE.with_custom("disk", units(1.0))).unwrap(),
            "needs 1 of `disk` but this node has 0: \
             lower the request or start the node with Config::resource(\"disk\", 1)"
        );
    }

    #[test]
    fn more_than_one_gpu_must_be_whole() {
        let node = Capacity::new(units(1.0), 4);
        let uneven = Demand::NONE.with_gpu(units(1.5));
        assert_eq!(
            node.lacks(&uneven).unwrap().to_string(),
            "needs 1.5 of `gpu`, but more than one GPU is given as whole devices only: \
             ask for 1 or 2"
        );
        assert_eq!(node.lacks(&Demand::NONE.with_gpu(units(0.5))), None);
        assert_eq!(node.lacks(&Demand::NONE.with_gpu(units(4.0))), None);
        // A fraction of a GPU on a node without any names one whole device as the remedy.
        let none = Capacity::new(units(1.0), 0)
            .lacks(&Demand::NONE.with_gpu(units(0.5)))
            .unwrap();
        assert!(none.to_string().ends_with("Config::num_gpus(1)"), "{none}");
    }
}
