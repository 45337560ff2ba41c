//! Calls in processes of their own: the node starts its own executable again, and what runs there may abort, leak or be
//! killed without hurting anybody.
//!
//! Room map, on the node's side: [`pool`] has the worker processes, [`process`] is one of them, [`driver`] stands in for a
//! call while a worker runs it. On the worker's side: [`takeover`] begins before `main`, [`serve`] runs calls. Between
//! them: [`frame`] what is said over a lane, [`hello`] what is said first.
//!
//! Invariant: what a worker says is a claim until it is checked; one that says what no worker says is killed, and its
//! call ends as if it had died. Left out: which calls are isolated (`options`), what workers print, and how much memory
//! they may take.

pub mod driver;
mod failure;
mod frame;
mod hello;
mod pool;
mod process;
mod serve;
mod takeover;

pub use pool::Workers;
pub use serve::{in_worker, keep_large, lend, written};

/// Names the registry by number: both processes have the same one.
mod table {
    use std::collections::HashMap;
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::sync::OnceLock;

    use super::super::entry::{ActorEntry, ActorRegistration, FnEntry, Registration};

    /// Every remote function, method and actor, in one order.
    pub struct Table {
        pub functions: Vec<&'static FnEntry>,
        pub actors: Vec<&'static ActorEntry>,
        numbers: HashMap<usize, u32>,
        /// Of names, kinds and result types.
        pub hash: u64,
    }

    impl Table {
        fn new() -> Table {
            let mut functions: Vec<_> = inventory::iter::<Registration>
                .into_iter()
                .map(|r| r.0)
                .collect();
            let mut actors: Vec<_> = inventory::iter::<ActorRegistration>
                .into_iter()
                .map(|r| r.0)
                .collect();
            functions.sort_by_key(|f| (f.name, f.file, f.line));
            actors.sort_by_key(|a| (a.name, a.file, a.line));
            let mut hash = DefaultHasher::new();
            for f in &functions {
                (f.name, f.kind as u8, f.line, (f.output)()).hash(&mut hash);
            }
            for a in &actors {
                (a.name, a.line).hash(&mut hash);
            }
            let address = |f: &&'static FnEntry| std::ptr::from_ref(*f).addr();
            let numbers = functions.iter().map(address).zip(0..).collect();
            Table {
                functions,
                actors,
                numbers,
                hash: hash.finish(),
            }
        }

        /// The number of a function.
        pub fn number(&self, f: &'static FnEntry) -> Option<u32> {
            self.numbers.get(&std::ptr::from_ref(f).addr()).copied()
        }
    }

    /// This program's.
    pub fn table() -> &'static Table {
        static TABLE: OnceLock<Table> = OnceLock::new();
        TABLE.get_or_init(Table::new)
    }
}
