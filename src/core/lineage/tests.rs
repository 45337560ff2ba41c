//! Lineages: the bound, what is remembered, chains.
//!
//! Invariant: each test says what the driver would do. Left out: nodes; see `tests/cluster_lineage.rs`.

use super::*;

fn node(n: u64) -> NodeId {
    NodeId::new(n).unwrap()
}

fn key(number: u64) -> ObjectKey {
    ObjectKey {
        owner: node(1),
        number,
    }
}

/// A call of ten bytes whose arguments are these objects, of a hundred bytes each.
fn of(inputs: &[u64]) -> Kept {
    Kept {
        bytes: 10,
        objects: inputs.iter().map(|n| (key(*n), 100)).collect(),
        inputs: inputs.to_vec(),
        retries: 3,
    }
}

fn did(l: &mut Lineage, f: impl FnOnce(&mut Lineage, &mut Vec<Effect>)) -> Vec<Effect> {
    let mut out = Vec::new();
    f(l, &mut out);
    out
}

fn keep(l: &mut Lineage, number: u64, kept: Kept) -> Vec<Effect> {
    did(l, |l, out| l.keep(number, kept, out))
}

fn wanted(l: &mut Lineage, number: u64) -> Vec<Effect> {
    did(l, |l, out| l.wanted(number, out))
}

fn ended(l: &mut Lineage, number: u64, made: bool) -> Vec<Effect> {
    did(l, |l, out| l.ended(number, made, out))
}

#[test]
fn what_is_lost_is_made_once_for_all_who_want_it() {
    let mut l = Lineage::new(1000);
    assert_eq!(keep(&mut l, 5, of(&[])), []);
    assert_eq!(wanted(&mut l, 5), [], "it is there");
    assert!(l.lost(5, node(2)) && l.is_lost(5));
    assert_eq!(wanted(&mut l, 5), [Effect::Run(5)]);
    assert_eq!(wanted(&mut l, 5), [], "it is being made");
    assert_eq!(ended(&mut l, 5, true), []);
    assert!(!l.is_lost(5));
    assert!(!l.lost(6, node(2)), "nobody knows how that was made");
}

#[test]
fn what_turns_up_after_all_is_not_made_again() {
    let mut l = Lineage::new(1000);
    keep(&mut l, 5, of(&[]));
    assert!(l.lost(5, node(2)));
    l.found(5);
    assert_eq!(wanted(&mut l, 5), [], "some node has it");
    assert!(l.lost(5, node(3)));
    assert_eq!(wanted(&mut l, 5), [Effect::Run(5)]);
    l.found(5);
    assert_eq!(ended(&mut l, 5, true), [], "it was being made already");
}

#[test]
fn a_chain_is_made_from_its_beginning() {
    let mut l = Lineage::new(10_000);
    for n in 1..=1000 {
        let inputs: Vec<u64> = (n > 1).then_some(n - 1).into_iter().collect();
        let kept = Kept {
            bytes: 1,
            objects: Vec::new(),
            inputs,
            retries: 1,
        };
        keep(&mut l, n, kept);
    }
    // Nobody lost the first 500.
    (501..=1000).for_each(|n| assert!(l.lost(n, node(2))));
    let mut next = wanted(&mut l, 1000);
    for n in 501..=1000 {
        assert_eq!(next, [Effect::Run(n)]);
        next = ended(&mut l, n, true);
    }
    assert_eq!(next, []);
}

#[test]
fn who_waits_for_two_runs_when_both_have_ended_even_badly() {
    let mut l = Lineage::new(10_000);
    keep(&mut l, 1, of(&[]));
    keep(&mut l, 2, of(&[]));
    keep(&mut l, 3, of(&[1, 2, 1]));
    for n in 1..=3 {
        l.lost(n, node(2));
    }
    let mut runs = wanted(&mut l, 3);
    runs.sort_by_key(|e| matches!(e, Effect::Run(2)));
    assert_eq!(runs, [Effect::Run(1), Effect::Run(2)]);
    assert_eq!(
        ended(&mut l, 1, false),
        [Effect::Drop(1), Effect::Fail(1)],
        "the second may come"
    );
    assert_eq!(l.lack(1), Some(&Lack::Failed));
    assert_eq!(ended(&mut l, 2, true), [Effect::Run(3)]);
}

