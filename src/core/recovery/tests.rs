//! Each machine alone, against others that do as told.

mod results;

use super::*;
use crate::core::recovery::dedup::Stage;
use proptest::prelude::*;

type Payload = u64;

const NOW: Duration = Duration::ZERO;

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn key(host: u64, number: u64) -> ActorKey {
    let host = node(host);
    ActorKey { host, number }
}

fn call(by: u64, number: u64) -> CallId {
    let node = node(by);
    CallId { node, number }
}

fn host_did(host: &mut Host<Payload>, event: host::Event<Payload>) -> Vec<host::Effect<Payload>> {
    let mut out = Vec::new();
    host.handle(NOW, event, &mut out);
    out
}

fn backup_did(
    backup: &mut Backup<Payload>,
    event: backup::Event<Payload>,
) -> Vec<backup::Effect<Payload>> {
    let mut out = Vec::new();
    backup.handle(NOW, event, &mut out);
    out
}

fn caller_did(
    caller: &mut Caller<Payload>,
    event: caller::Event<Payload>,
) -> Vec<caller::Effect<Payload>> {
    let mut out = Vec::new();
    caller.handle(NOW, event, &mut out);
    out
}

/// A host on node 1 whose backup is node 2, named by the record; and the number of its last message.
fn kept() -> Host<Payload> {
    let limits = Limits::default();
    let mut host = Host::new(NOW, key(1, 1), (0, 1), limits, vec![node(2)]);
    let out = host_did(&mut host, host::Event::Tick);
    assert!(matches!(
        &out[..],
        [host::Effect::Send {
            message: ToBackup::Save {
                beat: 1,
                checkpoint: Some(_),
                ..
            },
            ..
        }]
    ));
    let out = saved(&mut host, 1);
    assert!(
        matches!(&out[..], [host::Effect::Swap { expect: None, .. }]),
        "{out:?}"
    );
    assert_eq!(host_did(&mut host, host::Event::Swapped), []);
    host
}

fn saved(host: &mut Host<Payload>, beat: u64) -> Vec<host::Effect<Payload>> {
    let incarnation = host.incarnation();
    let from = node(2);
    let message = ToHost::Saved { incarnation, beat };
    host_did(host, host::Event::Message { from, message })
}

fn came(host: &mut Host<Payload>, call: CallId) -> Vec<host::Effect<Payload>> {
    host_did(
        host,
        host::Event::Call {
            call,
            settled: Settled::below(1),
        },
    )
}

fn ran(host: &mut Host<Payload>, call: CallId, outcome: u64) -> Vec<host::Effect<Payload>> {
    let turn = host::Event::Turn {
        call,
        bytes: 10,
        load: outcome,
    };
    let mut out = host_did(host, turn);
    out.extend(host_did(host, host::Event::Ended { call, outcome }));
    out
}

fn entry(order: u64) -> Entry<Payload> {
    Entry {
        order,
        call: call(3, order),
        settled: Settled::below(1),
        bytes: 10,
        load: order,
    }
}

fn save(incarnation: u64, beat: u64, start: bool, orders: &[u64]) -> backup::Event<Payload> {
    let checkpoint = Checkpoint {
        order: 0,
        state: 0,
        bytes: 1,
        ran: Dedup::default(),
    };
    backup::Event::Message {
        from: node(incarnation),
        message: ToBackup::Save {
            incarnation,
            beat,
            checkpoint: start.then(|| Arc::new(checkpoint)),
            entries: orders.iter().map(|&order| entry(order)).collect(),
        },
    }
}

