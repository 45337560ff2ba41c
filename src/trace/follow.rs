//! A recorder that is read again and again: what was decoded once is kept, and only what came since is decoded.
//!
//! A chunk that nobody holds any more does not change until it is taken anew, so it is decoded once. The few that are held,
//! one per thread, are decoded each time, on top of a copy.
//!
//! **Invariant:** a recording has everything that the memory holds, and at most half as much again of what was overwritten
//! meanwhile; the memory that this takes is bounded by that. Times are on one scale, which is measured anew before it could be
//! noticed to be off. **Left out:** what events mean ([`decode`](super::decode)).

use std::collections::HashMap;
use std::sync::Arc;

use super::decode::Decoder;
use super::pool::{EVENTS, Recorder};
use super::read;
use super::recording::Recording;

/// Follows one recorder.
pub struct Follower {
    recorder: Arc<Recorder>,
    kept: Option<Kept>,
}

struct Kept {
    decoder: Decoder,
    /// The filling of each chunk that is in it.
    taken: HashMap<usize, u64>,
    /// Events that are in it.
    events: usize,
    /// When it was begun.
    begun: u64,
}

impl Kept {
    fn new(recorder: &Arc<Recorder>) -> Kept {
        let decoder = Decoder::new(Arc::clone(recorder));
        Kept {
            begun: decoder.now(),
            decoder,
            taken: HashMap::new(),
            events: 0,
        }
    }

    /// Whether what is in this chunk now has been taken, or nothing is.
    fn has(&self, recorder: &Recorder, base: usize) -> bool {
        let ticket = recorder.ticket(base);
        ticket == 0 || self.taken.get(&base) == Some(&ticket)
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let events = self.kept.as_ref().map(|kept| kept.events);
        f.debug_struct("Follower").field("kept", &events).finish()
    }
}

impl Follower {
    /// Has read nothing yet.
    pub fn new(recorder: Arc<Recorder>) -> Follower {
        Follower {
            recorder,
            kept: None,
        }
    }

    /// Drops what is kept; the next reading is of everything again.
    pub fn forget(&mut self) {
        self.kept = None;
    }

