//! The running half: numbers calls, has them written down, and says when outcomes may be told.
//!
//! Each backup is sent what it lacks in messages that are numbered (beats), a few at a time; what comes meanwhile goes with
//! the next. An outcome is told once every backup that the record names, or is about to name, has its call. While
//! the record names none that lives, and there is a node that could be one, outcomes wait until it is.
//!
//! Invariant: an outcome leaves by [`Effect::Reply`] at most once for each time its call came, always the same one, and
//! only when every backup has the call and all before it; the log is within its bound by one call for each that runs at
//! a time, if the driver heeds [`Effect::Hold`]. After [`Effect::Fenced`] nothing is told. Left out: running calls, who is alive.

mod ask;
mod keep;
mod own;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::dedup::Stage;
use super::{CallId, Checkpoint, Dedup, Entry, History, Limits, Record, Settled, ToBackup, ToHost};
use crate::base::{ActorKey, NodeId};
use keep::Standing;
use own::OwnCalls;

/// What each call takes in the log that its caller excepts from those that it has settled.
const EXCEPTED: u64 = 8;

/// What happens to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<P> {
    /// These nodes live, this one aside, in the order in which they are wanted as backups.
    Nodes(Vec<NodeId>),
    /// A node is dead: it asks for nothing any more.
    Died(NodeId),
    /// A call came.
    Call {
        /// Which.
        call: CallId,
        /// What its caller has settled.
        settled: Settled,
    },
    /// What a call gave is asked for once more: it is told again, or lost. Nothing runs for it.
    Again {
        /// Which.
        call: CallId,
        /// What its caller has settled.
        settled: Settled,
    },
    /// A node has settled calls.
    Settled {
        /// Which node.
        node: NodeId,
        /// Which calls.
        settled: Settled,
    },
    /// The turn of a call that may change the state has come: it runs, now or as soon as this is handled.
    Turn {
        /// Which.
        call: CallId,
        /// What it takes in the log.
        bytes: u64,
        /// The call itself.
        load: P,
    },
    /// The same of a call by the host's own handles: nobody can ask for it again, since whoever could ends with this host.
    OwnTurn {
        /// Which.
        call: CallId,
        /// What it takes in the log.
        bytes: u64,
        /// The call itself.
        load: P,
    },
    /// Such a call has ended, one that only looked at the state too.
    OwnEnded(CallId),
    /// A call has ended, one that was run again after a takeover too.
    Ended {
        /// Which.
        call: CallId,
        /// What came of it.
        outcome: P,
    },
    /// A backup says something.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        message: ToHost,
    },
    /// The swap that was asked for was made.
    Swapped,
    /// It was not: the record is this.
    Differs(Option<Record>),
    /// A checkpoint is wanted; [`Effect::Kept`] says that it is written down.
    Want,
    /// The state, between two calls, as [`Effect::Checkpoint`] asked.
    State {
        /// It.
        state: P,
        /// What it takes.
        bytes: u64,
    },
    /// The actor has ended for good: nobody is to take it over.
    Close,
    /// Time has passed.
    Tick,
}

/// What the driver does after an event, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<P> {
    /// Send it, in order.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: ToBackup<P>,
    },
    /// The call is new: it waits for its turn.
    Run(CallId),
    /// Tell its caller what came of it.
    Reply {
        /// Which.
        call: CallId,
        /// What.
        outcome: P,
    },
    /// Say what came of an own call.
    Own(CallId),
    /// Nobody knows any more what this call gave, which is asked for again.
    Lost(CallId),
    /// Swap the record if it is still the first (`None`: there is none); `None` as the second deletes it. Answer with
    /// [`Event::Swapped`] or [`Event::Differs`].
    Swap {
        /// What it must be.
        expect: Option<Record>,
        /// What it becomes.
        record: Option<Record>,
    },
    /// Take the state, as soon as no call that may change it runs, and hand it in with [`Event::State`].
    Checkpoint,
    /// A checkpoint that was wanted stands at this call, and every backup has it.
    Kept(u64),
    /// The log is full: no turns until [`Effect::Go`].
    Hold,
    /// Turns may come again.
    Go,
    /// Somebody else hosts the actor: drop it, answer nothing, and say to whoever called that it is not here, so that they
    /// look for it.
    Fenced {
        /// As this incarnation; `None`: nobody does any more.
        incarnation: Option<u64>,
    },
    /// The record is gone: nobody takes the actor over.
    Closed,
}

