//! The keeping half: writes down what the host sends, and takes over when that is dead.
//!
//! Whether it may is decided by the record: only a node that it names may, by a swap that adds one to the incarnation. A copy of an
//! earlier incarnation will do: as long as the record names this node, nothing was told that it had not written down.
//!
//! A host that dies may have a change of the record under way that names this node, even the one that makes the record. So who
//! finds itself not named looks again a few times before it lets go of what it has. The record may also name a node that has nothing: it let go too early, while a
//! host that was declared dead went on to name it. Whoever misses the actor says so, and the node takes itself out of the record, so that
//! the loss is known.
//!
//! Invariant: what is acknowledged is in the history, which has no gap; a message of an earlier incarnation than the latest known
//! is refused. At most one [`Effect::TakeOver`] comes of all backups for one incarnation. Left out: reaching the record.

use std::sync::Arc;
use std::time::Duration;

use super::{Checkpoint, Entry, History, Record, ToBackup, ToHost};
use crate::base::{ActorKey, NodeId};

/// How long after it was not named a backup looks again.
pub const AGAIN: Duration = Duration::from_millis(500);
/// How often it does.
pub const LOOKS: u32 = 8;

/// What happens to a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<P> {
    /// A message of a host.
    Message {
        /// Who says so.
        from: NodeId,
        /// What.
        message: ToBackup<P>,
    },
    /// Somebody finds this node named by the record, the host dead, and nobody who took over.
    Roused,
    /// This node cannot keep more of it.
    Full,
    /// A node is dead.
    Died(NodeId),
    /// The record is this, as [`Effect::Look`] asked or as a swap that came too late found.
    Record {
        /// The record; `None`: the actor has ended.
        record: Option<Record>,
        /// Whether the host that it names lives.
        lives: bool,
        /// How the actor will be numbered here if this node takes over. Calls to that number wait until that is decided.
        number: u64,
    },
    /// The swap that was asked for was made.
    Swapped,
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
        message: ToHost,
    },
    /// Read the record, and answer with [`Event::Record`].
    Look,
    /// Swap the record if it is still the first: answer with [`Event::Swapped`], or [`Event::Record`] if it is not.
    Swap {
        /// What it must be.
        expect: Record,
        /// What it becomes.
        record: Record,
    },
    /// Make the actor here, run the calls again, tell everybody where it is. This machine has done its part.
    TakeOver {
        /// The record.
        record: Record,
        /// What to make it from.
        history: History<P>,
    },
    /// Nothing is to be kept any more: drop this machine.
    Drop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Keeping,
    /// The record is being read.
    Looking,
    /// It is being swapped for this one.
    Claiming(Record),
    /// Not named by the record: when to look again.
    Unnamed(Duration),
    Ended,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Backup<P> {
    me: NodeId,
    /// The latest incarnation known, and its host.
    incarnation: u64,
    host: NodeId,
    history: Option<History<P>>,
    bytes: u64,
    /// The last message written down.
    beat: u64,
    phase: Phase,
    looks: u32,
}

impl<P: Clone> Backup<P> {
    /// Keeps nothing yet.
    pub fn new(me: NodeId) -> Backup<P> {
        Backup {
            me,
            incarnation: 0,
            host: NodeId::NONE,
            history: None,
            bytes: 0,
            beat: 0,
            phase: Phase::Keeping,
            looks: 0,
        }
    }

    /// Something happened.
    pub fn handle(&mut self, now: Duration, event: Event<P>, out: &mut Vec<Effect<P>>) {
        if self.phase == Phase::Ended {
            return;
        }
        match event {
            Event::Message { from, message } => match message {
                ToBackup::Save {
                    incarnation,
                    beat,
                    checkpoint,
                    entries,
                } => {
                    let answer = self.save(from, incarnation, beat, checkpoint, entries);
                    let to = from;
                    out.extend(answer.map(|message| Effect::Send { to, message }));
                }
                // Whoever took over may have died before it said so here.
                ToBackup::Look { incarnation } => {
                    if incarnation >= self.incarnation && self.phase == Phase::Keeping {
                        self.looks = 0;
                        self.look(out);
                    }
                }
                ToBackup::Forget { incarnation } => {
                    if incarnation >= self.incarnation {
                        self.end(out);
                    }
                }
            },
            Event::Roused => {
                if self.phase == Phase::Keeping {
                    self.looks = 0;
                    self.look(out);
                }
            }
            Event::Full => {
                let incarnation = self.incarnation;
                let message = ToHost::Declined { incarnation };
                out.push(Effect::Send {
                    to: self.host,
                    message,
                });
            }
            Event::Died(node) => {
                if node == self.host && self.phase == Phase::Keeping {
                    self.looks = 0;
                    self.look(out);
                }
            }
            Event::Record {
                record,
                lives,
                number,
            } => match (&self.phase, &record) {
                // The answer to the swap was lost, not the swap.
                (Phase::Claiming(claim), Some(found)) if claim == found => self.swapped(out),
                _ => self.found(now, record, lives, number, out),
            },
            Event::Swapped => self.swapped(out),
            Event::Tick => {
                if let Phase::Unnamed(due) = self.phase
                    && now >= due
                {
                    self.look(out);
                }
            }
        }
    }

