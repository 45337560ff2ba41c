//! Pulls of one node against an owner that answers as told.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const OWNER: u64 = 1;
const ME: u64 = 9;

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn key(number: u64) -> ObjectKey {
    let owner = node(OWNER);
    ObjectKey { owner, number }
}

fn pulls(transfers: usize, bytes: u64, attempts: u32) -> Pulls {
    let limits = Limits {
        transfers,
        bytes,
        attempts,
    };
    Pulls::new(node(ME), limits)
}

fn did(pulls: &mut Pulls, f: impl FnOnce(&mut Pulls, &mut Vec<Effect>)) -> Vec<Effect> {
    let mut out = Vec::new();
    f(pulls, &mut out);
    out
}

/// The question among these effects.
fn asked(out: &[Effect]) -> (ObjectKey, u64, Option<NodeId>) {
    let question = out.iter().find_map(|effect| match effect {
        Effect::Send {
            message: Message::Where { key, ask, failed },
            ..
        } => Some((*key, *ask, *failed)),
        _ => None,
    });
    question.unwrap_or_else(|| panic!("nothing is asked in {out:?}"))
}

/// The transfers that start with these effects.
fn started(out: &[Effect]) -> Vec<(ObjectKey, u64)> {
    let fetch = |effect: &Effect| match effect {
        Effect::Fetch { key, transfer, .. } => Some((*key, *transfer)),
        _ => None,
    };
    out.iter().filter_map(fetch).collect()
}

/// Wants an object and names node 2 as its source.
fn sourced(pulls: &mut Pulls, number: u64, len: u64) -> Vec<Effect> {
    let out = did(pulls, |p, out| p.want(key(number), len, out));
    let (key, ask, _) = asked(&out);
    did(pulls, |p, out| {
        p.on_at(node(OWNER), key, ask, Some(node(2)), out)
    })
}

fn stop(number: u64) -> Effect {
    let (to, key) = (node(OWNER), key(number));
    Effect::Send {
        to,
        message: Message::Stop { key },
    }
}

#[test]
fn what_many_want_comes_once() {
    let mut pulls = pulls(4, 1000, 3);
    let out = sourced(&mut pulls, 7, 10);
    let [(key, transfer)] = started(&out)[..] else {
        panic!("{out:?}");
    };
    assert_eq!(did(&mut pulls, |p, out| p.want(key, 10, out)), []);
    assert_eq!(
        did(&mut pulls, |p, out| p.cancel(key, out)),
        [],
        "one still wants it"
    );
    let out = did(&mut pulls, |p, out| p.fetched(key, transfer, out));
    assert_eq!(out, [Effect::Here(key)]);
    assert_eq!(did(&mut pulls, |p, out| p.fetched(key, transfer, out)), []);
    assert_eq!((pulls.len(), pulls.under_way()), (0, (0, 0)));
}

#[test]
fn a_failed_transfer_is_asked_for_again_so_many_times() {
    let mut pulls = pulls(4, 1000, 3);
    let mut out = sourced(&mut pulls, 7, 10);
    for _ in 0..2 {
        let (key, transfer) = started(&out)[0];
        let again = did(&mut pulls, |p, out| p.fetch_failed(key, transfer, out));
        let (key, ask, failed) = asked(&again);
        assert_eq!(failed, Some(node(2)));
        out = did(&mut pulls, |p, out| {
            p.on_at(node(OWNER), key, ask, Some(node(2)), out)
        });
    }
    let (key, transfer) = started(&out)[0];
    let out = did(&mut pulls, |p, out| p.fetch_failed(key, transfer, out));
    assert_eq!(out, [stop(7), Effect::Failed(key, Why::Attempts(3))]);
    assert!(pulls.is_empty());
}

#[test]
fn small_objects_pass_large_ones_but_not_for_ever() {
    let mut pulls = pulls(1, 10 * SMALL, 3);
    let out = sourced(&mut pulls, 0, 1);
    let (mut key, mut transfer) = started(&out)[0];
    assert_eq!(started(&sourced(&mut pulls, 100, 2 * SMALL)), []);
    for number in 1..30 {
        assert_eq!(started(&sourced(&mut pulls, number, 1)), []);
    }
    let mut order = Vec::new();
    while !pulls.is_empty() {
        let out = did(&mut pulls, |p, out| p.fetched(key, transfer, out));
        if let Some(next) = started(&out).first() {
            (key, transfer) = *next;
            order.push(key.number);
        }
    }
    let at = order.iter().position(|number| *number == 100).unwrap();
    assert_eq!(at, RUN as usize);
    order.remove(at);
    assert_eq!(
        order,
        (1..30).collect::<Vec<_>>(),
        "those of a kind in order"
    );
}

