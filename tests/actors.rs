//! Calling actors: order, receivers, arguments, waiting, names, and failures of single calls.

#[path = "common/actors.rs"]
mod common;

use std::collections::HashMap;

use common::{gates, runtime, until, within};
use mobula::prelude::*;
use mobula::{Error, WhenFull};

#[remote]
fn opened(gate: u64, value: u64) -> u64 {
    gates::pass(gate);
    value
}

#[remote]
fn fails(message: String) -> Result<u64, String> {
    Err(message)
}

/// Keeps what it was sent.
#[remote]
struct Log {
    entries: Vec<(u64, u64)>,
}

#[remote]
impl Log {
    pub fn new() -> Self {
        Log {
            entries: Vec::new(),
        }
    }

    pub fn add(&mut self, who: u64, what: u64) -> u64 {
        self.entries.push((who, what));
        self.entries.len() as u64
    }

    pub fn entries(&self) -> Vec<(u64, u64)> {
        self.entries.clone()
    }

    pub fn of(&self, who: u64) -> Vec<u64> {
        self.entries
            .iter()
            .filter(|e| e.0 == who)
            .map(|e| e.1)
            .collect()
    }

    pub fn sum(&mut self, numbers: &[f64], text: &str) -> String {
        format!("{text}{}", numbers.iter().sum::<f64>())
    }

    pub fn hold(&mut self, gate: u64) {
        gates::pass(gate);
    }

    pub fn fail(&mut self, message: String) -> Result<u64, String> {
        self.entries.push((0, 0));
        Err(message)
    }

    pub fn blow(&mut self) -> u64 {
        panic!("blown")
    }

    pub fn finish(self) -> Vec<(u64, u64)> {
        self.entries
    }

    pub fn finish_with(self, what: u64) -> u64 {
        what + self.entries.len() as u64
    }

    pub fn finish_badly(self) -> u64 {
        panic!("no good end")
    }
}

/// Calls others.
#[remote]
struct Relay {
    next: Option<Handle<Relay>>,
    log: Option<Handle<Log>>,
}

#[remote]
impl Relay {
    pub fn new() -> Self {
        Relay {
            next: None,
            log: None,
        }
    }

    pub fn link(&mut self, next: Handle<Relay>) {
        self.next = Some(next);
    }

    pub fn write_to(&mut self, log: Handle<Log>) {
        self.log = Some(log);
    }

    pub fn pass_on(&mut self, hops: u64) -> mobula::Result<u64> {
        match &self.next {
            Some(next) if hops > 0 => Ok(mobula::get(next.pass_on(hops - 1))? + 1),
            _ => Ok(0),
        }
    }

    /// Waits for the other once both are at it, each on a thread of its own.
    pub fn cross(&mut self, gate: u64) -> mobula::Result<u64> {
        gates::reach(gate);
        gates::await_reached(gate, 2);
        self.next
            .as_ref()
            .map_or(Ok(0), |next| mobula::get(next.echo(7)))
    }

    /// As `cross`, through a task, and with more than one reference.
    pub fn cross_far(&mut self, gate: u64) -> mobula::Result<u64> {
        gates::reach(gate);
        gates::await_reached(gate, 2);
        let Some(next) = &self.next else { return Ok(0) };
        let all = [far_echo::remote(next, 1), far_echo::remote(next, 2)];
        mobula::get(&all).map(|v| v.iter().sum())
    }

    pub fn echo(&mut self, x: u64) -> u64 {
        x
    }

    pub fn through(&mut self, log: Handle<Log>, what: u64) -> ObjectRef<u64> {
        log.add(9, what)
    }
}

#[remote]
fn far_echo(relay: Handle<Relay>, x: u64) -> mobula::Result<u64> {
    mobula::get(relay.echo(x))
}

fn died(e: &Error) -> String {
    match e {
        Error::ActorDied { .. } => e.to_string(),
        other => panic!("expected ActorDied, got {other:?}"),
    }
}

