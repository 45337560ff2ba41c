//! A node's settings.
//!
//! Invariant: a setting that cannot be honoured is refused at `init`, by name. Left out: reading files or variables.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::base::{Capacity, Error, Result, Units};
use crate::exec::isolate::{Settings, WorkerOutput};
use crate::exec::report::Reporter;
use crate::shm::HugePages;
use crate::store::SpillTo;
use crate::trace::Mode;

/// What the settings say about the dashboard.
#[cfg(feature = "dashboard")]
#[derive(Clone, Default)]
pub struct DashboardConfig {
    /// Whether there is one.
    pub on: bool,
    /// Where it listens.
    pub address: Option<std::net::SocketAddr>,
    /// What those who ask must know.
    pub token: Option<String>,
}

/// Settings of a node, for [`init`](Config::init).
///
/// ```
/// let mobula = mobula::Config::new().num_cpus(2).init()?;
/// # drop(mobula); Ok::<(), mobula::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "settings do nothing before init()"]
pub struct Config {
    num_cpus: Option<f64>,
    num_gpus: u32,
    resources: Vec<(String, f64)>,
    pub(super) store_bytes: Option<u64>,
    pub(super) prefault_bytes: Option<u64>,
    pub(super) spill: SpillTo,
    pub(super) durable: Option<PathBuf>,
    pub(super) store_patience: Duration,
    pub(super) huge_pages: HugePages,
    pub(super) patience: Duration,
    pub(super) reporter: Option<Reporter>,
    pub(super) attach: bool,
    pub(super) workers: Settings,
    #[cfg(feature = "dashboard")]
    pub(crate) dashboard: DashboardConfig,
    #[cfg(feature = "otel")]
    pub(super) otel: Option<super::otel::Otel>,
    pub(super) trace: Mode,
    pub(super) trace_bytes: usize,
    #[cfg(feature = "cluster")]
    pub(crate) cluster: Option<super::cluster::Joining>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("num_cpus", &self.num_cpus)
            .field("num_gpus", &self.num_gpus)
            .field("resources", &self.resources)
            .field("object_store_memory", &self.store_bytes)
            .field("prefault", &self.prefault_bytes)
            .field("huge_pages", &self.huge_pages)
            .field("spill", &self.spill)
            .field("durable", &self.durable)
            .field("store_patience", &self.store_patience)
            .field("shutdown_timeout", &self.patience)
            .field("attach", &self.attach)
            .field("worker_output", &self.workers.output)
            .field("memory_threshold", &self.workers.memory_threshold)
            .field("trace", &self.trace)
            .field("trace_memory", &self.trace_bytes)
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            num_cpus: None,
            num_gpus: 0,
            resources: Vec::new(),
            store_bytes: None,
            prefault_bytes: None,
            spill: SpillTo::default(),
            durable: None,
            store_patience: crate::store::PATIENCE,
            huge_pages: HugePages::default(),
            patience: Duration::from_secs(5),
            reporter: None,
            attach: true,
            workers: Settings::default(),
            #[cfg(feature = "dashboard")]
            dashboard: DashboardConfig::default(),
            #[cfg(feature = "otel")]
            otel: None,
            trace: Mode::default(),
            trace_bytes: super::timeline::BYTES,
            #[cfg(feature = "cluster")]
            cluster: None,
        }
    }
}

impl Config {
    /// The defaults: as many CPUs as the process may use, no GPUs, an object store of 30 % of memory.
    pub fn new() -> Config {
        Config::default()
    }

    /// CPUs that tasks may take together; also the number of executor threads, rounded up. Default: what the process may
    /// use.
    pub fn num_cpus(mut self, n: impl Into<f64>) -> Config {
        self.num_cpus = Some(n.into());
        self
    }

    /// GPUs that tasks may take; they get ids from 0. Default: none.
    pub fn num_gpus(mut self, n: u32) -> Config {
        self.num_gpus = n;
        self
    }

    /// An amount of a resource of your own, which tasks then ask for by name.
    pub fn resource(mut self, name: impl Into<String>, amount: impl Into<f64>) -> Config {
        self.resources.push((name.into(), amount.into()));
        self
    }

