//! The recording as a Chrome trace, which Perfetto and chrome://tracing open: boxes on threads, arrows between them.
//!
//! One pass over the memory, newest chunk first, writes the boxes as they come and notes where each call ran; arrows are
//! written afterwards, those whose both ends were. Readers turn microseconds into nanoseconds and may lose one: what must
//! stay in order is two apart.
//!
//! Memory: 64 KiB of text, a chunk, and up to 32 bytes for each box, 24 for each submission and 16 for each input of a call;
//! less than the recording itself unless calls take more inputs than anything else happens.
//!
//! Invariant: the file is valid JSON whatever the memory holds. Boxes of one thread lie within or beside each other,
//! as far as its events are true. Left out: several machines in one file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::rc::Rc;

use super::boxes::SHORTEST;
use super::event::{Event, Outcome, Ran, Turn, VOID, WORDS};
use super::pool::{Recorder, Whose};
use super::read;
use super::text::{Out, quoted};
use super::ticks::Scale;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the file.
    pub bytes: u64,
    /// Events read from the recording.
    pub events: u64,
    /// Boxes of calls.
    pub boxes: u64,
    /// Arrows from a submission to its call.
    pub submissions: u64,
    /// Arrows from an object to a call that takes it.
    pub inputs: u64,
    /// Calls that came too fast to be recorded.
    pub passed: u64,
    /// Events that newer ones had overwritten.
    pub overwritten: u64,
    /// Events that could not be read, or found no room.
    pub unreadable: u64,
}

/// Where a call ran, or an object was made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub id: u64,
    pub begin: u64,
    pub end: u64,
    pub lane: u32,
}

/// A name as it is shown, in JSON.
pub(super) struct Name {
    pub whole: String,
    pub short: String,
    pub last: String,
    pub submit: String,
}

pub(super) struct Writer<'a, W> {
    pub(super) out: Out<W>,
    recorder: &'a Recorder,
    pub(super) scale: Scale,
    window: RangeInclusive<u64>,
    /// When the trace is written, in nanoseconds.
    pub(super) now: u64,
    pub(super) process: u64,
    names: HashMap<u32, Rc<Name>>,
    lanes: BTreeMap<u32, Whose>,
    pub(super) places: Vec<Place>,
    pub(super) submits: Vec<(u64, u64, u32)>,
    pub(super) inputs: Vec<(u64, u64)>,
    /// Boxes of worker processes, inside which the node's box of the same call waits.
    pub(super) there: Vec<Place>,
    /// Until when something was recorded, by thread.
    pub(super) last: HashMap<u32, u64>,
    /// Calls that had not ended in the chunk where they began.
    begun: Vec<(Whose, Ran)>,
    /// Runs that ended outside of the window: calls, and when they began.
    ended: HashSet<(u64, u64)>,
    /// The pieces of text before the event that they are about.
    said: (u64, Vec<u8>),
    any: bool,
    pub(super) written: Written,
}

/// Writes everything that `recorder` holds to `to`. Others may go on recording.
///
/// # Errors
/// Those of `to`.
pub fn write(recorder: &Recorder, to: impl Write) -> io::Result<Written> {
    write_within(recorder, 0..=u64::MAX, to, |_, _| {})
}

