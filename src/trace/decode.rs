//! Events put together: from chunks of the recorder's memory to calls with their submissions, runs and inputs.
//!
//! **Invariant:** what the memory claims may be anything; what comes of it has indices in range and is no larger than what
//! the events take. Calls whose submission was overwritten are there with what is still known of them. **Left out:** which chunks
//! ([`follow`](super::follow)), and questions.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::event::{Deed, Event, Outcome as Ended, Ran, WORDS};
use super::lane::{Part, SAID};
use super::pool::{Recorder, Whose};
use super::recording::{Call, Inside, Lane, Object, Outcome, Recording, Run};
use super::ticks::Scale;

/// What was made of the chunks that were handed over. A clone can be finished while the other one goes on.
#[derive(Clone)]
pub(super) struct Decoder {
    recorder: Arc<Recorder>,
    scale: Scale,
    out: Recording,
    lanes: HashMap<u32, (u32, Whose)>,
    /// By number and, for places in the program, line.
    names: HashMap<(u32, Option<u32>), u32>,
    calls: HashMap<u64, u32>,
    /// Calls, and what they take.
    inputs: Vec<(u32, u64)>,
    /// Calls that had not ended in the chunk where they began.
    begun: Vec<(u32, Ran)>,
    said: (u64, Vec<u8>),
}

impl Decoder {
    /// Nothing yet.
    pub fn new(recorder: Arc<Recorder>) -> Decoder {
        let (ticks, nanos, _) = recorder.origin();
        Decoder {
            scale: Scale::measure(recorder.clock(), ticks, nanos),
            recorder,
            out: Recording::default(),
            lanes: HashMap::new(),
            names: HashMap::new(),
            calls: HashMap::new(),
            inputs: Vec::new(),
            begun: Vec::new(),
            said: (0, Vec::new()),
        }
    }

    /// Now, on the scale of what is decoded.
    pub fn now(&self) -> u64 {
        self.scale.nanos(self.recorder.clock().now())
    }

    /// Takes the events of a chunk. The order of chunks does not matter; one that is taken twice counts twice.
    pub fn chunk(&mut self, whose: Whose, events: &[[u64; WORDS]]) {
        let next = self.lanes.len() as u32;
        let lane = self.lanes.entry(whose.lane).or_insert((next, whose)).0;
        for event in events.iter().filter_map(Event::read) {
            self.event(lane, &event);
            // Said of this event, whether anything was made of it or not.
            if !matches!(event, Event::Text { .. }) {
                self.said.1.clear();
            }
        }
        self.said.1.clear();
    }

    fn event(&mut self, lane: u32, event: &Event) {
        let nanos = |ticks| self.scale.nanos(ticks);
        match *event {
            Event::Submit(s) => {
                let at = nanos(s.end);
                let function = self.name(s.name, None);
                let i = self.call(s.call);
                let first = &s.first[..usize::from(s.inputs.min(2))];
                self.inputs.extend(first.iter().map(|&id| (i, id)));
                let call = &mut self.out.calls[i as usize];
                call.function = function;
                (call.actor, call.parent) = (s.actor, s.caller);
                (call.submit_lane, call.submitted) = (lane, at);
            }
            Event::Inputs {
                call,
                count,
                inputs,
            } => {
                let i = self.call(call);
                let inputs = &inputs[..usize::from(count)];
                self.inputs.extend(inputs.iter().map(|&id| (i, id)));
            }
            Event::Ready { call, at, .. } => {
                let at = nanos(at);
                let i = self.call(call);
                let call = &mut self.out.calls[i as usize];
                call.ready = call.ready.max(at);
            }
            Event::Run(r) if r.outcome == Ended::Running => self.begun.push((lane, r)),
            Event::Run(r) => self.ran(lane, &r),
            Event::Block {
                name,
                begin,
                end,
                awaited,
                ..
            } => {
                let (start, end) = (nanos(begin), nanos(end));
                let name = self.name(name, None);
                let inside = Inside {
                    lane,
                    name,
                    start,
                    end,
                    awaited,
                    wait: true,
                };
                self.out.inside.push(inside);
            }
            Event::Span {
                name, begin, end, ..
            } => {
                let (start, end) = (nanos(begin), nanos(end));
                let name = self.name(name, None);
                let inside = Inside {
                    lane,
                    name,
                    start,
                    end,
                    awaited: 0,
                    wait: false,
                };
                self.out.inside.push(inside);
            }
            Event::Object {
                deed: Deed::Put | Deed::Seal,
                name,
                line,
                end,
                object,
                bytes,
                ..
            } => {
                let at = nanos(end);
                let origin = self.name(name, Some(line));
                self.out.objects.push(Object {
                    id: object,
                    origin,
                    lane,
                    at,
                    bytes,
                });
            }
            Event::Object {
                deed:
                    deed @ (Deed::Restore
                    | Deed::Segment
                    | Deed::Transfer
                    | Deed::Checkpoint
                    | Deed::Revive
                    | Deed::Replay),
                name,
                begin,
                end,
                ..
            } => {
                let (start, end) = (nanos(begin), nanos(end));
                let inside = Inside {
                    lane,
                    name: self.word(deed, name),
                    start,
                    end,
                    awaited: 0,
                    wait: false,
                };
                self.out.inside.push(inside);
            }
            Event::Text { about, len, bytes } => {
                if self.said.0 != about {
                    self.said = (about, Vec::new());
                }
                if self.said.1.len() < SAID {
                    self.said.1.extend_from_slice(&bytes[..usize::from(len)]);
                }
            }
            Event::Fail {
                name,
                call,
                cancelled,
                ..
            } => {
                let function = self.name(name, None);
                let i = self.call(call);
                self.error(i, call);
                let call = &mut self.out.calls[i as usize];
                call.function = function;
                call.outcome = if cancelled {
                    Outcome::Cancelled
                } else {
                    Outcome::Failed
                };
            }
            Event::Gap { calls, .. } => self.out.lost = self.out.lost.saturating_add(calls),
            Event::Object { .. } | Event::Actor { .. } | Event::Counter { .. } => {}
        }
    }

