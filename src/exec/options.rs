//! A call's options: what the attribute said, what the call itself says, and what of it the record must carry.
//!
//! Invariant: a call without options beyond the ordinary carries none of this ([`Extra`] is absent).
//! Left out: the builder methods that users see (`api`).

use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::{BadBytes, Defaults, Demand, Error, LabelMatch, Strategy, Units, parse_bytes};
use crate::core::history::{BOUND, Terms};

/// Options of one call or of one actor's creation, each overriding its attribute's.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// CPUs.
    pub num_cpus: Option<f64>,
    /// GPUs.
    pub num_gpus: Option<f64>,
    /// Custom resources; any given here replaces the attribute's of the same name.
    pub resources: Vec<(String, f64)>,
    /// Further attempts after a crash or, with `retry_panics`, a panic.
    pub max_retries: Option<u32>,
    /// Whether panics are retried.
    pub retry_panics: Option<bool>,
    /// Higher runs first.
    pub priority: Option<i32>,
    /// Restarts of an actor.
    pub max_restarts: Option<u32>,
    /// `&self` methods side by side.
    pub max_concurrency: Option<u32>,
    /// Bound of the mailbox.
    pub max_pending: Option<u32>,
    /// Whether a full mailbox fails the call instead of waiting.
    pub fail_when_full: bool,
    /// Whether a panic ends the actor.
    pub restart_on_panic: Option<bool>,
    /// Whether it runs in a worker process.
    pub isolate: Option<bool>,
    /// What its worker process may take.
    pub memory: Option<Memory>,
    /// After how many calls its state is saved.
    pub checkpoint_every: Option<u32>,
    /// After how long, if it was called.
    pub checkpoint_interval: Option<std::time::Duration>,
    /// What the log of its calls may take.
    pub log_bytes: Option<Memory>,
    /// How many other nodes keep its history.
    pub replicas: Option<u32>,
    /// Whether its checkpoints are written outside of all nodes, too.
    pub durable_checkpoints: Option<bool>,
    /// The actor's name.
    pub name: Option<String>,
    /// Whether the actor outlives its handles.
    pub detached: bool,
    /// Whether a living actor of that name is taken instead of a new one.
    pub get_or_create: bool,
    /// On which node.
    pub strategy: Strategy,
}

impl Options {
    /// One more label that the node must match.
    pub fn want_label(&mut self, name: &str, what: LabelMatch) {
        let mut labels = match std::mem::take(&mut self.strategy) {
            Strategy::Labels(labels) => labels,
            _ => Vec::new(),
        };
        labels.push((name.to_owned(), what));
        self.strategy = Strategy::Labels(labels);
    }
}

/// An amount of memory: a number of bytes, or a text like `"512M"`, `"1.5GiB"` or `"2G"`.
///
/// `K`, `M`, `G`, `T` and `KiB` .. `TiB` are steps of 1024; `KB` .. `TB` are steps of 1000. A text that is none fails
/// the call it is given to with [`Error::BadBytes`](crate::base::Error::BadBytes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory(Given);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    Bytes(u64),
    Text(String),
}

impl Memory {
    /// The bytes.
    pub fn bytes(&self) -> Result<u64, Error> {
        let bad = |text: &str, why| Error::BadBytes {
            option: "memory",
            text: text.to_owned(),
            why,
        };
        match &self.0 {
            Given::Bytes(0) => Err(bad("0", BadBytes::Zero)),
            Given::Bytes(n) => Ok(*n),
            Given::Text(text) => parse_bytes(text).map_err(|why| bad(text, why)),
        }
    }
}

impl From<u64> for Memory {
    fn from(bytes: u64) -> Memory {
        Memory(Given::Bytes(bytes))
    }
}

impl From<&str> for Memory {
    fn from(text: &str) -> Memory {
        Memory(Given::Text(text.to_owned()))
    }
}

impl From<String> for Memory {
    fn from(text: String) -> Memory {
        Memory(Given::Text(text))
    }
}

/// How often a crashed call is tried again unless told otherwise.
pub const DEFAULT_RETRIES: u32 = 3;

/// What a record carries beyond the ordinary.
#[derive(Debug)]
pub struct Extra {
    /// What it takes while it runs, if that is not the common one CPU at priority 0.
    pub demand: Option<Demand>,
    /// Higher runs first.
    pub priority: i32,
    /// Further attempts after a panic.
    pub panic_retries: u32,
    /// Further attempts after the death of its worker process.
    pub crash_retries: u32,
    /// Further attempts after the death of the node that ran it.
    pub death_retries: u32,
    /// Whether it runs in a worker process.
    pub isolate: bool,
    /// Bytes that its worker process may take.
    pub memory: Option<u64>,
    /// The worker process that runs it now.
    pub host: parking_lot::Mutex<Option<std::sync::Arc<super::isolate::Process>>>,
    /// Attempts begun so far.
    pub attempts: AtomicU32,
    /// The GPUs it was given.
    pub gpus: std::sync::OnceLock<Vec<u32>>,
    /// On which node it may run.
    pub strategy: Strategy,
    /// Dropped with the record: tells whoever keeps books of it that it is gone.
    pub ticket: Option<Box<dyn std::any::Any + Send + Sync>>,
}

