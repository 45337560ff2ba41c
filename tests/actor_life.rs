//! Birth, restarts, resources and death of actors.

#[path = "common/actors.rs"]
mod common;

use std::collections::BTreeMap;
use std::sync::Mutex;

use common::{gates, runtime, until, within};
use mobula::Error;
use mobula::prelude::*;

#[remote]
fn opened(gate: u64, value: u64) -> u64 {
    gates::pass(gate);
    value
}

#[remote]
fn fails() -> Result<u64, String> {
    Err("no argument".to_string())
}

/// How often states of each kind, by a number that the test chooses, were made and dropped.
static LIVES: Mutex<BTreeMap<u64, (u64, u64)>> = Mutex::new(BTreeMap::new());

fn lives(kind: u64) -> (u64, u64) {
    LIVES
        .lock()
        .unwrap()
        .get(&kind)
        .copied()
        .unwrap_or_default()
}

fn kind() -> u64 {
    gates::new()
}

struct Cat {
    kind: u64,
    meals: u64,
    friend: Option<Handle<Cat>>,
}

#[remote]
impl Cat {
    pub fn new(kind: u64, meals: u64) -> Self {
        LIVES.lock().unwrap().entry(kind).or_default().0 += 1;
        Cat {
            kind,
            meals,
            friend: None,
        }
    }

    pub fn eat(&mut self, n: u64) -> u64 {
        self.meals += n;
        self.meals
    }

    pub fn meals(&self) -> u64 {
        self.meals
    }

    pub fn sleep(&mut self, gate: u64) -> u64 {
        gates::pass(gate);
        self.meals
    }

    pub fn fall(&mut self) -> u64 {
        self.meals += 100;
        panic!("off the roof")
    }

    pub fn befriend(&mut self, friend: Handle<Cat>) {
        self.friend = Some(friend);
    }

    pub fn end_by_itself(&mut self) -> u64 {
        if let Some(me) = &self.friend {
            me.kill();
        }
        self.meals
    }
}

impl Drop for Cat {
    fn drop(&mut self) {
        LIVES.lock().unwrap().entry(self.kind).or_default().1 += 1;
    }
}

fn cause(e: &Error) -> (String, u32) {
    match e {
        Error::ActorDied {
            cause, restarts, ..
        } => (cause.to_string(), *restarts),
        other => panic!("expected ActorDied, got {other:?}"),
    }
}

#[test]
fn the_last_handle_lets_queued_calls_run_and_ends_it_once() {
    runtime();
    within(20, || {
        for round in 0..300 {
            let kind = kind();
            let cat = Cat::remote(kind, 0);
            let calls: Vec<_> = (0..round % 40).map(|_| cat.eat(1)).collect();
            let second = cat.clone();
            drop(cat);
            let one_more = second.eat(1);
            drop(second);
            assert_eq!(mobula::get(one_more).unwrap(), round % 40 + 1);
            mobula::get(&calls).unwrap();
            until("the end", || lives(kind) == (1, 1));
        }
    });
}

#[test]
fn the_last_handle_lets_held_calls_run() {
    runtime();
    within(20, || {
        let (kind, gate) = (kind(), gates::new());
        let cat = Cat::remote(kind, 1);
        let held = cat.eat(opened::remote(gate, 5));
        let behind = cat.eat(1);
        drop(cat);
        gates::open(gate);
        assert_eq!(mobula::get((&held, &behind)).unwrap(), (6, 7));
        until("the end", || lives(kind) == (1, 1));
    });
}

#[test]
fn a_stop_lets_earlier_calls_finish_and_fails_later_ones() {
    runtime();
    within(20, || {
        let (kind, gate, door) = (kind(), gates::new(), gates::new());
        let cat = Cat::remote(kind, 0);
        let running = cat.sleep(gate);
        let queued = cat.eat(1);
        let held = cat.eat(opened::remote(door, 10));
        cat.stop();
        let late = cat.eat(1);
        let very_late = std::thread::scope(|s| s.spawn(|| cat.eat(1)).join().unwrap());
        gates::open(gate);
        assert_eq!(mobula::get((running, queued)).unwrap(), (0, 1));
        gates::open(door);
        assert_eq!(mobula::get(held).unwrap(), 11);
        for call in [late, very_late, cat.eat(1)] {
            assert_eq!(
                cause(&mobula::get(call).unwrap_err()),
                ("it was stopped".to_string(), 0)
            );
        }
        assert!(!cat.is_alive());
        assert_eq!(lives(kind), (1, 1));
    });
}

