//! What the machines of recovery carry: calls, states and outcomes, as this node has them and as they travel.
//!
//! A call in the log has its arguments as bytes, objects among them too, since their owner may be dead when it runs again.
//!
//! Invariant: what is kept holds a count of every reference in it, and what is sent was counted for whoever gets it. Left out: when
//! anything is sent.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use super::tell::MOST;
use crate::base::{ActorKey, Error, NodeId};
use crate::core::recovery::{Checkpoint, Dedup, Entry};
use crate::exec::entry::{ActorEntry, FnEntry};
use crate::exec::far::take::{self, Told};
use crate::exec::far::{Arg, Parcel, ValueParcel, parcel};
use crate::exec::{Local, RawRef};
use crate::node::cluster::Cluster;
use crate::node::cluster::books::Books;
use crate::node::cluster::cross::{OutCall, OutValue};
use crate::node::cluster::effects::Todo;
use crate::wire::{
    ActorTerms, ArgBody, CallBody, CheckpointBody, EntryBody, KeptCall, Outcome, StateBody,
    ValueBody,
};

/// See the file.
#[derive(Clone)]
pub(super) enum Load {
    /// A claimed call of this node, which its caller has by its number.
    Sent,
    /// A call that can run again.
    Call(Arc<Kept>),
    /// A state.
    State(Arc<State>),
    /// What came of a call of another node.
    Came(Arc<Came>),
    /// The same, from another node.
    Told(NodeId, Arc<Outcome>),
    /// What came of a call of the host's own node, which nobody asks for again: whoever could died with the host.
    Own,
}

/// A call that can run again.
pub(super) struct Kept {
    /// Who called, among the callers of its node.
    pub caller: u64,
    /// What; arguments that are objects are empty here,
    call: Parcel,
    /// and stand here, by place.
    values: Vec<(u32, ValueParcel)>,
}

/// How an actor is made.
pub(super) struct State {
    pub entry: &'static ActorEntry,
    pub terms: ActorTerms,
    /// Its constructor's call, once that has run.
    pub init: Arc<OnceLock<Kept>>,
    /// Its state; nothing: as the constructor makes it.
    pub value: Option<ValueParcel>,
}

/// What came of a call.
pub(super) enum Came {
    Value(ValueParcel),
    Failed(Vec<u8>),
    /// A value of so many bytes that it stays here until its owner frees it.
    Large(usize, RawRef),
}

/// Results of more bytes stay with the host, and are made again if they are lost with it; smaller ones are part of what is kept.
const LARGEST: usize = 8 << 20;
/// What a call takes beside its arguments.
const OVERHEAD: u64 = 64;

impl Kept {
    /// Takes the objects' bytes in. Blocks while they are brought here.
    ///
    /// # Errors
    /// That one is lost.
    pub fn new(caller: u64, mut call: Parcel) -> Result<Kept, Error> {
        let mut values = Vec::new();
        let nothing = call.end();
        for (at, arg) in call.args.iter_mut().enumerate() {
            if let Arg::Object(object) = arg {
                values.push((at as u32, ValueParcel::of(object)?));
                *arg = Arg::Inline(nothing);
            }
        }
        Ok(Kept {
            caller,
            call,
            values,
        })
    }

    /// What it takes.
    pub fn bytes(&self) -> u64 {
        let values = self
            .values
            .iter()
            .map(|(_, value)| value.bytes.len() as u64);
        OVERHEAD + self.call.inline.len() as u64 + values.sum::<u64>()
    }

    /// The call, to be run here.
    ///
    /// # Errors
    /// That the store has no room for its objects.
    pub fn parcel(&self, local: &Local) -> Result<Parcel, Error> {
        let mut call = self.call.clone();
        for (at, value) in &self.values {
            if let Some(arg) = call.args.get_mut(*at as usize) {
                *arg = Arg::Object(value.clone().object(local)?);
            }
        }
        Ok(call)
    }
}

/// Of a call that has ended here, what its caller is told. Blocks if the value must be brought back first.
pub(super) fn came(record: &RawRef) -> Came {
    let failed = |e: &Error| Came::Failed(take::failure_bytes(e));
    match take::told(record) {
        Told::Value(len, false) if len > LARGEST => Came::Large(len, record.clone()),
        Told::Value(..) => match ValueParcel::of_message(record) {
            Ok(value) => Came::Value(value),
            Err(e) => failed(&e),
        },
        Told::Failed(why) => Came::Failed(why),
    }
}

