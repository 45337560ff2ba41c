//! An actor that runs here and whose history others keep.
//!
//! `core::recovery::Host` decides; this hands it what the drainer and the link bring, and carries out what it says. Calls of this node's
//! own handles are in the mailbox without a way to ask again: they are numbered when their turn comes, as calls of a caller of
//! their own.
//!
//! Invariant: a call is settled, or its caller on another node told, only when the machine says so. Left out: how an actor comes here
//! (`backup`, `actors`).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::again::Replay;
use super::desk::Desk;
use super::durable::Outside;
use super::load::{Came, Kept, Load, State, direct};
use super::results::unknown;
use super::shown::Shown;
use crate::base::{ActorKey, Error, IdMap, NodeId};
use crate::core::recovery::host::{Effect, Event};
use crate::core::recovery::{CallId, History, Host, Record, Settled};
use crate::exec::actor::{self, ActorRef};
use crate::exec::call::Outcome;
use crate::exec::entry::ActorEntry;
use crate::exec::far::Parcel;
use crate::exec::{Local, RawRef};
use crate::node::cluster::Cluster;
use crate::node::cluster::actors::caller_from;
use crate::wire::ActorTerms;

/// How long until a state is asked for again that could not be saved.
const AGAIN: Duration = Duration::from_secs(1);

/// What happens to it.
pub(super) enum Input {
    /// To the machine alone.
    Machine(Event<Load>),
    /// Which nodes there are has changed.
    Nodes,
    /// A call came.
    Came(Call),
    /// The turn of a call has come.
    Turn(CallId, Kept),
    /// A call of this node's own handles has ended.
    Ended(CallId, RawRef, std::thread::Result<Outcome>),
    /// A caller asks again for what a call gave, which is its object of this number.
    Again(CallId, u64, Settled),
    /// One that came has.
    Told(CallId, Came),
    /// The state, as it is between two calls.
    State(State, u64),
    /// It could not be saved.
    NoState,
    /// The state after this call is written outside, or not.
    Outside(u64, Result<(), Error>),
    /// A checkpoint is wanted, and this call settled when others have it.
    Want(RawRef),
    /// The actor has ended.
    Close(String),
    /// This node is of the cluster no more.
    Abandon(Error),
}

/// A call of another node, or of a handle here to what was elsewhere.
pub(super) struct Call {
    pub id: CallId,
    pub settled: Settled,
    /// The number of its result among its node's objects.
    pub number: u64,
    /// Who calls, among its node's callers.
    pub caller: u64,
    pub parcel: Parcel,
}

pub(super) struct Inner {
    machine: Host<Load>,
    /// How calls of this node's own handles ended that have not been settled, by number.
    held: IdMap<(RawRef, std::thread::Result<Outcome>)>,
    /// Calls that came again: the numbers of their results among their nodes' objects.
    again: HashMap<CallId, u64>,
    /// Who waits for a checkpoint that was not made, and for ones that were.
    pub wants: Vec<RawRef>,
    wanted: bool,
    pub keeping: VecDeque<Vec<RawRef>>,
    /// The same, of ones that every backup has and that are not outside.
    pub unwritten: Vec<(u64, Vec<RawRef>)>,
    retry: Option<Duration>,
    closing: Option<String>,
    closed: bool,
}

/// Which calls there are.
#[derive(Default)]
struct Calls {
    /// Those in the mailbox, or further, by their records.
    by_record: IdMap<CallId>,
    /// The last number of this node's own.
    last: u64,
}

/// See the file.
pub(super) struct KeptHost {
    pub cluster: Weak<Cluster>,
    /// Its first key.
    pub actor: ActorKey,
    /// Where it is.
    pub at: ActorKey,
    pub incarnation: u64,
    /// Who made it.
    pub creator: NodeId,
    /// Who has calls here without a number of their own.
    direct: NodeId,
    calls: Mutex<Calls>,
    pub entry: &'static ActorEntry,
    pub terms: ActorTerms,
    pub init: Arc<OnceLock<Kept>>,
    begun: AtomicBool,
    pub replay: Replay,
    desk: Desk<Input>,
    inner: Mutex<Inner>,
    pub wants_state: AtomicBool,
    pub rests: AtomicBool,
    /// Nobody is told anything any more.
    over: AtomicBool,
    pub cell: Mutex<Option<ActorRef>>,
    /// Since when it is here, if nobody may have a handle yet.
    pub since: Duration,
    /// Nodes that called it where it was, and that this node does not know.
    pub strangers: Mutex<Vec<NodeId>>,
    pub shown: Shown,
    pub outside: Mutex<Outside>,
}