#[test]
fn a_dead_actor_stays_dead() {
    runtime();
    within(20, || {
        for round in 0..200 {
            let cat = Cat::remote(kind(), 0);
            if round % 2 == 0 {
                mobula::get(cat.eat(1)).unwrap();
            }
            cat.kill();
            cat.kill();
            cat.stop();
            let cats: Vec<_> = (0..20).map(|_| cat.eat(1)).collect();
            for call in cats {
                assert_eq!(cause(&mobula::get(call).unwrap_err()).0, "it was killed");
            }
            cat.restart();
            assert!(mobula::get(cat.eat(1)).is_err());
        }
    });
}

#[test]
fn a_kill_fails_what_waits_after_the_running_call() {
    runtime();
    within(20, || {
        let (kind, gate) = (kind(), gates::new());
        let cat = Cat::options().name("life/killed").remote(kind, 0);
        let running = cat.sleep(gate);
        gates::await_reached(gate, 1);
        let queued = cat.eat(1);
        let held = cat.eat(opened::remote(gate, 1));
        cat.kill();
        assert_eq!(lives(kind), (1, 0), "not under the running call");
        gates::open(gate);
        assert_eq!(mobula::get(running).unwrap(), 0);
        for call in [queued, held] {
            match mobula::get(call).unwrap_err() {
                Error::ActorDied {
                    actor, name, cause, ..
                } => {
                    assert_eq!(
                        (actor, name.as_deref()),
                        ("actor_life::Cat", Some("life/killed"))
                    );
                    assert_eq!(&*cause, "it was killed");
                }
                other => panic!("{other:?}"),
            }
        }
        until("the end", || lives(kind) == (1, 1));
        assert!(matches!(
            Cat::named("life/killed"),
            Err(Error::NoSuchActor { .. })
        ));
    });
}

#[test]
fn an_actor_may_kill_itself() {
    runtime();
    within(20, || {
        let kind = kind();
        let cat = Cat::remote(kind, 3);
        cat.befriend(cat.clone());
        assert_eq!(mobula::get(cat.end_by_itself()).unwrap(), 3);
        assert_eq!(
            cause(&mobula::get(cat.meals()).unwrap_err()).0,
            "it was killed"
        );
        assert_eq!(lives(kind), (1, 1));
    });
}

#[test]
fn a_detached_actor_survives_its_handles() {
    runtime();
    within(20, || {
        let kind = kind();
        let cat = Cat::options()
            .name("life/detached")
            .detached(true)
            .remote(kind, 0);
        mobula::get(cat.eat(2)).unwrap();
        drop(cat);
        assert_eq!(
            mobula::get(Cat::named("life/detached").unwrap().eat(1)).unwrap(),
            3
        );
        assert_eq!(lives(kind), (1, 0));
        Cat::named("life/detached").unwrap().kill();
        until("the end", || lives(kind) == (1, 1));
        assert!(Cat::named("life/detached").is_err());
    });
}

#[test]
fn a_restart_makes_it_anew_from_the_same_arguments_and_keeps_the_mailbox() {
    runtime();
    within(20, || {
        let (kind, gate) = (kind(), gates::new());
        let start = mobula::put(&40u64).unwrap();
        let cat = Cat::options().max_restarts(2).remote(kind, &start);
        drop(start);
        let running = cat.sleep(gate);
        gates::await_reached(gate, 1);
        let queued = cat.eat(1);
        cat.restart();
        gates::open(gate);
        assert_eq!(mobula::get((running, queued)).unwrap(), (40, 41));
        assert_eq!(lives(kind), (2, 1));
        cat.restart();
        assert_eq!(mobula::get(cat.eat(2)).unwrap(), 42);
        cat.restart();
        let (cause, restarts) = cause(&mobula::get(cat.eat(2)).unwrap_err());
        assert_eq!(restarts, 2);
        assert_eq!(
            cause,
            "it was told to restart, and all 2 of its restarts are used up"
        );
        until("the end", || lives(kind) == (3, 3));

        // One that may not restart ends.
        let cat = Cat::remote(kind, 0);
        cat.restart();
        assert!(mobula::get(cat.eat(1)).is_err());
    });
}

#[test]
fn a_later_death_has_its_own_cause() {
    runtime();
    within(20, || {
        let cat = Cat::options().max_restarts(5).remote(kind(), 0);
        cat.restart();
        assert_eq!(mobula::get(cat.eat(1)).unwrap(), 1);
        cat.kill();
        assert_eq!(
            cause(&mobula::get(cat.eat(1)).unwrap_err()),
            ("it was killed".to_string(), 1)
        );
    });
}