/// Whether there are references in it, or handles.
pub(super) fn refers(checkpoint: &Checkpoint<Load>) -> bool {
    let held = |value: &ValueParcel| !value.caps.is_empty();
    let Load::State(state) = &checkpoint.state else {
        return false;
    };
    let init = state.init.get().is_some_and(|init| {
        let mut values = init.values.iter();
        !init.call.caps.is_empty() || values.any(|(_, value)| held(value))
    });
    let mut ran = checkpoint.ran.outcomes();
    let came = |load: &Load| match load {
        Load::Came(came) => matches!(&**came, Came::Value(value) if held(value)),
        _ => false,
    };
    init || state.value.as_ref().is_some_and(held) || ran.any(|(_, _, load)| came(load))
}

/// What a call says whose large result was lost with the host.
fn lost_result(host: NodeId, len: u64, bound: u64) -> Vec<u8> {
    let why = format!(
        "it had the {len} bytes that the call gave; a checkpoint had cut the call from the log, and no more than {bound} bytes of such results go along with it: a larger log_bytes, rarer checkpoints, or a put of the result with replicas keep it"
    );
    take::failure_bytes(&bad(host, &why))
}

/// On its way out: looked at before the books are locked.
pub(super) enum OutKept {
    /// Without references, which is most: there is nothing to be counted.
    Plain(KeptCall),
    Referring {
        caller: u64,
        call: OutCall,
        values: Vec<(u32, OutValue)>,
    },
}

impl Cluster {
    pub(super) fn out_kept(&self, kept: &Kept) -> Option<OutKept> {
        let function = parcel::number(kept.call.function)?;
        if kept.values.is_empty()
            && let Some(call) = plain_body(function, &kept.call)
        {
            let caller = kept.caller;
            let values = Vec::new();
            return Some(OutKept::Plain(KeptCall {
                caller,
                call,
                values,
            }));
        }
        let values = kept.values.iter();
        Some(OutKept::Referring {
            caller: kept.caller,
            call: self.out_call(function, kept.call.clone()),
            values: values
                .map(|(at, value)| (*at, self.out_value(value.clone())))
                .collect(),
        })
    }

    pub(super) fn export_kept(
        &self,
        books: &mut Books,
        todo: &mut Todo,
        to: NodeId,
        out: OutKept,
    ) -> KeptCall {
        let (caller, call, values) = match out {
            OutKept::Plain(kept) => return kept,
            OutKept::Referring {
                caller,
                call,
                values,
            } => (caller, call, values.into_iter()),
        };
        KeptCall {
            caller,
            call: self.export_call(books, todo, to, call),
            values: values
                .map(|(at, value)| (at, self.export_value(books, todo, to, value)))
                .collect(),
        }
    }

    fn import_kept(
        self: &Arc<Cluster>,
        local: &Local,
        via: NodeId,
        function: Option<&'static FnEntry>,
        kept: KeptCall,
    ) -> Result<Kept, Error> {
        let unknown = || bad(via, "it sent a call of a function that there is not");
        let function = function.ok_or_else(unknown)?;
        let call = match plain_parcel(function, kept.call) {
            Ok(plain) => plain,
            Err(call) => self.with(local, |books, todo| {
                self.import_call(books, todo, local, via, function, call)
            })?,
        };
        let mut values = Vec::with_capacity(kept.values.len());
        for (at, value) in kept.values {
            values.push((at, self.import_value(local, via, value)?));
        }
        let whole = call.is_sound()
            && values
                .iter()
                .all(|(at, _)| (*at as usize) < call.args.len());
        if !whole {
            return Err(bad(via, "it sent a call that is none"));
        }
        Ok(Kept {
            caller: kept.caller,
            call,
            values,
        })
    }

    /// An entry, as it travels.
    pub(super) fn export_entry(
        &self,
        books: &mut Books,
        todo: &mut Todo,
        to: NodeId,
        (entry, out): (&Entry<Load>, OutKept),
    ) -> EntryBody {
        EntryBody {
            order: entry.order,
            call: entry.call,
            settled: entry.settled.clone(),
            bytes: entry.bytes,
            load: self.export_kept(books, todo, to, out),
        }
    }

