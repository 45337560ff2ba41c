//! Calls that have ended, read from the recording little by little: for whoever sends them on while the program runs.
//!
//! A call is one span, from its first beginning to its end, however many attempts or polls it took. It belongs to the span of the
//! call that submitted it, and links to those whose results it takes. A chunk that nobody writes to any more is read once.
//!
//! Invariant: memory is bounded: of calls that have not ended at most [`OPEN`] are remembered, the oldest are forgotten first. What was
//! overwritten before it was read is not there. What the memory claims may be anything; what comes of it are plain numbers and
//! texts. Left out: sending them (`node`), runs in worker processes, whose call the node's own run stands for.

use std::collections::{HashMap, VecDeque};

use super::event::{Event, Outcome, Ran, Submitted, WORDS};
use super::lane::SAID;
use super::pool::Recorder;
use super::ticks::Scale;

/// Calls that are remembered until they end: some 100 bytes each.
const OPEN: usize = 1 << 17;
/// Calls that have ended whose roots are remembered, for links to them.
const ENDED: usize = 1 << 16;
/// Inputs of a call that are remembered, to become links.
const LINKS: usize = 32;

/// A call that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The call.
    pub call: u64,
    /// The call above all that led to it; itself if a thread of the program's own made it.
    pub root: u64,
    /// The call that submitted it; 0 if a thread did.
    pub parent: u64,
    /// The function.
    pub name: String,
    /// The actor whose method it is; 0 for a function.
    pub actor: u64,
    /// When it began to run, or was submitted if it never did: nanoseconds since 1970.
    pub begin: u64,
    /// When it ended.
    pub end: u64,
    /// How long it waited before: from its submission; 0 if that is not known.
    pub waited: u64,
    /// Attempts that were made, or polls.
    pub turns: u16,
    /// Bytes of its result.
    pub bytes: u64,
    /// Its end was no error.
    pub ok: bool,
    /// It was told to stop.
    pub cancelled: bool,
    /// What went wrong, if that was said.
    pub error: Option<String>,
    /// Calls, with their roots, whose results it takes.
    pub links: Vec<(u64, u64)>,
}

/// A call that has not ended.
#[derive(Default)]
struct Open {
    caller: u64,
    actor: u64,
    /// 0 if that is not known.
    submitted: u64,
    root: u64,
    begun: u64,
    links: Vec<u64>,
}

/// How far a chunk was read.
#[derive(Default)]
struct Mark {
    ticket: u64,
    next: usize,
    /// Nobody writes to it any more, and all of it was read.
    done: bool,
    /// Runs before `next` that had not ended.
    running: Vec<usize>,
    said: (u64, Vec<u8>),
}

/// The reader.
#[derive(Default)]
pub struct Spans {
    marks: Vec<Mark>,
    open: HashMap<u64, Open>,
    /// Those that were opened, oldest first; some have ended.
    order: VecDeque<u64>,
    /// Roots of calls that have ended.
    roots: HashMap<u64, u64>,
    ended: VecDeque<u64>,
    /// Ends whose submission was not seen: for one more reading.
    early: Vec<End>,
}

/// The end of a call.
struct End {
    ran: Ran,
    /// It never ran.
    at_once: bool,
    why: Option<String>,
}

/// Whether the call, or thread, with this id is a call that is recorded.
fn recorded(id: u64) -> bool {
    id & 1 != 0
}