impl KeptHost {
    /// A new actor, whose key is its first.
    pub fn new(
        cluster: &Arc<Cluster>,
        at: ActorKey,
        creator: NodeId,
        state: State,
    ) -> Arc<KeptHost> {
        let limits = super::limits(&state.terms, cluster.pace);
        let state = Arc::new(state);
        let made = (Load::State(Arc::clone(&state)), 1);
        let nodes = cluster.backups_for(at, creator);
        let machine = Host::new(cluster.now(), at, made, limits, nodes);
        KeptHost::made_of(cluster, (at, at, creator), machine, &state, None)
    }

    /// One that was elsewhere.
    pub fn resume(
        cluster: &Arc<Cluster>,
        record: &Record,
        history: History<Load>,
        state: &State,
        death: String,
    ) -> Arc<KeptHost> {
        let limits = super::limits(&state.terms, cluster.pace);
        let creator = record.actor.host;
        let nodes = cluster.backups_for(record.actor, creator);
        let machine = Host::resume(cluster.now(), record, history, limits, nodes);
        let at = (record.actor, record.at, creator);
        KeptHost::made_of(cluster, at, machine, state, Some(death))
    }

    fn made_of(
        cluster: &Arc<Cluster>,
        (actor, at, creator): (ActorKey, ActorKey, NodeId),
        machine: Host<Load>,
        state: &State,
        death: Option<String>,
    ) -> Arc<KeptHost> {
        Arc::new(KeptHost {
            cluster: Arc::downgrade(cluster),
            actor,
            at,
            incarnation: machine.incarnation(),
            creator,
            direct: direct(cluster.me),
            calls: Mutex::default(),
            entry: state.entry,
            terms: state.terms.clone(),
            init: Arc::clone(&state.init),
            begun: AtomicBool::new(false),
            replay: Replay::default(),
            desk: Desk::shut(),
            inner: Mutex::new(Inner {
                machine,
                held: IdMap::default(),
                again: HashMap::new(),
                wants: Vec::new(),
                wanted: false,
                keeping: VecDeque::new(),
                unwritten: Vec::new(),
                retry: None,
                closing: None,
                closed: false,
            }),
            wants_state: AtomicBool::new(false),
            rests: AtomicBool::new(false),
            over: AtomicBool::new(false),
            cell: Mutex::new(None),
            since: cluster.now(),
            strangers: Mutex::default(),
            shown: Shown::of(death),
            outside: Mutex::default(),
        })
    }

    /// Whether it was on another node before.
    pub fn has_moved(&self) -> bool {
        self.at != self.actor
    }

    /// Whether it has been made.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Hands something in.
    pub fn post(self: &Arc<KeptHost>, local: &Local, input: Input) {
        self.desk.post(input, |inputs| self.handle(local, inputs));
    }

    /// Whether another node hosts it, or nobody.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// The actor here.
    pub fn cell(&self) -> Option<ActorRef> {
        self.cell.lock().clone()
    }

    fn look_after(&self) {
        if let Some(cell) = self.cell() {
            actor::look_after(&cell);
        }
    }

    /// All that has happened since it was last looked at; what follows for the backups follows once.
    fn handle(self: &Arc<KeptHost>, local: &Local, inputs: &mut VecDeque<Input>) {
        let Some(cluster) = self.cluster.upgrade() else {
            return inputs.clear();
        };
        let now = cluster.now();
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let mut out = Vec::new();
        for input in inputs.drain(..) {
            self.take(&cluster, local, inner, (now, input), &mut out);
        }
        inner.machine.follow(now, &mut out);
        self.carry_out(&cluster, local, inner, &mut out, None);
        // What was done is told before the end is.
        let rests = inner.machine.load().0 == 0 && inner.held.is_empty();
        if inner.closing.is_some() && rests && !std::mem::replace(&mut inner.closed, true) {
            inner.machine.handle(now, Event::Close, &mut out);
            self.carry_out(&cluster, local, inner, &mut out, None);
        }
        self.shown.note(&inner.machine);
    }

