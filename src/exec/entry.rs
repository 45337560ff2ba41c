//! What a remote function or actor is to the runtime: a name, a place, defaults, and how to run it.
//!
//! The macro writes one static [`FnEntry`] a function through the typed constructors here, so that what runs always
//! fits what was archived. Entries also register themselves for [`registry`], by which other processes find them.
//!
//! Invariant: an entry's `run` matches the parameter, output and actor types that its constructor was given.
//! Left out: calling; `engine` and `actor` do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::{Defaults, Error};

use super::call::{Outcome, StateRef};
use super::cell::RawRef;
use super::local::Local;

/// What kind of call an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No call: an object put by the program.
    Object,
    /// A function.
    Task,
    /// An `async fn`.
    AsyncTask,
    /// A `&mut self` method.
    Exclusive,
    /// A `&self` method.
    Shared,
    /// A `self` method, which ends the actor.
    Consuming,
    /// An `async` method over `&mut self`.
    AsyncExclusive,
    /// An `async` method over `&self`.
    AsyncShared,
    /// An actor's `new`.
    Constructor,
    /// Ends an actor after the calls before it.
    Stop,
    /// Saves an actor's state, after the calls before it.
    Checkpoint,
}

/// How the runtime runs it.
#[derive(Clone, Copy)]
pub enum Run {
    /// Not at all.
    Never,
    /// On this thread. The record must be claimed, and the state be the entry's actor's.
    Sync(unsafe fn(&Local, &RawRef, StateRef) -> Outcome),
    /// As a future.
    #[cfg(feature = "async")]
    Async(unsafe fn(RawRef, StateRef) -> super::tasks::BoxFuture),
}

/// A remote function, method or constructor.
pub struct FnEntry {
    /// Its path, or the name its attribute gave.
    pub name: &'static str,
    /// Where it is written.
    pub file: &'static str,
    /// The line.
    pub line: u32,
    /// What its attribute said.
    pub defaults: Defaults,
    /// What it is.
    pub kind: Kind,
    /// Whether its defaults ask for nothing beyond the common task.
    pub common: bool,
    /// Bytes of its result's root, if they are few enough to be kept in the record.
    pub result_size: usize,
    /// The type of its result.
    pub output: fn() -> &'static str,
    /// Whether bytes are an archive of its result.
    pub(super) check: fn(&[u8]) -> Result<(), crate::value::CodecError>,
    pub(super) run: Run,
    /// How many arguments it takes.
    pub(super) arity: usize,
    /// The number of each argument's type.
    pub(super) arg_tag: fn(usize) -> u64,
    /// The number of its result's type.
    pub(super) output_tag: fn() -> u64,
    /// The actor whose method it is.
    pub(super) owner: fn() -> Option<&'static ActorEntry>,
    /// Its number in this program, from 1, for tables by function; 0 if it is not registered.
    pub(super) number: AtomicU32,
}

impl std::fmt::Debug for FnEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}:{})", self.name, self.file, self.line)
    }
}

impl FnEntry {
    pub(super) const fn make<O: crate::value::Value, P: super::params::Params>(
        name: &'static str,
        file: &'static str,
        line: u32,
        defaults: Defaults,
        kind: Kind,
        run: Run,
    ) -> FnEntry {
        let size = size_of::<crate::value::Archived<O>>();
        FnEntry {
            name,
            file,
            line,
            defaults,
            kind,
            common: defaults.num_cpus.is_none()
                && defaults.num_gpus.is_none()
                && defaults.resources.is_empty()
                && defaults.priority.is_none()
                && defaults.max_retries.is_none()
                && defaults.retry_panics.is_none()
                && defaults.isolate.is_none()
                && defaults.memory.is_none(),
            result_size: if size <= super::INLINE_MAX { size } else { 0 },
            output: std::any::type_name::<O>,
            check: crate::value::check::<O>,
            run,
            arity: P::COUNT,
            arg_tag: P::tag,
            output_tag: crate::value::type_tag::<O>,
            owner: || None,
            number: AtomicU32::new(0),
        }
    }

    /// The same, as a method of this actor.
    pub(super) const fn of_actor<A: super::tasks::Actor>(mut self) -> FnEntry {
        self.owner = || Some(A::ENTRY);
        self
    }

    /// An entry that is never run.
    pub(super) const fn inert(name: &'static str, kind: Kind) -> FnEntry {
        FnEntry::make::<(), ()>(name, file!(), line!(), Defaults::NONE, kind, Run::Never)
    }

