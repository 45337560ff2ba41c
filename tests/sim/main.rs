//! Thousands of lifetimes of a cluster, each from a seed: the machines of `core`, driven over a network, a clock and a
//! plan of crashes that are all simulated.
//!
//! There are four families of worlds: objects, calls and groups on a cluster ([`world`]), an actor that keeps its history
//! over the deaths of its hosts ([`history`]), who is in a cluster ([`members`]), and slots that nodes lend each other
//! ([`lending`]).
//!
//! `cargo test --test sim` runs 200 seeds, `MOBULA_SIM_SEEDS=2000` as many as it says (of histories from `MOBULA_SIM_FIRST` on), `MOBULA_SIM_SEED=7` that one alone,
//! with what happened printed. A failure prints the seed and the command that replays it.
//!
//! The sources of the machines are included as they are, so this is a program with a `main` of its own: the harness of
//! `cargo test` would run their unit tests once more.
//!
//! Invariant: a run depends on its seed and nothing else. No object is freed while a living node has a reference to it or
//! one is under way from a living node; every get and every task ends exactly once; nobody runs more than the resources of
//! its node allow; what is reserved together is reserved at once; what was dropped everywhere is forgotten everywhere. That
//! the simulator would notice is shown by faults planted in it. Left out: bytes and codecs.

#[allow(dead_code, unused_imports)]
#[path = "../../src/base/mod.rs"]
mod base;
mod burial;
mod chance;
#[allow(dead_code, unused_imports)]
#[path = "../../src/core/mod.rs"]
mod core;
mod faults;
mod history;
mod lending;
mod members;
mod net;
mod node;
mod places;
mod plan;
mod report;
mod values;
mod world;

use std::env;
use std::panic::catch_unwind;
use std::process::ExitCode;

use faults::Fault;
use history::Bug;
use lending::Slip;
use members::{Happened, Planted};
use plan::Plan;
use report::Report;
use world::World;

/// Seeds that an ordinary test run tries.
const SEEDS: u64 = 200;

/// What there is to run.
const TESTS: &[(&str, fn())] = &[
    (
        "every_seed_keeps_the_invariants",
        every_seed_keeps_the_invariants,
    ),
    (
        "the_same_seed_is_the_same_run",
        the_same_seed_is_the_same_run,
    ),
    (
        "a_hundred_nodes_keep_them_too",
        a_hundred_nodes_keep_them_too,
    ),
    ("every_planted_fault_is_found", every_planted_fault_is_found),
    ("every_history_is_kept", every_history_is_kept),
    (
        "every_planted_bug_of_recovery_is_found",
        every_planted_bug_of_recovery_is_found,
    ),
    (
        "every_seed_keeps_the_members_right",
        every_seed_keeps_the_members_right,
    ),
    (
        "faults_planted_among_members_are_found",
        faults_planted_among_members_are_found,
    ),
    ("many_nodes_join", many_nodes_join),
    (
        "every_slot_is_lent_once_and_comes_back",
        every_slot_is_lent_once_and_comes_back,
    ),
    ("every_submitter_has_its_part", every_submitter_has_its_part),
    (
        "slips_planted_around_leases_are_found",
        slips_planted_around_leases_are_found,
    ),
];

/// Takes what the harness of `cargo test` takes, as far as it makes sense: names, or parts of them.
fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let exact = args.iter().any(|arg| arg == "--exact");
    let chosen = |name: &str| {
        let fits = |part: &&String| {
            if exact {
                *part == name
            } else {
                name.contains(*part)
            }
        };
        names.is_empty() || names.iter().any(fits)
    };
    let chosen = TESTS.iter().filter(|(name, _)| chosen(name));
    let mut failed = 0;
    // There are none that are ignored.
    let none = args.iter().any(|arg| arg == "--ignored");
    for (name, test) in chosen.filter(|_| !none) {
        if args.iter().any(|arg| arg == "--list") {
            println!("{name}: test");
        } else if catch_unwind(test).is_ok() {
            println!("test {name} ... ok");
        } else {
            println!("test {name} ... FAILED");
            failed += 1;
        }
    }
    ExitCode::from(u8::from(failed > 0))
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

