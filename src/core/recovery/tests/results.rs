//! Results that stay with a host: excepted from what is settled, told once more, never run for.
//!
//! Invariant: what is asked for again is what was told first. Left out: deaths in any order, which the simulator has.

use super::*;

fn settled(below: u64, but: &[u64]) -> Settled {
    let but = but.to_vec();
    Settled { below, but }
}

fn record(incarnation: u64) -> Record {
    Record {
        actor: key(1, 1),
        incarnation,
        version: incarnation,
        at: key(2, 1),
        backups: Vec::new(),
    }
}

fn told(number: u64, outcome: u64, stays: bool) -> caller::Event<Payload> {
    caller::Event::Outcome {
        number,
        outcome,
        stays,
    }
}

/// A caller on node 3 with so many calls that ended, what the first gave stays with the host.
fn with_result(calls: u64) -> Caller<Payload> {
    let mut caller = Caller::new(key(1, 1));
    for number in 1..=calls {
        caller_did(&mut caller, caller::Event::Call(number));
        caller_did(&mut caller, told(number, 10 * number, number == 1));
    }
    caller
}

/// One that took over with these calls of node 3 in its log, each with what its caller had settled.
fn resumed(ran: Dedup<Payload>, order: u64, calls: &[(u64, Settled)]) -> Host<Payload> {
    let mut history = History::new(Arc::new(Checkpoint {
        order,
        state: 0,
        bytes: 1,
        ran,
    }));
    for (at, (number, settled)) in calls.iter().enumerate() {
        let order = order + 1 + at as u64;
        history.entries.push_back(Entry {
            call: call(3, *number),
            settled: settled.clone(),
            ..entry(order)
        });
    }
    let limits = Limits {
        replicas: 0,
        ..Limits::default()
    };
    Host::resume(NOW, &record(2), history, limits, Vec::new())
}

fn again(number: u64, settled: Settled) -> host::Event<Payload> {
    let call = call(3, number);
    host::Event::Again { call, settled }
}

fn ended(host: &mut Host<Payload>, number: u64, outcome: u64) -> Vec<host::Effect<Payload>> {
    let call = call(3, number);
    host_did(host, host::Event::Ended { call, outcome })
}

fn reply(number: u64, outcome: u64) -> host::Effect<Payload> {
    let call = call(3, number);
    host::Effect::Reply { call, outcome }
}

#[test]
fn a_result_that_stays_is_excepted_until_it_is_let_go() {
    let mut caller = with_result(3);
    let out = caller_did(&mut caller, caller::Event::Call(4));
    assert!(
        matches!(&out[..], [caller::Effect::Send { settled: s, .. }] if *s == settled(4, &[1])),
        "{out:?}"
    );
    caller_did(&mut caller, caller::Event::Let(1));
    let at = key(1, 1);
    let settled = settled(4, &[]);
    // The host learns of it though no call has ended since.
    let out = caller_did(&mut caller, caller::Event::Tick);
    assert_eq!(out, [caller::Effect::Settled { at, settled }]);
    assert_eq!(caller_did(&mut caller, caller::Event::Tick), []);
}

#[test]
fn a_lost_result_is_asked_for_wherever_the_actor_goes_until_it_is_told() {
    let mut caller = with_result(2);
    let (number, settled) = (1, settled(3, &[1]));
    let asks = |incarnation: u64| caller::Effect::Again {
        at: key(incarnation, 1),
        number,
        settled: settled.clone(),
    };
    let out = caller_did(&mut caller, caller::Event::Again(1));
    assert_eq!(out, [asks(1)]);
    assert_eq!(caller_did(&mut caller, caller::Event::Again(1)), [], "once");
    for host in 2..=3 {
        caller_did(&mut caller, caller::Event::Died(node(host - 1)));
        let at = key(host, 1);
        let moved = caller::Event::Moved {
            incarnation: host,
            at,
        };
        let out = caller_did(&mut caller, moved);
        assert_eq!(out, [caller::Effect::At(at), asks(host)]);
    }
    let out = caller_did(&mut caller, told(1, 10, true));
    let outcome = 10;
    assert_eq!(out, [caller::Effect::Remade { number, outcome }]);
    assert_eq!(
        caller_did(&mut caller, told(1, 10, true)),
        [],
        "it came twice"
    );
    // It is lost once more, and now it comes by itself: nothing stays.
    caller_did(&mut caller, caller::Event::Again(1));
    caller_did(&mut caller, told(1, 10, false));
    assert!(!caller.stays(1));
}

#[test]
fn a_question_ends_with_the_actor() {
    let mut caller = with_result(2);
    caller_did(&mut caller, caller::Event::Again(1));
    let (number, why) = (1, caller::Why::Ended);
    let out = caller_did(&mut caller, caller::Event::Ended);
    assert_eq!(out, [caller::Effect::Fail { number, why }]);
    let mut caller = with_result(2);
    assert_eq!(caller_did(&mut caller, caller::Event::Ended), []);
    let out = caller_did(&mut caller, caller::Event::Again(1));
    assert_eq!(out, [caller::Effect::Fail { number, why }]);
}

