//! The timeline: what was recorded, as a file that Perfetto opens, and what users add to it.
//!
//! Invariant: without a runtime, or with [`Trace::Off`](crate::Trace::Off), spans and counters do nothing. Left out: how
//! events are kept.

use std::marker::PhantomData;
use std::path::Path;

use super::Mobula;
use crate::base::{Error, Result};
use crate::exec::{events, local};
use crate::node;
use crate::trace::{NOT_RECORDED, Written};

/// Writes what happened so far to a file that [Perfetto](https://ui.perfetto.dev) and `chrome://tracing` open.
///
/// Every call is a box on the thread that ran it, with the phases of reading its arguments and storing its result inside,
/// and the calls, waits and spans that it made. Arrows lead from a submission to its call, and from every object, result
/// or `put`, to the calls that take it. Click a box for its id, function, attempt, bytes and error.
///
/// Where bytes come from that were not here is a box on the thread that waited for them: `restore` from disk, `transfer` from
/// another node of the cluster, with the `object`, its `bytes` and the node (`from`). Each node has a timeline of its own.
///
/// What is in it: everything since the start, or as much as fits [`Config::trace_memory`](crate::Config::trace_memory); the
/// oldest goes first. Calls that came faster than [`Trace::Adaptive`](crate::Trace::Adaptive) records are counted.
///
/// Other threads go on while it is written, at some million events a second; what they do meanwhile may be missing. Takes memory of about
/// half of what is recorded.
///
/// # Errors
/// [`Error::Os`] naming the file, also if another timeline is being written there or it is a pipe that nobody reads; what was
/// written before a disk was full stays. [`Error::Config`] if nothing is recorded, [`Error::NotInitialized`] or
/// [`Error::ShutDown`] without a runtime. To have a timeline of a program as it is, also when it panics, set `MOBULA_TIMELINE=trace.json` in
/// its environment: it is written when the node ends.
///
/// ```
/// # use mobula::prelude::*;
/// # #[remote] fn square(x: u64) -> u64 { x * x }
/// # let _mobula = mobula::init()?;
/// # let path = std::env::temp_dir().join(format!("mobula-doc-{}.json", std::process::id()));
/// mobula::get(square::remote(4))?;
/// let timeline = mobula::timeline(&path)?;
/// assert_eq!(timeline.boxes, 1);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), mobula::Error>(())
/// ```
pub fn timeline(path: impl AsRef<Path>) -> Result<Written> {
    let recorder = local::with(|local| {
        if let Some(pen) = local.lane.pen() {
            pen.tell_gap();
        }
        local.engine.recorder().cloned()
    })?;
    let recorder = recorder.ok_or(Error::Config {
        setting: "trace",
        why: "is Trace::Off, so there is no timeline: use Trace::Adaptive or Trace::Full".into(),
    })?;
    node::timeline::write(&recorder, path.as_ref())
}

impl Mobula {
    /// As [`timeline`](crate::timeline()).
    ///
    /// # Errors
    /// As there.
    pub fn timeline(&self, path: impl AsRef<Path>) -> Result<Written> {
        timeline(path)
    }
}

/// A stretch of time in the timeline, from [`span!`](crate::span!) to its drop.
#[derive(Debug)]
#[must_use = "the span ends when this is dropped: let _span = mobula::span!(\"name\")"]
pub struct Span {
    name: &'static str,
    begin: u64,
    fields: Option<Box<str>>,
    /// It belongs to the thread that it began on.
    here: PhantomData<*const ()>,
}

impl Span {
    /// Begins a span; `fields` are asked for if it is recorded.
    #[doc(hidden)]
    pub fn begin(name: &'static str, fields: impl FnOnce() -> Option<String>) -> Span {
        let begin = events::now();
        Span {
            name,
            begin,
            fields: (begin != NOT_RECORDED)
                .then(fields)
                .flatten()
                .map(String::into_boxed_str),
            here: PhantomData,
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.begin != NOT_RECORDED {
            events::span(self.name, self.begin, self.fields.as_deref());
        }
    }
}

/// Sets a counter of the timeline; see [`counter!`](crate::counter!).
#[doc(hidden)]
pub fn set_counter(name: &'static str, value: f64) {
    events::counter(name, value);
}

/// A box of your own in the timeline, inside the call that runs here: until the guard is dropped.
///
/// Costs some 60 ns. Every span is recorded: put them around work worth naming. Further arguments are fields,
/// `key = value` by their `Debug` form, 200 bytes of which are kept.
///
/// ```
/// # let _mobula = mobula::init()?;
/// let batch = 7;
/// {
///     let _span = mobula::span!("load", batch);
///     // ...
/// }
/// let _span = mobula::span!("train", step = 3, rate = 0.1);
/// # Ok::<(), mobula::Error>(())
/// ```
#[macro_export]
macro_rules! span {
    ($name:literal) => {
        $crate::__private::Span::begin($name, || ::std::option::Option::None)
    };
    ($name:literal, $($key:ident $(= $value:expr)?),+ $(,)?) => {
        $crate::__private::Span::begin($name, || {
            ::std::option::Option::Some([
                $($crate::__span_field!($key $(= $value)?)),+
            ].join(" "))
        })
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __span_field {
    ($key:ident = $value:expr) => {
        ::std::format!(::std::concat!(::std::stringify!($key), "={:?}"), $value)
    };
    ($key:ident) => {
        ::std::format!(::std::concat!(::std::stringify!($key), "={:?}"), $key)
    };
}

/// A value over time in the timeline: a curve of its own, by name.
///
/// ```
/// # let _mobula = mobula::init()?;
/// mobula::counter!("loss", 0.25);
/// mobula::counter!("queue", 17);
/// # Ok::<(), mobula::Error>(())
/// ```
#[macro_export]
macro_rules! counter {
    ($name:literal, $value:expr) => {
        $crate::__private::set_counter($name, $value as f64)
    };
}
