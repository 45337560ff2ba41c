//! Looking at the running program from inside: what is exact is exact, what waits says why, and looking loses nothing.

#[path = "../src/base/wait.rs"]
mod wait;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use mobula::inspect::{Actor, ActorState, Part, Query, Snapshot, TaskState, snapshot};
use mobula::prelude::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// Calls held by tests, of which one runs at a time: each has a node of its own.
static HELD: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Whether they are to wait from now on.
fn hold(held: bool) {
    *HELD.0.lock().unwrap() = held;
    HELD.1.notify_all();
}

/// Waits as long as calls are held.
fn wait_while_held() {
    drop(HELD.1.wait_while(HELD.0.lock().unwrap(), |held| *held));
}

#[remote]
fn held() -> u64 {
    wait_while_held();
    1
}

#[remote]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[remote]
fn fails(n: u64) -> mobula::Result<u64> {
    Err(mobula::Error::NoSuchActor {
        name: format!("number {n}"),
    })
}

#[remote]
fn boom() -> u64 {
    panic!("boom")
}

#[remote]
struct Meter {
    n: u64,
}

#[remote]
impl Meter {
    pub fn new(n: u64) -> Self {
        assert!(n < 1000, "too much");
        Meter { n }
    }
    pub fn read(&self) -> u64 {
        self.n
    }
    pub fn hold(&mut self) -> u64 {
        wait_while_held();
        self.n
    }
}

fn look(parts: &[Part]) -> Snapshot {
    snapshot(&Query::of(parts)).unwrap()
}

/// Looks until it is as it should be.
fn await_look(query: &Query, is: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let mut look = snapshot(query).unwrap();
    wait::until(&format!("as it was first: {look:#?}"), PATIENCE, || {
        look = snapshot(query).unwrap();
        is(&look)
    });
    look
}

/// A node of this test's own, one test after the other: what comes first is dropped last.
fn node(config: Config) -> (impl Sized, mobula::Mobula) {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(|e| e.into_inner());
    hold(true);
    let config = config.on_unobserved_failure(|_| {});
    (guard, config.init().unwrap())
}

#[test]
fn counts_are_exact_whoever_called() {
    let (_guard, _mobula) = node(Config::new().num_cpus(2));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                for i in 0..1000 {
                    assert_eq!(mobula::get(add::remote(i, 1)).unwrap(), i + 1);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    let _object = mobula::put(&vec![1u8; 5000]).unwrap();
    let meter = Meter::remote(3);
    assert_eq!(mobula::get(meter.read()).unwrap(), 3);
    for n in 0..5 {
        assert!(mobula::get(fails::remote(n)).is_err());
    }
    let look = look(&[Part::Functions, Part::Errors]);
    assert_eq!(look.counts.submitted, 4000 + 2 + 5, "puts are no calls");
    assert_eq!((look.counts.finished, look.counts.failed), (4007, 5));
    let calls: BTreeMap<&str, (u64, u64)> = look
        .functions
        .items
        .iter()
        .map(|f| (f.name.rsplit("::").next().unwrap(), (f.calls, f.failed)))
        .collect();
    let expected = [
        ("Meter", (1, 0)),
        ("add", (4000, 0)),
        ("fails", (5, 5)),
        ("read", (1, 0)),
    ];
    assert_eq!(calls, expected.into());
    let add = &look.functions.items[0];
    assert!(
        add.samples > 0 && add.p50.is_some() && add.busy_micros > 0.0,
        "{add:?}"
    );
    assert_eq!(look.errors.items.len(), 5, "{:?}", look.errors);
    assert!(
        look.errors.items[0].cause.contains("number 4"),
        "the latest first"
    );
}

#[test]
fn what_waits_says_for_what() {
    let (_guard, _mobula) = node(Config::new().num_cpus(1).resource("disk", 1));
    let on_disk = || held::options().num_cpus(0).resource("disk", 1).remote();
    let (first, second) = (on_disk(), on_disk());
    let third = add::remote(&second, 1);
    let fourth = add::remote(&third, &second);
    let query = Query::of(&[Part::Tasks]);
    let look = await_look(&query, |s| {
        s.counts.waiting_arguments == 2
            && s.counts.waiting_resources == 1
            && s.tasks.items.iter().any(|t| t.state == TaskState::Running)
    });
    let of = |state| {
        let mut all = look.tasks.items.iter();
        all.find(move |t| t.state == state).unwrap()
    };
    let (running, parked) = (of(TaskState::Running), of(TaskState::WaitingResources));
    assert!(
        running.runs_on.is_some() && running.since.is_some(),
        "{running:?}"
    );
    assert_eq!(parked.waits_for, [running.id], "{parked:?}");
    assert!(parked.why.as_ref().unwrap().contains("1 disk: 0 of 1 free"));
    let mut late = look.tasks.items.iter();
    let late = late
        .rfind(|t| t.state == TaskState::WaitingArguments)
        .unwrap();
    assert_eq!(late.waits_for.len(), 2, "{late:?}");
    assert_eq!(late.waits_for[1], parked.id);
    // Another look knows since when each is in its state.
    let again = snapshot(&query).unwrap();
    assert!(
        again.tasks.items.iter().all(|t| t.since.is_some()),
        "{again:#?}"
    );
    // A cancelled one waits no longer, whatever its arguments do.
    assert!(mobula::cancel(&fourth).is_ok());
    assert_eq!(snapshot(&query).unwrap().counts.waiting_arguments, 1);
    hold(false);
    assert_eq!(mobula::get(third).unwrap(), 2);
    drop(first);
    let ended = snapshot(&query).unwrap();
    assert_eq!(
        (ended.counts.waiting_arguments, ended.counts.cancelled),
        (0, 1)
    );
}

#[test]
fn looking_at_queued_calls_loses_none() {
    let (_guard, _mobula) = node(Config::new().num_cpus(1));
    let blocker = held::remote();
    await_look(&Query::of(&[Part::Tasks]), |s| s.counts.running == 1);
    let all: Vec<_> = (0..20_000).map(|i| add::remote(i, 1)).collect();
    let look = look(&[Part::Tasks]);
    assert!(
        look.tasks.total() >= 20_000,
        "{} of them",
        look.tasks.total()
    );
    assert_eq!(look.tasks.items.len(), 100);
    let one = &look.tasks.items[50];
    assert_eq!(one.state, TaskState::Queued);
    let found = snapshot(&Query::of(&[Part::Tasks]).id(one.id.0)).unwrap();
    assert!(found.tasks.items.len() <= 1);
    // While they run, and somebody looks all the time, each still runs once.
    let looking = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while looking.load(Ordering::Relaxed) {
                drop(snapshot(&Query::all().limit(5000)).unwrap());
            }
        });
        hold(false);
        for (i, r) in all.iter().enumerate() {
            assert_eq!(mobula::get(r).unwrap(), i as u64 + 1);
        }
        looking.store(false, Ordering::Relaxed);
    });
    mobula::get(blocker).unwrap();
    let sum = look_calls("add");
    assert_eq!(sum, 20_000);
}