    /// One thing that has happened; leaves nothing in `out`.
    fn take(
        self: &Arc<KeptHost>,
        cluster: &Arc<Cluster>,
        local: &Local,
        inner: &mut Inner,
        (now, input): (Duration, Input),
        out: &mut Vec<Effect<Load>>,
    ) {
        let mut came = None;
        match input {
            Input::Machine(event) => {
                if matches!(event, Event::Tick) && inner.retry.is_some_and(|at| now >= at) {
                    inner.retry = None;
                    self.wants_state.store(true, Ordering::Release);
                    self.look_after();
                }
                inner.wanted |= matches!(event, Event::Want);
                inner.machine.take(now, event, out);
            }
            Input::Nodes => {
                // As they are now: of two that say so at once the later one may have looked first.
                let nodes = cluster.backups_for(self.actor, self.creator);
                inner.machine.take(now, Event::Nodes(nodes), out);
            }
            Input::Came(call) => {
                let (id, settled) = (call.id, call.settled.clone());
                let event = Event::Call { call: id, settled };
                inner.machine.take(now, event, out);
                came = Some(call);
            }
            Input::Again(call, number, settled) => {
                inner.again.insert(call, number);
                inner.machine.take(now, Event::Again { call, settled }, out);
            }
            Input::Turn(call, kept) => {
                let bytes = kept.bytes();
                let load = Load::Call(Arc::new(kept));
                let event = if call.node == self.direct {
                    Event::OwnTurn { call, bytes, load }
                } else {
                    Event::Turn { call, bytes, load }
                };
                inner.machine.take(now, event, out);
            }
            Input::Ended(_, record, outcome) if self.is_over() => {
                self.end_late(local, inner, &record, outcome);
            }
            Input::Ended(call, record, outcome) => {
                inner.held.insert(call.number, (record, outcome));
                inner.machine.take(now, Event::OwnEnded(call), out);
            }
            Input::Told(call, came) => {
                let outcome = Load::Came(Arc::new(came));
                inner.machine.take(now, Event::Ended { call, outcome }, out);
            }
            Input::State(state, bytes) => {
                self.wants_state.store(false, Ordering::Release);
                let state = Load::State(Arc::new(state));
                inner.machine.take(now, Event::State { state, bytes }, out);
                let (order, after) = inner.machine.orders();
                // Else a call ran, and it will be asked for again.
                if after == order && std::mem::take(&mut inner.wanted) {
                    let wants = std::mem::take(&mut inner.wants);
                    inner.keeping.push_back(wants);
                }
                if after == order {
                    self.write_outside(inner.machine.newest());
                }
            }
            Input::Outside(order, written) => self.is_outside(local, inner, order, &written),
            Input::NoState => {
                self.wants_state.store(false, Ordering::Release);
                inner.retry = Some(now + AGAIN);
            }
            Input::Want(record) => {
                inner.wants.push(record);
                inner.wanted = true;
                inner.machine.take(now, Event::Want, out);
            }
            Input::Close(cause) => {
                inner.closing.get_or_insert(cause);
            }
            Input::Abandon(error) => {
                self.abandon(local, inner, &error);
                *self.cell.lock() = None;
            }
        }
        if let Some(call) = self.carry_out(cluster, local, inner, out, came) {
            // It has been run, or is about to be.
            inner.again.insert(call.id, call.number);
        }
    }

    /// Which call this is: one of this node's own is numbered now.
    pub fn call(&self, record: u64) -> CallId {
        let mut calls = self.calls.lock();
        if let Some(call) = calls.by_record.get(&record) {
            return *call;
        }
        calls.last += 1;
        let number = calls.last;
        let call = CallId {
            node: self.direct,
            number,
        };
        calls.by_record.insert(record, call);
        call
    }

    /// A call is over, for whoever asks which it is.
    pub fn forget_call(&self, record: u64) -> CallId {
        let call = self.call(record);
        self.calls.lock().by_record.remove(&record);
        call
    }