#[test]
fn each_caller_is_served_in_its_order() {
    runtime();
    within(30, || {
        let log = Log::remote();
        std::thread::scope(|s| {
            for who in 0..8 {
                let log = &log;
                s.spawn(move || {
                    let last = (0..10_000).map(|what| log.add(who, what)).reduce(|_, r| r);
                    mobula::get(last.unwrap()).unwrap();
                });
            }
        });
        for who in 0..8 {
            let got = mobula::get(log.of(who)).unwrap();
            let wrong = got
                .iter()
                .zip(0..)
                .position(|(what, expected)| *what != expected);
            assert_eq!((got.len(), wrong), (10_000, None), "of caller {who}");
        }
    });
}

#[test]
fn a_call_without_its_argument_holds_back_its_own_caller_only() {
    runtime();
    within(20, || {
        let log = Log::remote();
        let gate = gates::new();
        let late = opened::remote(gate, 1);
        let first = log.add(1, &late);
        let second = log.add(1, 2);
        let other = std::thread::scope(|s| {
            s.spawn(|| mobula::get(log.add(2, 7)).unwrap())
                .join()
                .unwrap()
        });
        assert_eq!(other, 1, "another caller is not held back");
        assert!(!first.is_ready() && !second.is_ready());
        gates::open(gate);
        assert_eq!(mobula::get((&first, &second)).unwrap(), (2, 3));
        assert_eq!(mobula::get(log.of(1)).unwrap(), [1, 2]);
    });
}

#[test]
fn a_held_call_may_need_the_result_of_the_one_before_it() {
    runtime();
    within(20, || {
        let log = Log::remote();
        let gate = gates::new();
        let first = log.add(1, opened::remote(gate, 5));
        let second = log.add(1, &first);
        let third = log.add(1, &second);
        gates::open(gate);
        assert_eq!(mobula::get(third).unwrap(), 3);
        assert_eq!(mobula::get(log.of(1)).unwrap(), [5, 1, 2]);
    });
}

#[test]
fn held_calls_keep_their_order_whatever_comes_first() {
    runtime();
    within(30, || {
        for round in 0..200u64 {
            let log = Log::remote();
            let doors = [gates::new(), gates::new(), gates::new()];
            let late: Vec<_> = doors.iter().map(|g| opened::remote(*g, 100)).collect();
            let mut last = Vec::new();
            for what in 0..6u64 {
                last.push(match what {
                    1 | 3 | 5 => log.add(1, &late[(what / 2) as usize]),
                    _ => log.add(1, what),
                });
            }
            for i in 0..3 {
                gates::open(doors[((round + i) * (1 + round % 2) % 3) as usize]);
            }
            doors.iter().for_each(|g| gates::open(*g));
            mobula::get(&last).unwrap();
            assert_eq!(mobula::get(log.of(1)).unwrap(), [0, 100, 2, 100, 4, 100]);
        }
    });
}

