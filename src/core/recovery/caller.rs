//! The calling half: numbers calls, remembers them until they are settled, and sends them again to whoever goes on.
//!
//! When the actor's host dies, what this node has not seen settled waits, and new calls behind it; the record, or whoever
//! took over, says where the actor is now. Then all of it is sent there in its old order under its old numbers.
//!
//! Invariant: each call ends by exactly one [`Effect::Settle`] or [`Effect::Fail`]; on their way to one incarnation
//! calls keep their order, and none is sent to it twice that it has not denied. Left out: which caller of the node made a call, which its payload says.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Record;
use crate::base::{ActorKey, NodeId};

/// How long after the record named a dead host it is read again.
pub const AGAIN: Duration = Duration::from_millis(100);
/// How long after the death backups that have not taken over are asked to look, once per look at the record.
pub const ROUSE: Duration = Duration::from_secs(1);
/// How often an actor that has no record is asked for where a living node denies it.
pub const DENIALS: u32 = 10;
/// How long nobody may take over before calls fail.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// The host is told what is settled, apart from calls, once it is so many.
pub const TELL: u64 = 64;

/// What happens to a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<P> {
    /// A call is made.
    Call(P),
    /// What came of a call.
    Outcome {
        /// Its number.
        number: u64,
        /// What.
        outcome: P,
    },
    /// The actor was taken over.
    Moved {
        /// As this incarnation.
        incarnation: u64,
        /// It is there.
        at: ActorKey,
    },
    /// A node is dead.
    Died(NodeId),
    /// That node does not host the actor under this key, or does so no more.
    NotHere(ActorKey),
    /// The record, as [`Effect::Look`] asked; `None`: there is none.
    Record {
        /// It.
        record: Option<Record>,
        /// Its host lives; without a record, the one that is known.
        lives: bool,
        /// One of its backups lives.
        backed: bool,
    },
    /// The actor ended, and its host said so.
    Ended,
    /// Time has passed.
    Tick,
}

/// Why calls come to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its host and all that had its history are dead.
    Lost,
    /// Somebody has its history and did not take over in time.
    Late,
    /// It has ended.
    Ended,
}

/// What the driver does after an event, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<P> {
    /// Send the call, in order.
    Send {
        /// Where the actor is.
        at: ActorKey,
        /// The call's number.
        number: u64,
        /// All below are settled.
        settled: u64,
        /// The call.
        load: P,
    },
    /// Tell the host that all calls below this are settled.
    Settled {
        /// Where the actor is.
        at: ActorKey,
        /// See above.
        below: u64,
    },
    /// The call has ended.
    Settle {
        /// Its number.
        number: u64,
        /// What came of it.
        outcome: P,
    },
    /// The call comes to nothing.
    Fail {
        /// Its number.
        number: u64,
        /// Why.
        why: Why,
    },
    /// Read the record, and answer with [`Event::Record`].
    Look,
    /// Ask those of these that live to look at the record: one that has nothing of the actor does not know that it is named.
    Rouse(Vec<NodeId>),
    /// Handles lead there from now on.
    At(ActorKey),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Known,
    /// Its host is dead or denies it: since when, and when to look again (`None`: the record is being read).
    Seeking {
        since: Duration,
        due: Option<Duration>,
    },
    Over(Why),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Caller<P> {
    at: ActorKey,
    incarnation: u64,
    phase: Phase,
    calls: BTreeMap<u64, P>,
    /// The next number.
    next: u64,
    /// What the host was told to be settled.
    told: u64,
    /// How often it was denied since it was last known where it is.
    denied: u32,
}

impl<P: Clone> Caller<P> {
    /// Of an actor that is there, as far as is known.
    pub fn new(at: ActorKey) -> Caller<P> {
        Caller {
            at,
            incarnation: 1,
            phase: Phase::Known,
            calls: BTreeMap::new(),
            next: 1,
            told: 1,
            denied: 0,
        }
    }

    /// The same, of one that is there as this incarnation; this node's calls begin with that number.
    pub fn starting(at: ActorKey, incarnation: u64, next: u64) -> Caller<P> {
        Caller {
            incarnation,
            next,
            told: next,
            ..Caller::new(at)
        }
    }

    /// All calls below this are settled.
    fn settled(&self) -> u64 {
        self.calls.first_key_value().map_or(self.next, |(n, _)| *n)
    }

    /// Something happened.
    pub fn handle(&mut self, now: Duration, event: Event<P>, out: &mut Vec<Effect<P>>) {
        match event {
            Event::Call(load) => self.call(load, out),
            Event::Outcome { number, outcome } => {
                // Two hosts may both have told it; it was the same.
                if self.calls.remove(&number).is_some() {
                    self.denied = 0;
                    out.push(Effect::Settle { number, outcome });
                    self.tell(TELL, out);
                }
            }
            Event::Moved { incarnation, at } => self.moved(incarnation, at, out),
            Event::Died(node) if node == self.at.host => self.seek(now, out),
            Event::NotHere(at) if at == self.at => {
                self.denied += 1;
                self.seek(now, out);
            }
            Event::Died(_) | Event::NotHere(_) => self.hurry(out),
            Event::Record {
                record,
                lives,
                backed,
            } => self.found(now, record, lives, backed, out),
            Event::Ended => self.over(Why::Ended, out),
            Event::Tick => self.tick(now, out),
        }
    }