#[test]
fn the_oldest_of_too_many_results_is_given_up() {
    let mut caller = Caller::new(key(1, 1));
    let most = caller::MOST_RESULTS as u64;
    for number in 1..=most + 1 {
        caller_did(&mut caller, caller::Event::Call(0));
        let out = caller_did(&mut caller, told(number, 0, true));
        let gives_up = out.contains(&caller::Effect::GiveUp(1));
        assert_eq!(gives_up, number > most, "{out:?}");
    }
    assert!(!caller.stays(1) && caller.stays(2));
}

#[test]
fn who_takes_over_tells_a_settled_result_when_its_call_has_run_again() {
    let log = [
        (1, settled(1, &[])),
        (2, settled(2, &[1])),
        (3, settled(3, &[1])),
    ];
    let mut host = resumed(Dedup::default(), 0, &log);
    // It is asked for before its call has run again.
    assert_eq!(host_did(&mut host, again(1, settled(4, &[1]))), []);
    assert_eq!(ended(&mut host, 1, 10), [reply(1, 10)]);
    // What is not excepted is not kept.
    assert_eq!(ended(&mut host, 2, 20), []);
    assert_eq!(ended(&mut host, 3, 30), []);
    assert_eq!(
        host_did(&mut host, again(1, settled(4, &[1]))),
        [reply(1, 10)]
    );
    let lost = |number| host::Effect::Lost(call(3, number));
    assert_eq!(host_did(&mut host, again(2, settled(4, &[1]))), [lost(2)]);
    // Let go.
    assert_eq!(host_did(&mut host, again(1, settled(4, &[]))), [lost(1)]);
    assert_eq!(host.orders().0, 3, "nothing ran for it");
}

#[test]
fn a_checkpoint_takes_excepted_results_along() {
    let mut host = kept();
    for number in 1..=3 {
        let but = if number == 1 { vec![] } else { vec![1] };
        let below = number;
        let settled = Settled { below, but };
        let call = call(3, number);
        host_did(&mut host, host::Event::Call { call, settled });
        ran(&mut host, call, 10 * number);
    }
    host_did(&mut host, host::Event::Want);
    let out = host_did(&mut host, host::Event::State { state: 9, bytes: 3 });
    let mut saved = out.iter().filter_map(|effect| match effect {
        host::Effect::Send {
            message: ToBackup::Save { checkpoint, .. },
            ..
        } => checkpoint.clone(),
        _ => None,
    });
    let checkpoint = saved.next().unwrap();
    // As it travels.
    let outcomes = checkpoint.ran.outcomes();
    let outcomes = outcomes.map(|(call, order, outcome)| (call, order, *outcome));
    let ran = Dedup::from_parts(checkpoint.ran.floors(), outcomes);
    assert_eq!(ran, checkpoint.ran);
    assert_eq!(ran.settled(node(3)), settled(3, &[1]));
    let mut host = resumed(ran, 3, &[(4, settled(4, &[1]))]);
    assert_eq!(
        host_did(&mut host, again(1, settled(4, &[1]))),
        [reply(1, 10)]
    );
    let lost = host::Effect::Lost(call(3, 2));
    assert_eq!(host_did(&mut host, again(2, settled(4, &[1]))), [lost]);
}

proptest! {
    /// What is kept of a caller is what it has not settled and what it excepts, whatever comes twice or late.
    #[test]
    fn what_is_settled_and_not_excepted_is_forgotten(
        steps in prop::collection::vec((0u64..30, prop::collection::btree_set(0u64..30, 0..6)), 1..20),
    ) {
        let mut calls = Dedup::<u64>::default();
        let mut floor = 0;
        for number in 0..30 {
            calls.logged(call(3, number), number + 1);
            calls.ended(call(3, number), number);
        }
        let mut left: std::collections::BTreeSet<u64> = (0..30).collect();
        for (below, but) in steps {
            let but: Vec<u64> = but.into_iter().collect();
            if below >= floor {
                floor = below;
                left.retain(|n| *n >= below || but.contains(n));
            }
            calls.settle(node(3), &Settled { below, but });
            let known: Vec<u64> = calls.outcomes().map(|(call, ..)| call.number).collect();
            prop_assert_eq!(&known, &left.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(calls.settled(node(3)).below, floor);
        }
    }
}

#[test]
fn the_last_state_lets_go_of_what_is_settled_or_was_the_deads() {
    let mut ran = Dedup::default();
    for number in 1..=3 {
        ran.logged(call(3, number), number);
        ran.ended(call(3, number), 10 * number);
    }
    let mut host = resumed(ran, 3, &[]);
    let has = |host: &Host<Payload>| -> Vec<u64> {
        let ran = &host.newest().ran;
        (1..=3).filter(|n| ran.get(call(3, *n)).is_some()).collect()
    };
    assert_eq!(has(&host), [1, 2, 3]);
    let node = node(3);
    let settled = settled(3, &[1]);
    host_did(&mut host, host::Event::Settled { node, settled });
    assert_eq!(has(&host), [1, 3], "the first may still be asked for");
    host_did(&mut host, host::Event::Died(node));
    assert!(has(&host).is_empty(), "nobody asks");
}
