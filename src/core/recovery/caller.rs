//! The calling half: numbers calls, remembers them until they are settled, and sends them again to whoever goes on.
//!
//! When the actor's host dies, what this node has not seen settled waits, and new calls behind it; the record, or whoever
//! took over, says where the actor is now. Then all of it is sent there in its old order under its old numbers.
//!
//! A result that stays with the host is excepted from what is settled while somebody here may need it. If it is lost, whoever hosts the
//! actor then is asked for it, again after each death, until it is told or fails.
//!
//! Invariant: each call ends by exactly one [`Effect::Settle`] or [`Effect::Fail`]; on their way to one incarnation
//! calls keep their order, and none is sent to it twice that it has not denied. Each [`Event::Again`] of a result that is excepted ends by one
//! [`Effect::Remade`] or [`Effect::Fail`], or by [`Event::Let`]. Left out: which caller of the node made a call, which its payload says.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Record, Settled};
use crate::base::{ActorKey, NodeId};

/// How long after the record named a dead host it is read again.
pub const AGAIN: Duration = Duration::from_millis(100);
/// How long after the death backups that have not taken over are asked to look, once per look at the record.
pub const ROUSE: Duration = Duration::from_secs(1);
/// How often an actor that has no record is asked for where a living node denies it.
pub const DENIALS: u32 = 10;
/// Results that stay with the host and may be asked for again, at most; older ones are given up.
pub const MOST_RESULTS: usize = 256;
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
        /// It stays with the host, and the host can make it again.
        stays: bool,
    },
    /// A result that stayed with the host is lost, and wanted.
    Again(u64),
    /// A result that stayed with the host is not needed from it any more.
    Let(u64),
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
        /// What is settled.
        settled: Settled,
        /// The call.
        load: P,
    },
    /// Ask the host once more for what a call gave.
    Again {
        /// Where the actor is.
        at: ActorKey,
        /// The call's number.
        number: u64,
        /// What is settled.
        settled: Settled,
    },
    /// Tell the host what is settled.
    Settled {
        /// Where the actor is.
        at: ActorKey,
        /// See above.
        settled: Settled,
    },
    /// The call has ended.
    Settle {
        /// Its number.
        number: u64,
        /// What came of it.
        outcome: P,
    },
    /// What came of asking for a result again.
    Remade {
        /// The call's number.
        number: u64,
        /// What.
        outcome: P,
    },
    /// There are too many results that stay with the host: this one is not made again.
    GiveUp(u64),
    /// The call, or asking for its result again, comes to nothing.
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
    /// Results that stay with the host, and whether they are asked for again.
    results: BTreeMap<u64, bool>,
    /// The host is to be told of what is settled though there is nothing more of it.
    untold: bool,
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
            results: BTreeMap::new(),
            untold: false,
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

    fn settled(&self) -> Settled {
        let below = self.calls.first_key_value().map_or(self.next, |(n, _)| *n);
        let but = self.results.range(..below).map(|(number, _)| *number);
        Settled {
            below,
            but: but.collect(),
        }
    }

    /// What the host is told with the next message.
    fn telling(&mut self) -> Settled {
        let settled = self.settled();
        self.told = settled.below;
        self.untold = false;
        settled
    }

    /// Something happened.
    pub fn handle(&mut self, now: Duration, event: Event<P>, out: &mut Vec<Effect<P>>) {
        match event {
            Event::Call(load) => self.call(load, out),
            Event::Outcome {
                number,
                outcome,
                stays,
            } => self.came(number, outcome, stays, out),
            Event::Again(number) => self.again(number, out),
            Event::Let(number) => {
                self.untold |= self.results.remove(&number).is_some();
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
            let (at, settled) = (self.at, self.telling());
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
        let below = self.calls.first_key_value().map_or(self.next, |(n, _)| *n);
        let news = below >= self.told + least || self.untold && least == 1;
        if self.phase == Phase::Known && news {
            let (at, settled) = (self.at, self.telling());
            out.push(Effect::Settled { at, settled });
        }
    }

    fn came(&mut self, number: u64, outcome: P, stays: bool, out: &mut Vec<Effect<P>>) {
        // Two hosts may both have told it; it was the same.
        if self.calls.remove(&number).is_some() {
            self.denied = 0;
            if stays {
                self.results.insert(number, false);
            }
            out.push(Effect::Settle { number, outcome });
            if self.results.len() > MOST_RESULTS {
                let mut idle = self.results.iter().filter(|(_, asked)| !**asked);
                if let Some((&oldest, _)) = idle.next() {
                    self.results.remove(&oldest);
                    out.push(Effect::GiveUp(oldest));
                }
            }
            return self.tell(TELL, out);
        }
        if let Some(asked) = self.results.get_mut(&number)
            && std::mem::take(asked)
        {
            self.denied = 0;
            if !stays {
                self.results.remove(&number);
                self.untold = true;
            }
            out.push(Effect::Remade { number, outcome });
        }
    }

    fn again(&mut self, number: u64, out: &mut Vec<Effect<P>>) {
        let Some(asked) = self.results.get_mut(&number) else {
            return;
        };
        let before = std::mem::replace(asked, true);
        match self.phase {
            Phase::Over(why) => {
                self.results.remove(&number);
                out.push(Effect::Fail { number, why });
            }
            Phase::Known if !before => {
                let (at, settled) = (self.at, self.telling());
                out.push(Effect::Again {
                    at,
                    number,
                    settled,
                });
            }
            Phase::Known | Phase::Seeking { .. } => {}
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
        let settled = self.telling();
        out.extend(self.calls.iter().map(|(&number, load)| Effect::Send {
            at,
            number,
            settled: settled.clone(),
            load: load.clone(),
        }));
        let asked = self.results.iter().filter(|(_, asked)| **asked);
        out.extend(asked.map(|(&number, _)| Effect::Again {
            at,
            number,
            settled: settled.clone(),
        }));
        // Whoever went on has results made again that are not needed by now.
        self.untold = self.calls.is_empty();
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
        let asked = self.results.extract_if(.., |_, asked| *asked);
        out.extend(asked.map(|(number, _)| Effect::Fail { number, why }));
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

    /// Whether what a call gave stays with the host, and may be asked for again.
    pub fn stays(&self, number: u64) -> bool {
        self.results.contains_key(&number)
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