    fn call(&mut self, load: P, out: &mut Vec<Effect<P>>) {
        let number = self.next;
        self.next += 1;
        if let Phase::Over(why) = self.phase {
            out.push(Effect::Fail { number, why });
            return;
        }
        self.calls.insert(number, load.clone());
        if self.phase == Phase::Known {
            let (at, settled) = (self.at, self.settled());
            self.told = settled;
            out.push(Effect::Send {
                at,
                number,
                settled,
                load,
            });
        }
    }

    /// Tells the host what is settled if that is so much more than it knows.
    fn tell(&mut self, least: u64, out: &mut Vec<Effect<P>>) {
        let below = self.settled();
        if self.phase == Phase::Known && below >= self.told + least {
            self.told = below;
            out.push(Effect::Settled { at: self.at, below });
        }
    }

    fn seek(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        if self.phase == Phase::Known {
            self.phase = Phase::Seeking {
                since: now,
                due: None,
            };
            out.push(Effect::Look);
        }
    }

    /// Somebody died: perhaps the last who had the history.
    fn hurry(&mut self, out: &mut Vec<Effect<P>>) {
        if let Phase::Seeking { due, .. } = &mut self.phase
            && due.take().is_some()
        {
            out.push(Effect::Look);
        }
    }

    fn moved(&mut self, incarnation: u64, at: ActorKey, out: &mut Vec<Effect<P>>) {
        if incarnation <= self.incarnation || matches!(self.phase, Phase::Over(_)) {
            return;
        }
        self.goes(incarnation, at, out);
    }

    fn goes(&mut self, incarnation: u64, at: ActorKey, out: &mut Vec<Effect<P>>) {
        (self.incarnation, self.at) = (incarnation, at);
        self.denied = 0;
        out.push(Effect::At(at));
        self.resend(out);
    }

    fn resend(&mut self, out: &mut Vec<Effect<P>>) {
        self.phase = Phase::Known;
        let at = self.at;
        let settled = self.settled();
        self.told = settled;
        out.extend(self.calls.iter().map(|(&number, load)| Effect::Send {
            at,
            number,
            settled,
            load: load.clone(),
        }));
    }

    fn found(
        &mut self,
        now: Duration,
        record: Option<Record>,
        lives: bool,
        backed: bool,
        out: &mut Vec<Effect<P>>,
    ) {
        let Phase::Seeking { since, due: None } = self.phase else {
            return;
        };
        let Some(record) = record else {
            // Who heard of it early may call it before its host has heard of it at all.
            if !lives || self.denied > DENIALS {
                return self.over(Why::Lost, out);
            }
            if now >= since + AGAIN {
                return self.resend(out);
            }
            let due = Some(now + AGAIN);
            self.phase = Phase::Seeking { since, due };
            return;
        };
        let known = (record.incarnation, record.at) == (self.incarnation, self.at);
        if lives && record.incarnation >= self.incarnation && !known {
            return self.goes(record.incarnation, record.at, out);
        }
        // It denied what it has not come to yet.
        let here = (record.incarnation, record.at) == (self.incarnation, self.at);
        if here && lives && now >= since + AGAIN {
            return self.resend(out);
        }
        if !lives && !backed {
            return self.over(Why::Lost, out);
        }
        if now >= since + ROUSE && !lives {
            out.push(Effect::Rouse(record.backups));
        }
        let due = Some(now + AGAIN);
        self.phase = Phase::Seeking { since, due };
    }

    fn over(&mut self, why: Why, out: &mut Vec<Effect<P>>) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        self.phase = Phase::Over(why);
        self.fail(why, out);
    }

    fn fail(&mut self, why: Why, out: &mut Vec<Effect<P>>) {
        let all = std::mem::take(&mut self.calls);
        out.extend(all.into_keys().map(|number| Effect::Fail { number, why }));
    }

    fn tick(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        self.tell(1, out);
        let Phase::Seeking { since, due } = self.phase else {
            return;
        };
        if now >= since + PATIENCE {
            self.fail(Why::Late, out);
            self.phase = Phase::Seeking { since: now, due };
        }
        if due.is_some_and(|due| now >= due) {
            self.hurry(out);
        }
    }

    /// Where the actor is, as far as is known.
    pub fn at(&self) -> ActorKey {
        self.at
    }

    /// As which incarnation.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Calls that are not settled.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether all are.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether nobody is known to host the actor.
    pub fn seeks(&self) -> bool {
        matches!(self.phase, Phase::Seeking { .. })
    }

    /// Calls of other nodes wait for news of these: when the record is to be read again, at the latest.
    pub fn due(&self) -> Option<Duration> {
        match self.phase {
            Phase::Seeking { since, due } => due.or(Some(since + PATIENCE)),
            Phase::Known | Phase::Over(_) => None,
        }
    }
}