#[test]
fn bytes_in_flight_are_bounded_and_what_exceeds_all_travels_alone() {
    let mut pulls = pulls(10, 4 * SMALL, 3);
    let (first, one) = started(&sourced(&mut pulls, 1, 3 * SMALL))[0];
    assert_eq!(started(&sourced(&mut pulls, 2, 2 * SMALL)), []);
    let out = did(&mut pulls, |p, out| p.fetched(first, one, out));
    let (second, two) = started(&out)[0];
    assert_eq!(started(&sourced(&mut pulls, 3, u64::MAX)), []);
    let out = did(&mut pulls, |p, out| p.fetched(second, two, out));
    let [(third, three)] = started(&out)[..] else {
        panic!("{out:?}");
    };
    assert_eq!(started(&sourced(&mut pulls, 4, 1)), []);
    let out = did(&mut pulls, |p, out| p.fetched(third, three, out));
    assert_eq!(started(&out).len(), 1);
}

#[test]
fn answers_to_earlier_questions_and_from_others_are_ignored() {
    let mut pulls = pulls(4, 1000, 3);
    let out = did(&mut pulls, |p, out| p.want(key(7), 10, out));
    let (key, ask, _) = asked(&out);
    assert_eq!(did(&mut pulls, |p, out| p.cancel(key, out)), [stop(7)]);
    let out = did(&mut pulls, |p, out| p.want(key, 10, out));
    let (_, newer, _) = asked(&out);
    let source = Some(node(2));
    assert_eq!(
        did(&mut pulls, |p, out| p.on_at(
            node(OWNER),
            key,
            ask,
            source,
            out
        )),
        []
    );
    assert_eq!(
        did(&mut pulls, |p, out| p.on_at(
            node(3),
            key,
            newer,
            source,
            out
        )),
        []
    );
    // An owner that says to pull from here is told that this failed.
    let out = did(&mut pulls, |p, out| {
        p.on_at(node(OWNER), key, newer, Some(node(ME)), out)
    });
    let (_, newest, failed) = asked(&out);
    assert_eq!(failed, Some(node(ME)));
    let out = did(&mut pulls, |p, out| {
        p.on_at(node(OWNER), key, newest, None, out)
    });
    assert_eq!(out, [Effect::Failed(key, Why::NoSource)]);
}

#[test]
fn deaths_of_sources_and_owners() {
    let mut pulls = pulls(1, 1000, 3);
    let out = sourced(&mut pulls, 1, 10);
    let (first, transfer) = started(&out)[0];
    sourced(&mut pulls, 2, 10);
    let out = did(&mut pulls, |p, out| p.peer_died(node(2), out));
    assert_eq!(out[0], Effect::Abort { transfer });
    assert_eq!(out.len(), 3, "both are asked for again: {out:?}");
    assert!(!pulls.fetches(first, transfer));
    let out = did(&mut pulls, |p, out| p.peer_died(node(OWNER), out));
    let died = |number| Effect::Failed(key(number), Why::OwnerDied);
    assert_eq!(out, [died(1), died(2)]);
    assert_eq!((pulls.len(), pulls.under_way()), (0, (0, 0)));
}

#[test]
fn what_others_than_the_dead_owner_know_of_is_asked_for_anew() {
    let mut pulls = pulls(1, 1000, 3);
    let out = sourced(&mut pulls, 1, 10);
    let (first, transfer) = started(&out)[0];
    did(&mut pulls, |p, out| p.want(key(2), 10, out));
    did(&mut pulls, |p, out| p.want(key(3), 10, out));
    let known = |of: ObjectKey| of != key(3);
    let out = did(&mut pulls, |p, out| {
        p.peer_died_but(node(OWNER), known, out)
    });
    // The first comes from another node, and goes on.
    assert!(pulls.fetches(first, transfer));
    let (second, ask, failed) = asked(&out);
    assert_eq!((second, failed), (key(2), None), "no attempt failed");
    assert_eq!(out[1..], [Effect::Failed(key(3), Why::OwnerDied)]);
    did(&mut pulls, |p, out| p.fetched(first, transfer, out));
    let out = did(&mut pulls, |p, out| {
        p.on_at(node(OWNER), second, ask, Some(node(2)), out)
    });
    assert_eq!(started(&out)[0].0, second);
}