fn answer(out: &[backup::Effect<Payload>]) -> ToHost {
    match out {
        [backup::Effect::Send { message, .. }] => *message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_outcome_waits_until_the_backup_has_its_call() {
    let mut host = kept();
    assert_eq!(came(&mut host, call(3, 1)), [host::Effect::Run(call(3, 1))]);
    let out = ran(&mut host, call(3, 1), 7);
    assert!(matches!(&out[..], [host::Effect::Send { .. }]), "{out:?}");
    let told = host::Effect::Reply {
        call: call(3, 1),
        outcome: 7,
    };
    assert_eq!(saved(&mut host, 2), std::slice::from_ref(&told));
    // It comes again, as after a takeover: the same is told, and it does not run.
    assert_eq!(came(&mut host, call(3, 1)), [told]);
    let settled = host::Event::Call {
        call: call(3, 1),
        settled: Settled::below(2),
    };
    assert_eq!(host_did(&mut host, settled), [], "it is settled");
}

#[test]
fn a_look_waits_until_the_backup_confirms() {
    let mut host = kept();
    came(&mut host, call(3, 1));
    let ended = host::Event::Ended {
        call: call(3, 1),
        outcome: 0,
    };
    let out = host_did(&mut host, ended);
    assert!(
        matches!(&out[..], [host::Effect::Send { message: ToBackup::Save { entries, .. }, .. }] if entries.is_empty()),
        "{out:?}"
    );
    let out = saved(&mut host, 2);
    assert!(matches!(&out[..], [host::Effect::Reply { .. }]), "{out:?}");
}

#[test]
fn a_dead_backup_holds_outcomes_until_another_is_named() {
    let mut host = kept();
    came(&mut host, call(3, 1));
    ran(&mut host, call(3, 1), 7);
    let out = host_did(&mut host, host::Event::Nodes(vec![node(4)]));
    let [
        host::Effect::Send {
            to,
            message: ToBackup::Save { entries, .. },
        },
    ] = &out[..]
    else {
        panic!("{out:?}");
    };
    assert_eq!(
        (*to, entries.len()),
        (node(4), 1),
        "all of it goes to the next"
    );
    let message = ToHost::Saved {
        incarnation: 1,
        beat: 1,
    };
    let from = node(4);
    let out = host_did(&mut host, host::Event::Message { from, message });
    let [
        host::Effect::Swap {
            record: Some(record),
            ..
        },
    ] = &out[..]
    else {
        panic!("{out:?}");
    };
    assert_eq!(record.backups, [node(4)]);
    let out = host_did(&mut host, host::Event::Swapped);
    assert!(
        matches!(&out[..], [host::Effect::Reply { outcome: 7, .. }]),
        "{out:?}"
    );
}

#[test]
fn without_any_node_it_goes_on_alone_after_a_while() {
    let mut host = kept();
    came(&mut host, call(3, 1));
    ran(&mut host, call(3, 1), 7);
    assert_eq!(host_did(&mut host, host::Event::Nodes(Vec::new())), []);
    let mut out = Vec::new();
    host.handle(Limits::default().alone, host::Event::Tick, &mut out);
    let [
        host::Effect::Swap {
            record: Some(record),
            ..
        },
    ] = &out[..]
    else {
        panic!("{out:?}");
    };
    assert_eq!(record.backups, []);
    let out = host_did(&mut host, host::Event::Swapped);
    assert!(
        matches!(&out[..], [host::Effect::Reply { outcome: 7, .. }]),
        "{out:?}"
    );
}

#[test]
fn a_refused_host_tells_nothing_more() {
    let mut host = kept();
    came(&mut host, call(3, 1));
    ran(&mut host, call(3, 1), 7);
    let message = ToHost::Refused { incarnation: 2 };
    let from = node(2);
    let out = host_did(&mut host, host::Event::Message { from, message });
    let fenced = host::Effect::Fenced {
        incarnation: Some(2),
    };
    assert!(out.contains(&fenced), "{out:?}");
    assert_eq!(saved(&mut host, 2), []);
}

#[test]
fn a_checkpoint_takes_the_outcomes_along_and_empties_the_log() {
    let mut host = kept();
    came(&mut host, call(3, 1));
    ran(&mut host, call(3, 1), 7);
    let out = host_did(&mut host, host::Event::Want);
    assert!(out.contains(&host::Effect::Checkpoint), "{out:?}");
    let out = host_did(&mut host, host::Event::State { state: 9, bytes: 3 });
    let kept = out.iter().find_map(|effect| match effect {
        host::Effect::Send {
            message: ToBackup::Save { checkpoint, .. },
            ..
        } => checkpoint.clone(),
        _ => None,
    });
    let kept = kept.unwrap();
    let ran = kept.ran.get(call(3, 1)).map(|known| known.stage.clone());
    assert_eq!(ran, Some(Stage::Logged(1, Some(7))));
    assert_eq!((kept.order, kept.state, host.bytes()), (1, 9, 0));
    let out = saved(&mut host, 3);
    assert!(out.contains(&host::Effect::Kept(1)), "{out:?}");
}

#[test]
fn a_full_log_holds_turns_until_a_checkpoint() {
    let limits = Limits {
        replicas: 0,
        most: 15,
        ..Limits::default()
    };
    let mut host = Host::new(NOW, key(1, 1), (0, 1), limits, Vec::new());
    ran(&mut host, call(3, 1), 1);
    let out = ran(&mut host, call(3, 2), 2);
    assert!(
        out.contains(&host::Effect::Hold) && out.contains(&host::Effect::Checkpoint),
        "{out:?}"
    );
    let out = host_did(&mut host, host::Event::State { state: 2, bytes: 3 });
    assert!(out.contains(&host::Effect::Go), "{out:?}");
}

#[test]
fn a_full_log_holds_no_call_that_runs_again() {
    let limits = Limits {
        replicas: 0,
        most: 15,
        ..Limits::default()
    };
    let mut history = History::new(Arc::new(Checkpoint {
        order: 0,
        state: 0,
        bytes: 1,
        ran: Dedup::default(),
    }));
    history.entries.extend([entry(1), entry(2)]);
    let record = Record {
        actor: key(1, 1),
        incarnation: 2,
        version: 2,
        at: key(2, 1),
        backups: Vec::new(),
    };
    let mut host = Host::resume(NOW, &record, history, limits, Vec::new());
    // Held, they would never run, and no state would ever be saved.
    assert_eq!(host_did(&mut host, host::Event::Tick), []);
    let mut end = |order| {
        let call = call(3, order);
        host_did(&mut host, host::Event::Ended { call, outcome: 0 })
    };
    assert_eq!(end(1), []);
    assert_eq!(end(2), [host::Effect::Hold, host::Effect::Checkpoint]);
}

#[test]
fn a_backup_refuses_gaps_and_earlier_incarnations() {
    let mut backup = Backup::new(node(9));
    let saved = |incarnation, beat| ToHost::Saved { incarnation, beat };
    let declined = |incarnation| ToHost::Declined { incarnation };
    assert_eq!(
        answer(&backup_did(&mut backup, save(1, 1, false, &[1]))),
        declined(1)
    );
    assert_eq!(
        answer(&backup_did(&mut backup, save(1, 1, true, &[1, 2]))),
        saved(1, 1)
    );
    assert_eq!(
        answer(&backup_did(&mut backup, save(1, 2, false, &[4]))),
        declined(1)
    );
    assert_eq!(
        answer(&backup_did(&mut backup, save(1, 3, false, &[3]))),
        declined(1)
    );
    assert_eq!((backup.order(), backup.bytes()), (2, 20));
    assert_eq!(
        answer(&backup_did(&mut backup, save(2, 1, true, &[1]))),
        saved(2, 1)
    );
    let refused = ToHost::Refused { incarnation: 2 };
    assert_eq!(
        answer(&backup_did(&mut backup, save(1, 2, false, &[3]))),
        refused
    );
    assert_eq!((backup.order(), backup.host()), (1, node(2)));
}

#[test]
fn a_named_backup_takes_over_by_a_swap_and_another_does_not() {
    let record = |backups: &[u64]| Record {
        actor: key(1, 1),
        incarnation: 1,
        version: 4,
        at: key(1, 1),
        backups: backups.iter().map(|n| node(*n)).collect(),
    };
    let found = |record, lives| backup::Event::Record {
        record: Some(record),
        lives,
        number: 5,
    };
    let mut backup = Backup::new(node(9));
    backup_did(&mut backup, save(1, 1, true, &[1]));
    let out = backup_did(&mut backup, backup::Event::Died(node(1)));
    assert_eq!(out, [backup::Effect::Look]);
    let mut other = backup.clone();
    let out = backup_did(&mut backup, found(record(&[8, 9]), false));
    let [backup::Effect::Swap { record: claim, .. }] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!((claim.incarnation, claim.at), (2, key(9, 5)));
    assert_eq!(
        claim.backups,
        [node(8)],
        "the other has all that was told, too"
    );
    // The answer to the swap is lost, and the record is the claim when it is read again: it has taken over.
    let claim = claim.clone();
    let mut unanswered = backup.clone();
    let takes = |out: &[backup::Effect<u64>]| matches!(out, [backup::Effect::TakeOver { history, .. }] if history.order() == 1);
    assert!(takes(&backup_did(&mut unanswered, found(claim, true))));
    assert!(takes(&backup_did(&mut backup, backup::Event::Swapped)));
    // Not named: it looks again, and lets go in the end.
    for _ in 0..backup::LOOKS {
        assert_eq!(backup_did(&mut other, found(record(&[8]), false)), []);
        let mut out = Vec::new();
        let due = other.due().unwrap();
        other.handle(due, backup::Event::Tick, &mut out);
        assert_eq!(out, [backup::Effect::Look]);
    }
    let out = backup_did(&mut other, found(record(&[8]), false));
    assert_eq!(out, [backup::Effect::Drop]);
}

#[test]
fn a_caller_sends_again_what_is_not_settled_in_its_order() {
    let mut caller = Caller::new(key(1, 1));
    for load in 1..=3 {
        caller_did(&mut caller, caller::Event::Call(load));
    }
    let outcome = || caller::Event::Outcome {
        number: 2,
        outcome: 20,
        stays: false,
    };
    assert_eq!(caller_did(&mut caller, outcome()).len(), 1);
    assert_eq!(caller_did(&mut caller, outcome()), [], "it came twice");
    let out = caller_did(&mut caller, caller::Event::Died(node(1)));
    assert_eq!(out, [caller::Effect::Look]);
    assert_eq!(
        caller_did(&mut caller, caller::Event::Call(4)),
        [],
        "it waits"
    );
    let moved = || caller::Event::Moved {
        incarnation: 2,
        at: key(2, 7),
    };
    let out = caller_did(&mut caller, moved());
    let sent: Vec<u64> = out
        .iter()
        .filter_map(|effect| match effect {
            caller::Effect::Send {
                number, settled, ..
            } if settled.below == 1 => Some(*number),
            _ => None,
        })
        .collect();
    assert_eq!(sent, [1, 3, 4]);
    assert_eq!(caller_did(&mut caller, moved()), [], "it came twice");
}

#[test]
fn what_is_lost_with_all_that_had_it_fails() {
    let mut caller = Caller::new(key(1, 1));
    caller_did(&mut caller, caller::Event::Call(1));
    caller_did(&mut caller, caller::Event::Died(node(1)));
    let record = Record {
        actor: key(1, 1),
        incarnation: 1,
        version: 1,
        at: key(1, 1),
        backups: vec![node(2)],
    };
    let found = caller::Event::Record {
        record: Some(record),
        lives: false,
        backed: false,
    };
    let out = caller_did(&mut caller, found);
    let why = caller::Why::Lost;
    assert_eq!(out, [caller::Effect::Fail { number: 1, why }]);
    let out = caller_did(&mut caller, caller::Event::Call(2));
    assert_eq!(out, [caller::Effect::Fail { number: 2, why }]);
}

#[test]
fn a_backup_keeps_what_it_has_while_the_first_record_may_still_come() {
    let mut backup = Backup::new(node(9));
    backup_did(&mut backup, save(1, 1, true, &[1]));
    backup_did(&mut backup, backup::Event::Died(node(1)));
    let none = backup::Event::Record {
        record: None,
        lives: false,
        number: 5,
    };
    assert_eq!(backup_did(&mut backup, none.clone()), []);
    let mut out = Vec::new();
    backup.handle(backup::AGAIN, backup::Event::Tick, &mut out);
    assert_eq!(out, [backup::Effect::Look]);
    // A host that was found dead and is not has made it meanwhile.
    let out = backup_did(&mut backup, found_by(9, 1));
    assert!(matches!(&out[..], [backup::Effect::Swap { record, .. }] if record.incarnation == 2));
    // Who has nothing has nothing to wait for.
    let mut empty = Backup::<Payload>::new(node(9));
    backup_did(&mut empty, backup::Event::Roused);
    assert_eq!(backup_did(&mut empty, none), [backup::Effect::Drop]);
}

/// The record of an actor on node 1, which is dead, with this one backup.
fn found_by(backup: u64, version: u64) -> backup::Event<Payload> {
    let record = Record {
        actor: key(1, 1),
        incarnation: 1,
        version,
        at: key(1, 1),
        backups: vec![node(backup)],
    };
    backup::Event::Record {
        record: Some(record),
        lives: false,
        number: 5,
    }
}

#[test]
fn a_named_backup_without_a_copy_takes_itself_out_so_that_the_loss_is_known() {
    let mut backup = Backup::<Payload>::new(node(9));
    let out = backup_did(&mut backup, backup::Event::Roused);
    assert_eq!(out, [backup::Effect::Look]);
    let out = backup_did(&mut backup, found_by(9, 3));
    let [backup::Effect::Swap { record, .. }] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!((record.incarnation, record.version), (1, 4));
    assert_eq!((record.at, &record.backups[..]), (key(1, 1), &[][..]));
    let out = backup_did(&mut backup, backup::Event::Swapped);
    assert_eq!(out, [backup::Effect::Drop]);
}

#[test]
fn a_caller_rouses_backups_that_have_not_taken_over() {
    let mut caller = Caller::new(key(1, 1));
    caller_did(&mut caller, caller::Event::Call(1));
    caller_did(&mut caller, caller::Event::Died(node(1)));
    let backup::Event::Record { record, lives, .. } = found_by(9, 3) else {
        unreachable!("a record")
    };
    let found = caller::Event::Record {
        record,
        lives,
        backed: true,
    };
    assert_eq!(caller_did(&mut caller, found.clone()), []);
    let mut out = Vec::new();
    caller.handle(caller::AGAIN, caller::Event::Tick, &mut out);
    assert_eq!(out, [caller::Effect::Look]);
    out.clear();
    caller.handle(caller::ROUSE, found, &mut out);
    assert_eq!(out, [caller::Effect::Rouse(vec![node(9)])]);
}

#[test]
fn one_question_about_the_record_is_asked_at_a_time() {
    let mut backup = Backup::new(node(9));
    backup_did(&mut backup, save(1, 1, true, &[1]));
    backup_did(&mut backup, backup::Event::Died(node(1)));
    // Somebody took over meanwhile, and is dead too: the answer to the question will tell.
    backup_did(&mut backup, save(2, 1, true, &[1]));
    assert_eq!(backup_did(&mut backup, backup::Event::Died(node(2))), []);
}

proptest! {
    #[test]
    fn a_dead_callers_calls_are_never_new(numbers in prop::collection::vec(1u64..50, 1..20)) {
        let mut calls = Dedup::<u64>::default();
        for &number in &numbers {
            calls.take(call(3, number));
        }
        calls.gone(node(3));
        prop_assert!(calls.is_empty());
        for number in numbers {
            prop_assert!(!calls.take(call(3, number)));
        }
    }

    #[test]
    fn all_nodes_prefer_the_same_backups(
        mut nodes in prop::collection::btree_set(1u64..1000, 2..20),
        number in any::<u64>(),
    ) {
        let actor = key(1, number);
        let first = nodes.pop_first().unwrap();
        let mut all: Vec<NodeId> = nodes.iter().map(|n| node(*n)).collect();
        choose::prefer(actor, node(first), &mut all, |n| n.get() % 2 == 0);
        let mut again: Vec<NodeId> = all.iter().rev().copied().collect();
        choose::prefer(actor, node(first), &mut again, |n| n.get() % 2 == 0);
        prop_assert_eq!(&all, &again);
        prop_assert!(all.is_sorted_by_key(|n| n.get() % 2 == 0));
    }
}
