//! What is left of those that end badly: a killed worker's last events, and the file of a program that panics.
//!
//! Invariant: who is killed gets no chance to say anything after what the test looks for. Left out: what is in a timeline otherwise.

use std::process::Command;

use mobula::prelude::*;

use super::common::alone;
use super::{File, arrows, demo, timeline, two};

#[remote(isolate, max_retries = 0)]
pub(super) fn dies(x: u64) {
    let mine = mobula::span!("before the end", x);
    drop(mine);
    let me = std::process::id().to_string();
    let _ = Command::new("kill").args(["-KILL", &me]).status();
    unreachable!("nothing survives that signal");
}

#[remote(isolate)]
pub(super) fn lives(x: u64) -> u64 {
    let _span = mobula::span!("elsewhere");
    x
}

#[test]
fn what_a_killed_worker_did_last_is_there() {
    alone(two().on_unobserved_failure(|_| {}), |_| {
        assert_eq!(mobula::get(lives::remote(5)).unwrap(), 5);
        assert!(mobula::get(dies::remote(7)).is_err());
        let (_, trace) = timeline();
        let there = |name: &str| {
            let mut all = trace.of("process").filter(|(_, s)| s.name == name);
            all.next()
                .unwrap_or_else(|| panic!("{name} ran in no worker"))
        };
        let (lived, _) = there("lives");
        let elsewhere = trace.named("elsewhere").next().unwrap().0;
        assert!(trace.within(elsewhere, lived));
        let (died, slice) = there("dies");
        assert_eq!(slice.arg("outcome"), "lost with its process");
        let last = trace.named("before the end").next().unwrap();
        assert!(trace.within(last.0, died), "{last:?} in {slice:?}");
        assert_eq!(last.1.arg("fields"), "x=7");
        assert!(trace.threads[&slice.thread].starts_with("worker"));
        // The node's own box waits for it, and says how it ended.
        let (_, here) = trace.of("task").find(|(_, s)| s.name == "dies").unwrap();
        assert_eq!(here.arg("outcome"), "failed");
        assert!(
            here.arg("error").contains("SIGKILL"),
            "{}",
            here.arg("error")
        );
        let arrow = |name: &str| {
            let key = ("process".into(), name.into(), name.into());
            arrows(&trace).remove(&key).unwrap_or(0)
        };
        assert_eq!((arrow("lives"), arrow("dies")), (1, 1));
    });
}

/// What a child of this test does: the demo, and then a panic, while the node is up.
#[test]
fn child_panics() {
    if std::env::var_os("MOBULA_TIMELINE").is_none() {
        return;
    }
    let _mobula = two().init().unwrap();
    assert_eq!(mobula::get(&demo()).unwrap(), 1);
    panic!("as it should");
}

#[test]
fn a_program_that_panics_leaves_its_timeline() {
    let file = File::new("panic");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "deaths::child_panics", "--test-threads=1"])
        .env("MOBULA_TIMELINE", &file.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(said.contains("as it should"), "{said}");
    let trace = file.read();
    assert_eq!(trace.complaints, Vec::<String>::new());
    assert_eq!(trace.of("task").count(), 27);
}
