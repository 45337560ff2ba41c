//! Every remote item by number: driver and worker are one program, so both count alike.
//!
//! Invariant: the order depends on names and places alone. Left out: registration (`entry`).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use super::super::entry::{ActorEntry, ActorRegistration, CHECKPOINT, FnEntry, Registration};

/// Marks the number of an actor that is to be made from its saved state.
pub const RESTORE: u32 = 1 << 31;

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
        let keeps = |a: &&'static ActorEntry| a.keep.as_ref().map(|k| (&k.save, &k.restore));
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
        let constructors = actors.iter().map(|a| address(&&a.constructor)).zip(0..);
        // After all others, and by their actors: they have no names of their own.
        functions.extend(actors.iter().filter_map(keeps).map(|(save, _)| save));
        functions.push(&CHECKPOINT);
        let restores = actors.iter().zip(0..);
        let restores = restores.filter_map(|(a, n)| Some((address(&keeps(a)?.1), RESTORE | n)));
        let numbers = functions.iter().map(address).zip(0..);
        let numbers = numbers.chain(constructors).chain(restores).collect();
        Table {
            functions,
            actors,
            numbers,
            hash: hash.finish(),
        }
    }

    /// The number of a function, or that of its actor if it is a constructor.
    pub fn number(&self, f: &'static FnEntry) -> Option<u32> {
        self.numbers.get(&std::ptr::from_ref(f).addr()).copied()
    }
}

/// This program's.
pub fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(Table::new)
}