    pub(super) fn import_entry(
        self: &Arc<Cluster>,
        local: &Local,
        via: NodeId,
        entry: EntryBody,
    ) -> Result<Entry<Load>, Error> {
        let function = parcel::function(entry.load.call.function);
        let load = self.import_kept(local, via, function, entry.load)?;
        Ok(Entry {
            order: entry.order,
            call: entry.call,
            settled: entry.settled,
            bytes: entry.bytes,
            load: Load::Call(Arc::new(load)),
        })
    }

    /// A checkpoint, as it travels; nothing if it cannot.
    pub(super) fn export_checkpoint(
        self: &Arc<Cluster>,
        local: &Local,
        to: NodeId,
        (actor, begins): (ActorKey, bool),
        checkpoint: &Checkpoint<Load>,
    ) -> Option<CheckpointBody> {
        let Load::State(state) = &checkpoint.state else {
            return None;
        };
        let init = self.out_kept(state.init.get()?)?;
        let value = state.value.clone().map(|value| self.out_value(value));
        let kind = parcel::actor_number(state.entry)?;
        let (mut ran, mut room) = (
            Vec::from_iter(checkpoint.ran.outcomes()),
            results_room(state, checkpoint.bytes),
        );
        // Of results that stay here the latest go along.
        ran.sort_unstable_by_key(|(_, order, _)| std::cmp::Reverse(*order));
        let had = self.recovery.along.lock().sent_to(actor, to, begins);
        let mut sent = BTreeSet::new();
        let told = ran.into_iter().map(|(call, order, load)| {
            let mut fits = |len: usize| {
                let rest = room.checked_sub(len as u64);
                rest.map(|rest| room = rest).is_some()
            };
            let large = load.large().filter(|len| fits(*len));
            let outcome = match load {
                Load::Came(_) if large.is_some() && had.contains(&call) => {
                    sent.insert(call);
                    return Err((call, order));
                }
                Load::Came(came) => match &**came {
                    Came::Failed(why) => Err(Outcome::Failed(why.clone())),
                    Came::Value(v) if v.bytes.len() <= LARGEST => Ok(self.out_value(v.clone())),
                    // Those are brought back from disk, if need be.
                    other => match large.map(|_| other.value()) {
                        Some(Ok(value)) => {
                            sent.insert(call);
                            Ok(self.out_value(value))
                        }
                        Some(Err(_)) | None => {
                            Err(Outcome::Stored(load.large().unwrap_or(0) as u64))
                        }
                    },
                },
                _ => Err(Outcome::Returned),
            };
            Ok((call, order, outcome))
        });
        let (mut outcomes, mut before) = (Vec::new(), Vec::new());
        for outcome in told {
            match outcome {
                Ok(outcome) => outcomes.push(outcome),
                Err(known) => before.push(known),
            }
        }
        self.recovery.along.lock().sends(actor, to, sent);
        let floors = checkpoint.ran.floors().collect();
        self.with(local, |books, todo| {
            let mut value_out = |value| self.export_value(books, todo, to, value);
            let value = value.map(&mut value_out);
            let outcomes = outcomes.into_iter().map(|(call, order, outcome)| {
                let outcome = outcome.map_or_else(|o| o, |v| Outcome::Value(value_out(v)));
                (call, order, outcome)
            });
            let outcomes = outcomes.collect();
            Some(CheckpointBody {
                order: checkpoint.order,
                bytes: checkpoint.bytes,
                state: StateBody {
                    kind,
                    terms: state.terms.clone(),
                    init: self.export_kept(books, todo, to, init),
                    value,
                },
                floors,
                outcomes,
                before,
            })
        })
    }