fn run(plan: Plan, fault: Fault, show: bool) -> Result<Report, String> {
    World::new(plan, fault, show).run()
}

/// The command that runs one seed again.
fn replay(seed: u64) -> String {
    format!("MOBULA_SIM_SEED={seed} cargo test --test sim every_seed")
}

fn every_seed_keeps_the_invariants() {
    if let Some(seed) = number("MOBULA_SIM_SEED") {
        let plan = Plan::of(seed);
        println!("seed {seed}: {plan:?}");
        match run(plan, Fault::None, true) {
            Ok(report) => println!("{report:?}"),
            Err(wrong) => panic!("seed {seed}: {wrong}"),
        }
        return;
    }
    let mut all = Report::default();
    for seed in 0..number("MOBULA_SIM_SEEDS").unwrap_or(SEEDS) {
        match run(Plan::of(seed), Fault::None, false) {
            Ok(report) => all.add(&report),
            Err(wrong) => panic!("seed {seed}: {wrong}\nreplay it: {}", replay(seed)),
        }
    }
    println!("{all:?}");
    // A simulator in which nothing happens finds nothing.
    for (what, count) in all.counts() {
        assert!(count > 0, "no seed had any {what}: {all:?}");
    }
}

fn the_same_seed_is_the_same_run() {
    for seed in [1, 17] {
        let once = run(Plan::of(seed), Fault::None, false);
        assert_eq!(once, run(Plan::of(seed), Fault::None, false));
    }
}

fn a_hundred_nodes_keep_them_too() {
    let seed = number("MOBULA_SIM_SEED").unwrap_or(1);
    let plan = Plan {
        nodes: 100,
        actions: 3000,
        ..Plan::of(seed)
    };
    if let Err(wrong) = run(plan, Fault::None, false) {
        panic!("seed {seed}, 100 nodes: {wrong}");
    }
}

/// With any of these planted, a violation is found within some seeds.
fn every_planted_fault_is_found() {
    for &fault in Fault::PLANTED {
        let found = (0..SEEDS).find_map(|seed| run(Plan::of(seed), fault, false).err());
        let found = found.unwrap_or_else(|| panic!("{fault:?} was not noticed in {SEEDS} seeds"));
        println!("{fault:?}: {}", found.chars().take(300).collect::<String>());
    }
}

fn every_seed_keeps_the_members_right() {
    let seeds = match number("MOBULA_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MOBULA_SIM_SEEDS").unwrap_or(SEEDS / 4),
    };
    let alone = seeds.end - seeds.start == 1;
    let mut all = Happened::default();
    for seed in seeds {
        match members::run(seed, Planted::Nothing) {
            Ok(happened) => all.add(happened),
            Err(wrong) => panic!(
                "seed {seed}: {wrong}\nreplay it: MOBULA_SIM_SEED={seed} cargo test --test sim members_right"
            ),
        }
    }
    println!("{all:?}");
    assert!(
        alone || all.counts().iter().all(|count| *count > 0),
        "no seed had one of {all:?}"
    );
    assert_eq!(
        members::run(3, Planted::Nothing),
        members::run(3, Planted::Nothing),
        "a run depends on its seed alone"
    );
}

fn faults_planted_among_members_are_found() {
    for planted in [Planted::Deaf, Planted::LongStop] {
        let found = (0..SEEDS).find_map(|seed| members::run(seed, planted).err());
        let found = found.unwrap_or_else(|| panic!("{planted:?} was not noticed"));
        println!("{planted:?}: {found}");
    }
}

/// `MOBULA_SIM_NODES` says how many: 1,000 take minutes without optimization.
fn many_nodes_join() {
    let nodes = number("MOBULA_SIM_NODES").unwrap_or(200);
    let began = std::time::Instant::now();
    match members::joins(nodes as usize, 1) {
        Ok(took) => {
            println!(
                "{nodes} nodes know each other {took:?} after the last came ({:?})",
                began.elapsed()
            );
            assert!(took < std::time::Duration::from_secs(5), "{took:?}");
        }
        Err(wrong) => panic!("{wrong}"),
    }
}

/// Replays one lifetime of an actor.
fn replay_history(seed: u64) -> String {
    format!("MOBULA_SIM_SEED={seed} cargo test --test sim every_history")
}

