//! Calls of functions: sent to other nodes, run for them, and what came of them.
//!
//! A call that another node runs stays claimed here with its arguments, so that it can be run again if that node dies. What came of
//! it is told by whoever ran it, once.
//!
//! Invariant: a call in `sent` ends by its outcome, by its node's death, or by the end of this node; exactly one of them takes it
//! out. Left out: which node (`place`).

use std::sync::Arc;
use std::time::Duration;

use super::books::Sent;
use super::groups::{group_of, strategy_of};
use super::recovery::Again;
use super::{Cluster, lineage, lost};
use crate::base::{Demand, Error, NodeId, ObjectKey};
use crate::core::owners::Stand;
use crate::exec::far::take::{self, Told};
use crate::exec::far::{Parcel, ValueParcel, parcel};
use crate::exec::options::Extra;
use crate::exec::{Local, RawRef, cell};
use crate::wire::{CallBody, Frame, Outcome, Terms};

/// Results of up to so many bytes are sent to the owner at once; larger ones stay where they are until somebody reads them.
const SMALL: usize = 64 << 10;

impl Cluster {
    /// Sends a claimed call to a slot of another node; one that cannot be sent is placed anew, or ends.
    pub(super) fn send_leased(
        self: &Arc<Cluster>,
        local: &Local,
        record: &RawRef,
        to: NodeId,
        lease: u32,
    ) {
        if !self.send_call(local, record, to, Some(lease)) {
            // It came back, or its node died, before it went.
            self.with(local, |books, _| {
                books.leasing.leaves(record.id);
                books.view.ended(to);
                let now = self.now();
                books.leasing.ended(now, record.id, Duration::ZERO);
            });
            if self.is_over() {
                let why = self.fenced_by().unwrap_or(Error::ShutDown);
                local.engine.settle_error(local, record, why);
            } else if !cell::finished(record.state()) {
                self.put_back(local, record.clone());
            }
        }
    }

    /// Sends a claimed call to another node; false if it must run elsewhere, and then it is still claimed, or has failed.
    pub(super) fn send_call(
        self: &Arc<Cluster>,
        local: &Local,
        record: &RawRef,
        to: NodeId,
        lease: Option<u32>,
    ) -> bool {
        let parcel = match Parcel::pack(local, record) {
            Ok(parcel) => parcel,
            Err(e) => {
                local.engine.settle_error(local, record, e);
                return lease.is_none();
            }
        };
        let Some(function) = parcel::number(record.entry) else {
            return false;
        };
        let call = self.out_call(function, parcel);
        let terms = terms(record);
        let number = record.id;
        let sent = self.with(local, |books, todo| {
            // Nobody takes out of the books any more what is put there now.
            if self.is_over() || !books.peers.contains_key(&to) {
                return false;
            }
            let call = self.export_call(books, todo, to, call);
            let frame = Frame::Call {
                number,
                lease,
                terms,
                call,
            };
            // If it is not taken, that node is gone, and its death is about to be told.
            let went = self.send_surely(books, to, &frame);
            if lease.is_some() {
                books.leasing.sends(number);
            } else {
                // What runs in a bundle takes nothing else of its node.
                books.view.sent(to, &Demand::NONE);
            }
            let deaths = books.deaths.remove(&number).unwrap_or_default();
            books.sent.insert(
                number,
                Sent {
                    record: record.clone(),
                    to,
                    counted: true,
                    leased: lease.is_some(),
                    went,
                    deaths,
                },
            );
            true
        });
        // Who cancelled before it was in the books did not find it there.
        if sent && record.state() & cell::CANCEL != 0 {
            self.cancel_sent(local, record);
        }
        sent
    }

