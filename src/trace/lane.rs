//! A thread's pen: decides what of its calls is recorded, and writes it.
//!
//! Invariant: a lane belongs to one thread. What it does for a call that is not recorded is one decrement, and one look
//! at the call's id at every later step. Left out: which steps there are (`exec`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use super::budget::{Budget, RATE};
use super::event::{self, Event, Outcome, Ran, TEXT, VOID, WORDS, between, head};
use super::pool::{EVENTS, Held, Mode, Recorder, Whose};
use super::ticks;

/// The beginning of what is not recorded.
pub const NOT_RECORDED: u64 = 0;

/// What kind of thread a lane is for, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Part {
    /// A thread of the program's own.
    Driver = 0,
    /// One that runs calls.
    Executor = 1,
    /// One that polls async calls.
    Async = 2,
    /// One of a worker process.
    Worker = 3,
    /// The one that moves objects to disk.
    Store = 4,
}

/// Names whose numbers a lane has at hand.
const NAMES: usize = 64;
/// Events that are dropped before a lane without a chunk asks for one again.
const DRY: u32 = 256;
/// Pieces of text about one thing.
const PIECES: usize = 8;

/// One thread's way to the recorder.
pub struct Lane {
    /// Calls to pass before the next look.
    left: Cell<u32>,
    pen: Option<Pen>,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("recording", &self.pen.is_some())
            .finish_non_exhaustive()
    }
}

/// The part of a lane that writes.
pub struct Pen {
    recorder: Arc<Recorder>,
    whose: Whose,
    held: Cell<Option<Held>>,
    /// Events in the chunk that is held.
    used: Cell<usize>,
    dry: Cell<u32>,
    names: [Cell<(usize, usize, u32)>; NAMES],
    /// All that it has met, for those whose places others have taken.
    met: RefCell<HashMap<(usize, usize), u32>>,
    /// Recorded calls that run on this thread now, innermost last.
    frames: RefCell<Vec<Frame>>,
    budget: Cell<Budget>,
    /// Calls that the last look let pass.
    passed: Cell<u32>,
    /// Calls not recorded: since when, until when, how many.
    gap: Cell<(u64, u64, u64)>,
}

/// A call that runs.
#[derive(Clone, Copy)]
struct Frame {
    ran: Ran,
    /// Where its event is, to be completed there.
    slot: Option<(Held, usize)>,
    /// When the function returned.
    returned: u64,
}

impl Lane {
    /// A lane that records nothing.
    pub fn off() -> Lane {
        Lane {
            left: Cell::new(u32::MAX),
            pen: None,
        }
    }

    /// This thread's lane.
    pub fn new(recorder: &Arc<Recorder>, part: Part) -> Lane {
        if recorder.mode() == Mode::Off {
            return Lane::off();
        }
        let thread = std::thread::current();
        let whose = Whose {
            lane: recorder.next_lane(),
            part: part as u32,
            name: recorder.name(thread.name().unwrap_or("a thread")),
            process: std::process::id(),
        };
        Lane {
            left: Cell::new(0),
            pen: Some(Pen {
                recorder: Arc::clone(recorder),
                whose,
                held: Cell::new(None),
                used: Cell::new(0),
                dry: Cell::new(0),
                names: [const { Cell::new((0, 0, 0)) }; NAMES],
                met: RefCell::default(),
                frames: RefCell::new(Vec::new()),
                budget: Cell::new(Budget::new(recorder.clock().now())),
                passed: Cell::new(0),
                gap: Cell::new((0, 0, 0)),
            }),
        }
    }

    /// A call, or an object, begins: the time if it is to be recorded, else [`NOT_RECORDED`].
    #[inline(always)]
    pub fn begin(&self) -> u64 {
        let left = self.left.get();
        if left != 0 {
            self.left.set(left - 1);
            return NOT_RECORDED;
        }
        self.look()
    }

    #[inline(never)]
    fn look(&self) -> u64 {
        let Some(pen) = &self.pen else {
            self.left.set(u32::MAX);
            return NOT_RECORDED;
        };
        let now = pen.now();
        if pen.recorder.mode() == Mode::Full {
            return now;
        }
        let (record, pass) = pen.judge(now);
        self.left.set(pass);
        if record { now } else { NOT_RECORDED }
    }

    /// Something slow happened: the next call is looked at.
    pub fn look_up(&self) {
        if let Some(pen) = &self.pen {
            let left = self.left.replace(0);
            let mut budget = pen.budget.get();
            budget.rest();
            pen.budget.set(budget);
            pen.passed.set(pen.passed.get().saturating_sub(left));
        }
    }

    /// What writes, if anything is recorded at all.
    #[inline]
    pub fn pen(&self) -> Option<&Pen> {
        self.pen.as_ref()
    }
}

impl Pen {
    /// Now, in ticks.
    #[inline]
    pub fn now(&self) -> u64 {
        self.recorder.clock().now()
    }

    /// Whether the call that begins now is recorded, and how many pass then.
    fn judge(&self, now: u64) -> (bool, u32) {
        let mut budget = self.budget.get();
        if budget.wants_price() {
            let (ticks, nanos, _) = self.recorder.origin();
            let scale = ticks::Scale::measure(self.recorder.clock(), ticks, nanos);
            budget.set_price(scale.ticks(1_000_000_000 / RATE));
        }
        let passed = self.passed.get();
        let verdict = budget.look(now, passed);
        self.budget.set(budget);
        self.passed.set(verdict.pass);
        let (since, _, calls) = self.gap.get();
        if passed > 0 {
            let since = if calls == 0 { now } else { since };
            self.gap.set((since, now, calls + u64::from(passed)));
        }
        // About a millisecond's worth of records.
        if calls > 0 && now.saturating_sub(since) > budget.price().saturating_mul(RATE / 1000) {
            self.tell_gap();
        }
        (verdict.record, verdict.pass)
    }