impl Spans {
    /// Reads what was recorded since the last time, and hands over what has ended.
    pub fn read(&mut self, recorder: &Recorder, each: &mut dyn FnMut(Span)) {
        let (ticks, nanos, date) = recorder.origin();
        let scale = Scale::measure(recorder.clock(), ticks, nanos);
        let time = |ticks| date.saturating_add(scale.nanos(ticks));
        let mut batch = Batch::default();
        self.marks.resize_with(recorder.chunks(), Mark::default);
        let mut events = Vec::new();
        for (chunk, mark) in self.marks.iter_mut().enumerate() {
            let base = recorder.base(chunk);
            let ticket = recorder.ticket(base);
            if ticket == 0 || ticket == mark.ticket && mark.done {
                continue;
            }
            // Asked before it is copied: what is written in between is read the next time.
            let done = !recorder.is_held(base);
            let Some(whose) = recorder.copy(base, ticket, &mut events) else {
                continue;
            };
            if ticket != mark.ticket {
                *mark = Mark {
                    ticket,
                    ..Mark::default()
                };
            }
            if whose.process == recorder.process() {
                mark.read(&events, &mut batch);
            }
            mark.done = done;
            if done {
                mark.running = Vec::new();
                mark.said.1 = Vec::new();
            }
        }
        for (call, inputs) in batch.inputs {
            let links = &mut self.open(call).links;
            let room = LINKS.saturating_sub(links.len());
            links.extend(inputs.into_iter().take(room));
        }
        batch.submits.sort_unstable_by_key(|s| s.begin);
        for submit in batch.submits {
            let root = if recorded(submit.caller) {
                self.root_of(submit.caller)
            } else {
                submit.call
            };
            let open = self.open(submit.call);
            (open.root, open.caller, open.actor) = (root, submit.caller, submit.actor);
            open.submitted = submit.begin.max(1);
            let first = &submit.first[..usize::from(submit.inputs.min(2))];
            open.links.truncate(LINKS - first.len());
            open.links.extend(first);
        }
        for (call, at) in batch.begun {
            let open = self.open(call);
            open.begun = if open.begun == 0 {
                at
            } else {
                open.begun.min(at)
            };
        }
        // Of two readings ago: their submissions are not to come any more.
        for end in std::mem::take(&mut self.early) {
            self.end(recorder, &time, end, each);
        }
        for end in batch.ends {
            let open = self.open.get(&end.ran.call);
            if open.is_some_and(|o| o.submitted != 0) {
                self.end(recorder, &time, end, each);
            } else {
                self.early.push(end);
            }
        }
    }

    fn open(&mut self, call: u64) -> &mut Open {
        if !self.open.contains_key(&call) {
            while self.order.len() >= OPEN {
                if let Some(oldest) = self.order.pop_front() {
                    self.open.remove(&oldest);
                }
            }
            self.order.push_back(call);
        }
        self.open.entry(call).or_insert_with(|| Open {
            root: call,
            ..Open::default()
        })
    }

    fn root_of(&self, call: u64) -> u64 {
        let open = self.open.get(&call).map(|open| open.root);
        open.or_else(|| self.roots.get(&call).copied())
            .unwrap_or(call)
    }

    fn end(
        &mut self,
        recorder: &Recorder,
        time: &impl Fn(u64) -> u64,
        end: End,
        each: &mut dyn FnMut(Span),
    ) {
        let (ran, call) = (end.ran, end.ran.call);
        let open = self.open.remove(&call).unwrap_or_else(|| Open {
            root: call,
            ..Open::default()
        });
        // Those that ended leave gaps, which would otherwise count as open.
        if self.order.len() > 2 * self.open.len() + 1024 {
            let open = &self.open;
            self.order.retain(|call| open.contains_key(call));
        }
        if self.roots.insert(call, open.root).is_none() {
            self.ended.push_back(call);
            while self.ended.len() > ENDED
                && let Some(oldest) = self.ended.pop_front()
            {
                self.roots.remove(&oldest);
            }
        }
        let begin = match open.begun {
            0 if end.at_once && open.submitted != 0 => open.submitted,
            0 => ran.begin,
            begun => begun.min(ran.begin),
        };
        // What is no call, or was forgotten, is no span either.
        let made = |call: &u64| Some((*call, *self.roots.get(call)?));
        let links = open.links.iter().filter_map(made).collect();
        let name = recorder.read_name(ran.name);
        each(Span {
            call,
            root: open.root,
            parent: if recorded(open.caller) {
                open.caller
            } else {
                0
            },
            name: name.unwrap_or_else(|| "unnamed".to_owned()),
            actor: ran.actor.max(open.actor),
            begin: time(begin),
            end: time(ran.end).max(time(begin)),
            waited: match open.submitted {
                0 => 0,
                submitted => time(begin).saturating_sub(time(submitted)),
            },
            turns: ran.turn,
            bytes: ran.bytes,
            ok: ran.outcome == Outcome::Done,
            cancelled: ran.outcome == Outcome::Cancelled,
            error: end.why,
            links,
        });
    }
}