    /// A call came to be run here.
    pub(super) fn on_call(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        (number, lease): (u64, Option<u32>),
        terms: Terms,
        call: CallBody,
    ) {
        let key = ObjectKey {
            owner: from,
            number,
        };
        let function = parcel::function(call.function);
        let Some(function) = function.filter(|f| parcel::is_function(f)) else {
            return self.misbehaves(from, "it called a function that there is not");
        };
        if lease.is_some() == terms.group.is_some() {
            return self.misbehaves(from, "it sent a call for which it has no lease");
        }
        let accepted = self.with(local, |books, todo| {
            books.took += 1;
            let draining = books.draining;
            let parcel = self.import_call(books, todo, local, from, function, call);
            if draining { Ok(None) } else { parcel.map(Some) }
        });
        let parcel = match accepted {
            Ok(Some(parcel)) => parcel,
            Ok(None) => return self.tell_outcome(local, from, number, Outcome::Returned),
            Err(e) => return self.tell_error(local, from, number, e),
        };
        if let Some(demand) = &terms.demand
            && local.engine.lacks(demand)
        {
            return self.tell_outcome(local, from, number, Outcome::Returned);
        }
        let caller = local.next_object(crate::trace::NOT_RECORDED);
        let extra = extra(terms);
        if !parcel.is_sound() {
            return self.misbehaves(from, "it sent a call that is none");
        }
        let record = parcel.unpack(local, caller, None, extra);
        let sound = {
            let mut books = self.books.lock();
            let fits = lease.is_none_or(|lease| books.leasing.fits(&record, from, lease));
            let sound = fits && !books.running.contains_key(&(from, number));
            if sound {
                if let Some(lease) = lease {
                    books.leasing.comes(&record, from, number, lease);
                }
                books.running.insert((from, number), record.clone());
            }
            sound
        };
        if !sound {
            return self.misbehaves(from, "it sent a call twice, or in a lease for less");
        }
        let cluster = Arc::downgrade(self);
        local.engine.accept(local, record, move |record| {
            if let Some(cluster) = cluster.upgrade() {
                let _ = crate::exec::local::with(|local| cluster.ran(local, from, key, &record));
            }
        });
    }