    /// Bytes that objects may take together. Memory is only used once it is written. Default: 30 % of memory.
    pub fn object_store_memory(mut self, bytes: u64) -> Config {
        self.store_bytes = Some(bytes);
        self
    }

    /// Bytes of the object store to fault in ahead, in the background; 0 for none. Default: nothing at first, then about as
    /// much as is in use, up to 1 GiB.
    pub fn prefault(mut self, bytes: u64) -> Config {
        self.prefault_bytes = Some(bytes);
        self
    }

    /// Where objects go when the store is full: a folder on disk, or the URL of something that the crate `object_store`
    /// reaches. Objects that nobody reads go there, those unused for longest first, and come back when they are read.
    ///
    /// In the folder each start makes one of its own, which is gone when it ends; after a crash the next start removes it.
    /// For URLs such as `s3://bucket/path`, add `object_store` with its feature `aws`, `gcp` or `azure` to your own
    /// dependencies; credentials come from the environment. Default: `/var/tmp`, else the folder for temporary files, if
    /// that is not in memory.
    pub fn spill(mut self, dir_or_url: impl AsRef<Path>) -> Config {
        self.spill = SpillTo::To(dir_or_url.as_ref().to_owned());
        self
    }

    /// Objects never leave memory: when the store is full, producers wait until some are dropped.
    pub fn no_spill(mut self) -> Config {
        self.spill = SpillTo::Off;
        self
    }

    /// Where durable copies go ([`PutOptions::durable`](crate::PutOptions::durable)): a folder, or the URL of something that the crate
    /// `object_store` reaches, as for [`spill`](Config::spill), but no `memory:` URL, since that ends with its process. A folder is made
    /// by `init`; nothing is written there unless asked for.
    ///
    /// All nodes are to reach it: a folder is one that they share. Default: what the environment variable `MOBULA_DURABLE` says, which
    /// nodes read too (those of a launcher have the launcher's); else nowhere. What is written to a folder is synced, file and folder,
    /// before it counts as written: it outlives processes and the loss of power, as far as the file system keeps what was synced. A
    /// folder that is gone later is not made again: what is to be written there fails. `init` fails with [`Error::Config`] if the
    /// URL is none, or the folder cannot be made; it waits half a minute at most for one that does not answer.
    ///
    /// ```
    /// let folder = std::env::temp_dir().join("mobula-durable");
    /// let mobula = mobula::Config::new().num_cpus(1).durable(folder).init()?;
    /// # drop(mobula); Ok::<(), mobula::Error>(())
    /// ```
    pub fn durable(mut self, dir_or_url: impl AsRef<Path>) -> Config {
        self.durable = Some(dir_or_url.as_ref().to_owned());
        self
    }

    /// How long a producer waits for room in a full store while none comes about, before it gets
    /// [`Error::StoreFull`]: as long as objects are moved to disk, it goes on waiting. 0 never waits, not even for the
    /// disk. Default: 2 s.
    pub fn store_patience(mut self, longest: Duration) -> Config {
        self.store_patience = longest;
        self
    }

    /// Which pages the object store is made of; `true` asks for reserved ones of 2 MiB, else transparent ones, else
    /// 4 KiB. Default: [`HugePages::Auto`]. Which it got is said by [`Mobula::store_pages`](crate::Mobula::store_pages).
    pub fn huge_pages(mut self, wanted: impl Into<HugePages>) -> Config {
        self.huge_pages = wanted.into();
        self
    }

    /// How long shutdown waits for calls that run. Default: 5 s. Threads that are still busy then are left behind.
    pub fn shutdown_timeout(mut self, patience: Duration) -> Config {
        self.patience = patience;
        self
    }

    /// What is recorded for the [`timeline`](crate::timeline()). Default: [`Trace::Adaptive`](crate::Trace::Adaptive), for calls at
    /// most about 2 % of a thread's time.
    pub fn trace(mut self, what: Mode) -> Config {
        self.trace = what;
        self
    }