#[test]
fn a_panic_restarts_where_that_was_asked_for() {
    runtime();
    within(20, || {
        let kind_ = kind();
        let cat = Cat::options()
            .restart_on_panic(true)
            .max_restarts(2)
            .remote(kind_, 7);
        for n in 1..=2 {
            let fall = cat.fall();
            let next = cat.eat(1);
            assert_eq!(
                mobula::get(fall).unwrap_err().failure().unwrap().message,
                "off the roof"
            );
            assert_eq!(
                mobula::get(next).unwrap(),
                8,
                "from the constructor's arguments"
            );
            assert_eq!(lives(kind_), (n + 1, n));
        }
        mobula::get(cat.fall()).unwrap_err();
        let (cause, restarts) = cause(&mobula::get(cat.eat(1)).unwrap_err());
        assert_eq!(restarts, 2);
        assert!(
            cause.contains("Cat::fall panicked") && cause.contains("all 2"),
            "{cause}"
        );

        // Without it, the state is kept as the panic left it.
        let cat = Cat::options().max_restarts(2).remote(kind(), 7);
        mobula::get(cat.fall()).unwrap_err();
        assert_eq!(mobula::get(cat.meals()).unwrap(), 107);
    });
}

static TRIES: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());

fn tries(kind: u64) -> u64 {
    TRIES.lock().unwrap().get(&kind).copied().unwrap_or(0)
}

/// One whose constructor fails so many times: by `Err`, or by a panic.
struct Moody;

#[remote]
impl Moody {
    pub fn new(kind: u64, failures: u64, panics: bool) -> Result<Self, String> {
        let tried = {
            let mut tries = TRIES.lock().unwrap();
            let tried = tries.entry(kind).or_default();
            *tried += 1;
            *tried
        };
        assert!(tried > failures || !panics, "moody");
        if tried <= failures {
            Err(format!("mood {tried}"))
        } else {
            Ok(Moody)
        }
    }

    pub fn hello(&self) -> u64 {
        1
    }
}

#[test]
fn a_constructor_that_fails_says_why_to_every_call() {
    runtime();
    within(20, || {
        for panics in [false, true] {
            let kind = kind();
            let moody = Moody::remote(kind, 1, panics);
            let calls: Vec<_> = (0..5).map(|_| moody.hello()).collect();
            for call in calls.into_iter().chain([moody.hello()]) {
                let (cause, restarts) = cause(&mobula::get(call).unwrap_err());
                assert_eq!(restarts, 0);
                assert!(cause.starts_with("its constructor failed"), "{cause}");
                assert!(
                    cause.contains(if panics { "moody" } else { "mood 1" }),
                    "{cause}"
                );
            }
            assert_eq!(tries(kind), 1);
            assert!(!moody.is_alive());
        }
    });
}

#[test]
fn a_constructor_is_tried_again_as_often_as_it_may() {
    runtime();
    within(20, || {
        for panics in [false, true] {
            let first = kind();
            let moody = Moody::options().max_restarts(3).remote(first, 2, panics);
            assert_eq!(mobula::get(moody.hello()).unwrap(), 1);
            assert_eq!(tries(first), 3);

            let second = kind();
            let moody = Moody::options().max_restarts(3).remote(second, 9, panics);
            let (cause, restarts) = cause(&mobula::get(moody.hello()).unwrap_err());
            assert_eq!((tries(second), restarts), (4, 3));
            assert!(cause.contains("all 3 of its restarts"), "{cause}");
        }
    });
}

#[test]
fn a_constructor_without_its_argument_fails_once() {
    runtime();
    within(20, || {
        let kind = kind();
        let cat = Cat::options().max_restarts(3).remote(kind, fails::remote());
        let (cause, _) = cause(&mobula::get(cat.meals()).unwrap_err());
        assert!(cause.contains("no argument"), "{cause}");
        assert_eq!(lives(kind), (0, 0));
    });
}

#[test]
fn a_constructor_waits_for_its_arguments_and_calls_wait_for_it() {
    runtime();
    within(20, || {
        let (kind, gate) = (kind(), gates::new());
        let cat = Cat::remote(kind, opened::remote(gate, 9));
        let calls: Vec<_> = (0..10).map(|_| cat.eat(1)).collect();
        assert!(mobula::get_timeout(&calls[0], std::time::Duration::from_millis(20)).is_err());
        assert_eq!(lives(kind), (0, 0));
        gates::open(gate);
        assert_eq!(mobula::get(&calls).unwrap(), (10..20).collect::<Vec<_>>());

        // One that is killed meanwhile never begins.
        let (kind, gate) = (gates::new(), gates::new());
        let cat = Cat::remote(kind, opened::remote(gate, 9));
        let call = cat.eat(1);
        cat.kill();
        let (cause, _) = cause(&mobula::get(call).unwrap_err());
        assert_eq!(cause, "it was killed before its constructor ran");
        gates::open(gate);
        assert_eq!(lives(kind), (0, 0));
    });
}