    fn ran(&mut self, lane: u32, r: &Ran) {
        let running = r.outcome == Ended::Running;
        let start = self.scale.nanos(r.begin);
        let end = if running {
            0
        } else {
            self.scale.nanos(r.end).max(start + 1)
        };
        let length =
            |ticks: u32| u32::try_from(self.scale.length(ticks.into())).unwrap_or(u32::MAX);
        let (reading, storing) = (length(r.reading), length(r.storing));
        let function = self.name(r.name, None);
        let call = self.call(r.call);
        if matches!(r.outcome, Ended::Failed | Ended::Again | Ended::Cancelled) {
            self.error(call, r.call);
        }
        let of = &mut self.out.calls[call as usize];
        of.function = function;
        of.actor = r.actor;
        of.bytes = of.bytes.max(r.bytes);
        let outcome = match r.outcome {
            Ended::Running => Outcome::Running,
            Ended::Done => Outcome::Done,
            Ended::Failed => Outcome::Failed,
            Ended::Cancelled => Outcome::Cancelled,
            Ended::Again => Outcome::Again,
            Ended::Pending => Outcome::Pending,
        };
        let turn = r.turn;
        self.out.runs.push(Run {
            call,
            lane,
            start,
            end,
            reading,
            storing,
            turn,
            outcome,
        });
    }

    /// What was said just before is why this call failed.
    fn error(&mut self, call: u32, id: u64) {
        if self.said.0 == id && !self.said.1.is_empty() {
            let said = std::mem::take(&mut self.said.1);
            self.out
                .texts
                .push(String::from_utf8_lossy(&said).into_owned());
            self.out.calls[call as usize].error = self.out.texts.len() as u32;
        }
    }