    /// Bytes of shared memory for the timeline; each holds the 64 bytes of an event, and a call takes two or three of them. The
    /// oldest are overwritten. Taken as it is used. Default: 64 MiB; at least 1 MiB.
    pub fn trace_memory(mut self, bytes: usize) -> Config {
        self.trace_bytes = bytes;
        self
    }

    /// Sends a span for every recorded call to an OpenTelemetry collector, as OTLP over HTTP with JSON. Default: none are sent.
    ///
    /// A call's span has the function's name; it lasts from the call's first beginning to its end, belongs to the span of the
    /// call that submitted it, links to those whose results it takes, and says in its attributes `code.function.name`,
    /// `mobula.call`, `mobula.attempt`, `mobula.waited_ns`, `mobula.result_bytes`, `mobula.actor` and, of one that failed,
    /// `error.message`, which is its status too. Objects, waits and spans of the user's are in the
    /// [`timeline`](crate::timeline()) only.
    ///
    /// What is recorded is what [`trace`](Config::trace) says: of calls that come faster than
    /// [`Trace::Adaptive`](crate::Trace::Adaptive) records, a sample. One thread sends, four times a second. While the collector cannot be
    /// reached up to 65,536 spans wait, the oldest are dropped first; how many were is printed to standard error
    /// when the node ends. That end takes up to `OTEL_EXPORTER_OTLP_TIMEOUT` (10 s) longer then.
    ///
    /// `init` fails with [`Error::Config`] if the address is none, or if nothing is recorded.
    ///
    /// ```no_run
    /// use mobula::{Config, Otel};
    ///
    /// let _mobula = Config::new().otel(Otel::new().service("training")).init()?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[cfg(feature = "otel")]
    pub fn otel(mut self, to: super::otel::Otel) -> Config {
        self.otel = Some(to);
        self
    }

    /// What to do with a failure whose result nobody took: by default it is printed to standard error. The function is called
    /// where the last reference is dropped and should be quick.
    pub fn on_unobserved_failure(
        mut self,
        report: impl Fn(&Error) + Send + Sync + 'static,
    ) -> Config {
        self.reporter = Some(Arc::new(report));
        self
    }

    /// Whether the `mobula` command may attach to this program, to show what it does. Default: it may, if the feature
    /// `attach` is on.
    ///
    /// The program then listens on a Unix socket, `$XDG_RUNTIME_DIR/mobula/<pid>.sock` or else
    /// `/tmp/mobula-<uid>/<pid>.sock`, in a folder that only its user can enter, and answers that user and root alone. It
    /// costs a thread that sleeps, and nothing else until somebody asks. A folder that cannot be made, or that belongs
    /// to somebody else, does not keep the program from running: [`Mobula::attached_at`](crate::Mobula::attached_at) says
    /// what was wrong.
    pub fn attach(mut self, attach: bool) -> Config {
        self.attach = attach;
        self
    }

    /// Where the output of worker processes goes. Default: to this process's standard output and standard error, line by
    /// line, each behind what printed it: `(square pid=1234) text`. A worker's C code may hold lines back until its own
    /// buffer is full; Rust's standard output does not. What is not printed as whole lines is shown when the line ends or
    /// the worker does.
    ///
    /// ```
    /// use mobula::{Config, WorkerOutput};
    /// let _quiet = Config::new().worker_output(WorkerOutput::Silent);
    /// let _own = Config::new().worker_output(WorkerOutput::sink(|line| {
    ///     eprintln!("{} said: {}", line.pid, line.text);
    /// }));
    /// ```
    pub fn worker_output(mut self, output: WorkerOutput) -> Config {
        self.workers.output = output;
        self
    }

    /// The share of memory, from 0 to 1, above which worker processes are ended, one at a time, before the kernel ends
    /// whom it likes: of the machine's memory, or of what this process's control group may use. First goes the newest call
    /// that will be tried again, then the newest of other calls, then an actor that may restart. Memory is looked at four
    /// times a second, and only while isolated work runs. Default: 0.95; 1 never ends any.
    pub fn memory_threshold(mut self, share: f64) -> Config {
        self.workers.memory_threshold = share;
        self
    }