    fn carry_out(
        self: &Arc<KeptHost>,
        cluster: &Arc<Cluster>,
        local: &Local,
        inner: &mut Inner,
        out: &mut Vec<Effect<Load>>,
        mut came: Option<Call>,
    ) -> Option<Call> {
        for effect in out.drain(..) {
            match effect {
                Effect::Send { to, message } => {
                    cluster.send_to_backup(local, self.actor, to, message);
                }
                Effect::Run(call) => {
                    if let Some(came) = came.take_if(|came| came.id == call) {
                        self.accept(local, came, false);
                    }
                }
                Effect::Own(call) => {
                    if let Some((record, outcome)) = inner.held.remove(&call.number) {
                        local.engine.settle_kept(local, &record, outcome);
                    }
                }
                Effect::Reply { call, outcome } => {
                    if let Load::Came(came) = outcome {
                        if let Some(number) = inner.again.remove(&call) {
                            cluster.hold_large(local, call.node, number, &came);
                        }
                        cluster.tell_came(local, self.actor, call, &came);
                    }
                }
                Effect::Lost(call) => {
                    inner.again.remove(&call);
                    let came = Arc::new(unknown(cluster.me));
                    cluster.tell_came(local, self.actor, call, &came);
                }
                Effect::Swap { expect, record } => {
                    let host = Arc::clone(self);
                    let actor = self.actor;
                    cluster.swap_record(actor, expect, record, move |local, differs| {
                        let event = differs.map_or(Event::Swapped, Event::Differs);
                        host.post(local, Input::Machine(event));
                    });
                }
                Effect::Checkpoint => {
                    self.wants_state.store(true, Ordering::Release);
                    self.look_after();
                }
                Effect::Kept(order) => self.is_kept(local, inner, order),
                Effect::Hold => self.rests.store(true, Ordering::Release),
                Effect::Go => {
                    self.rests.store(false, Ordering::Release);
                    self.look_after();
                }
                Effect::Fenced { incarnation } => {
                    let why = match incarnation {
                        Some(_) => "another node took it over, since this one was found dead",
                        None => "its record is gone",
                    };
                    self.leave(local, inner, why);
                    cluster.host_fenced(local, self);
                }
                Effect::Closed => {
                    let cause = inner.closing.clone().unwrap_or_default();
                    self.over.store(true, Ordering::Release);
                    for (_, (record, outcome)) in inner.held.drain() {
                        local.engine.settle_kept(local, &record, outcome);
                    }
                    // Checkpoints that nobody will confirm.
                    let error = Error::ActorDied {
                        actor: self.entry.name,
                        name: None,
                        cause: Arc::from(cause.as_str()),
                        restarts: 0,
                    };
                    inner.forget_wants(local, &error);
                    cluster.host_closed(local, self, &cause);
                    self.drop_outside(cluster);
                    *self.cell.lock() = None;
                }
            }
        }
        came
    }

    /// Puts a call into the mailbox.
    pub fn accept(self: &Arc<KeptHost>, local: &Local, came: Call, again: bool) {
        let Call {
            id,
            number,
            caller,
            parcel,
            ..
        } = came;
        let Some(cell) = self.cell() else { return };
        let caller = caller_from(id.node, caller);
        let record = parcel.unpack(local, caller, Some(cell), None);
        self.calls.lock().by_record.insert(record.id, id);
        if again {
            self.replay.records.lock().insert(record.id);
        }
        let host = Arc::clone(self);
        if !again && let Some(cluster) = self.cluster.upgrade() {
            let mut books = cluster.books.lock();
            books.running.insert((id.node, number), record.clone());
        }
        local.engine.accept(local, record, move |record| {
            let number = (!again).then_some(number);
            let _ = crate::exec::local::with(|local| {
                if again {
                    host.replayed(local);
                }
                host.told(local, id, number, &record);
            });
        });
    }

    /// Nobody is told anything any more.
    fn leave(&self, local: &Local, inner: &mut Inner, why: &str) {
        let error = Error::Cluster {
            why: Arc::from(why),
        };
        self.abandon(local, inner, &error);
        if let Some(cell) = self.cell.lock().take() {
            actor::kill(&cell);
        }
    }

    fn abandon(&self, local: &Local, inner: &mut Inner, error: &Error) {
        self.over.store(true, Ordering::Release);
        self.rests.store(false, Ordering::Release);
        for (_, (record, _)) in inner.held.drain() {
            local.engine.settle_error(local, &record, error.clone());
        }
        inner.forget_wants(local, error);
    }
}

impl KeptHost {
    pub fn state_of(&self, value: Option<crate::exec::far::ValueParcel>) -> State {
        State {
            entry: self.entry,
            terms: self.terms.clone(),
            init: Arc::clone(&self.init),
            value,
        }
    }

    /// The actor has been made: what waited for that is handled.
    pub fn begin(self: &Arc<KeptHost>, local: &Local) {
        if !self.begun.swap(true, Ordering::AcqRel) {
            self.replay.begins();
            self.desk.open(|inputs| self.handle(local, inputs));
            self.post(local, Input::Machine(Event::Tick));
        }
    }

    /// A call of this node has ended after the actor had, or after another node took it over.
    fn end_late(
        &self,
        local: &Local,
        inner: &Inner,
        record: &RawRef,
        outcome: std::thread::Result<Outcome>,
    ) {
        if inner.closed {
            return local.engine.settle_kept(local, record, outcome);
        }
        let why = "the actor's node was found dead, and what the call did counts for nothing";
        let error = Error::Cluster {
            why: Arc::from(why),
        };
        local.engine.settle_error(local, record, error);
    }
}
