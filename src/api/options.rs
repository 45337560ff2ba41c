//! Options of single calls and of actors, as builders.
//!
//! Invariant: an option given here overrides the attribute's. The macro wraps these builders in a type of its own per
//! function, so that `remote` takes that function's arguments.
//! Left out: what the options do, see `exec`.

use crate::exec::options::Options;

/// Options of one call to a remote function; `f::options()` begins one.
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing before remote()"]
pub struct TaskOptions(pub(super) Options);

/// Options of one actor; `Actor::options()` begins one.
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing before remote()"]
pub struct ActorOptions(pub(super) Options);

/// What a call to an actor with a full mailbox does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Waits for room; if nobody is draining the mailbox, by draining it. A method calling its own full actor fails.
    #[default]
    Wait,
    /// Fails with [`Error::MailboxFull`](crate::Error::MailboxFull).
    Fail,
}

impl TaskOptions {
    /// The attribute's options.
    pub fn new() -> TaskOptions {
        TaskOptions::default()
    }
}

impl ActorOptions {
    /// The attribute's options.
    pub fn new() -> ActorOptions {
        ActorOptions::default()
    }
}

/// Writes the setters of a list: for a builder of the runtime, or for a macro's builder that wraps one.
#[doc(hidden)]
#[macro_export]
macro_rules! __mobula_setters {
    ([$w:ident base] $({$(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) $set:expr})*) => {
        impl $w {
            $( $(#[$doc])*
            pub fn $name(mut self, $($arg: $ty),*) -> Self {
                #[allow(clippy::redundant_closure_call)]
                ($set)(&mut self.0, $($arg),*);
                self
            } )*
        }
    };
    ([$w:ident] $({$(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) $set:expr})*) => {
        #[allow(dead_code)]
        impl $w {
            $( $(#[$doc])*
            pub fn $name(self, $($arg: $ty),*) -> Self { Self(self.0.$name($($arg),*)) } )*
        }
    };
}

/// The options of a call.
#[doc(hidden)]
#[macro_export]
macro_rules! __mobula_task_options {
    ($w:ident $($base:ident)?) => { $crate::__mobula_setters! { [$w $($base)?]
    {
        /// CPUs the call takes while it runs, fractions allowed. Default: 1.
        num_cpus(n: impl Into<f64>) |o: &mut Options, n| o.num_cpus = Some(Into::<f64>::into(n))
    }
    {
        /// GPUs likewise: a fraction of one, or a whole number. Default: 0.
        num_gpus(n: impl Into<f64>) |o: &mut Options, n| o.num_gpus = Some(Into::<f64>::into(n))
    }
    {
        /// An amount of a resource of your own.
        resource(name: &str, amount: impl Into<f64>) |o: &mut Options, n: &str, a| o.resources.push((n.to_owned(), Into::<f64>::into(a)))
    }
    {
        /// Further attempts after a crash, or after a panic with `retry_panics`. Default: 3.
        max_retries(n: u32) |o: &mut Options, n| o.max_retries = Some(n)
    }
    {
        /// Whether a panic is worth another attempt. Default: no.
        retry_panics(yes: bool) |o: &mut Options, y| o.retry_panics = Some(y)
    }
    {
        /// Whether the call runs in a worker process, which may abort, leak or run out of memory without hurting anyone
        /// else. If the worker dies, the call is tried again `max_retries` times, then fails with
        /// [`Error::WorkerDied`]($crate::Error::WorkerDied). Default: no.
        isolate(yes: bool) |o: &mut Options, y| o.isolate = Some(y)
    }
    {
        /// Memory that the call may take in its worker process, on top of what that holds when the call begins and beside
        /// the object store: bytes, or a text like `"2G"`. Beyond it the worker ends, which counts as a crash: the call is
        /// tried again, then fails with [`Error::WorkerDied`]($crate::Error::WorkerDied) that says so. Where control
        /// groups of version 2 can be made the bound is on memory in use, elsewhere on private memory reserved. Needs
        /// `isolate`. Default: no bound.
        memory(most: impl Into<$crate::Memory>) |o: &mut Options, m| o.memory = Some(Into::<$crate::Memory>::into(m))
    }
    {
        /// Higher runs first; below 0 only when nothing else wants to. Default: 0.
        priority(p: i32) |o: &mut Options, p| o.priority = Some(p)
    }
    {
        /// On which node it may run: see [`Strategy`]($crate::Strategy). Default: here, unless others have the room or the data.
        strategy(how: $crate::Strategy) |o: &mut Options, s| o.strategy = s
    }
    {
        /// In this placement group, in whichever bundle has room: it takes what it needs of that.
        group(group: &$crate::GroupHandle) |o: &mut Options, g: &$crate::GroupHandle| o.strategy = $crate::Strategy::Group { group: g.id(), bundle: None }
    }
    {
        /// In this bundle of this placement group; they are numbered from 0.
        group_bundle(group: &$crate::GroupHandle, bundle: u32) |o: &mut Options, g: &$crate::GroupHandle, b| o.strategy = $crate::Strategy::Group { group: g.id(), bundle: Some(b) }
    }
    {
        /// In turn over all nodes.
        spread() |o: &mut Options| o.strategy = $crate::Strategy::Spread
    }
    {
        /// On this node; if it is gone, can never run it, or stays unknown here for longer than a death takes to be noticed, the call fails.
        on_node(node: $crate::NodeId) |o: &mut Options, n| o.strategy = $crate::Strategy::Node { node: n, soft: false }
    }
    {
        /// On this node if that can be, else elsewhere.
        prefer_node(node: $crate::NodeId) |o: &mut Options, n| o.strategy = $crate::Strategy::Node { node: n, soft: true }
    }
    {
        /// On a node with this label; each one asked for must match.
        on_label(name: &str, what: $crate::LabelMatch) |o: &mut Options, n: &str, m| o.want_label(n, m)
    }
    } };
}

/// The options of an actor.
#[doc(hidden)]
#[macro_export]
macro_rules! __mobula_actor_options {
    ($w:ident $($base:ident)?) => { $crate::__mobula_setters! { [$w $($base)?]
    {
        /// CPUs the actor holds while it lives, fractions allowed. Default: 0.
        num_cpus(n: impl Into<f64>) |o: &mut Options, n| o.num_cpus = Some(Into::<f64>::into(n))
    }
    {
        /// GPUs likewise.
        num_gpus(n: impl Into<f64>) |o: &mut Options, n| o.num_gpus = Some(Into::<f64>::into(n))
    }
    {
        /// An amount of a resource of your own, likewise.
        resource(name: &str, amount: impl Into<f64>) |o: &mut Options, n: &str, a| o.resources.push((n.to_owned(), Into::<f64>::into(a)))
    }
    {
        /// How often the actor is made again. An isolated one, and in a cluster one whose node died, then has its state as it was, by its
        /// last checkpoint and the calls since; one that fell by `restart` or `restart_on_panic` is made by its constructor. Default: 0.
        max_restarts(n: u32) |o: &mut Options, n| o.max_restarts = Some(n)
    }
    {
        /// How many `&self` methods may run side by side. Default: 1, which runs everything in order.
        max_concurrency(n: u32) |o: &mut Options, n| o.max_concurrency = Some(n)
    }
    {
        /// How many calls the mailbox holds before it pushes back. Default: unbounded.
        max_pending(n: u32) |o: &mut Options, n| o.max_pending = Some(n)
    }
    {
        /// What a call does when the mailbox is full. Default: wait.
        when_full(what: $crate::WhenFull) |o: &mut Options, w| o.fail_when_full = w == WhenFull::Fail
    }
    {
        /// Whether a panic in a method ends the actor, which then restarts if it may. Default: no, the call fails.
        restart_on_panic(yes: bool) |o: &mut Options, y| o.restart_on_panic = Some(y)
    }
    {
        /// Whether the actor lives in a worker process of its own, which may abort, leak or run out of memory without
        /// hurting anyone else. If the worker dies, the actor restarts if it may, else dies. Default: no.
        isolate(yes: bool) |o: &mut Options, y| o.isolate = Some(y)
    }
    {
        /// Memory that the actor may take in its worker process, on top of what an empty one holds and beside the object
        /// store: bytes, or a text like `"2G"`. Beyond it the worker ends, and the actor restarts if it may. Needs
        /// `isolate`. Default: no bound.
        memory(most: impl Into<$crate::Memory>) |o: &mut Options, m| o.memory = Some(Into::<$crate::Memory>::into(m))
    }
    {
        /// After how many calls that may change it the state is saved: a restart reads it and runs the calls since then again. A
        /// checkpoint costs what archiving the state does. Default: when running the log again would take about as long as
        /// reading the state: after 10,000 calls, or as many bytes of arguments as the state has, but at least 1 MiB.
        checkpoint_every(calls: u32) |o: &mut Options, n| o.checkpoint_every = Some(n)
    }
    {
        /// After how long the state is saved, if it was called since: looked at with each call. Default: however long.
        checkpoint_interval(every: std::time::Duration) |o: &mut Options, d| o.checkpoint_interval = Some(d)
    }
    {
        /// What the log of calls since the last checkpoint may take, objects among their arguments included: beyond it the state is
        /// saved at once. Default: 64 MiB.
        log_bytes(most: impl Into<$crate::Memory>) |o: &mut Options, m| o.log_bytes = Some(Into::<$crate::Memory>::into(m))
    }
    {
        /// How many other nodes keep the actor's history, if it may restart and its state has an archive: it then outlives as many
        /// of these nodes and its own as die together, less one. An outcome is told when all of them have its call. 0: it
        /// ends with its node. Default: 1.
        replicas(n: u32) |o: &mut Options, n| o.replicas = Some(n)
    }
    {
        /// Whether each checkpoint is also written where [`Config::durable`](crate::Config::durable) says, if the actor's history is kept by
        /// other nodes. When its node and all that have its history are dead together, a node that has a handle and that place makes it
        /// again from the last one that was written, instead of failing its calls: as it was then, so that **calls that were answered
        /// since are lost**. What `Handle::checkpoint` has returned for is written. Its last death says so: `mobula list actors`,
        /// `inspect::Kept`. A state with references or handles inside is not written. Default: no.
        durable_checkpoints(yes: bool) |o: &mut Options, y| o.durable_checkpoints = Some(y)
    }
    {
        /// The name under which `Actor::named` finds it. It must be free.
        name(name: &str) |o: &mut Options, n: &str| o.name = Some(n.to_owned())
    }
    {
        /// Whether the actor lives on without handles, until it is killed or the runtime ends. Default: no.
        detached(yes: bool) |o: &mut Options, y| o.detached = y
    }
    {
        /// Whether a living actor of that name is returned instead of an error. Default: no.
        get_or_create(yes: bool) |o: &mut Options, y| o.get_or_create = y
    }
    {
        /// On which node it may run: see [`Strategy`]($crate::Strategy). Default: here, unless others have the room or the data.
        strategy(how: $crate::Strategy) |o: &mut Options, s| o.strategy = s
    }
    {
        /// In this placement group, in whichever bundle has room: it takes what it needs of that.
        group(group: &$crate::GroupHandle) |o: &mut Options, g: &$crate::GroupHandle| o.strategy = $crate::Strategy::Group { group: g.id(), bundle: None }
    }
    {
        /// In this bundle of this placement group; they are numbered from 0.
        group_bundle(group: &$crate::GroupHandle, bundle: u32) |o: &mut Options, g: &$crate::GroupHandle, b| o.strategy = $crate::Strategy::Group { group: g.id(), bundle: Some(b) }
    }
    {
        /// In turn over all nodes.
        spread() |o: &mut Options| o.strategy = $crate::Strategy::Spread
    }
    {
        /// On this node; if it is gone, can never run it, or stays unknown here for longer than a death takes to be noticed, the call fails.
        on_node(node: $crate::NodeId) |o: &mut Options, n| o.strategy = $crate::Strategy::Node { node: n, soft: false }
    }
    {
        /// On this node if that can be, else elsewhere.
        prefer_node(node: $crate::NodeId) |o: &mut Options, n| o.strategy = $crate::Strategy::Node { node: n, soft: true }
    }
    {
        /// On a node with this label; each one asked for must match.
        on_label(name: &str, what: $crate::LabelMatch) |o: &mut Options, n: &str, m| o.want_label(n, m)
    }
    } };
}

__mobula_task_options!(TaskOptions base);
__mobula_actor_options!(ActorOptions base);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_a_number_or_a_text() {
        let bytes = |o: TaskOptions| o.0.memory.expect("given").bytes().expect("an amount");
        assert_eq!(bytes(TaskOptions::new().memory(2 << 30)), 2 << 30);
        assert_eq!(bytes(TaskOptions::new().memory("2G")), 2 << 30);
        assert_eq!(bytes(TaskOptions::new().memory(format!("{}K", 4))), 4096);
    }
}