    /// Whether a page shows what the program does, at [`Mobula::dashboard_url`](crate::Mobula::dashboard_url). Default: no.
    ///
    /// It can be reached from this machine only, by any of its users, at port 8265 or, if that is taken, at a free one. It
    /// only shows; it changes nothing.
    ///
    /// ```
    /// let mobula = mobula::Config::new().num_cpus(2).dashboard(true).init()?;
    /// assert!(mobula.dashboard_url().unwrap().starts_with("http://127.0.0.1:"));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[cfg(feature = "dashboard")]
    pub fn dashboard(mut self, on: bool) -> Config {
        self.dashboard.on = on;
        self
    }

    /// Serves the dashboard at this address; port 0 takes a free one. `init` fails with
    /// [`Error::Config`](crate::Error::Config) if the port is taken, or if other machines can reach the address and there
    /// is no [`dashboard_token`](Config::dashboard_token).
    #[cfg(feature = "dashboard")]
    pub fn dashboard_addr(mut self, address: impl Into<std::net::SocketAddr>) -> Config {
        self.dashboard.on = true;
        self.dashboard.address = Some(address.into());
        self
    }

    /// Lets only those see the dashboard who know this: 16 to 256 letters, digits and `-._~+/=`. A browser asks for it
    /// once; others send it as a bearer token. The connection is not encrypted: across networks use a tunnel or a proxy.
    #[cfg(feature = "dashboard")]
    pub fn dashboard_token(mut self, token: impl Into<String>) -> Config {
        self.dashboard.on = true;
        self.dashboard.token = Some(token.into());
        self
    }

    /// The CPUs that were asked for.
    #[cfg(feature = "cluster")]
    pub(super) fn cpus(&self) -> Option<f64> {
        self.num_cpus
    }

    /// What a launcher granted, in place of what was asked for.
    #[cfg(feature = "cluster")]
    pub(super) fn give(&mut self, holds: &crate::base::Demand, gpus: u32) {
        self.num_cpus = Some(holds.cpu.to_f64());
        self.num_gpus = gpus;
        self.resources = holds
            .custom()
            .iter()
            .map(|(name, amount)| (name.clone(), amount.to_f64()))
            .collect();
    }

    pub(super) fn capacity(&self) -> Result<Capacity> {
        let bad = |setting, why: String| Error::Config { setting, why };
        let cpus = match self.num_cpus {
            Some(n) => Units::from_f64(n).map_err(|e| bad("num_cpus", e.to_string()))?,
            None => {
                let n = std::thread::available_parallelism().map_or(1, usize::from);
                Units::whole(n as u64)
            }
        };
        if cpus.is_zero() {
            return Err(bad(
                "num_cpus",
                "is 0, but a node needs some: give at least 0.1".into(),
            ));
        }
        if cpus > Units::whole(1024) {
            return Err(bad(
                "num_cpus",
                format!("is {cpus}, but a node starts a thread for each: at most 1024"),
            ));
        }
        if let Some(bytes) = self.store_bytes
            && bytes < 1 << 20
        {
            return Err(bad(
                "object_store_memory",
                format!("is {bytes} bytes: give at least 1 MiB"),
            ));
        }
        let threshold = self.workers.memory_threshold;
        if !(0.0..=1.0).contains(&threshold) {
            return Err(bad(
                "memory_threshold",
                format!("is {threshold}, but is a share of memory: give 0 to 1, as 0.95"),
            ));
        }
        let mut capacity = Capacity::new(cpus, self.num_gpus);
        for (name, amount) in &self.resources {
            if matches!(name.as_str(), "cpu" | "gpu" | "") {
                let why = format!("`{name}` is not a name of your own: use num_cpus or num_gpus");
                return Err(bad("resource", why));
            }
            let units =
                Units::from_f64(*amount).map_err(|e| bad("resource", format!("`{name}`: {e}")))?;
            capacity = capacity.with_custom(name, units);
        }
        Ok(capacity)
    }
}