    pub(super) fn is_async(&self) -> bool {
        matches!(
            self.kind,
            Kind::AsyncTask | Kind::AsyncExclusive | Kind::AsyncShared
        )
    }
}

/// A call that saves an actor's state and gives nothing. It is a method of every actor, known by number on every node.
pub static CHECKPOINT: FnEntry = FnEntry::inert("checkpoint", Kind::Checkpoint);

/// An actor type.
pub struct ActorEntry {
    /// Its path.
    pub name: &'static str,
    /// Where it is written.
    pub file: &'static str,
    /// The line.
    pub line: u32,
    /// What its attributes said.
    pub defaults: Defaults,
    pub(super) constructor: FnEntry,
    pub(super) drop_state: unsafe fn(*mut ()),
    /// How its state is saved and restored; nothing if it has no archive.
    pub(super) keep: Option<Keep>,
}

/// A call that gives an actor's state, and one that makes the actor from it.
pub struct Keep {
    pub(super) save: FnEntry,
    pub(super) restore: FnEntry,
}

impl ActorEntry {
    /// Whether its state can be saved and restored.
    pub fn is_kept(&self) -> bool {
        self.keep.is_some()
    }

    /// What makes one from its saved state, if that can be.
    pub fn restores(&'static self) -> Option<&'static FnEntry> {
        self.keep.as_ref().map(|keep| &keep.restore)
    }

    /// Its constructor.
    pub fn constructor(&self) -> &FnEntry {
        &self.constructor
    }
}

impl std::fmt::Debug for ActorEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}:{})", self.name, self.file, self.line)
    }
}

/// A function's place in the registry.
pub struct Registration(pub &'static FnEntry);
/// An actor's place in the registry.
pub struct ActorRegistration(pub &'static ActorEntry);

inventory::collect!(Registration);
inventory::collect!(ActorRegistration);

/// Every remote function, method and constructor; each is given its number, one more than its place here.
pub fn numbered() -> &'static [&'static FnEntry] {
    static ALL: OnceLock<Vec<&'static FnEntry>> = OnceLock::new();
    ALL.get_or_init(|| {
        let functions = inventory::iter::<Registration>.into_iter().map(|r| r.0);
        let actors = || inventory::iter::<ActorRegistration>.into_iter();
        let constructors = actors().map(|r| &r.0.constructor);
        let keeps = actors().filter_map(|r| r.0.keep.as_ref());
        let keeps = keeps.flat_map(|k| [&k.save, &k.restore]);
        let all: Vec<_> = functions.chain(constructors).chain(keeps).collect();
        for (entry, number) in all.iter().zip(1..) {
            entry.number.store(number, Ordering::Relaxed);
        }
        all
    })
}

/// One registered item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registered {
    /// Its name.
    pub name: &'static str,
    /// Where it is written.
    pub file: &'static str,
    /// The line.
    pub line: u32,
    /// Whether it is an actor type rather than a function or method.
    pub actor: bool,
}

/// Every remote function, method and actor linked into this program, by name.
pub fn registry() -> Vec<Registered> {
    let functions = inventory::iter::<Registration>
        .into_iter()
        .map(|r| Registered {
            name: r.0.name,
            file: r.0.file,
            line: r.0.line,
            actor: false,
        });
    let actors = inventory::iter::<ActorRegistration>
        .into_iter()
        .map(|r| Registered {
            name: r.0.name,
            file: r.0.file,
            line: r.0.line,
            actor: true,
        });
    let mut all: Vec<_> = functions.chain(actors).collect();
    all.sort();
    all
}

/// Refuses two items of one name.
pub fn check_names(sorted: &[Registered]) -> Result<(), Error> {
    for pair in sorted.windows(2) {
        if pair[0].name == pair[1].name {
            return Err(Error::DuplicateName {
                name: pair[0].name,
                first: format!("{}:{}", pair[0].file, pair[0].line),
                second: format!("{}:{}", pair[1].file, pair[1].line),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_one_name_are_refused_with_both_places() {
        let at = |name, line| Registered {
            name,
            file: "src/a.rs",
            line,
            actor: false,
        };
        check_names(&[at("a", 1), at("b", 2)]).unwrap();
        let e = check_names(&[at("a", 1), at("b", 2), at("b", 9)])
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("src/a.rs:2") && e.contains("src/a.rs:9") && e.contains("`b`"),
            "{e}"
        );
    }
}
