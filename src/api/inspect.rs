//! Looking at a running program: at this one, or through its socket at another.
//!
//! Invariant: looking changes nothing that the program promises. Left out: showing it (`mobula` on the command line).
//!
//! ```
//! use mobula::inspect::{Part, Query};
//! use mobula::prelude::*;
//!
//! #[remote]
//! fn square(x: u64) -> u64 { x * x }
//!
//! let _mobula = mobula::init()?;
//! mobula::get(square::remote(3))?;
//! let look = mobula::inspect::snapshot(&Query::of(&[Part::Functions]))?;
//! assert_eq!(look.functions.items[0].calls, 1);
//! # Ok::<(), mobula::Error>(())
//! ```
//!
//! What is exact and what is not: counts of calls are exact. Running calls are what each thread publishes, the innermost
//! of its stack. Queued calls, actors and waiting calls are looked at up to a bound, and the lists say when there are
//! more ([`List::incomplete`]). Times are those of all calls as long as they take more than
//! 20 us, of one in 256 otherwise, and of some of the first.

use crate::base::Result;
pub use crate::base::metrics;
pub use crate::base::query::{LIMIT_MAX, Part, Query};
pub use crate::base::snapshot::*;
use crate::exec::local;
#[cfg(feature = "attach")]
pub use crate::node::attach::{AttachError, Client, Recorded, Running, running};

/// A look at this program. Some tens of microseconds, and about a tenth of one for each entry looked at; blocks on
/// nothing for longer.
///
/// # Errors
/// [`Error::NotInitialized`](crate::Error::NotInitialized) or [`Error::ShutDown`](crate::Error::ShutDown) if no node runs.
pub fn snapshot(query: &Query) -> Result<Snapshot> {
    local::with(|local| local.engine.inspect(local, query))
}