impl Extra {
    /// How many attempts were begun.
    pub fn attempt(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// What the same call carries when it is made once more.
    pub fn again(&self) -> Extra {
        Extra {
            demand: self.demand.clone(),
            priority: self.priority,
            panic_retries: self.panic_retries,
            crash_retries: self.crash_retries,
            death_retries: self.death_retries,
            isolate: self.isolate,
            memory: self.memory,
            strategy: self.strategy.clone(),
            ..Extra::of_actor(Demand::NONE)
        }
    }

    /// What a call carries in a worker process: the GPUs that the node gave it.
    pub fn there(gpus: Vec<u32>) -> Extra {
        Extra {
            demand: None,
            gpus: std::sync::OnceLock::from(gpus),
            ..Extra::of_actor(Demand::NONE)
        }
    }

    /// What an actor's constructor carries that needs resources.
    pub fn of_actor(demand: Demand) -> Extra {
        Extra {
            demand: Some(demand),
            priority: 0,
            panic_retries: 0,
            crash_retries: 0,
            death_retries: DEFAULT_RETRIES,
            isolate: false,
            memory: None,
            host: parking_lot::Mutex::new(None),
            attempts: AtomicU32::new(0),
            gpus: std::sync::OnceLock::new(),
            strategy: Strategy::Default,
            ticket: None,
        }
    }

    /// One more attempt; its number, from 1.
    pub fn begin_attempt(&self) -> u32 {
        self.attempts.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The demand that options and defaults spell, where nothing said means `base_cpu`.
pub fn demand(options: &Options, defaults: &Defaults, base_cpu: Units) -> Result<Demand, Error> {
    fn units(resource: &str, amount: f64) -> Result<Units, Error> {
        Units::from_f64(amount).map_err(|why| Error::BadAmount {
            resource: resource.to_owned(),
            why,
        })
    }
    let mut demand = Demand::cpu_only(match options.num_cpus.or(defaults.num_cpus) {
        Some(n) => units("num_cpus", n)?,
        None => base_cpu,
    });
    if let Some(n) = options.num_gpus.or(defaults.num_gpus) {
        demand.gpu = units("num_gpus", n)?;
    }
    let given = options.resources.iter().map(|(n, a)| (n.as_str(), *a));
    let inherited = defaults
        .resources
        .iter()
        .copied()
        .filter(|(n, _)| !options.resources.iter().any(|(m, _)| m == n));
    for (name, amount) in given.chain(inherited) {
        demand = demand.with_custom(name, units(name, amount)?);
    }
    Ok(demand)
}

/// Whether it runs in a worker process, and how many bytes that may take.
pub fn isolation(options: &Options, defaults: &Defaults) -> Result<(bool, Option<u64>), Error> {
    let isolate = options.isolate.or(defaults.isolate).unwrap_or(false);
    let memory = match &options.memory {
        Some(given) => Some(given.bytes()?),
        // The attribute's bound is that of the worker process which this call declines.
        None if !isolate => None,
        None => defaults.memory,
    };
    if memory.is_some() && !isolate {
        return Err(Error::BadOption {
            option: "memory",
            why: "it bounds a worker process, and this does not run in one: add isolate(true)",
        });
    }
    Ok((isolate, memory))
}

/// Whether an actor that is made on this node can have durable checkpoints, if it is to: with a place for them, and if anybody would
/// go on from one.
pub fn durable(given: Option<&Options>, defaults: &Defaults, place: bool) -> Result<(), Error> {
    let none = Options::default();
    let given = given.unwrap_or(&none);
    if given.durable_checkpoints.or(defaults.durable_checkpoints) != Some(true) {
        return Ok(());
    }
    let why = if !place {
        "nobody said where they are to be: give a folder or a URL that all nodes reach with Config::durable or MOBULA_DURABLE, on the actor's node too"
    } else if given.max_restarts.or(defaults.max_restarts).unwrap_or(0) == 0 {
        "an actor that is not made again goes on from none: give it max_restarts"
    } else if given.replicas.or(defaults.replicas) == Some(0) {
        "with replicas(0) its history is not kept, and nobody goes on from it: leave replicas out"
    } else {
        return Ok(());
    };
    let option = "durable_checkpoints";
    Err(Error::BadOption { option, why })
}

/// When an actor's checkpoints are due.
pub fn checkpoints(options: &Options, defaults: &Defaults) -> Result<Terms, Error> {
    let bad = |option, why| Err(Error::BadOption { option, why });
    let every = options.checkpoint_every.or(defaults.checkpoint_every);
    if every == Some(0) {
        let why = "leave it out to have checkpoints made when the log is long";
        return bad("checkpoint_every", why);
    }
    let interval = match (options.checkpoint_interval, defaults.checkpoint_interval) {
        (Some(given), _) => Some(given),
        (None, Some(secs)) => match std::time::Duration::try_from_secs_f64(secs) {
            Ok(interval) => Some(interval),
            Err(_) => return bad("checkpoint_interval", "it is more seconds than there are"),
        },
        (None, None) => None,
    };
    let bound = match &options.log_bytes {
        Some(given) => given.bytes().map_err(|e| match e {
            Error::BadBytes { text, why, .. } => {
                let option = "log_bytes";
                Error::BadBytes { option, text, why }
            }
            e => e,
        })?,
        None => defaults.log_bytes.unwrap_or(BOUND),
    };
    if bound == 0 {
        return bad("log_bytes", "a log without room holds no call");
    }
    Ok(Terms {
        every: every.map_or(0, u64::from),
        interval,
        bound,
        durable: options
            .durable_checkpoints
            .or(defaults.durable_checkpoints)
            .unwrap_or(false),
    })
}

/// What a task's record must carry; nothing for the common task.
pub fn task_extra(options: &Options, defaults: &Defaults) -> Result<Option<Box<Extra>>, Error> {
    let demand = demand(options, defaults, Units::ONE)?;
    let priority = options.priority.or(defaults.priority).unwrap_or(0);
    let retry_panics = options
        .retry_panics
        .or(defaults.retry_panics)
        .unwrap_or(false);
    let retries = options
        .max_retries
        .or(defaults.max_retries)
        .unwrap_or(DEFAULT_RETRIES);
    let panic_retries = if retry_panics { retries } else { 0 };
    let (isolate, memory) = isolation(options, defaults)?;
    let common = demand == Demand::ONE_CPU && priority == 0;
    let anywhere = options.strategy == Strategy::Default;
    let grouped = matches!(options.strategy, Strategy::Group { .. });
    let usual = options.max_retries.is_none() && defaults.max_retries.is_none();
    if common && panic_retries == 0 && !isolate && anywhere && usual {
        return Ok(None);
    }
    Ok(Some(Box::new(Extra {
        // What runs in a bundle is admitted by the bundle's ledger, however common it is.
        demand: (!common || grouped).then_some(demand),
        priority,
        panic_retries,
        crash_retries: if isolate { retries } else { 0 },
        death_retries: retries,
        isolate,
        memory,
        host: parking_lot::Mutex::new(None),
        attempts: AtomicU32::new(0),
        gpus: std::sync::OnceLock::new(),
        strategy: options.strategy.clone(),
        ticket: None,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_task_carries_nothing() {
        assert!(
            task_extra(&Options::default(), &Defaults::NONE)
                .unwrap()
                .is_none()
        );
        let one = Options {
            num_cpus: Some(1.0),
            ..Options::default()
        };
        assert!(task_extra(&one, &Defaults::NONE).unwrap().is_none());
    }

    #[test]
    fn a_call_overrides_its_attribute_piece_by_piece() {
        let attribute = Defaults {
            num_cpus: Some(2.0),
            resources: &[("disk", 1.0), ("net", 2.0)],
            ..Defaults::NONE
        };
        let call = Options {
            resources: vec![("net".into(), 5.0)],
            ..Options::default()
        };
        let d = demand(&call, &attribute, Units::ONE).unwrap();
        let expected = Demand::cpu_only(Units::whole(2))
            .with_custom("disk", Units::ONE)
            .with_custom("net", Units::whole(5));
        assert_eq!(d, expected);
    }

    #[test]
    fn an_isolated_task_carries_its_bound_and_its_retries() {
        let attribute = Defaults {
            isolate: Some(true),
            memory: Some(1 << 30),
            ..Defaults::NONE
        };
        let of = |o: &Options| task_extra(o, &attribute).unwrap();
        let e = of(&Options::default()).unwrap();
        assert!(e.isolate && e.demand.is_none());
        assert_eq!(
            (e.memory, e.crash_retries, e.panic_retries),
            (Some(1 << 30), DEFAULT_RETRIES, 0)
        );
        let call = Options {
            memory: Some("512M".into()),
            max_retries: Some(0),
            ..Options::default()
        };
        let e = of(&call).unwrap();
        assert_eq!((e.memory, e.crash_retries), (Some(512 << 20), 0));
        let declines = Options {
            isolate: Some(false),
            ..Options::default()
        };
        assert!(of(&declines).is_none(), "nor is the bound kept");
    }

    #[test]
    fn a_bound_that_cannot_be_kept_is_refused() {
        let with = |memory: Memory, isolate| Options {
            memory: Some(memory),
            isolate,
            ..Options::default()
        };
        let refused = |o: &Options| {
            let e = task_extra(o, &Defaults::NONE).unwrap_err();
            e.to_string()
        };
        let e = refused(&with("2X".into(), Some(true)));
        assert!(e.contains("memory \"2X\": units of memory are"), "{e}");
        let e = refused(&with(0.into(), Some(true)));
        assert!(e.contains("more than nothing"), "{e}");
        let e = refused(&with("2G".into(), None));
        assert!(e.contains("isolate(true)"), "{e}");
    }

    #[test]
    fn an_amount_that_is_none_is_refused_by_name() {
        let call = Options {
            num_gpus: Some(-1.0),
            ..Options::default()
        };
        let e = task_extra(&call, &Defaults::NONE).unwrap_err();
        assert!(e.to_string().contains("num_gpus"), "{e}");
    }
}