/// Its Drop panics.
struct Sore {
    kind: u64,
}

#[remote]
impl Sore {
    pub fn new(kind: u64) -> Self {
        Sore { kind }
    }

    pub fn touch(&mut self) -> u64 {
        1
    }
}

impl Drop for Sore {
    fn drop(&mut self) {
        LIVES.lock().unwrap().entry(self.kind).or_default().1 += 1;
        panic!("sore")
    }
}

#[test]
fn a_panic_in_drop_hurts_nobody() {
    runtime();
    within(20, || {
        let kind = kind();
        for how in 0..4 {
            let sore = Sore::options().max_restarts(1).remote(kind);
            assert_eq!(mobula::get(sore.touch()).unwrap(), 1);
            match how {
                0 => sore.kill(),
                1 => sore.stop(),
                2 => {
                    sore.restart();
                    assert_eq!(mobula::get(sore.touch()).unwrap(), 1);
                }
                _ => {}
            }
            drop(sore);
        }
        until("all ends", || lives(kind).1 == 5);
        let cat = Cat::remote(kind, 0);
        assert_eq!(mobula::get(cat.eat(1)).unwrap(), 1);
    });
}

/// Drops things that need the runtime while it is dropped.
struct Nest {
    inner: Option<Handle<Cat>>,
}

#[remote]
impl Nest {
    pub fn new(kind: u64) -> Self {
        Nest {
            inner: Some(Cat::remote(kind, 0)),
        }
    }

    pub fn feed(&mut self) -> mobula::Result<u64> {
        self.inner
            .as_ref()
            .map_or(Ok(0), |cat| mobula::get(cat.eat(1)))
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        if let Some(cat) = self.inner.take() {
            let _ = mobula::get(cat.eat(1));
        }
    }
}

#[test]
fn an_actor_takes_those_it_made_with_it() {
    runtime();
    within(20, || {
        let kind = kind();
        let nests: Vec<_> = (0..50).map(|_| Nest::remote(kind)).collect();
        let fed: Vec<_> = nests.iter().map(|n| n.feed()).collect();
        mobula::get(&fed).unwrap();
        drop(nests);
        until("all ends", || lives(kind) == (50, 50));
    });
}

#[test]
fn resources_are_held_for_life_and_given_back() {
    runtime();
    within(20, || {
        let (one, two) = (kind(), kind());
        let first = Cat::options().resource("seat", 1.0).remote(one, 0);
        assert_eq!(mobula::get(first.eat(1)).unwrap(), 1);
        let second = Cat::options().resource("seat", 1.0).remote(two, 0);
        let call = second.eat(1);
        assert!(mobula::get_timeout(&call, std::time::Duration::from_millis(20)).is_err());
        assert_eq!(lives(two), (0, 0), "an idle actor keeps its seat");
        drop(first);
        assert_eq!(mobula::get(call).unwrap(), 1);

        // Whoever waits in line and is killed leaves the line.
        let third = Cat::options().resource("seat", 1.0).remote(one, 0);
        let fourth = Cat::options().resource("seat", 1.0).remote(one, 5);
        third.kill();
        assert!(
            cause(&mobula::get(third.eat(1)).unwrap_err())
                .0
                .contains("killed")
        );
        second.restart(); // may not: it ends
        assert_eq!(mobula::get(fourth.eat(1)).unwrap(), 6);
        drop(fourth);
        // A failed constructor gives its seat back, a restarted actor keeps it.
        for _ in 0..3 {
            let moody = Moody::options()
                .resource("seat", 1.0)
                .remote(kind(), 1, true);
            assert!(mobula::get(moody.hello()).is_err());
        }
        let last = Cat::options()
            .resource("seat", 1.0)
            .max_restarts(1)
            .remote(one, 5);
        last.restart();
        assert_eq!(mobula::get(last.eat(1)).unwrap(), 6);
    });
}

#[test]
fn what_the_node_has_not_is_refused_at_once() {
    runtime();
    match Cat::options()
        .num_cpus(4_000.0)
        .try_remote(0, 0)
        .unwrap_err()
    {
        Error::Infeasible(why) => assert!(why.to_string().contains("4000"), "{why}"),
        other => panic!("{other:?}"),
    }
    let e = mobula::get(Cat::options().resource("wings", 2.0).remote(0, 0).meals()).unwrap_err();
    assert!(e.to_string().contains("wings"), "{e}");
    assert!(matches!(
        Cat::options().num_gpus(-1.0).try_remote(0, 0),
        Err(Error::BadAmount { .. })
    ));
}
