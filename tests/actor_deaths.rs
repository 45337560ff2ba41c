//! Deaths of actors, told to whoever of the program asked to hear of them.
//!
//! Invariant: each death that nobody asked for is told once. Left out: deaths of nodes (`tests/cluster_members.rs`).

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use mobula::prelude::*;
use mobula::{ActorDeath, Mobula};

#[remote]
struct Frail;

#[remote]
impl Frail {
    pub fn new(lives: bool) -> Self {
        assert!(lives, "born dead");
        Frail
    }

    pub fn falls(&mut self) -> u32 {
        panic!("it fell")
    }

    pub fn stands(&self) -> u32 {
        std::process::id()
    }
}

/// Has a process of its own.
#[remote(isolate)]
struct Apart;

#[remote]
impl Apart {
    pub fn new() -> Self {
        Apart
    }

    pub fn process(&self) -> u32 {
        std::process::id()
    }
}

fn heard(mobula: &Mobula) -> Receiver<ActorDeath> {
    let (send, deaths) = channel();
    let hear = move |death: ActorDeath| {
        let fell = death.cause.contains("falls panicked");
        // The test may be over.
        let _ = send.send(death);
        // One listener's panic is its own.
        assert!(!fell, "on purpose");
    };
    mobula.on_actor_death(hear).unwrap();
    deaths
}

fn next(deaths: &Receiver<ActorDeath>) -> ActorDeath {
    deaths
        .recv_timeout(Duration::from_secs(20))
        .expect("it is told")
}

#[test]
fn deaths_are_told_with_their_cause_and_what_was_asked_for_is_not() {
    let mobula = mobula::init().unwrap();
    let (one, two) = (heard(&mobula), heard(&mobula));
    // Asked for: nobody hears of these.
    let stopped = Frail::remote(true);
    assert!(mobula::get(stopped.stands()).unwrap() > 0);
    stopped.kill();
    drop(Frail::remote(true));

    let options = Frail::options().name("phoenix").max_restarts(1);
    let phoenix = options.restart_on_panic(true).remote(true);
    assert!(mobula::get(phoenix.falls()).is_err());
    assert!(mobula::get(phoenix.falls()).is_err());
    assert!(mobula::get(phoenix.stands()).is_err());
    assert!(mobula::get(Frail::remote(false).stands()).is_err());
    for deaths in [&one, &two] {
        let (first, second, third) = (next(deaths), next(deaths), next(deaths));
        assert_eq!(first.name.as_deref(), Some("phoenix"));
        assert!(first.type_name.ends_with("Frail"), "{first:?}");
        assert!(first.restarted && !second.restarted && !third.restarted);
        assert_eq!((first.restarts, second.restarts), (1, 1));
        for death in [&first, &second] {
            assert!(death.cause.contains("falls panicked"), "{death:?}");
        }
        assert!(third.cause.contains("born dead"), "{third:?}");
        assert_eq!(third.name, None);
    }
    // A process that is killed, with the signal.
    let apart = Apart::remote();
    let pid = mobula::get(apart.process()).unwrap();
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
    assert!(mobula::get(apart.process()).is_err());
    let death = next(&one);
    assert!(death.cause.contains("SIGKILL"), "{death:?}");
    // The end of the node ends what is left, and that is no news.
    let _left = Frail::remote(true);
    drop(mobula);
    assert!(one.recv_timeout(Duration::from_secs(20)).is_err());
}