/// As [`write`], but only what touches a window, in nanoseconds since recording began; `progress` is told how much of the
/// memory has been read, and how much there is.
///
/// # Errors
/// Those of `to`.
pub fn write_within(
    recorder: &Recorder,
    window: RangeInclusive<u64>,
    to: impl Write,
    mut progress: impl FnMut(u64, u64),
) -> io::Result<Written> {
    let (ticks, nanos, date) = recorder.origin();
    let scale = Scale::measure(recorder.clock(), ticks, nanos);
    let mut w = Writer {
        out: Out::new(to),
        recorder,
        now: scale.nanos(recorder.clock().now()),
        scale,
        window,
        process: recorder.process().into(),
        names: HashMap::new(),
        lanes: BTreeMap::new(),
        places: Vec::new(),
        submits: Vec::new(),
        inputs: Vec::new(),
        there: Vec::new(),
        last: HashMap::new(),
        begun: Vec::new(),
        ended: HashSet::new(),
        said: (0, Vec::new()),
        any: false,
        written: Written::default(),
    };
    w.out.raw("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n");
    let mut read = 0;
    let seen = read::each_chunk(recorder, |whose, events, left| {
        w.chunk(whose, events);
        read += 1;
        progress(read, read + left as u64);
    });
    w.unfinished();
    w.arrows();
    w.threads();
    let (overwritten, dropped) = recorder.lost();
    w.written.overwritten = overwritten;
    w.written.unreadable = w.written.unreadable.saturating_add(dropped);
    let written = w.written;
    w.out.raw(
        "\n],\"otherData\":{\"clock\":\"nanoseconds since recording began\",\"began_unix_ns\":",
    );
    w.out.raw("\"").number(date).raw("\"");
    let facts = [
        ("events", written.events),
        ("calls_not_recorded", written.passed),
        ("events_overwritten", overwritten),
        ("events_without_room", dropped),
        ("chunks_overwritten_while_read", seen.missed),
    ];
    for (key, value) in facts {
        w.out.raw(",\"").raw(key).raw("\":").number(value);
    }
    w.out.raw("}}\n");
    w.written.bytes = w.out.finish()?;
    Ok(w.written)
}