    fn look(&mut self, out: &mut Vec<Effect<P>>) {
        self.phase = Phase::Looking;
        out.push(Effect::Look);
    }

    fn end(&mut self, out: &mut Vec<Effect<P>>) {
        self.phase = Phase::Ended;
        self.history = None;
        out.push(Effect::Drop);
    }

    fn save(
        &mut self,
        from: NodeId,
        incarnation: u64,
        beat: u64,
        checkpoint: Option<Arc<Checkpoint<P>>>,
        entries: Vec<Entry<P>>,
    ) -> Option<ToHost> {
        if incarnation < self.incarnation {
            let incarnation = self.incarnation;
            return Some(ToHost::Refused { incarnation });
        }
        let declined = Some(ToHost::Declined { incarnation });
        let newer = incarnation > self.incarnation;
        if (!newer && from != self.host) || from == self.me {
            return declined;
        }
        if newer && checkpoint.is_none() || !newer && beat != self.beat + 1 {
            return declined;
        }
        // Looked at before anything is changed: half a message is none.
        let base = match (&checkpoint, &self.history) {
            (Some(new), Some(old)) if !newer => old.order().max(new.order),
            (Some(new), _) => new.order,
            (None, Some(old)) => old.order(),
            (None, None) => return declined,
        };
        let follows = |(at, entry): (usize, &Entry<P>)| entry.order == base + 1 + at as u64;
        if !entries.iter().enumerate().all(follows) {
            return declined;
        }
        self.beat = beat;
        if newer {
            (self.incarnation, self.host) = (incarnation, from);
            self.history = None;
            self.bytes = 0;
            // A claim that is under way comes too late: whoever sent this has won. One question about the record at a time: an
            // answer to another would be taken for that to the claim.
            if !matches!(self.phase, Phase::Claiming(_) | Phase::Looking) {
                self.phase = Phase::Keeping;
            }
        }
        match (&mut self.history, checkpoint) {
            (Some(history), Some(new)) => self.bytes -= history.shorten(new),
            (None, Some(new)) => self.history = Some(History::new(new)),
            (_, None) => {}
        }
        if let Some(history) = &mut self.history {
            self.bytes += entries.iter().map(|entry| entry.bytes).sum::<u64>();
            history.entries.extend(entries);
        }
        Some(ToHost::Saved { incarnation, beat })
    }

    fn swapped(&mut self, out: &mut Vec<Effect<P>>) {
        let Phase::Claiming(record) = &self.phase else {
            return;
        };
        let record = record.clone();
        match self.history.take() {
            Some(history) if record.at.host == self.me => {
                self.phase = Phase::Ended;
                out.push(Effect::TakeOver { record, history });
            }
            // It took itself out; somebody who took over may have begun to send meanwhile.
            Some(history) => {
                self.history = Some(history);
                self.phase = Phase::Keeping;
            }
            None => self.end(out),
        }
    }

    fn found(
        &mut self,
        now: Duration,
        record: Option<Record>,
        lives: bool,
        number: u64,
        out: &mut Vec<Effect<P>>,
    ) {
        let asked = matches!(self.phase, Phase::Looking | Phase::Claiming(_));
        if !asked {
            return;
        }
        // The actor has ended; or its host has not made the record yet, and may still.
        let Some(record) = record else {
            return self.unnamed(now, out);
        };
        if record.incarnation >= self.incarnation {
            self.host = record.at.host;
        }
        if lives {
            // It hears of this host's death when that comes. What it has of the one before stays good.
            self.phase = Phase::Keeping;
            return;
        }
        let others = record.backups.iter().copied();
        let others = others.filter(|node| *node != self.me).collect();
        if !record.backups.contains(&self.me) {
            return self.unnamed(now, out);
        }
        let me = ActorKey {
            host: self.me,
            number,
        };
        // Without a copy it only takes itself out.
        let takes = self.history.is_some();
        let claim = Record {
            actor: record.actor,
            incarnation: record.incarnation + u64::from(takes),
            version: record.version + 1,
            at: if takes { me } else { record.at },
            backups: others,
        };
        self.phase = Phase::Claiming(claim.clone());
        out.push(Effect::Swap {
            expect: record,
            record: claim,
        });
    }

    /// Not named: it looks again, as long as it has something to keep.
    fn unnamed(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        self.looks += 1;
        if self.looks > LOOKS || self.history.is_none() {
            return self.end(out);
        }
        self.phase = Phase::Unnamed(now + AGAIN);
    }

    /// The latest incarnation it knows of.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Who hosts the actor, as far as it knows.
    pub fn host(&self) -> NodeId {
        self.host
    }

    /// The last call that is written down here.
    pub fn order(&self) -> u64 {
        self.history.as_ref().map_or(0, History::order)
    }

    /// What the calls in the log take.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When it wants a [`Event::Tick`].
    pub fn due(&self) -> Option<Duration> {
        match self.phase {
            Phase::Unnamed(due) => Some(due),
            _ => None,
        }
    }
}