    /// How many events are kept.
    #[cfg(test)]
    pub(super) fn events(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.events)
    }

    /// Everything that the recorder holds. Others may go on recording. Takes about a tenth of a microsecond per new event,
    /// and a fifth of that per old one.
    pub fn recording(&mut self) -> Recording {
        let recorder = &self.recorder;
        let room = recorder.chunks() * EVENTS / 2 * 3;
        let kept = self.kept.take().filter(|kept| {
            let old = |chunk: &usize| kept.has(recorder, recorder.base(*chunk));
            let new = (0..recorder.chunks()).filter(|chunk| !old(chunk)).count();
            // The scale is a line through two points; the farther apart they are, the less it turns.
            kept.events + new * EVENTS <= room && kept.decoder.now() < kept.begun.saturating_mul(2)
        });
        let mut kept = kept.unwrap_or_else(|| Kept::new(recorder));
        let Kept {
            decoder,
            taken,
            events,
            ..
        } = &mut kept;
        let mut sealed: Vec<(usize, u64)> = Vec::new();
        read::each_of(
            recorder,
            |of| taken.get(&of.base) != Some(&of.ticket) && !recorder.is_held(of.base),
            |of, whose, found, _| {
                sealed.push((of.base, of.ticket));
                *events += found.len();
                decoder.chunk(whose, found);
            },
        );
        taken.extend(sealed);
        let mut now = decoder.clone();
        read::each_of(
            recorder,
            |of| taken.get(&of.base) != Some(&of.ticket),
            |_, whose, found, _| now.chunk(whose, found),
        );
        self.kept = Some(kept);
        now.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::AtomicU64;

    use proptest::prelude::*;

    use super::super::event::{Event, Outcome as Ended, Submitted};
    use super::super::lane::{Lane, Part};
    use super::super::pool::{Mode, SMALLEST};
    use super::super::recording::Outcome;
    use super::*;

    struct Plain(Box<[AtomicU64]>);

    impl AsRef<[AtomicU64]> for Plain {
        fn as_ref(&self) -> &[AtomicU64] {
            &self.0
        }
    }

    fn recorder() -> Arc<Recorder> {
        let words = (0..SMALLEST / 8).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Recorder::create(Arc::new(Plain(words)), Mode::Full).unwrap())
    }

    fn submit(lane: &Lane, call: u64, input: Option<u64>) {
        let pen = lane.pen().unwrap();
        let at = pen.now();
        pen.put(&Event::Submit(Submitted {
            name: pen.name("f"),
            begin: at,
            end: at,
            call,
            actor: 0,
            caller: 0,
            bytes: 0,
            inputs: input.iter().count() as u16,
            first: [input.unwrap_or(0), 0],
        }));
    }

    /// What matters of each call, by its id.
    fn essence(r: &Recording) -> HashMap<u64, (Outcome, Vec<u64>, usize)> {
        let mut runs = vec![0; r.calls.len()];
        for run in &r.runs {
            runs[run.call as usize] += 1;
        }
        let calls = r.calls.iter().zip(runs);
        let inputs = |(a, b): (u32, u32)| r.inputs[a as usize..b as usize].to_vec();
        calls
            .map(|(c, runs)| (c.id, (c.outcome, inputs(c.inputs), runs)))
            .collect()
    }

    #[test]
    fn nothing_new_is_another_generation_only_when_something_came() {
        let recorder = recorder();
        let lane = Lane::new(&recorder, Part::Driver);
        let mut seen = vec![recorder.generation()];
        for call in 1..600 {
            assert_eq!(recorder.generation(), *seen.last().unwrap());
            submit(&lane, call, None);
            seen.push(recorder.generation());
        }
        let before = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), before, "a number came twice");
    }

    #[test]
    fn executors_of_one_name_share_a_lane_and_are_in_order() {
        let recorder = recorder();
        let runs = |name: &str, part: Part, call: u64| {
            let recorder = Arc::clone(&recorder);
            let work = move || {
                let lane = Lane::new(&recorder, part);
                let pen = lane.pen().unwrap();
                pen.enter(pen.name("f"), call, 0, 1);
                pen.exit(call, Ended::Done, 0, None);
            };
            let thread = std::thread::Builder::new().name(name.into());
            thread.spawn(work).unwrap().join().unwrap();
        };
        for (i, name) in ["mobula-10", "mobula-5", "mobula-5", "mobula-5", "mobula-9"]
            .iter()
            .enumerate()
        {
            runs(name, Part::Executor, i as u64 + 1);
        }
        runs("mine", Part::Driver, 8);
        runs("mine", Part::Driver, 9);
        let recording = Follower::new(Arc::clone(&recorder)).recording();
        let names: Vec<&str> = recording.lanes.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "driver mine",
                "driver mine",
                "executor 5",
                "executor 9",
                "executor 10"
            ]
        );
        let on = |lane: u32| recording.runs.iter().filter(|r| r.lane == lane).count();
        assert_eq!((on(2), on(3), on(4)), (3, 1, 1));
    }

    #[test]
    fn what_is_said_of_a_span_is_no_error_of_its_call() {
        let recorder = recorder();
        let lane = Lane::new(&recorder, Part::Driver);
        let pen = lane.pen().unwrap();
        pen.enter(0, 3, 0, 1);
        for _ in 0..2 {
            pen.say(3, "batch=7");
            pen.put(&Event::Span {
                name: 0,
                begin: 1,
                end: 2,
                call: 3,
            });
        }
        pen.exit(3, Ended::Failed, 0, Some("it broke"));
        let recording = Follower::new(Arc::clone(&recorder)).recording();
        assert_eq!(recording.texts, ["it broke"]);
    }

    #[test]
    fn what_is_overwritten_goes_in_the_end() {
        let recorder = recorder();
        let lane = Lane::new(&recorder, Part::Driver);
        let mut follower = Follower::new(Arc::clone(&recorder));
        let room = recorder.chunks() * EVENTS;
        let mut call = 0;
        for _ in 0..40 {
            for _ in 0..room / 7 {
                call += 1;
                submit(&lane, call, None);
            }
            let followed = essence(&follower.recording());
            assert!(
                follower.events() <= room / 2 * 3 && followed.len() <= room / 2 * 3 + EVENTS,
                "{} of {room}",
                followed.len()
            );
            assert!(followed.contains_key(&call), "the latest is there");
        }
        follower.forget();
        assert_eq!(follower.events(), 0);
        assert!(follower.recording().calls.len() <= room);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn following_tells_what_one_reading_does(steps in prop::collection::vec((0u8..8, 0usize..3), 1..60), burst in 1u64..400) {
            let recorder = recorder();
            let lanes: Vec<Lane> = (0..3).map(|_| Lane::new(&recorder, Part::Executor)).collect();
            let mut follower = Follower::new(Arc::clone(&recorder));
            let (mut next, mut open) = (0, vec![Vec::new(); 3]);
            for (what, lane) in steps {
                let pen = lanes[lane].pen().unwrap();
                match what {
                    0..3 => for _ in 0..burst {
                        next += 1;
                        submit(&lanes[lane], next, (next > 1).then_some(next - 1));
                        pen.enter(pen.name("f"), next, 0, 1);
                        pen.exit(next, Ended::Done, 8, None);
                    },
                    3 | 4 => {
                        next += 1;
                        submit(&lanes[lane], next, None);
                        pen.enter(pen.name("f"), next, 0, 1);
                        open[lane].push(next);
                    }
                    5 => if let Some(call) = open[lane].pop() {
                        pen.exit(call, Ended::Failed, 0, Some("it broke"));
                    },
                    _ => {
                        let (followed, once) = (follower.recording(), Follower::new(Arc::clone(&recorder)).recording());
                        let (all, now) = (essence(&followed), essence(&once));
                        if recorder.lost() == (0, 0) {
                            prop_assert_eq!(&all, &now);
                            prop_assert_eq!(followed.lanes, once.lanes);
                        }
                        for (id, (outcome, inputs, runs)) in &now {
                            let Some(known) = all.get(id) else { panic!("{id} is not followed") };
                            prop_assert!(known.2 >= *runs && known.1.len() >= inputs.len());
                            if *runs > 0 {
                                prop_assert_eq!(known.0, *outcome);
                            }
                        }
                    }
                }
            }
        }
    }
}