/// What a reading found.
#[derive(Default)]
struct Batch {
    submits: Vec<Submitted>,
    inputs: Vec<(u64, Vec<u64>)>,
    begun: Vec<(u64, u64)>,
    ends: Vec<End>,
}

impl Mark {
    fn read(&mut self, events: &[[u64; WORDS]], batch: &mut Batch) {
        let mut still = std::mem::take(&mut self.running);
        still.retain(|at| match events.get(*at).map(Event::read) {
            Some(Some(Event::Run(r))) if r.outcome == Outcome::Running => true,
            Some(Some(Event::Run(r))) => {
                batch.run(r, None);
                false
            }
            _ => false,
        });
        self.running = still;
        for (at, words) in events.iter().enumerate().skip(self.next) {
            let event = Event::read(words);
            let text = matches!(event, Some(Event::Text { .. }));
            match event {
                Some(Event::Submit(s)) => batch.submits.push(s),
                Some(Event::Inputs {
                    call,
                    count,
                    inputs,
                }) => {
                    let inputs = inputs[..usize::from(count)].to_vec();
                    batch.inputs.push((call, inputs));
                }
                Some(Event::Run(r)) if r.outcome == Outcome::Running => self.running.push(at),
                Some(Event::Run(r)) => {
                    let why = self.said(r.call);
                    batch.run(r, why);
                }
                Some(Event::Text { about, len, bytes }) => {
                    if self.said.0 != about {
                        self.said = (about, Vec::new());
                    }
                    if self.said.1.len() < SAID {
                        self.said.1.extend_from_slice(&bytes[..usize::from(len)]);
                    }
                }
                Some(Event::Fail {
                    name,
                    at,
                    call,
                    cancelled,
                }) => {
                    let outcome = if cancelled {
                        Outcome::Cancelled
                    } else {
                        Outcome::Failed
                    };
                    let why = self.said(call);
                    let ran = Ran {
                        name,
                        outcome,
                        turn: 0,
                        begin: at,
                        end: at,
                        call,
                        actor: 0,
                        reading: 0,
                        storing: 0,
                        bytes: 0,
                    };
                    batch.ends.push(End {
                        ran,
                        at_once: true,
                        why,
                    });
                }
                _ => {}
            }
            // Said of this event, whether anything was made of it or not.
            if !text {
                self.said.1.clear();
            }
        }
        self.next = events.len();
    }

    /// What was said just before about this call.
    fn said(&mut self, call: u64) -> Option<String> {
        let (about, said) = std::mem::take(&mut self.said);
        (about == call && !said.is_empty()).then(|| String::from_utf8_lossy(&said).into_owned())
    }
}

