//! The layer of the crate `tracing-chrome`: a Chrome trace of this one process's `tracing` spans, without a node's help.
//!
//! Beside the [`timeline`](crate::timeline()) it is the plainer tool: it writes every span and event of the
//! [`tracing`](https://docs.rs/tracing) crate to a file as they happen, from the program's first line to its last, with or
//! without a running node. What it cannot show:
//!
//! - no arrows: the format's flow events are not written, so nothing tells which call came of which, or who took what;
//! - one process: `pid` is always 1, and worker processes are not in it; files of several processes cannot be told apart;
//! - no calls: only spans and events of `tracing`, so neither Mobula's tasks, with queueing, attempts and bytes, nor its waits;
//! - the tail is lost without its guard: a thread of its own writes the file, and what it has not written when the
//!   process ends is gone. Keep the [`FlushGuard`] to the end of `main`; `std::process::exit`, `abort` and a signal
//!   do not drop it, and the file then ends in the middle of a line;
//! - no bound: the file grows as long as the program runs, and its thread's queue as long as it is behind.
//!
//! To see spans inside the calls that entered them use `TimelineLayer` (feature `tracing`); both may stand in one subscriber.
//!
//! ```
//! use mobula::tracing_chrome::ChromeLayerBuilder;
//! use tracing_subscriber::layer::SubscriberExt as _;
//! use tracing_subscriber::util::SubscriberInitExt as _;
//!
//! # let path = std::env::temp_dir().join(format!("mobula-chrome-doc-{}.json", std::process::id()));
//! let (layer, guard) = ChromeLayerBuilder::new().file(&path).include_args(true).build();
//! tracing_subscriber::registry().with(layer).init();
//! tracing::info_span!("load", batch = 7).in_scope(|| { /* ... */ });
//! drop(guard); // at the end of `main`: now the file is whole
//! # let whole: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
//! # assert!(whole.as_array().unwrap().iter().any(|e| e["name"] == "load"));
//! # std::fs::remove_file(&path).unwrap();
//! ```
//!
//! Invariant: the crate's own items, under one name that does not change with its version. Left out: anything of ours.

pub use tracing_chrome::{ChromeLayer, ChromeLayerBuilder, EventOrSpan, FlushGuard, TraceStyle};