#[test]
fn an_argument_that_failed_fails_the_call_and_not_the_actor() {
    runtime();
    within(20, || {
        let log = Log::remote();
        let bad = log.add(1, fails::remote("no such luck".to_string()));
        let good = log.add(1, 2);
        match mobula::get(&bad).unwrap_err() {
            Error::DependencyFailed { cause, through } => {
                assert!(cause.to_string().contains("no such luck"));
                assert_eq!(through, ["actors::Log::add"]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(mobula::get(good).unwrap(), 1);

        // Not even one that would have consumed it.
        let gate = gates::new();
        let late = opened::remote(gate, 1);
        let consuming = log.finish_with(&late);
        let after = log.add(1, 3);
        mobula::cancel(&late).unwrap();
        gates::open(gate);
        match mobula::get(&late) {
            Err(e) => {
                assert!(e.is_cancelled());
                assert!(mobula::get(&consuming).unwrap_err().is_cancelled());
                assert_eq!(mobula::get(after).unwrap(), 2);
            }
            // It had begun, so it ran to its end.
            Ok(_) => assert_eq!(mobula::get(&consuming).unwrap(), 2),
        }
    });
}

#[test]
fn methods_take_every_receiver_and_borrowed_parameters() {
    runtime();
    within(20, || {
        let log = Log::remote();
        mobula::get(log.add(1, 2)).unwrap();
        assert_eq!(mobula::get(log.entries()).unwrap(), [(1, 2)]);
        let numbers = mobula::put(&vec![0.5f64; 3_000]).unwrap();
        assert_eq!(mobula::get(log.sum(&numbers, "sum ")).unwrap(), "sum 1500");
        let all = log.finish();
        let late = log.entries();
        assert_eq!(mobula::get(all).unwrap(), [(1, 2)]);
        assert!(died(&mobula::get(late).unwrap_err()).contains("Log::finish consumed it"));
        until("the death", || !log.is_alive());
    });
}

#[test]
fn failures_and_panics_are_the_calls_own() {
    runtime();
    within(20, || {
        let log = Log::remote();
        let e = mobula::get(log.fail("not today".to_string())).unwrap_err();
        let failure = e.failure().expect("a failure");
        assert_eq!(
            (failure.kind, failure.message.as_str()),
            (mobula::FailureKind::Returned, "not today")
        );
        assert_eq!(failure.function, "actors::Log::fail");
        let e = mobula::get(log.blow()).unwrap_err();
        let failure = e.failure().expect("a failure");
        assert_eq!(
            (failure.kind, failure.message.as_str()),
            (mobula::FailureKind::Panicked, "blown")
        );
        assert!(
            failure.location.contains("tests/actors.rs"),
            "{}",
            failure.location
        );
        assert_eq!(
            mobula::get(log.add(1, 1)).unwrap(),
            2,
            "the state is as it was"
        );

        let e = mobula::get(log.finish_badly()).unwrap_err();
        assert_eq!(e.failure().unwrap().message, "no good end");
        let e = died(&mobula::get(log.entries()).unwrap_err());
        assert!(
            e.contains("finish_badly panicked while it consumed it"),
            "{e}"
        );
    });
}

#[test]
fn actors_call_actors() {
    runtime();
    within(20, || {
        let chain: Vec<_> = (0..20).map(|_| Relay::remote()).collect();
        for pair in chain.windows(2) {
            pair[0].link(pair[1].clone());
        }
        assert_eq!(mobula::get(chain[0].pass_on(100)).unwrap(), 19);
    });
}

#[test]
fn waiting_for_oneself_is_a_deadlock_and_not_a_hang() {
    runtime();
    within(20, || {
        let alone = Relay::remote();
        alone.link(alone.clone());
        let e = mobula::get(alone.pass_on(1)).unwrap_err();
        assert!(e.to_string().contains("can only run after it"), "{e}");
        assert_eq!(mobula::get(alone.echo(3)).unwrap(), 3, "it goes on");
        alone.kill();
    });
}

#[test]
fn a_circle_of_waits_is_a_deadlock_and_not_a_hang() {
    runtime();
    within(20, || {
        for round in 0..50 {
            let (a, b) = (Relay::remote(), Relay::remote());
            a.link(b.clone());
            b.link(a.clone());
            // In odd rounds executors drain them, each on a thread of its own.
            let r = a.pass_on(2);
            if round % 2 == 1 {
                mobula::wait(std::slice::from_ref(&r)).run().unwrap();
            }
            let e = mobula::get(&r).unwrap_err();
            assert!(e.to_string().contains("could never end"), "{e}");
            a.kill();
            b.kill();
        }
    });
}

#[test]
fn two_that_wait_for_each_other_at_once_are_told() {
    runtime();
    within(30, || {
        for round in 0..40 {
            let (a, b) = (Relay::remote(), Relay::remote());
            a.link(b.clone());
            b.link(a.clone());
            let gate = gates::new();
            let calls = match round % 2 {
                0 => [a.cross(gate), b.cross(gate)],
                _ => [a.cross_far(gate), b.cross_far(gate)],
            };
            mobula::wait(&calls).num_returns(2).run().unwrap();
            let ended = calls.map(mobula::get);
            let failed = ended
                .iter()
                .filter_map(|r| r.as_ref().err())
                .collect::<Vec<_>>();
            assert!(!failed.is_empty(), "one of them had to give way: {ended:?}");
            for e in failed {
                assert!(e.to_string().contains("could never end"), "{e}");
            }
            a.kill();
            b.kill();
        }
    });
}

#[mobula::value]
#[derive(Clone, Debug)]
struct Holder {
    one: Handle<Log>,
    many: Vec<Handle<Log>>,
    named: HashMap<String, Handle<Log>>,
}

#[remote]
fn add_through(holder: Holder, what: u64) -> mobula::Result<u64> {
    let all = holder
        .many
        .iter()
        .chain(holder.named.values())
        .chain([&holder.one]);
    let refs: Vec<_> = all.map(|log| log.add(5, what)).collect();
    mobula::get(&refs).map(|n| n.len() as u64)
}

#[test]
fn handles_travel_in_values() {
    runtime();
    within(20, || {
        let log = Log::remote();
        let named = HashMap::from([
            ("x".to_string(), log.clone()),
            ("y".to_string(), log.clone()),
        ]);
        let holder = Holder {
            one: log.clone(),
            many: vec![log.clone(); 3],
            named,
        };
        assert_eq!(mobula::get(add_through::remote(&holder, 1)).unwrap(), 6);
        let stored = mobula::put(&holder).unwrap();
        drop(holder);
        assert_eq!(mobula::get(add_through::remote(&stored, 2)).unwrap(), 6);
        assert_eq!(mobula::get(log.entries()).unwrap().len(), 12);

        // To another actor, and back out of it as a result that is a reference.
        let relay = Relay::remote();
        let inner = mobula::get(relay.through(log.clone(), 3)).unwrap();
        assert_eq!(mobula::get(inner).unwrap(), 13);

        // The object's handle alone keeps the actor alive.
        let id = log.id();
        drop(log);
        let back = mobula::get(&stored).unwrap().one;
        assert_eq!(back.id(), id);
        assert_eq!(mobula::get(back.add(1, 1)).unwrap(), 14);
        drop(stored);
        assert!(back.is_alive());
    });
}

#[test]
fn an_actor_may_hold_a_handle_to_itself() {
    runtime();
    within(20, || {
        let a = Relay::remote();
        a.link(a.clone());
        let log = Log::remote();
        a.write_to(log.clone());
        assert_eq!(mobula::get(a.echo(1)).unwrap(), 1);
        let second = a.clone();
        drop(a);
        assert_eq!(mobula::get(second.echo(2)).unwrap(), 2);
        // The circle keeps it alive; killing it breaks the circle.
        second.kill();
        until("the death", || !second.is_alive());
    });
}

#[test]
fn names_are_taken_given_and_found() {
    runtime();
    within(20, || {
        let hits = Log::options().name("actors/hits").remote();
        let again = Log::named("actors/hits").unwrap();
        assert_eq!(again, hits);
        mobula::get(again.add(1, 1)).unwrap();

        match Log::options().name("actors/hits").try_remote().unwrap_err() {
            Error::NameTaken { name, actor } => {
                assert_eq!((name.as_str(), actor), ("actors/hits", "actors::Log"));
            }
            other => panic!("{other:?}"),
        }
        let refused = Log::options().name("actors/hits").remote();
        let e = died(&mobula::get(refused.entries()).unwrap_err());
        assert!(
            e.contains("could not be created") && e.contains("belongs to a living"),
            "{e}"
        );

        match Relay::named("actors/hits").unwrap_err() {
            Error::WrongActorType {
                expected, found, ..
            } => {
                assert_eq!((expected, found), ("actors::Relay", "actors::Log"));
            }
            other => panic!("{other:?}"),
        }
        let other = Relay::options()
            .name("actors/hits")
            .get_or_create(true)
            .try_remote();
        assert!(matches!(other, Err(Error::WrongActorType { .. })));
        assert!(matches!(
            Log::named("actors/none"),
            Err(Error::NoSuchActor { .. })
        ));

        // With the last handle the name goes, at once.
        drop((hits, again));
        assert!(matches!(
            Log::named("actors/hits"),
            Err(Error::NoSuchActor { .. })
        ));
        let fresh = Log::options().name("actors/hits").try_remote().unwrap();
        assert_eq!(mobula::get(fresh.entries()).unwrap(), []);
        assert_eq!(
            Log::named("actors/hits").unwrap(),
            fresh,
            "the old one took its own name with it"
        );
    });
}

#[test]
fn get_or_create_makes_one() {
    runtime();
    within(20, || {
        for round in 0..100 {
            let name = format!("actors/one-{round}");
            let barrier = std::sync::Barrier::new(8);
            let handles: Vec<_> = std::thread::scope(|s| {
                let makers: Vec<_> = (0..8)
                    .map(|who| {
                        let (name, barrier) = (&name, &barrier);
                        s.spawn(move || {
                            barrier.wait();
                            let log = Log::options().name(name).get_or_create(true).remote();
                            mobula::get(log.add(who, 0)).unwrap();
                            log
                        })
                    })
                    .collect();
                makers.into_iter().map(|m| m.join().unwrap()).collect()
            });
            assert!(handles.iter().all(|h| *h == handles[0]));
            assert_eq!(mobula::get(handles[0].entries()).unwrap().len(), 8);
        }
    });
}

#[test]
fn a_queued_call_can_be_cancelled() {
    runtime();
    within(20, || {
        let log = Log::remote();
        let gate = gates::new();
        let running = log.hold(gate);
        gates_reached_by_executor(&running, gate);
        let (queued, next) = (log.add(1, 1), log.add(1, 2));
        assert_eq!(mobula::cancel(&queued).unwrap(), mobula::Cancel::Dequeued);
        assert!(matches!(mobula::get(&queued), Err(Error::Cancelled { .. })));
        assert_eq!(mobula::cancel(&running).unwrap(), mobula::Cancel::Requested);
        gates::open(gate);
        assert_eq!(mobula::get(next).unwrap(), 1);
        assert_eq!(mobula::get(log.of(1)).unwrap(), [2]);
        assert_eq!(mobula::cancel(&running).unwrap(), mobula::Cancel::TooLate);
    });
}

/// Waits until an executor has begun a call that passes `gate`, without running it here.
fn gates_reached_by_executor<T>(_: &ObjectRef<T>, gate: u64) {
    gates::await_reached(gate, 1);
}

#[test]
fn a_held_call_can_be_cancelled_and_frees_those_behind_it() {
    runtime();
    within(20, || {
        let log = Log::remote();
        let gate = gates::new();
        let held = log.add(1, opened::remote(gate, 1));
        let behind = log.add(1, 2);
        assert_eq!(mobula::cancel(&held).unwrap(), mobula::Cancel::Dequeued);
        assert_eq!(mobula::get(behind).unwrap(), 1);
        assert!(matches!(mobula::get(held), Err(Error::Cancelled { .. })));
        gates::open(gate);
        assert_eq!(mobula::get(log.of(1)).unwrap(), [2]);
    });
}

#[test]
fn a_full_mailbox_fails_the_call_with_numbers() {
    runtime();
    within(20, || {
        let log = Log::options()
            .max_pending(2)
            .when_full(WhenFull::Fail)
            .remote();
        let gate = gates::new();
        let running = log.hold(gate);
        gates::await_reached(gate, 1);
        assert_eq!(log.pending(), 0, "the running call is not pending");
        let first = log.add(1, 1);
        assert_eq!(log.pending(), 1);
        let second = log.add(1, 2);
        assert_eq!(log.pending(), 2);
        let third = log.add(1, 3);
        assert_eq!(log.pending(), 2);
        match mobula::get(third).unwrap_err() {
            Error::MailboxFull { actor, max_pending } => {
                assert_eq!((actor, max_pending), ("actors::Log", 2));
            }
            other => panic!("{other:?}"),
        }
        gates::open(gate);
        mobula::get(running).unwrap();
        assert_eq!(mobula::get((first, second)).unwrap(), (1, 2));
        assert_eq!(log.pending(), 0);
        mobula::get(log.add(1, 4)).unwrap();
    });
}

#[test]
fn a_full_mailbox_makes_callers_wait() {
    runtime();
    within(20, || {
        let log = Log::options().max_pending(3).remote();
        // Whoever fills it is often the only one who would empty it.
        let last = (0..5_000)
            .map(|what| log.add(1, what))
            .reduce(|_, r| r)
            .unwrap();
        assert_eq!(mobula::get(last).unwrap(), 5_000);
        assert!(log.pending() <= 3);

        let gate = gates::new();
        let running = log.hold(gate);
        gates::await_reached(gate, 1);
        let sent = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|s| {
            let caller = s.spawn(|| {
                for what in 0..10 {
                    log.add(2, what);
                    sent.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
            until("a full mailbox", || log.pending() == 3);
            assert!(sent.load(std::sync::atomic::Ordering::SeqCst) <= 3);
            assert!(!caller.is_finished());
            gates::open(gate);
        });
        mobula::get(running).unwrap();
        assert_eq!(mobula::get(log.of(2)).unwrap(), (0..10).collect::<Vec<_>>());
    });
}