#[test]
fn what_turns_up_otherwise_is_pulled_no_more() {
    let mut pulls = pulls(1, 1000, 3);
    let out = sourced(&mut pulls, 1, 10);
    let (first, transfer) = started(&out)[0];
    let out = did(&mut pulls, |p, out| p.found(first, out));
    assert_eq!(
        out,
        [Effect::Abort { transfer }, stop(1), Effect::Here(first)]
    );
    assert_eq!(did(&mut pulls, |p, out| p.found(first, out)), []);
}

#[derive(Clone, Debug)]
enum Step {
    Want(u64, u64),
    Cancel(u64),
    At(u64, Option<u64>),
    Fetched(usize, bool),
    Died(u64),
    Found(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..6, prop::sample::select(vec![0, 1, 300, 2 * SMALL, u64::MAX]))
            .prop_map(|(number, len)| Step::Want(number, len)),
        1 => (0u64..6).prop_map(Step::Cancel),
        6 => (0u64..6, prop::option::weighted(0.9, 2u64..5)).prop_map(|(number, from)| Step::At(number, from)),
        4 => (0usize..4, any::<bool>()).prop_map(|(at, ok)| Step::Fetched(at, ok)),
        1 => (1u64..5).prop_map(Step::Died),
        1 => (0u64..6).prop_map(Step::Found),
    ]
}

proptest! {
    /// Each object that is wanted ends once, in whatever order things happen; limits hold; nothing is left.
    #[test]
    fn each_want_ends_once(steps in prop::collection::vec(any_step(), 0..200)) {
        let mut pulls = pulls(2, 4 * SMALL, 3);
        let (mut wanted, mut questions, mut running) = (BTreeSet::new(), vec![0; 6], Vec::new());
        let mut wants = [0; 6];
        for step in steps.into_iter().chain([Step::Died(OWNER)]) {
            let mut cancelled = None;
            let out = did(&mut pulls, |p, out| match step {
                Step::Want(number, len) => {
                    wanted.insert(key(number));
                    wants[number as usize] += 1;
                    p.want(key(number), len, out);
                }
                Step::Cancel(number) => {
                    if wanted.contains(&key(number)) {
                        wants[number as usize] -= 1;
                        if wants[number as usize] == 0 {
                            cancelled = Some(key(number));
                        }
                    }
                    p.cancel(key(number), out);
                }
                Step::At(number, from) => {
                    p.on_at(node(OWNER), key(number), questions[number as usize], from.map(node), out);
                }
                Step::Fetched(at, ok) => {
                    if let Some(&(key, transfer)) = running.get(at) {
                        if ok { p.fetched(key, transfer, out) } else { p.fetch_failed(key, transfer, out) }
                    }
                }
                Step::Died(dead) => p.peer_died(node(dead), out),
                Step::Found(number) => p.found(key(number), out),
            });
            if let Some(key) = cancelled {
                prop_assert!(wanted.remove(&key));
            }
            for effect in &out {
                match effect {
                    Effect::Here(key) | Effect::Failed(key, _) => {
                        prop_assert!(wanted.remove(key), "{key} ended twice");
                        wants[key.number as usize] = 0;
                    }
                    Effect::Send { message: Message::Where { key, ask, .. }, .. } => {
                        questions[key.number as usize] = *ask;
                    }
                    _ => {}
                }
            }
            running.extend(started(&out));
            running.retain(|(key, transfer)| pulls.fetches(*key, *transfer));
            let (transfers, bytes) = pulls.under_way();
            prop_assert_eq!(transfers, running.len());
            prop_assert!(transfers <= 2 && (bytes <= 4 * SMALL || transfers == 1), "{:?}", pulls);
            prop_assert_eq!(pulls.len(), wanted.len());
        }
        prop_assert!(pulls.is_empty());
        prop_assert_eq!((pulls.small.len(), pulls.large.len(), pulls.under_way()), (0, 0, (0, 0)));
    }
}