impl<W: Write> Writer<'_, W> {
    fn chunk(&mut self, whose: Whose, events: &[[u64; WORDS]]) {
        self.lanes.entry(whose.lane).or_insert(whose);
        if u64::from(whose.process) != self.process && !self.last.contains_key(&whose.lane) {
            let times = events.iter().rev().filter_map(Event::read);
            if let Some(until) = times.filter_map(|e| e.until()).next() {
                self.last.insert(whose.lane, self.scale.nanos(until));
            }
        }
        for words in events {
            self.written.events += 1;
            match Event::read(words) {
                Some(event) => {
                    self.event(whose, &event);
                    // Said of this event, whether it was written or not.
                    if !matches!(event, Event::Text { .. }) {
                        self.said.1.clear();
                    }
                }
                None => self.written.unreadable += u64::from(words[0] as u8 != VOID),
            }
        }
        self.said.1.clear();
    }

    /// Whether what lasted from `begin` to `end`, in ticks, is to be written.
    fn wanted(&self, begin: u64, end: u64) -> bool {
        self.scale.nanos(begin) <= *self.window.end()
            && self.scale.nanos(end) >= *self.window.start()
    }

    fn event(&mut self, whose: Whose, event: &Event) {
        let lane = whose.lane;
        let wanted = match *event {
            Event::Submit(s) => self.wanted(s.begin, s.end),
            Event::Run(r) if r.outcome != Outcome::Running => self.wanted(r.begin, r.end),
            Event::Block { begin, end, .. }
            | Event::Object { begin, end, .. }
            | Event::Span { begin, end, .. }
            | Event::Gap { begin, end, .. } => self.wanted(begin, end),
            Event::Ready { at, .. }
            | Event::Actor { at, .. }
            | Event::Counter { at, .. }
            | Event::Fail { at, .. } => self.wanted(at, at),
            // What began may have ended elsewhere; inputs become arrows only where both ends are written.
            Event::Run(_) | Event::Inputs { .. } | Event::Text { .. } => true,
        };
        if !wanted {
            if let Event::Run(r) = *event {
                self.ended.insert((r.call, r.begin));
            }
            return;
        }
        match *event {
            Event::Submit(s) => self.submit(lane, &s),
            Event::Inputs {
                call,
                count,
                inputs,
            } => {
                let inputs = &inputs[..usize::from(count)];
                self.inputs.extend(inputs.iter().map(|i| (*i, call)));
            }
            Event::Ready {
                call,
                at,
                resources,
            } => {
                let what = if resources {
                    "resources granted"
                } else {
                    "arguments resolved"
                };
                self.instant(lane, "call", &quoted(what), at);
                self.out.raw(",\"args\":{\"call\":").id(call).raw("}}");
            }
            Event::Run(r) if r.outcome == Outcome::Running => self.begun.push((whose, r)),
            Event::Run(r) => self.ran(whose, &r),
            Event::Block {
                name,
                begin,
                end,
                awaited,
                count,
            } => {
                let (begin, end) = self.span(begin, end);
                let what = format!("\"wait for {}", &self.name(name).short[1..]);
                self.complete(lane, "wait", &what, begin, end);
                self.out.raw(",\"args\":{\"awaited\":").id(awaited);
                self.out.raw(",\"results\":").number(count.into()).raw("}}");
            }
            Event::Object {
                deed,
                name,
                line,
                begin,
                end,
                object,
                bytes,
            } => self.object(lane, deed, (name, line), (begin, end), object, bytes),
            Event::Actor {
                turn,
                name,
                at,
                actor,
                restarts,
            } => {
                let did = match turn {
                    Turn::Born => "created",
                    Turn::Restarted => "restarted",
                    Turn::Died => "ended",
                    Turn::TakenOver => "taken over",
                };
                let name = self.name(name);
                let what = format!("{} {did}\"", &name.last[..name.last.len() - 1]);
                self.instant(lane, "actor", &what, at);
                self.out.raw(",\"args\":{\"actor\":").id(actor);
                self.out.raw(",\"restarts\":").number(restarts.into());
                self.what_was_said(actor, "cause");
                self.out.raw("}}");
            }
            Event::Span {
                name,
                begin,
                end,
                call,
            } => {
                let (begin, end) = self.span(begin, end);
                let name = self.name(name);
                self.complete(lane, "span", &name.whole, begin, end);
                self.out.raw(",\"args\":{\"call\":").id(call);
                self.what_was_said(call, "fields");
                self.out.raw("}}");
            }
            Event::Counter { name, at, value } => {
                let at = self.scale.nanos(at);
                let name = self.name(name);
                self.counter(&name.whole, at, value);
            }
            Event::Text { about, len, bytes } => {
                if self.said.0 != about {
                    self.said = (about, Vec::new());
                }
                if self.said.1.len() < super::lane::SAID {
                    let piece = &bytes[..usize::from(len)];
                    self.said.1.extend_from_slice(piece);
                }
            }
            Event::Fail {
                name,
                at,
                call,
                cancelled,
            } => {
                let did = if cancelled { "cancelled" } else { "failed" };
                let name = self.name(name);
                let what = format!("{} {did}\"", &name.short[..name.short.len() - 1]);
                self.instant(lane, "failure", &what, at);
                self.out.raw(",\"args\":{\"call\":").id(call);
                self.what_was_said(call, "error");
                self.out.raw("}}");
            }
            Event::Gap { begin, end, calls } => {
                self.written.passed = self.written.passed.saturating_add(calls);
                let (begin, end) = self.span(begin, end);
                let thread = self.recorder.lane_name(whose);
                let what = quoted(&format!("calls not recorded, {thread}"));
                self.counter(&what, begin, calls as f64);
                self.counter(&what, end, 0.0);
            }
        }
    }

    /// Calls that had not ended when the chunk was left in which they began: most have, in a later one.
    fn unfinished(&mut self) {
        self.places.sort_unstable();
        self.there.sort_unstable();
        let (here, there) = (self.places.len(), self.there.len());
        let begun = std::mem::take(&mut self.begun);
        for (whose, r) in begun {
            // Those that ended before a window are not among the places; they are known by their ends.
            if self.ended.contains(&(r.call, r.begin)) || !self.wanted(r.begin, u64::MAX) {
                continue;
            }
            let begin = self.scale.nanos(r.begin);
            let key = |p: &Place| (p.id, p.begin);
            let ended = [&self.places[..here], &self.there[..there]]
                .iter()
                .any(|p| p.binary_search_by_key(&(r.call, begin), key).is_ok());
            if !ended {
                self.ran(whose, &r);
            }
        }
    }

    /// Whether a process has ended.
    pub(super) fn is_gone(&self, process: u32) -> bool {
        !std::path::Path::new(&format!("/proc/{process}")).exists()
    }

    fn threads(&mut self) {
        self.open("M\"", "__metadata");
        self.out
            .raw(",\"name\":\"process_name\",\"pid\":")
            .number(self.process);
        let program = self.recorder.program();
        self.out
            .raw(",\"args\":{\"name\":")
            .string(&format!("node: {program}"));
        self.out.raw("}}");
        for (lane, whose) in std::mem::take(&mut self.lanes) {
            let name = self.recorder.lane_name(whose);
            self.open("M\"", "__metadata");
            self.out.raw(",\"name\":\"thread_name\"");
            self.place(lane, 0);
            self.out.raw(",\"args\":{\"name\":").string(&name).raw("}}");
            self.open("M\"", "__metadata");
            self.out.raw(",\"name\":\"thread_sort_index\"");
            self.place(lane, 0);
            let index = u64::from(whose.part.min(99)) * 1_000_000 + u64::from(lane);
            self.out
                .raw(",\"args\":{\"sort_index\":")
                .number(index)
                .raw("}}");
        }
    }

    /// Begin and end in nanoseconds, at least [`SHORTEST`] apart.
    pub(super) fn span(&self, begin: u64, end: u64) -> (u64, u64) {
        let begin = self.scale.nanos(begin);
        (begin, self.scale.nanos(end).max(begin + SHORTEST))
    }

    pub(super) fn name(&mut self, id: u32) -> Rc<Name> {
        let recorder = self.recorder;
        let name = self.names.entry(id).or_insert_with(|| {
            let name = recorder.read_name(id);
            let name = name.unwrap_or_else(|| "unnamed".to_owned());
            let mut ends = name.rmatch_indices("::").map(|(at, _)| at + 2);
            let last = ends.next().unwrap_or(0);
            // A type's method, and a function of a module.
            let before = &name[ends.next().unwrap_or(0)..];
            let typed = last > 0 && before.starts_with(char::is_uppercase);
            let short = if typed { before } else { &name[last..] };
            Rc::new(Name {
                submit: quoted(&format!("submit {short}")),
                short: quoted(short),
                last: quoted(&name[last..]),
                whole: quoted(&name),
            })
        });
        Rc::clone(name)
    }

    pub(super) fn open(&mut self, phase: &str, category: &str) {
        if std::mem::replace(&mut self.any, true) {
            self.out.raw(",\n");
        }
        self.out
            .raw("{\"ph\":\"")
            .raw(phase)
            .raw(",\"cat\":\"")
            .raw(category)
            .raw("\"");
    }

    pub(super) fn place(&mut self, lane: u32, at: u64) {
        self.out.raw(",\"pid\":").number(self.process);
        self.out.raw(",\"tid\":").number(lane.into());
        self.out.raw(",\"ts\":").micros(at);
    }

    /// A box, up to its arguments; `name` in quotes.
    pub(super) fn complete(&mut self, lane: u32, category: &str, name: &str, begin: u64, end: u64) {
        self.open("X\"", category);
        self.out.raw(",\"name\":").raw(name);
        self.place(lane, begin);
        self.out.raw(",\"dur\":").micros(end.saturating_sub(begin));
    }

    /// A moment, up to its arguments; `name` in quotes.
    pub(super) fn instant(&mut self, lane: u32, category: &str, name: &str, at: u64) {
        self.instant_at(lane, category, name, self.scale.nanos(at));
    }

    /// As `instant`, in nanoseconds.
    pub(super) fn instant_at(&mut self, lane: u32, category: &str, name: &str, at: u64) {
        self.open("i\",\"s\":\"t\"", category);
        self.out.raw(",\"name\":").raw(name);
        self.place(lane, at);
    }

    fn counter(&mut self, name: &str, at: u64, value: f64) {
        self.open("C\"", "counter");
        self.out.raw(",\"name\":").raw(name);
        self.out.raw(",\"pid\":").number(self.process);
        self.out.raw(",\"ts\":").micros(at);
        self.out.raw(",\"args\":{\"value\":").float(value).raw("}}");
    }

    /// What the events before said about this one.
    pub(super) fn what_was_said(&mut self, about: u64, key: &str) {
        if self.said.0 == about && !self.said.1.is_empty() {
            let said = std::mem::take(&mut self.said.1);
            self.out.raw(",\"").raw(key).raw("\":");
            self.out.string(&String::from_utf8_lossy(&said));
        }
        self.said.0 = 0;
    }
}