/// A call that only looked at the state, and what came of it.
#[derive(Clone, Debug)]
struct Seen<P> {
    call: CallId,
    /// `None`: an own call's.
    outcome: Option<P>,
    /// It may have seen all calls up to this.
    order: u64,
    /// The round of confirmations that it waits for.
    round: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// It has ended, and the record is to go.
    Closing,
    Over,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Host<P> {
    actor: ActorKey,
    at: ActorKey,
    incarnation: u64,
    limits: Limits,
    phase: Phase,
    history: History<P>,
    /// What the calls in it take.
    bytes: u64,
    /// The last place given.
    order: u64,
    /// Places of calls that have not ended.
    open: BTreeSet<u64>,
    /// The last place that was given elsewhere: calls up to it run again here.
    again: u64,
    calls: Dedup<P>,
    /// Ended calls whose outcomes nobody was told, by place.
    waiting: BTreeMap<u64, CallId>,
    own: OwnCalls,
    seen: VecDeque<Seen<P>>,
    /// The last round of confirmations that something waits for.
    round: u64,
    /// What calls take that some backup has not written down.
    unsaved: VecDeque<(u64, u64)>,
    unsaved_bytes: u64,
    record: Option<Record>,
    /// A swap that is under way.
    swap: Option<Option<Record>>,
    /// Who lives, by preference.
    nodes: Vec<NodeId>,
    declined: BTreeSet<NodeId>,
    backups: BTreeMap<NodeId, Standing>,
    /// Outcomes up to here may have been told.
    told: u64,
    held: bool,
    /// A checkpoint was asked for and has not come.
    asked: bool,
    wanted: bool,
    /// Since when nobody could be a backup, though the record names some.
    lonely: Option<Duration>,
    /// Wanted checkpoints that not every backup has.
    keeping: VecDeque<u64>,
    last: Duration,
}

impl<P: Clone> Host<P> {
    /// A new actor: how it is made is its first state. The first event lets it begin; `nodes` is as in [`Event::Nodes`].
    pub fn new(
        now: Duration,
        at: ActorKey,
        (made, bytes): (P, u64),
        limits: Limits,
        nodes: Vec<NodeId>,
    ) -> Host<P> {
        let checkpoint = Checkpoint {
            order: 0,
            state: made,
            bytes,
            ran: Dedup::default(),
        };
        let record = Record {
            actor: at,
            incarnation: 1,
            version: 0,
            at,
            backups: Vec::new(),
        };
        let history = History::new(Arc::new(checkpoint));
        let mut host = Host::resume(now, &record, history, limits, nodes);
        host.record = None;
        host
    }

    /// An actor that was taken over. The driver makes it from the history, runs the calls in it again, in their order, and reports
    /// the end of each; the first event lets it begin. `nodes` is as in [`Event::Nodes`].
    pub fn resume(
        now: Duration,
        record: &Record,
        history: History<P>,
        limits: Limits,
        nodes: Vec<NodeId>,
    ) -> Host<P> {
        let mut calls = history.checkpoint.ran.clone();
        for entry in &history.entries {
            calls.settle(entry.call.node, &entry.settled);
            calls.logged(entry.call, entry.order);
        }
        let backups = record.backups.iter();
        Host {
            actor: record.actor,
            at: record.at,
            incarnation: record.incarnation,
            limits,
            phase: Phase::Open,
            bytes: history.bytes(),
            order: history.order(),
            again: history.order(),
            open: history.entries.iter().map(|entry| entry.order).collect(),
            calls,
            waiting: BTreeMap::new(),
            own: OwnCalls::default(),
            seen: VecDeque::new(),
            round: 0,
            unsaved: VecDeque::new(),
            unsaved_bytes: 0,
            record: Some(record.clone()),
            swap: None,
            nodes,
            declined: BTreeSet::new(),
            backups: backups.map(|node| (*node, Standing::default())).collect(),
            told: 0,
            held: false,
            asked: false,
            wanted: false,
            lonely: None,
            keeping: VecDeque::new(),
            last: now,
            history,
        }
    }

    /// Something happened.
    pub fn handle(&mut self, now: Duration, event: Event<P>, out: &mut Vec<Effect<P>>) {
        self.take(now, event, out);
        self.follow(now, out);
    }