impl Batch {
    fn run(&mut self, ran: Ran, why: Option<String>) {
        self.begun.push((ran.call, ran.begin));
        if !matches!(ran.outcome, Outcome::Again | Outcome::Pending) {
            self.ends.push(End {
                ran,
                at_once: false,
                why,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lane::{Lane, Part};
    use super::super::pool::EVENTS;
    use super::super::tests::{memory, recorder};
    use super::super::{Mode, Source, request};
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::Ordering;

    fn all(spans: &mut Spans, recorder: &Recorder) -> Vec<Span> {
        let mut found = Vec::new();
        spans.read(recorder, &mut |span| found.push(span));
        found
    }

    fn submit(call: u64, caller: u64, first: &[u64]) -> Event {
        let mut two = [0; 2];
        two[..first.len()].copy_from_slice(first);
        Event::Submit(Submitted {
            name: 0,
            begin: 5,
            end: 6,
            call,
            caller,
            actor: 0,
            bytes: 0,
            inputs: first.len() as u16,
            first: two,
        })
    }

    #[test]
    fn a_call_is_told_once_when_it_has_ended() {
        let recorder = recorder(Mode::Full);
        let lane = Lane::new(&recorder, Part::Executor);
        let pen = lane.pen().unwrap();
        let mut spans = Spans::default();
        let name = pen.name("some::call");
        pen.put(&submit(3, 2, &[]));
        pen.enter(name, 3, 0, 1);
        pen.put(&submit(5, 3, &[]));
        pen.enter(name, 5, 0, 1);
        assert_eq!(all(&mut spans, &recorder), []);
        // Their events are changed where they lie.
        assert!(pen.exit(5, Outcome::Done, 8, None));
        let inner = all(&mut spans, &recorder);
        assert_eq!(inner.len(), 1);
        assert_eq!((inner[0].call, inner[0].parent, inner[0].root), (5, 3, 3));
        assert_eq!(inner[0].name, "some::call");
        assert!(pen.exit(3, Outcome::Failed, 0, Some("out of luck")));
        let outer = all(&mut spans, &recorder);
        assert_eq!(outer.len(), 1);
        assert_eq!((outer[0].parent, outer[0].ok), (0, false));
        assert_eq!(outer[0].error.as_deref(), Some("out of luck"));
        assert_eq!(all(&mut spans, &recorder), []);
    }

    #[test]
    fn attempts_are_one_span_and_links_lead_to_calls_that_ended() {
        let recorder = recorder(Mode::Full);
        let lane = Lane::new(&recorder, Part::Executor);
        let pen = lane.pen().unwrap();
        let mut spans = Spans::default();
        for call in [3, 7] {
            // 7 takes the first, and an object that is no call.
            pen.put(&submit(call, 2, if call == 7 { &[3, 9] } else { &[] }));
            pen.enter(0, call, 0, 1);
            assert!(pen.exit(call, Outcome::Again, 0, Some("try again")));
            pen.enter(0, call, 0, 2);
            assert!(pen.exit(call, Outcome::Done, 0, None));
        }
        let found = all(&mut spans, &recorder);
        let seen: Vec<_> = found.iter().map(|s| (s.call, s.turns, s.ok)).collect();
        assert_eq!(seen, [(3, 2, true), (7, 2, true)]);
        assert_eq!(found[1].links, [(3, 3)]);
    }

    #[test]
    fn an_end_whose_submission_was_never_seen_is_told_at_the_next_reading() {
        let recorder = recorder(Mode::Full);
        let lane = Lane::new(&recorder, Part::Executor);
        let pen = lane.pen().unwrap();
        let mut spans = Spans::default();
        pen.enter(0, 3, 0, 1);
        assert!(pen.exit(3, Outcome::Done, 0, None));
        assert_eq!(all(&mut spans, &recorder), []);
        let found = all(&mut spans, &recorder);
        assert_eq!((found.len(), found[0].root, found[0].parent), (1, 3, 0));
    }

    #[test]
    fn a_chunk_that_nobody_writes_to_any_more_is_read_once() {
        let recorder = recorder(Mode::Full);
        let lane = Lane::new(&recorder, Part::Executor);
        let pen = lane.pen().unwrap();
        pen.put(&submit(3, 2, &[]));
        pen.enter(0, 3, 0, 1);
        assert!(pen.exit(3, Outcome::Done, 0, None));
        let mut spans = Spans::default();
        assert_eq!(all(&mut spans, &recorder).len(), 1);
        drop(lane);
        assert_eq!(all(&mut spans, &recorder), []);
        // Once more among what was read: whoever looks there again finds an end.
        let words = &recorder.words()[recorder.base(0)..];
        let end = std::array::from_fn(|i| words[2 * WORDS + i].load(Ordering::Relaxed));
        assert!(matches!(Event::read(&end), Some(Event::Run(r)) if r.outcome == Outcome::Done));
        for (to, word) in words[3 * WORDS..].iter().zip(end) {
            to.store(word, Ordering::Relaxed);
        }
        words[1].fetch_add(1, Ordering::Relaxed);
        assert_eq!(all(&mut spans, &recorder), []);
        assert_eq!(all(&mut spans, &recorder), []);
    }

    #[test]
    fn what_is_said_of_a_span_is_no_error_of_its_call() {
        let recorder = recorder(Mode::Full);
        let lane = Lane::new(&recorder, Part::Executor);
        let pen = lane.pen().unwrap();
        let mut spans = Spans::default();
        for (call, outcome, why) in [
            (3, Outcome::Failed, Some("it broke")),
            (5, Outcome::Done, None),
        ] {
            pen.put(&submit(call, 2, &[]));
            pen.enter(0, call, 0, 1);
            for _ in 0..EVENTS {
                pen.say(call, "batch=7");
                pen.put(&Event::Span {
                    name: 0,
                    begin: 1,
                    end: 2,
                    call,
                });
            }
            assert!(pen.exit(call, outcome, 0, why));
        }
        let told = all(&mut spans, &recorder);
        let errors: Vec<_> = told.iter().map(|s| s.error.as_deref()).collect();
        assert_eq!(errors, [Some("it broke"), None]);
    }

    #[test]
    fn of_a_call_with_many_inputs_a_few_are_remembered() {
        let recorder = recorder(Mode::Full);
        let lane = Lane::new(&recorder, Part::Executor);
        let pen = lane.pen().unwrap();
        let mut spans = Spans::default();
        for _ in 0..100 {
            let inputs = [5, 7, 9, 11, 13];
            pen.put(&Event::Inputs {
                call: 3,
                count: 5,
                inputs,
            });
        }
        pen.put(&submit(3, 2, &[15, 17]));
        assert_eq!(all(&mut spans, &recorder), []);
        let links = &spans.open[&3].links;
        assert_eq!(links.len(), LINKS);
        assert!(links.contains(&15) && links.contains(&17));
    }

    #[test]
    fn calls_that_never_end_are_forgotten() {
        let mut spans = Spans::default();
        for call in 0..3 * OPEN as u64 {
            spans.open(call);
        }
        assert_eq!((spans.open.len(), spans.order.len()), (OPEN, OPEN));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 24 }))]

        /// Whatever another process wrote.
        #[test]
        fn any_events_are_sent_as_json(
            all in proptest::collection::vec((0_u8..14, any::<[u64; WORDS]>()), 0..200),
        ) {
            let memory = memory(super::super::SMALLEST);
            let recorder = std::sync::Arc::new(Recorder::create(memory, Mode::Full).unwrap());
            let lane = Lane::new(&recorder, Part::Executor);
            let pen = lane.pen().unwrap();
            let mut spans = Spans::default();
            let mut found = Vec::new();
            for (kind, mut words) in all {
                words[0] = words[0] & !0xff | u64::from(kind);
                pen.scribble(words);
                spans.read(&recorder, &mut |span| found.push(span));
            }
            let source = Source {
                service: "a \"test\"".into(),
                attributes: vec![("key".into(), "value".into())],
                process: 1,
                seed: 2,
            };
            let body: serde_json::Value = serde_json::from_slice(&request(&source, &found)).unwrap();
            let sent = &body["resourceSpans"][0]["scopeSpans"][0]["spans"];
            prop_assert_eq!(sent.as_array().map(Vec::len), Some(found.len()));
        }
    }
}
