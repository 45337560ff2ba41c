//! The end of an engine: nothing more is taken, what waits fails, what runs is waited for.
//!
//! Invariant: after it, every accepted call has ended or runs on a thread that was left behind and counted.
//! Left out: deciding when; `node` does.

use std::sync::Arc;

use super::actor::ActorRef;
use super::cell::RawRef;
use super::engine::Engine;
use super::local::Local;
use crate::base::Error;

/// How long threads may take to notice that the worker process they wait for has ended.
const LAST: std::time::Duration = std::time::Duration::from_millis(200);

/// Ends a sweep, also when something dropped in it panics.
struct Sweep<'a>(&'a Local);

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        self.0.sweeping.set(false);
    }
}

impl Engine {
    /// Stops taking work, fails what waits, and waits for what runs, until `deadline`. How many threads still run then.
    pub fn shut_down(self: &Arc<Engine>, local: &Local, deadline: std::time::Instant) -> usize {
        self.close();
        // From here on actors end since the node does.
        self.deaths.close();
        // A worker that stands still, or a state whose `Drop` does, would hold up what follows.
        self.workers.end_at(deadline);
        // Whoever pushes a call from here on sees that, or its push is seen below.
        super::executor::barrier();
        self.crew.wake_all();
        if let Some(groups) = self.groups() {
            groups.close(local);
        }
        let parked: Vec<RawRef> = self
            .admission
            .lock()
            .parked
            .drain()
            .map(|(_, record)| record)
            .collect();
        for record in parked {
            match record.target().cloned() {
                // An actor that waits for resources to be born.
                Some(actor) => actor.close(local),
                None => {
                    self.fail_waiting(local, &record, Error::ShutDown);
                }
            }
        }
        let names: Vec<ActorRef> = self.names.lock().values().cloned().collect();
        for actor in names {
            super::actor::kill(&actor);
        }
        self.drain_all(local);
        #[cfg(feature = "async")]
        self.futures.shut_down(deadline);
        self.crew.join(deadline);
        // What still runs in worker processes ends with them.
        self.workers.close();
        let left = self
            .crew
            .join(deadline.max(std::time::Instant::now() + LAST));
        self.drain_all(local);
        left
    }

    /// Fails everything in all queues. A call that fails gives its resources back, which starts the next: the outermost
    /// call fails that too, or a long line would recurse.
    pub(super) fn drain_all(self: &Arc<Engine>, local: &Local) {
        use super::executor::steal;
        if local.sweeping.replace(true) {
            return;
        }
        let _sweep = Sweep(local);
        loop {
            self.drain_local(local);
            let mut any = false;
            while let Some(task) = steal(|| self.tasks.steal()) {
                any = true;
                self.fail_queued(local, &task, Error::ShutDown);
            }
            while let Some(task) = steal(|| self.started.steal()) {
                any = true;
                super::actor::forsake_apart(self, local, &task);
            }
            while let Some(actor) = steal(|| self.actors.steal()) {
                any = true;
                actor.close(local);
            }
            for outbox in self.outboxes() {
                while let Some(task) = steal(|| outbox.tasks.steal()) {
                    any = true;
                    self.fail_queued(local, &task, Error::ShutDown);
                }
                while let Some(actor) = steal(|| outbox.actors.steal()) {
                    any = true;
                    actor.close(local);
                }
            }
            if !any {
                return;
            }
        }
    }

    /// Fails everything in this thread's queues: the runtime is closing. What fails readies its dependants, which are
    /// failed by the outermost call: a long chain must not recurse.
    pub(super) fn drain_local(self: &Arc<Engine>, local: &Local) {
        if local.draining.replace(true) {
            return;
        }
        loop {
            if let Some(task) = local.tasks.pop() {
                self.fail_queued(local, &task, Error::ShutDown);
            } else if let Some(actor) = local.actors.pop() {
                actor.close(local);
            } else {
                break;
            }
        }
        local.draining.set(false);
    }
}