fn look_calls(name: &str) -> u64 {
    let look = look(&[Part::Functions]);
    let mut all = look.functions.items.iter();
    all.find(|f| f.name.ends_with(name)).map_or(0, |f| f.calls)
}

#[test]
fn actors_are_listed_from_birth_to_death() {
    let (_guard, _mobula) = node(Config::new().num_cpus(2));
    let idle: Vec<_> = (0..5000).map(|_| Meter::remote(1)).collect();
    let busy = Meter::options().name("busy").max_restarts(2).remote(7);
    let result = busy.hold();
    let more: Vec<_> = (0..9).map(|_| busy.read()).collect();
    let broken = Meter::remote(5000);
    assert!(mobula::get(broken.read()).is_err());
    let query = Query::of(&[Part::Actors]);
    // Its constructor runs first.
    let holds = |actor: &Actor| actor.running.iter().any(|r| r.ends_with("Meter::hold"));
    let look = await_look(&query, |s| {
        s.actors.items[0].state == ActorState::Running && holds(&s.actors.items[0])
    });
    let first = &look.actors.items[0];
    assert_eq!(
        (first.name.as_deref(), first.max_restarts),
        (Some("busy"), 2)
    );
    assert!(
        look.counts.actors >= 5002 && look.actors.total() >= 5002,
        "{:?}",
        look.counts
    );
    let dead = snapshot(&query.clone().state("dead")).unwrap();
    let cause = dead.actors.items[0].cause.clone().unwrap();
    assert!(cause.contains("too much"), "{cause}");
    let errors = snapshot(&Query::of(&[Part::Errors]).state("actor died")).unwrap();
    assert_eq!(errors.errors.items.len(), 1);
    hold(false);
    assert_eq!(mobula::get(result).unwrap(), 7);
    more.into_iter()
        .for_each(|r| assert_eq!(mobula::get(r).unwrap(), 7));
    drop((idle, busy, broken));
    await_look(&query, |s| s.actors.total() == 0);
}

#[test]
fn a_program_may_keep_to_itself() {
    let (guard, mobula) = node(Config::new().num_cpus(1).attach(false));
    assert!(mobula.attached_at().unwrap_err().contains("attach(false)"));
    drop(mobula);
    let e = snapshot(&Query::all()).unwrap_err();
    assert!(matches!(e, mobula::Error::ShutDown), "{e}");
    drop(guard);
}

#[test]
fn retries_and_panics_are_counted_apart() {
    let (_guard, _mobula) = node(Config::new().num_cpus(1));
    let again = boom::options().retry_panics(true).max_retries(2).remote();
    assert!(mobula::get(again).is_err());
    let look = look(&[Part::Functions, Part::Errors]);
    assert_eq!(
        (
            look.counts.retried,
            look.counts.failed,
            look.counts.finished
        ),
        (2, 1, 1)
    );
    assert_eq!(look.errors.items[0].kind, "panicked");
}