    /// A call that was run for another node has ended.
    pub(super) fn ran(
        self: &Arc<Cluster>,
        local: &Local,
        to: NodeId,
        key: ObjectKey,
        record: &RawRef,
    ) {
        let outcome = outcome(record);
        let number = key.number;
        self.with(local, |books, todo| {
            let ran = books.leasing.ran(self.now(), record);
            // One that went back to its submitter, or whose submitter died, is nobody's.
            let running = books.running.get(&(to, number));
            let ours = running.is_some_and(|r| r.same(record));
            if !ours {
                return;
            }
            let gone = books.running.remove(&(to, number));
            gone.into_iter().for_each(|r| todo.later.record(r));
            if !books.peers.contains_key(&to) {
                return;
            }
            let stored = matches!(outcome, Ran::Stored(_));
            let outcome = match outcome {
                Ran::Stored(len) => {
                    books.held.insert(key, record.clone());
                    books.owners.hosts(key);
                    // Made again, for somebody here too: its owner never says to a node that the copy is its own.
                    books.pulls.found(key, &mut todo.pulls);
                    Outcome::Stored(len as u64)
                }
                Ran::Value(value) => {
                    let value = self.out_value(value);
                    Outcome::Value(self.export_value(books, todo, to, value))
                }
                Ran::Failed(why) => Outcome::Failed(why),
            };
            let frame = Frame::Ended {
                number,
                ran: u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX),
                outcome,
            };
            if !self.send_surely(books, to, &frame)
                && stored
                && let Some(held) = books.held.remove(&key)
            {
                todo.later.record(held);
            }
        });
    }

    fn tell_outcome(self: &Arc<Cluster>, local: &Local, to: NodeId, number: u64, outcome: Outcome) {
        self.with(local, |books, _| {
            let frame = Frame::Ended {
                number,
                ran: 0,
                outcome,
            };
            self.send_surely(books, to, &frame);
        });
    }

    pub(super) fn tell_error(
        self: &Arc<Cluster>,
        local: &Local,
        to: NodeId,
        number: u64,
        error: Error,
    ) {
        self.tell_outcome(
            local,
            to,
            number,
            Outcome::Failed(take::failure_bytes(&error)),
        );
    }

    /// A call of this node has ended elsewhere.
    pub(super) fn on_ended(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        (number, ran): (u64, u64),
        outcome: Outcome,
    ) {
        let (sent, dry) = self.with(local, |books, _| {
            let mut dry = false;
            let ours = books.sent.get(&number).is_some_and(|s| s.to == from);
            let sent = if ours {
                books.sent.remove(&number)
            } else {
                None
            };
            if sent.as_ref().is_some_and(|s| s.counted) {
                books.view.ended(from);
            }
            if let Some(sent) = sent.as_ref().filter(|s| !s.deaths.is_empty())
                && outcome == Outcome::Returned
            {
                books.deaths.insert(number, sent.deaths.clone());
            }
            if sent.as_ref().is_some_and(|s| s.leased) {
                let now = self.now();
                books.leasing.ended(now, number, Duration::from_nanos(ran));
                dry = !books.leasing.has_line(&Demand::ONE_CPU, 0);
            }
            (sent, dry)
        });
        // Given up here meanwhile, or a lie: what it holds for us, or sent us, is not wanted.
        let Some(Sent { record, .. }) = sent else {
            return self.unwanted(local, from, number, outcome);
        };
        self.settle_outcome(local, record, from, outcome, None);
        if dry {
            // Slots may stand empty while calls wait in the queues.
            self.relieve_once(local);
        }
    }

    /// Puts what came of a claimed call elsewhere into its record. `again` is how its result is had once more, if a method gave it.
    pub(super) fn settle_outcome(
        self: &Arc<Cluster>,
        local: &Local,
        record: RawRef,
        from: NodeId,
        outcome: Outcome,
        again: Option<Again>,
    ) {
        let engine = &local.engine;
        let number = record.id;
        let key = ObjectKey {
            owner: self.me,
            number,
        };
        match outcome {
            Outcome::Value(value) => match self.import_value(local, from, value) {
                Ok(value) => self.settle(local, record, value),
                Err(e) => engine.settle_error(local, &record, e),
            },
            Outcome::Stored(len) if self.books.lock().remakes.makes(number) => {
                self.remade_there(local, &record, from, len);
            }
            Outcome::Stored(len) => {
                let recipe = match again {
                    Some(again) => Ok(lineage::of_method(again)),
                    None => self.recipe(local, &record),
                };
                self.with(local, |books, todo| {
                    books.tickets.insert(number, (from, len));
                    self.keep_lineage(books, todo, number, recipe);
                    books
                        .owners
                        .settled(key, Stand::Ready { len, at: from }, &mut todo.effects);
                    if !books.peers.contains_key(&from) {
                        // It died meanwhile, and nobody will say so again.
                        let now = self.now();
                        books.owners.peer_died(now, from, &mut todo.effects);
                    }
                });
                let distant = self.distant(key, from);
                engine.settle_distant(local, &record, len as usize, distant);
            }
            Outcome::Failed(why) => {
                if !engine.settle_failure_told(local, &record, &why) {
                    engine.settle_error(
                        local,
                        &record,
                        lost(key, from, "its failure cannot be read"),
                    );
                }
            }
            Outcome::Returned => self.again(local, record, from),
        }
    }

    /// Puts a value into its record: at once if it fits there, else where it may wait for room in the store.
    pub(super) fn settle(self: &Arc<Cluster>, local: &Local, record: RawRef, value: ValueParcel) {
        if value.bytes.len() <= crate::exec::INLINE_MAX {
            return local.engine.settle_value(local, &record, value);
        }
        self.errand(move |local| local.engine.settle_value(local, &record, value));
    }

    /// Drops what came for a call that nobody waits for.
    pub(super) fn unwanted(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        number: u64,
        outcome: Outcome,
    ) {
        match outcome {
            Outcome::Value(value) => drop(self.import_value(local, from, value)),
            Outcome::Stored(len) => {
                let key = ObjectKey {
                    owner: self.me,
                    number,
                };
                self.with(local, |books, todo| {
                    if !books.exports.contains_key(&number) && !books.tickets.contains_key(&number)
                    {
                        books.owners.settled(
                            key,
                            Stand::Ready { len, at: from },
                            &mut todo.effects,
                        );
                        books.owners.forget(key, &mut todo.effects);
                    }
                });
            }
            Outcome::Failed(_) | Outcome::Returned => {}
        }
    }

    /// A node did not run a call of this node: it is placed anew, here if it can be.
    fn again(self: &Arc<Cluster>, local: &Local, record: RawRef, not: NodeId) {
        if let Some(e) = self.outlaw(&record, not) {
            return local.engine.settle_error(local, &record, e);
        }
        self.put_back(local, record);
    }

    /// A node died: its calls run again elsewhere, as often as they may.
    pub(super) fn calls_died(self: &Arc<Cluster>, local: &Local, node: NodeId, sent: Vec<Sent>) {
        for sent in sent {
            let Sent {
                record,
                mut deaths,
                went,
                ..
            } = sent;
            let actor = record.target().cloned();
            if let Some(actor) = actor {
                let error = Error::ActorDied {
                    actor: actor.entry().name,
                    name: actor.name().map(Arc::from),
                    cause: Arc::from(format!("its node {node} died")),
                    restarts: actor.restarts(),
                };
                local.engine.settle_error(local, &record, error);
                continue;
            }
            let retries = lineage::retries(&record);
            if went {
                deaths.push(node);
            }
            if deaths.len() > retries as usize {
                let nodes: Vec<String> = deaths.iter().map(NodeId::to_string).collect();
                let what = format!(
                    "`{}` was run {} times, and each time its node died (nodes {}): max_retries is {retries}",
                    record.name(),
                    deaths.len(),
                    nodes.join(", ")
                );
                let error = Error::NodeLost {
                    node,
                    what: Arc::from(what),
                };
                local.engine.settle_error(local, &record, error);
                continue;
            }
            if record.state() & cell::CANCEL != 0 {
                let error = Error::Cancelled {
                    function: record.name(),
                };
                local.engine.settle_error(local, &record, error);
                continue;
            }
            self.note_deaths(record.id, deaths);
            self.again(local, record, node);
        }
    }

    /// Remembers which nodes died under a call, until it is sent again.
    fn note_deaths(&self, number: u64, deaths: Vec<NodeId>) {
        /// Calls that ran here after all stay behind.
        const KEPT: usize = 1 << 16;
        let mut books = self.books.lock();
        if books.deaths.len() == KEPT {
            books.deaths.clear();
        }
        books.deaths.insert(number, deaths);
    }

    /// Tells the node that runs a call of ours that it is not wanted any more.
    pub(super) fn cancel_sent(self: &Arc<Cluster>, local: &Local, record: &RawRef) {
        let number = record.id;
        if self.cancel_lined(local, number) {
            return;
        }
        if let Some(far) = record.target().and_then(|actor| actor.far())
            && far.kept().is_some()
        {
            return far.cancel(record);
        }
        self.with(local, |books, _| {
            if let Some(to) = books.sent.get(&number).map(|s| s.to) {
                self.send_surely(books, to, &Frame::Cancel { number });
            }
        });
    }

    /// A call that runs here for another node is not wanted any more.
    pub(super) fn on_cancel(self: &Arc<Cluster>, local: &Local, from: NodeId, number: u64) {
        let record = self.books.lock().running.get(&(from, number)).cloned();
        if let Some(record) = record {
            self.forsake(local, &record);
        }
    }

    /// Cancels a call that runs here for another node, and what it called on further nodes, which do the same.
    pub(super) fn forsake(self: &Arc<Cluster>, local: &Local, record: &RawRef) {
        local.engine.cancel(local, record);
        // Looked for afterwards: one that has not begun calls nobody now.
        let calls = self.books.lock().calls_of(record.id);
        for call in calls {
            local.engine.cancel(local, &call);
        }
    }
}