fn every_history_is_kept() {
    if let Some(seed) = number("MOBULA_SIM_SEED") {
        match history::run(seed, Bug::None, true) {
            Ok(counts) => println!("{counts:?}"),
            Err(wrong) => panic!("seed {seed}: {wrong}"),
        }
        return;
    }
    let mut all = history::Counts::default();
    let first = number("MOBULA_SIM_FIRST").unwrap_or(0);
    for seed in first..first + number("MOBULA_SIM_SEEDS").unwrap_or(SEEDS) {
        match history::run(seed, Bug::None, false) {
            Ok(counts) => all.add(&counts),
            Err(wrong) => panic!("seed {seed}: {wrong}\nreplay it: {}", replay_history(seed)),
        }
    }
    println!("{all:?}");
    assert!(all.all(), "something did not happen in any seed: {all:?}");
}

/// With any of these planted, a history is found that cannot be.
///
/// | planted | found as |
/// |---|---|
/// | outcomes are told before their calls are written down | a told call that the state lacks, or a caller that is told less than another before |
/// | the record is swapped whatever it is | calls that are lost although somebody had them, two hosts, told calls that the state lacks |
/// | checkpoints without the outcomes that callers may ask for | a call that is in the state twice |
fn every_planted_bug_of_recovery_is_found() {
    for &bug in Bug::PLANTED {
        let wrong = |seed| history::run(seed, bug, false).err().map(|e| (seed, e));
        let found = (0..SEEDS).find_map(wrong);
        let (seed, wrong) =
            found.unwrap_or_else(|| panic!("{bug:?} was not noticed in {SEEDS} seeds"));
        println!(
            "{bug:?}, seed {seed}: {}",
            wrong.chars().take(300).collect::<String>()
        );
    }
}

/// So many seeds, or those that were asked for.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    match number("MOBULA_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MOBULA_SIM_SEEDS").unwrap_or(usual),
    }
}

fn every_slot_is_lent_once_and_comes_back() {
    let seeds = seeds(SEEDS / 4);
    let alone = number("MOBULA_SIM_SEED").is_some();
    let mut all = lending::Counts::default();
    for seed in seeds {
        match lending::run(seed, Slip::None, alone) {
            Ok(counts) => all.add(&counts),
            Err(wrong) => panic!(
                "seed {seed}: {wrong}\nreplay it: MOBULA_SIM_SEED={seed} cargo test --test sim every_slot"
            ),
        }
    }
    println!("{all:?}");
    let happened = all.all().iter().all(|count| *count > 0);
    assert!(alone || happened, "no seed had one of {all:?}");
    let once = lending::run(5, Slip::None, false);
    assert_eq!(once, lending::run(5, Slip::None, false), "a seed is a run");
}

fn every_submitter_has_its_part() {
    for seed in seeds(SEEDS / 8) {
        if let Err(wrong) = lending::fair::run(seed, Slip::None) {
            panic!(
                "seed {seed}: {wrong}\nreplay it: MOBULA_SIM_SEED={seed} cargo test --test sim every_submitter"
            );
        }
    }
}

/// With any of these planted, a run breaks a law within some seeds.
///
/// | planted | found as |
/// |---|---|
/// | a slot counts before the ledger holds it | a call in a slot that is not held |
/// | slots are not given back, ends not told, a call that came back or a death not heard of | no end |
/// | messages come twice | a call that runs, or ends, twice |
/// | time does not pass for who lends, wishes are cut, priorities are dropped | a submitter without its part, calls of higher priority that wait |
fn slips_planted_around_leases_are_found() {
    for &slip in Slip::PLANTED {
        let found = (0..SEEDS).find_map(|seed| lending::run(seed, slip, false).err());
        let found = found.unwrap_or_else(|| panic!("{slip:?} was not noticed in {SEEDS} seeds"));
        println!("{slip:?}: {}", found.chars().take(300).collect::<String>());
    }
    for &slip in Slip::UNFAIR {
        let found = (0..SEEDS / 8).find_map(|seed| lending::fair::run(seed, slip).err());
        let found = found.unwrap_or_else(|| panic!("{slip:?} was not noticed"));
        println!("{slip:?}: {found}");
    }
}