    /// Something happened, and more has, which comes at once: what follows from all of it is for [`follow`](Self::follow).
    pub fn take(&mut self, now: Duration, event: Event<P>, out: &mut Vec<Effect<P>>) {
        if self.phase == Phase::Over {
            return;
        }
        match event {
            Event::Nodes(nodes) => self.nodes(nodes, out),
            Event::Died(node) => {
                self.unasked(node, &Settled::below(u64::MAX));
                self.calls.gone(node);
            }
            Event::Call { call, settled } => self.call(call, &settled, out),
            Event::Again { call, settled } => self.tell_again(call, &settled, out),
            Event::Settled { node, settled } => self.settle(node, &settled),
            Event::Turn { call, bytes, load } if self.phase == Phase::Open => {
                self.turn(call, bytes, load);
            }
            Event::OwnTurn { call, bytes, load } if self.phase == Phase::Open => {
                // The process that ran it may have died: then its turn comes once more.
                if !self.own.runs(call) {
                    let order = self.log(call, bytes, load, Settled::default());
                    self.own.begin(call, order);
                }
            }
            Event::OwnEnded(call) => self.own_ended(call),
            Event::Ended { call, outcome } => self.ended(call, outcome),
            Event::Message { from, message } => self.message(from, message, out),
            Event::Swapped => self.swapped(out),
            Event::Differs(record) => self.differs(record, out),
            Event::Want => self.wanted = true,
            Event::State { state, bytes } => self.state(now, state, bytes),
            Event::Close if self.phase == Phase::Open => self.close(out),
            Event::Close | Event::Turn { .. } | Event::OwnTurn { .. } | Event::Tick => {}
        }
    }

    /// Does what follows from what happened.
    pub fn follow(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        if self.phase == Phase::Open {
            self.arrange(now, out);
            self.pump(out);
            self.tell(out);
            self.bound(now, out);
        }
    }

    fn turn(&mut self, call: CallId, bytes: u64, load: P) {
        let logged = |known: &super::dedup::Known<P>| matches!(known.stage, Stage::Logged(..));
        if self.calls.get(call).is_some_and(logged) {
            return;
        }
        let settled = self.calls.settled(call.node);
        let bytes = bytes + EXCEPTED * settled.but.len() as u64;
        let order = self.log(call, bytes, load, settled);
        if self.calls.get(call).is_some() {
            self.calls.logged(call, order);
        }
    }

    /// Gives a call its place.
    fn log(&mut self, call: CallId, bytes: u64, load: P, settled: Settled) -> u64 {
        self.order += 1;
        let order = self.order;
        self.open.insert(order);
        self.bytes += bytes;
        self.unsaved.push_back((order, bytes));
        self.unsaved_bytes += bytes;
        self.history.entries.push_back(Entry {
            order,
            call,
            settled,
            bytes,
            load,
        });
        order
    }

    fn own_ended(&mut self, call: CallId) {
        match self.own.end(call) {
            Some(order) => drop(self.open.remove(&order)),
            None => self.saw(call, None),
        }
    }

    /// A call has ended that only looked at the state.
    fn saw(&mut self, call: CallId, outcome: Option<P>) {
        // Who confirms from now on has known of nobody else until it ran.
        let sent = self.backups.values().map(|backup| backup.round).max();
        self.round = self.round.max(sent.unwrap_or(0) + 1);
        self.seen.push_back(Seen {
            call,
            outcome,
            order: self.order,
            round: self.round,
        });
    }

    fn ended(&mut self, call: CallId, outcome: P) {
        match self.calls.get(call).map(|known| known.stage.clone()) {
            Some(Stage::Logged(order, None)) => {
                self.calls.ended(call, outcome);
                self.open.remove(&order);
                self.waiting.insert(order, call);
            }
            Some(Stage::Taken) => self.saw(call, Some(outcome)),
            Some(Stage::Logged(_, Some(_))) => {}
            // Its caller is dead or gave it up.
            None => {
                let entries = self.history.entries.iter();
                let place = entries.rev().find(|entry| entry.call == call);
                if let Some(order) = place.map(|entry| entry.order) {
                    self.open.remove(&order);
                }
            }
        }
    }