    /// Says how many calls were not recorded lately.
    pub fn tell_gap(&self) {
        let (begin, end, calls) = self.gap.replace((0, 0, 0));
        if calls > 0 {
            self.put(&Event::Gap { begin, end, calls });
        }
    }

    /// The number of a name that lives as long as the program.
    #[inline]
    pub fn name(&self, name: &'static str) -> u32 {
        let key = (name.as_ptr().addr(), name.len());
        let place = &self.names[(key.0 >> 3 ^ key.1) % NAMES];
        let (address, len, id) = place.get();
        if (address, len) == key && id != 0 {
            return id;
        }
        let known = self.met.borrow().get(&key).copied();
        let id = known.unwrap_or_else(|| self.meet(name));
        place.set((key.0, key.1, id));
        id
    }

    #[cold]
    fn meet(&self, name: &'static str) -> u32 {
        let id = self.recorder.name(name);
        let key = (name.as_ptr().addr(), name.len());
        self.met.borrow_mut().insert(key, id);
        id
    }

    /// The number of any name. Takes a lock: for what is rare.
    pub fn name_anew(&self, name: &str) -> u32 {
        self.recorder.name(name)
    }

    /// Writes an event.
    #[inline]
    pub fn put(&self, event: &Event) {
        self.put_words(event.words());
    }

    /// Writes words that may mean anything.
    #[cfg(test)]
    pub(super) fn scribble(&self, words: [u64; WORDS]) {
        self.put_words(words);
    }

    #[inline]
    fn put_words(&self, words: [u64; WORDS]) -> Option<(Held, usize)> {
        let used = self.used.get();
        let held = match self.held.get() {
            Some(held) if used < EVENTS => held,
            _ => self.next_chunk()?,
        };
        let used = self.used.get();
        self.recorder.write(held, used, words);
        self.used.set(used + 1);
        Some((held, used))
    }

    #[cold]
    fn next_chunk(&self) -> Option<Held> {
        if let Some(held) = self.held.take() {
            self.recorder.release(held);
        }
        self.used.set(0);
        let dry = self.dry.get();
        let held = if dry == 0 {
            self.recorder.take(self.whose)
        } else {
            None
        };
        if held.is_none() {
            self.dry.set(if dry == 0 { DRY } else { dry - 1 });
            self.recorder.drop_one();
        }
        self.held.set(held);
        held
    }

    /// Says something about a call, an actor or a span, whose event comes next.
    #[cold]
    pub fn say(&self, about: u64, text: &str) {
        let text = &text.as_bytes()[..text.floor_char_boundary(PIECES * TEXT)];
        let pieces = text.len().div_ceil(TEXT);
        if self.held.get().is_some() && self.used.get() + pieces >= EVENTS {
            // Together with what they are about, so that whoever has the one has the other.
            self.next_chunk();
        }
        for piece in text.chunks(TEXT) {
            let mut bytes = [0; TEXT];
            bytes[..piece.len()].copy_from_slice(piece);
            let len = piece.len() as u8;
            self.put(&Event::Text { about, len, bytes });
        }
    }

    /// A recorded call begins on this thread.
    pub fn enter(&self, name: u32, call: u64, actor: u64, turn: u16) {
        let ran = Ran {
            name,
            outcome: Outcome::Running,
            turn,
            begin: self.now(),
            end: 0,
            call,
            actor,
            reading: 0,
            storing: 0,
            bytes: 0,
        };
        let slot = self.put_words(Event::Run(ran).words());
        self.frames.borrow_mut().push(Frame {
            ran,
            slot,
            returned: 0,
        });
    }

    /// The innermost recorded call has read its arguments, or, the second time, its function has returned.
    pub fn mark(&self, call: u64) {
        let now = self.now();
        if let Some(frame) = self.frames.borrow_mut().last_mut()
            && frame.ran.call == call
        {
            if frame.ran.reading == 0 {
                frame.ran.reading = between(frame.ran.begin, now).max(1);
            } else {
                frame.returned = now;
            }
        }
    }

    /// A recorded call, or an attempt at it, ends on this thread; `why` if in an error. False if it did not begin here.
    pub fn exit(&self, call: u64, outcome: Outcome, bytes: u64, why: Option<&str>) -> bool {
        let end = self.now();
        let frame = {
            let mut frames = self.frames.borrow_mut();
            // Those above it were left by a panic.
            match frames.iter().rposition(|f| f.ran.call == call) {
                Some(at) => {
                    let frame = frames[at];
                    frames.truncate(at);
                    frame
                }
                None => return false,
            }
        };
        let ran = Ran {
            outcome,
            end,
            bytes,
            storing: if frame.returned == 0 {
                0
            } else {
                between(frame.returned, end)
            },
            ..frame.ran
        };
        let words = Event::Run(ran).words();
        let here = frame
            .slot
            .filter(|(held, _)| self.held.get() == Some(*held));
        match (here, why) {
            (Some((held, at)), None) => self.recorder.rewrite(held, at, words),
            (here, why) => {
                if let Some((held, at)) = here {
                    // All else stays: who copies it meanwhile may still see the old kind.
                    let mut void = Event::Run(frame.ran).words();
                    void[0] = head(VOID, 0, 0, 0);
                    self.recorder.rewrite(held, at, void);
                }
                if let Some(why) = why {
                    self.say(call, why);
                }
                self.put_words(words);
            }
        }
        true
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        self.tell_gap();
        if let Some(held) = self.held.take() {
            self.recorder.release(held);
        }
    }
}

/// Bytes of text that are kept about one thing.
pub const SAID: usize = PIECES * event::TEXT;