    fn call(&mut self, id: u64) -> u32 {
        match self.calls.entry(id) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let i = *new.insert(self.out.calls.len() as u32);
                self.out.calls.push(Call {
                    id,
                    function: u32::MAX,
                    submit_lane: u32::MAX,
                    ..Call::default()
                });
                i
            }
        }
    }

    fn name(&mut self, id: u32, line: Option<u32>) -> u32 {
        let (recorder, names) = (&self.recorder, &mut self.out.names);
        *self.names.entry((id, line)).or_insert_with(|| {
            let name = recorder.read_name(id).unwrap_or_else(|| "unnamed".into());
            names.push(match line {
                Some(line) => format!("put at {name}:{line}"),
                None => name,
            });
            names.len() as u32 - 1
        })
    }

    /// What is said of a deed that has no place in the program; under numbers and lines that no name has.
    fn word(&mut self, deed: Deed, from: u32) -> u32 {
        let key = match deed {
            Deed::Restore => (u32::MAX, None),
            Deed::Transfer => (from, Some(u32::MAX)),
            Deed::Checkpoint | Deed::Revive | Deed::Replay => (from, Some(u32::MAX - deed as u32)),
            _ => (u32::MAX - 1, None),
        };
        let (recorder, names) = (&self.recorder, &mut self.out.names);
        *self.names.entry(key).or_insert_with(|| {
            names.push(match deed {
                Deed::Restore => "restore".into(),
                Deed::Transfer => {
                    let from = recorder.read_name(from);
                    format!(
                        "transfer from {}",
                        from.as_deref().unwrap_or("another node")
                    )
                }
                Deed::Checkpoint | Deed::Revive | Deed::Replay => {
                    let does = match deed {
                        Deed::Checkpoint => "checkpoint of",
                        Deed::Replay => "replay of",
                        _ => "restore of",
                    };
                    let actor = recorder.read_name(from);
                    format!("{does} {}", actor.as_deref().unwrap_or("an actor"))
                }
                _ => "spill".into(),
            });
            names.len() as u32 - 1
        })
    }

    /// All of it as one recording, as of now.
    pub fn finish(mut self) -> Recording {
        self.out.now = self.now();
        // Of what had begun in one chunk most has ended in a later one.
        let key = |r: &Ran| (r.call, self.scale.nanos(r.begin));
        let mut open: HashSet<(u64, u64)> = self.begun.iter().map(|(_, r)| key(r)).collect();
        if !open.is_empty() {
            for run in &self.out.runs {
                open.remove(&(self.out.calls[run.call as usize].id, run.start));
            }
        }
        for (lane, r) in std::mem::take(&mut self.begun) {
            if open.remove(&(r.call, self.scale.nanos(r.begin))) {
                self.ran(lane, &r);
            }
        }
        self.inputs.sort_by_key(|&(call, _)| call);
        for pieces in self.inputs.chunk_by(|a, b| a.0 == b.0) {
            let from = self.out.inputs.len() as u32;
            self.out.inputs.extend(pieces.iter().map(|&(_, id)| id));
            self.out.calls[pieces[0].0 as usize].inputs = (from, self.out.inputs.len() as u32);
        }
        // How far a call has come is what its last run says, unless it failed without one.
        let mut last = vec![0; self.out.calls.len()];
        for run in &self.out.runs {
            let (call, last) = (
                &mut self.out.calls[run.call as usize],
                &mut last[run.call as usize],
            );
            if run.start >= *last {
                *last = run.start;
                call.outcome = match run.outcome {
                    Outcome::Pending => Outcome::Running,
                    Outcome::Again => Outcome::Waiting,
                    outcome => outcome,
                };
            }
        }
        let (overwritten, dropped) = self.recorder.lost();
        let lost = overwritten.saturating_add(dropped);
        self.out.lost = self.out.lost.saturating_add(lost);
        self.lanes();
        self.out
    }

    /// The user's threads first, in the order in which they came, then those of the node by their numbers. An executor that
    /// ended and the later one that has its name share a lane: else a program that runs for days would have lanes without end.
    fn lanes(&mut self) {
        let named = |&(from, whose): &(u32, Whose)| {
            let name = self.recorder.lane_name(whose);
            let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            let number = name[name.len() - digits..].parse().unwrap_or(u32::MAX);
            let driver = whose.part == Part::Driver as u32;
            let process = match whose.part == Part::Worker as u32 {
                true => whose.process,
                false => self.recorder.process(),
            };
            let order = if driver { whose.lane } else { number };
            ((whose.part, process, order, name, whose.lane), from)
        };
        let mut lanes: Vec<_> = self.lanes.values().map(named).collect();
        lanes.sort_unstable();
        let mut moved = vec![0; lanes.len()];
        let mut last = None;
        for ((part, process, _, name, _), from) in lanes {
            let driver = part == Part::Driver as u32;
            let this = (part, process, name);
            if driver || last.as_ref() != Some(&this) {
                self.out.lanes.push(Lane {
                    node: format!("process {process}"),
                    name: this.2.clone(),
                    driver,
                });
                last = Some(this);
            }
            moved[from as usize] = self.out.lanes.len() as u32 - 1;
        }
        let place = |lane: &mut u32| *lane = moved.get(*lane as usize).copied().unwrap_or(u32::MAX);
        self.out
            .runs
            .iter_mut()
            .for_each(|run| place(&mut run.lane));
        self.out
            .objects
            .iter_mut()
            .for_each(|object| place(&mut object.lane));
        self.out
            .inside
            .iter_mut()
            .for_each(|inside| place(&mut inside.lane));
        self.out
            .calls
            .iter_mut()
            .for_each(|call| place(&mut call.submit_lane));
    }
}