    /// Tells what may be told.
    fn tell(&mut self, out: &mut Vec<Effect<P>>) {
        let Some((order, round)) = self.watermark() else {
            return;
        };
        self.told = self.told.max(order);
        while let Some(first) = self.waiting.first_entry() {
            if *first.key() > order {
                break;
            }
            let call = first.remove();
            if let Some(known) = self.calls.get(call)
                && known.asked
                && let Stage::Logged(_, Some(outcome)) = &known.stage
            {
                let outcome = outcome.clone();
                out.push(Effect::Reply { call, outcome });
                self.calls.answered(call);
            }
        }
        while let Some(call) = self.own.tell(order) {
            out.push(Effect::Own(call));
        }
        let may = |seen: &mut Seen<P>| seen.order <= order && seen.round <= round;
        while let Some(seen) = self.seen.pop_front_if(may) {
            let Seen { call, outcome, .. } = seen;
            let Some(outcome) = outcome else {
                out.push(Effect::Own(call));
                continue;
            };
            if self.calls.get(call).is_some() {
                self.calls.remove(call);
                out.push(Effect::Reply { call, outcome });
            }
        }
        let saved = |(upto, _): &mut (u64, u64)| *upto <= order;
        while let Some((_, bytes)) = self.unsaved.pop_front_if(saved) {
            self.unsaved_bytes -= bytes;
        }
        let kept = self.kept_everywhere();
        while let Some(order) = self.keeping.pop_front_if(|order| *order <= kept) {
            out.push(Effect::Kept(order));
        }
    }

    fn state(&mut self, now: Duration, state: P, bytes: u64) {
        // A call runs: the state is not at rest, and what it is will be asked for again.
        self.asked = false;
        if !self.open.is_empty() {
            return;
        }
        let checkpoint = Arc::new(Checkpoint {
            order: self.order,
            state,
            bytes,
            ran: self.calls.ran(),
        });
        self.last = now;
        self.bytes -= self.history.shorten(checkpoint);
        if std::mem::take(&mut self.wanted) {
            self.keeping.push_back(self.order);
        }
    }

    /// Keeps the log within its bounds.
    fn bound(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        // Calls that run again are in it already, and until they have there is no state to save that would make it shorter.
        if self.open.first().is_some_and(|order| *order <= self.again) {
            return;
        }
        let full = self.bytes.max(self.unsaved_bytes) >= self.limits.most;
        if full != self.held {
            self.held = full;
            out.push(if full { Effect::Hold } else { Effect::Go });
        }
        let calls = self.history.entries.len() as u64;
        let size = self.limits.bytes.max(self.history.checkpoint.bytes);
        let due = calls >= self.limits.every.unwrap_or(u64::MAX).min(self.limits.calls)
            || self.bytes >= size.min(self.limits.most)
            || self.interval().is_some_and(|due| now >= due);
        if (self.wanted || (due && calls > 0)) && !self.asked {
            self.asked = true;
            out.push(Effect::Checkpoint);
        }
    }

    fn interval(&self) -> Option<Duration> {
        let interval = self.limits.interval?;
        (!self.history.entries.is_empty()).then(|| self.last + interval)
    }

    /// When it wants an [`Event::Tick`].
    pub fn due(&self) -> Option<Duration> {
        let checkpoint = self.interval().filter(|_| !self.asked);
        let alone = self.lonely.map(|since| since + self.limits.alone);
        checkpoint.into_iter().chain(alone).min()
    }

    /// Its incarnation.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The actor's first key.
    pub fn actor(&self) -> ActorKey {
        self.actor
    }

    /// No turns now.
    pub fn is_held(&self) -> bool {
        self.held || self.phase != Phase::Open
    }

    /// The last place given, and where the last checkpoint stands.
    pub fn orders(&self) -> (u64, u64) {
        (self.order, self.history.checkpoint.order)
    }

    /// What the calls in the log take.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many calls are in it.
    pub fn logged(&self) -> usize {
        self.history.entries.len()
    }

    /// The last checkpoint.
    pub fn newest(&self) -> &Arc<Checkpoint<P>> {
        &self.history.checkpoint
    }

    /// Where the last checkpoint stands, and what it takes.
    pub fn checkpoint(&self) -> (u64, u64) {
        (self.history.checkpoint.order, self.history.checkpoint.bytes)
    }

    /// Outcomes that nobody was told, and calls that are remembered.
    pub fn load(&self) -> (usize, usize) {
        (
            self.waiting.len() + self.own.waiting() + self.seen.len(),
            self.calls.len(),
        )
    }
}