#[test]
fn the_oldest_is_given_up_first_and_that_is_remembered() {
    let mut l = Lineage::new(35);
    for n in 1..=3 {
        assert_eq!(keep(&mut l, n, of(&[])), []);
    }
    assert_eq!(keep(&mut l, 4, of(&[])), [Effect::Drop(1)]);
    assert_eq!((l.used(), l.given_up()), (30, 1));
    assert_eq!(l.lack(1), Some(&Lack::GivenUp));
    assert!(!l.lost(1, node(2)));
    did(&mut l, |l, out| l.forget(1, out));
    assert_eq!(l.lack(1), None, "the object is gone, and so is this");
}

#[test]
fn what_is_being_made_is_not_given_up() {
    let mut l = Lineage::new(25);
    keep(&mut l, 1, of(&[]));
    keep(&mut l, 2, of(&[]));
    l.lost(1, node(2));
    wanted(&mut l, 1);
    assert_eq!(keep(&mut l, 3, of(&[])), [Effect::Drop(2)]);
}

#[test]
fn objects_count_once_however_many_calls_read_them() {
    let mut l = Lineage::new(200);
    for n in 1..=10 {
        assert_eq!(keep(&mut l, n, of(&[77])), []);
    }
    assert_eq!(l.used(), 200);
    // One that alone is too much costs no other its lineage.
    assert_eq!(keep(&mut l, 11, of(&[78, 79])), [Effect::Drop(11)]);
    assert_eq!(l.used(), 200);
    for n in 1..=10 {
        did(&mut l, |l, out| l.forget(n, out));
    }
    assert_eq!(l.used(), 0);
}

#[test]
fn it_is_made_again_as_often_as_it_may() {
    let mut l = Lineage::new(1000);
    let kept = Kept {
        retries: 2,
        ..of(&[])
    };
    keep(&mut l, 1, kept);
    for n in 2..=3 {
        l.lost(1, node(n));
        assert_eq!(wanted(&mut l, 1), [Effect::Run(1)]);
        ended(&mut l, 1, true);
    }
    l.lost(1, node(4));
    assert_eq!(wanted(&mut l, 1), [Effect::Drop(1), Effect::Fail(1)]);
    let nodes = vec![node(2), node(3), node(4)];
    assert_eq!(l.lack(1), Some(&Lack::Spent(nodes)));
    let never = Kept {
        retries: 0,
        ..of(&[])
    };
    assert_eq!(keep(&mut l, 2, never), [Effect::Drop(2)]);
    assert_eq!(l.lack(2), Some(&Lack::NoRetries));
}

#[test]
fn who_waits_for_one_that_is_spent_runs_and_will_see_it() {
    let mut l = Lineage::new(1000);
    keep(
        &mut l,
        1,
        Kept {
            retries: 1,
            ..of(&[])
        },
    );
    keep(&mut l, 2, of(&[1]));
    l.lost(1, node(2));
    wanted(&mut l, 1);
    ended(&mut l, 1, true);
    l.lost(1, node(3));
    l.lost(2, node(3));
    assert_eq!(
        wanted(&mut l, 2),
        [Effect::Drop(1), Effect::Fail(1), Effect::Run(2)]
    );
}

#[test]
fn nobody_finds_one_that_was_forgotten_while_it_waited() {
    let mut l = Lineage::new(1000);
    keep(&mut l, 1, of(&[]));
    keep(&mut l, 2, of(&[1]));
    l.lost(1, node(2));
    l.lost(2, node(2));
    assert_eq!(wanted(&mut l, 2), [Effect::Run(1)]);
    did(&mut l, |l, out| l.forget(2, out));
    assert_eq!(ended(&mut l, 1, true), []);
}