    pub(super) fn import_checkpoint(
        self: &Arc<Cluster>,
        local: &Local,
        via: NodeId,
        (actor, incarnation): (ActorKey, u64),
        body: CheckpointBody,
    ) -> Result<Checkpoint<Load>, Error> {
        let state = body.state;
        let entry = parcel::actor_type(state.kind)
            .ok_or_else(|| bad(via, "it sent an actor of a type that there is not"))?;
        let init = OnceLock::new();
        let constructor = Some(entry.constructor());
        let _ = init.set(self.import_kept(local, via, constructor, state.init)?);
        let value = |value: ValueBody| self.import_value(local, via, value);
        let state = State {
            entry,
            terms: state.terms,
            init: Arc::new(init),
            value: state.value.map(value).transpose()?,
        };
        let room = results_room(&state, body.bytes);
        let mut outcomes = Vec::with_capacity(body.outcomes.len());
        for (call, order, outcome) in body.outcomes {
            let load = match outcome {
                Outcome::Value(v) => Load::Came(Arc::new(Came::Value(value(v)?))),
                Outcome::Failed(why) => Load::Came(Arc::new(Came::Failed(why))),
                Outcome::Stored(len) => {
                    Load::Came(Arc::new(Came::Failed(lost_result(via, len, room))))
                }
                Outcome::Returned => Load::Own,
            };
            outcomes.push((call, order, load));
        }
        let along = &self.recovery.along;
        let known = along.lock().came_before(actor, incarnation);
        for (call, order) in body.before {
            let lost = || Arc::new(Came::Failed(lost_result(via, 0, room)));
            let came = known.get(&call).cloned().unwrap_or_else(lost);
            outcomes.push((call, order, Load::Came(came)));
        }
        let large = outcomes.iter().filter_map(|(call, _, load)| match load {
            Load::Came(came) if load.large().is_some() => Some((*call, Arc::clone(came))),
            _ => None,
        });
        along.lock().came(actor, incarnation, large.collect());
        Ok(Checkpoint {
            order: body.order,
            state: Load::State(Arc::new(state)),
            bytes: body.bytes,
            ran: Dedup::from_parts(body.floors, outcomes),
        })
    }
}

/// A call without references, as it travels.
fn plain_body(function: u32, call: &Parcel) -> Option<CallBody> {
    let plain = |arg: &Arg| match arg {
        Arg::Inline(end) => Some(ArgBody::Inline(*end)),
        Arg::Object(_) => None,
    };
    let args: Option<Vec<ArgBody>> = match call.caps.is_empty() {
        true => call.args.iter().map(plain).collect(),
        false => None,
    };
    Some(CallBody {
        function,
        args: args?,
        inline: call.inline.clone(),
        caps: Vec::new(),
    })
}

/// The same, on its way in; any other call as it is.
fn plain_parcel(function: &'static FnEntry, call: CallBody) -> Result<Parcel, CallBody> {
    let inline = |arg: &ArgBody| matches!(arg, ArgBody::Inline(_));
    if !call.caps.is_empty() || !call.args.iter().all(inline) {
        return Err(call);
    }
    let args = call.args.into_iter().filter_map(|arg| match arg {
        ArgBody::Inline(end) => Some(Arg::Inline(end)),
        ArgBody::Object(_) => None,
    });
    Ok(Parcel {
        function,
        args: args.collect(),
        inline: call.inline,
        caps: Vec::new(),
    })
}

impl Load {
    /// How long a result is that is too large to be told.
    fn large(&self) -> Option<usize> {
        let Load::Came(came) = self else { return None };
        match &**came {
            Came::Value(value) => Some(value.bytes.len()).filter(|len| *len > LARGEST),
            Came::Large(len, _) => Some(*len),
            Came::Failed(_) => None,
        }
    }
}

impl Came {
    /// The value itself. Blocks if it must be brought back.
    fn value(&self) -> Result<ValueParcel, Error> {
        match self {
            Came::Value(value) => Ok(value.clone()),
            Came::Large(_, record) => ValueParcel::of(record),
            Came::Failed(_) => Err(Error::ShutDown),
        }
    }
}

/// How many bytes of results that stay with a host go along with a checkpoint of so many bytes.
fn results_room(state: &State, bytes: u64) -> u64 {
    state
        .terms
        .checkpoints
        .bound
        .min(MOST.saturating_sub(bytes))
}

/// What another node sent cannot be taken in.
fn bad(via: NodeId, why: &str) -> Error {
    Error::NodeLost {
        node: via,
        what: Arc::from(why),
    }
}

/// Who calls on the node itself, without the caller that counts this node's calls from elsewhere: a number that nobody draws.
pub(super) fn direct(node: NodeId) -> NodeId {
    let mixed = node.get().rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15;
    NodeId::new(mixed).unwrap_or(node)
}

/// The same, otherwise named.
pub(super) fn object(key: ActorKey) -> crate::base::ObjectKey {
    crate::base::ObjectKey {
        owner: key.host,
        number: key.number,
    }
}

/// The same, otherwise named.
pub(super) fn actor(key: crate::base::ObjectKey) -> ActorKey {
    ActorKey {
        host: key.owner,
        number: key.number,
    }
}