/// What came of a call that was run for another node.
enum Ran {
    /// A value of so many bytes, which stays here.
    Stored(usize),
    Value(ValueParcel),
    Failed(Vec<u8>),
}

fn outcome(record: &RawRef) -> Ran {
    let failed = |e: &Error| Ran::Failed(take::failure_bytes(e));
    match take::told(record) {
        Told::Value(len, false) if take::is_stored(record) && len > SMALL => Ran::Stored(len),
        Told::Value(..) => match ValueParcel::of_message(record) {
            Ok(value) => Ran::Value(value),
            Err(e) => failed(&e),
        },
        Told::Failed(why) => Ran::Failed(why),
    }
}

/// What a call says of how it is run, as it travels.
fn terms(record: &RawRef) -> Terms {
    match record.extra() {
        None => Terms {
            demand: None,
            priority: 0,
            panic_retries: 0,
            crash_retries: 0,
            isolate: false,
            memory: None,
            group: None,
        },
        Some(e) => Terms {
            demand: e.demand.clone(),
            priority: e.priority,
            panic_retries: e.panic_retries,
            crash_retries: e.crash_retries,
            isolate: e.isolate,
            memory: e.memory,
            group: group_of(&e.strategy),
        },
    }
}

/// The same, as a record here carries it.
fn extra(terms: Terms) -> Option<Box<Extra>> {
    let plain = terms.demand.is_none() && terms.panic_retries == 0 && !terms.isolate;
    if plain {
        return None;
    }
    Some(Box::new(Extra {
        demand: terms.demand,
        priority: terms.priority,
        panic_retries: terms.panic_retries,
        crash_retries: terms.crash_retries,
        isolate: terms.isolate,
        memory: terms.memory,
        strategy: strategy_of(terms.group),
        ..Extra::of_actor(Demand::NONE)
    }))
}
