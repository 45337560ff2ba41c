//! References between a few nodes whose messages are carried by hand. What chance does to them, `tests/sim` shows.

use super::*;
use proptest::prelude::*;

const GRACE: Duration = Duration::from_millis(100);

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn key(owner: u64, number: u64) -> ObjectKey {
    let owner = node(owner);
    ObjectKey { owner, number }
}

fn owners(number: u64) -> Owners {
    Owners::new(node(number), GRACE)
}

fn told(to: u64, message: Message) -> Effect {
    let to = node(to);
    Effect::Send { to, message }
}

fn did<R>(machine: &mut Owners, f: impl FnOnce(&mut Owners, &mut Vec<Effect>) -> R) -> Vec<Effect> {
    let mut out = Vec::new();
    f(machine, &mut out);
    out
}

fn hear(machine: &mut Owners, from: u64, message: Message) -> Vec<Effect> {
    did(machine, |o, out| o.handle(node(from), message, out))
}

/// An object of node 1 that node 2 borrows; it has a value there.
fn borrowed_by_2() -> (Owners, Owners, ObjectKey) {
    let (mut one, mut two, key) = (owners(1), owners(2), key(1, 7));
    let (len, at) = (10, node(1));
    let out = did(&mut one, |o, out| {
        let state = o.export(key, node(2), Stand::Ready { len, at }, out);
        let at = vec![at];
        assert_eq!(state, RefState::Ready { len, at });
    });
    assert_eq!(out, [Effect::Keep(key)]);
    let state = one.owned[&7].state();
    let out = did(&mut two, |o, out| {
        assert!(o.import(key, node(1), 0, state.clone(), out))
    });
    assert_eq!(out, [Effect::Settled { key, state }]);
    (one, two, key)
}

#[test]
fn a_release_takes_no_reference_that_is_under_way() {
    let (mut one, mut two, key) = borrowed_by_2();
    let out = did(&mut one, |o, out| {
        o.export(key, node(2), Stand::Pending, out)
    });
    assert_eq!(out, [], "it is kept already");
    let out = did(&mut two, |o, out| o.dropped(key, out));
    let release = |received| Message::Release { key, received };
    assert_eq!(out, [told(1, release(1))]);
    assert_eq!(hear(&mut one, 2, release(1)), [], "one is on its way");
    let pending = RefState::Pending;
    did(&mut two, |o, out| {
        assert!(o.import(key, node(1), 0, pending, out))
    });
    let out = did(&mut two, |o, out| o.dropped(key, out));
    assert_eq!(out, [told(1, release(1))]);
    assert_eq!(hear(&mut one, 2, release(1)), [Effect::Let(key)]);
    assert!(one.is_idle() && two.is_idle());
}

#[test]
fn a_reference_that_is_handed_on_registers_before_the_giver_lets_go() {
    let (mut one, mut two, key) = borrowed_by_2();
    let mut three = owners(3);
    let transit = two.hand_on(key, node(3));
    assert_eq!(
        did(&mut two, |o, out| o.dropped(key, out)),
        [],
        "it is kept for the transit"
    );
    let from = node(2);
    let pending = RefState::Pending;
    let out = did(&mut three, |o, out| {
        o.import(key, from, transit, pending.clone(), out)
    });
    let borrow = Message::Borrow { key, from, transit };
    assert_eq!(out, [told(1, borrow.clone())]);
    // It drops the reference before the owner's answer is here; a release is never ahead of its registration.
    let out = did(&mut three, |o, out| o.dropped(key, out));
    let release = |received| Message::Release { key, received };
    assert_eq!(out, [told(1, release(1))]);
    let state = one.owned[&7].state();
    let answer = Message::Borrowed {
        key,
        from,
        transit,
        state,
    };
    assert_eq!(hear(&mut one, 3, borrow), [told(3, answer.clone())]);
    assert_eq!(hear(&mut one, 3, release(1)), []);
    // A second reference comes while the answer to the first is under way: it is a registration of its own.
    let out = did(&mut three, |o, out| {
        o.import(key, from, transit + 1, pending, out)
    });
    let transit_2 = transit + 1;
    let again = Message::Borrow {
        key,
        from,
        transit: transit_2,
    };
    assert_eq!(out, [told(1, again)]);
    let arrived = Message::Arrived { transit };
    assert_eq!(hear(&mut three, 1, answer)[0], told(2, arrived.clone()));
    assert!(
        !three.borrowed[&key].registered,
        "that answered the earlier one"
    );
    assert_eq!(hear(&mut two, 3, arrived), [told(1, release(1))]);
    assert!(two.is_idle());
    assert_eq!(hear(&mut one, 2, release(1)), [Effect::Let(key)]);
}

#[test]
fn who_is_registered_says_so_at_once_and_the_owner_too() {
    let (mut one, mut two, key) = borrowed_by_2();
    let pending = RefState::Pending;
    let arrived = Message::Arrived { transit: 5 };
    let out = did(&mut two, |o, out| {
        assert!(!o.import(key, node(3), 5, pending.clone(), out))
    });
    assert_eq!(out, [told(3, arrived.clone())]);
    let out = did(&mut one, |o, out| o.import(key, node(3), 5, pending, out));
    assert_eq!(out, [told(3, arrived)]);
    let out = did(&mut two, |o, out| o.dropped(key, out));
    let received = 1;
    assert_eq!(out, [told(1, Message::Release { key, received })]);
}

#[test]
fn borrowers_hear_once_that_it_settled_and_again_if_it_is_lost() {
    let (mut one, mut two, key) = (owners(1), owners(2), key(1, 7));
    did(&mut one, |o, out| {
        o.export(key, node(2), Stand::Pending, out)
    });
    let pending = RefState::Pending;
    assert_eq!(
        did(&mut two, |o, out| o.import(key, node(1), 0, pending, out)),
        []
    );
    let (len, at) = (10, node(3));
    let ready = Stand::Ready { len, at };
    let out = did(&mut one, |o, out| o.settled(key, ready, out));
    let state = RefState::Ready { len, at: vec![at] };
    let message = Message::Settled {
        key,
        state: state.clone(),
    };
    assert_eq!(out, [told(2, message.clone())]);
    assert_eq!(did(&mut one, |o, out| o.settled(key, ready, out)), []);
    assert_eq!(
        hear(&mut two, 1, message.clone()),
        [Effect::Settled { key, state }]
    );
    assert_eq!(hear(&mut two, 1, message), []);

    let out = did(&mut one, |o, out| o.peer_died(Duration::ZERO, node(3), out));
    assert_eq!(out, [Effect::Lost(key)]);
    let state = RefState::Failed;
    let out = did(&mut one, |o, out| o.settled(key, Stand::Failed, out));
    let message = Message::Settled {
        key,
        state: state.clone(),
    };
    assert_eq!(out, [told(2, message.clone())]);
    assert_eq!(hear(&mut two, 1, message), [Effect::Settled { key, state }]);
    // A value that comes after all has no place.
    let out = did(&mut one, |o, out| {
        o.settled(key, Stand::Ready { len, at: node(4) }, out)
    });
    assert_eq!(out, [told(4, Message::Free { key })]);
}

#[test]
fn another_copy_is_kept_when_the_one_kept_is_lost() {
    let (mut one, mut two, key) = (owners(1), owners(2), key(1, 7));
    let (len, at) = (10, node(3));
    did(&mut one, |o, out| {
        o.settled(key, Stand::Ready { len, at }, out)
    });
    let state = one.export(key, node(2), Stand::Pending, &mut Vec::new());
    did(&mut two, |o, out| o.import(key, node(1), 0, state, out));
    let out = did(&mut two, |o, out| o.copied(key, out));
    assert_eq!(out, [told(1, Message::Copy { key })]);
    assert!(!two.must_keep(key));
    assert_eq!(hear(&mut one, 2, Message::Copy { key }), []);
    let out = did(&mut one, |o, out| o.peer_died(Duration::ZERO, node(3), out));
    assert_eq!(out, [told(2, Message::Pin { key })]);
    assert_eq!(hear(&mut two, 1, Message::Pin { key }), []);
    assert!(two.must_keep(key));
    // It stays although nothing there refers to it any more, until the owner is done.
    let out = did(&mut two, |o, out| o.dropped(key, out));
    let received = 1;
    assert_eq!(out, [told(1, Message::Release { key, received })]);
    assert_eq!(
        hear(&mut one, 2, Message::Release { key, received }),
        [Effect::Let(key)]
    );
    let out = did(&mut one, |o, out| o.forget(key, out));
    assert_eq!(out, [told(2, Message::Free { key })]);
    assert_eq!(
        hear(&mut two, 1, Message::Free { key }),
        [Effect::Free(key)]
    );
    assert_eq!(did(&mut one, |o, out| o.tick(GRACE, out)), []);
    assert!(one.is_idle() && two.is_idle());
}

#[test]
fn an_object_is_not_lost_while_somebody_is_about_to_have_it() {
    let (mut one, key) = (owners(1), key(1, 7));
    let (len, at) = (10, node(3));
    did(&mut one, |o, out| {
        o.settled(key, Stand::Ready { len, at }, out)
    });
    for to in [2, 4] {
        one.export(key, node(to), Stand::Pending, &mut Vec::new());
    }
    let failed = None;
    hear(
        &mut one,
        2,
        Message::Where {
            key,
            ask: 1,
            failed,
        },
    );
    let died = |one: &mut Owners, n| did(one, |o, out| o.peer_died(Duration::ZERO, node(n), out));
    assert_eq!(died(&mut one, 3), [], "its bytes may be there already");
    // Whoever asks meanwhile waits for them.
    assert_eq!(
        hear(
            &mut one,
            4,
            Message::Where {
                key,
                ask: 1,
                failed
            }
        ),
        []
    );
    let ask = 1;
    let from = Some(node(2));
    let out = hear(&mut one, 2, Message::Copy { key });
    let pin = told(2, Message::Pin { key });
    assert_eq!(out, [pin, told(4, Message::At { key, ask, from })]);
    // Now it is: the copy dies, and the pull from it fails.
    assert_eq!(died(&mut one, 2), []);
    let failed = from;
    let out = hear(
        &mut one,
        4,
        Message::Where {
            key,
            ask: 2,
            failed,
        },
    );
    assert_eq!(out, [Effect::Lost(key)]);
    // It is made anew, and who waits is served.
    let (ask, from) = (2, Some(node(5)));
    let out = did(&mut one, |o, out| {
        o.settled(key, Stand::Ready { len, at: node(5) }, out)
    });
    assert_eq!(out, [told(4, Message::At { key, ask, from })]);
}

#[test]
fn what_the_dead_borrowed_is_let_go_after_the_grace_period() {
    let (mut one, _, key) = borrowed_by_2();
    let died = Duration::from_secs(1);
    assert_eq!(did(&mut one, |o, out| o.peer_died(died, node(2), out)), []);
    let later = died + Duration::from_millis(50);
    did(&mut one, |o, out| o.peer_died(later, node(2), out));
    assert_eq!(
        one.next_tick(),
        Some(died + GRACE),
        "said twice, it is dead once"
    );
    assert_eq!(did(&mut one, |o, out| o.tick(later, out)), []);
    // What it handed on before registers.
    let (from, transit) = (node(2), 1);
    let out = hear(&mut one, 3, Message::Borrow { key, from, transit });
    assert!(matches!(&out[..], [Effect::Send { .. }]), "{out:?}");
    assert_eq!(did(&mut one, |o, out| o.tick(died + GRACE, out)), []);
    let received = 1;
    assert_eq!(
        hear(&mut one, 3, Message::Release { key, received }),
        [Effect::Let(key)]
    );
    assert!(one.is_idle());
}

#[test]
fn who_registers_too_late_learns_it() {
    let (mut one, mut three, key) = (owners(1), owners(3), key(1, 7));
    let (from, transit) = (node(2), 1);
    let pending = RefState::Pending;
    did(&mut three, |o, out| {
        o.import(key, from, transit, pending.clone(), out)
    });
    let borrow = Message::Borrow { key, from, transit };
    let out = hear(&mut one, 3, borrow.clone());
    let state = pending;
    let borrowed = Message::Borrowed {
        key,
        from,
        transit,
        state,
    };
    assert_eq!(out, [told(3, borrowed), Effect::Find(key)]);
    let out = did(&mut one, |o, out| o.gone(key, out));
    assert_eq!(out, [told(3, Message::Gone { key })]);
    assert!(one.is_idle());
    assert_eq!(
        hear(&mut three, 1, Message::Gone { key }),
        [Effect::Gone(key)]
    );
    // It releases what the owner does not know: nobody is to blame.
    let received = 1;
    let out = did(&mut three, |o, out| o.dropped(key, out));
    assert_eq!(out, [told(1, Message::Release { key, received })]);
    assert_eq!(hear(&mut one, 3, Message::Release { key, received }), []);
    // Had the owner still had it, for reasons of its own, it would have been found.
    hear(&mut one, 3, borrow);
    let (len, at) = (1, node(1));
    let out = did(&mut one, |o, out| {
        o.settled(key, Stand::Ready { len, at }, out)
    });
    assert!(matches!(
        &out[..],
        [Effect::Send {
            message: Message::Settled { .. },
            ..
        }]
    ));
}

#[test]
fn an_owner_that_dies_takes_all_with_it() {
    let (_, mut two, key) = borrowed_by_2();
    two.hosts(super::tests::key(1, 8));
    let transit = two.hand_on(key, node(3));
    let out = did(&mut two, |o, out| o.peer_died(Duration::ZERO, node(1), out));
    assert_eq!(
        out,
        [
            Effect::Free(super::tests::key(1, 8)),
            Effect::OwnerDied(key)
        ]
    );
    assert_eq!(did(&mut two, |o, out| o.tick(GRACE, out)), []);
    assert!(two.is_idle());
    assert_eq!(hear(&mut two, 3, Message::Arrived { transit }), []);
    assert_eq!(did(&mut two, |o, out| o.dropped(key, out)), []);
}

#[test]
fn what_no_honest_node_says_changes_nothing() {
    let (mut one, mut two, key) = borrowed_by_2();
    let blamed =
        |out: Vec<Effect>, liar| assert!(out.contains(&Effect::Misbehaves(node(liar))), "{out:?}");
    for received in [0, 2, u64::MAX] {
        blamed(hear(&mut one, 2, Message::Release { key, received }), 2);
    }
    blamed(hear(&mut one, 3, Message::Release { key, received: 1 }), 3);
    blamed(hear(&mut one, 3, Message::Copy { key }), 3);
    let failed = None;
    blamed(
        hear(
            &mut one,
            3,
            Message::Where {
                key,
                ask: 1,
                failed,
            },
        ),
        3,
    );
    let state = RefState::Failed;
    blamed(hear(&mut two, 3, Message::Settled { key, state }), 3);
    blamed(hear(&mut two, 3, Message::Free { key }), 3);
    let transit = two.hand_on(key, node(4));
    blamed(hear(&mut two, 3, Message::Arrived { transit }), 3);
    blamed(hear(&mut two, 3, Message::Release { key, received: 1 }), 3);
    assert_eq!((one.size().owned, two.size().transits), (1, 1));
}

/// Serves a broadcast to so many nodes, each transfer taking one round; returns how many rounds it takes.
fn broadcast(pullers: u64) -> u64 {
    let (mut one, key, me) = (owners(1), key(1, 7), node(1));
    let mut asked = Vec::new();
    for to in 2..2 + pullers {
        did(&mut one, |o, out| {
            o.export(key, node(to), Stand::Ready { len: 1, at: me }, out)
        });
    }
    for from in 2..2 + pullers {
        let failed = None;
        asked.extend(hear(
            &mut one,
            from,
            Message::Where {
                key,
                ask: 1,
                failed,
            },
        ));
    }
    let (mut rounds, mut done) = (0, 0);
    while !asked.is_empty() {
        rounds += 1;
        let mut serves = BTreeMap::new();
        for effect in std::mem::take(&mut asked) {
            let Effect::Send { to, message } = effect else {
                panic!("{effect:?}");
            };
            let Message::At {
                from: Some(from), ..
            } = message
            else {
                panic!("{message:?}");
            };
            *serves.entry(from).or_insert(0) += 1;
            asked.extend(hear(&mut one, to.get(), Message::Copy { key }));
            done += 1;
        }
        assert!(serves.values().all(|count| *count <= SLOTS), "{serves:?}");
    }
    assert_eq!(done, pullers);
    rounds
}

#[test]
fn a_broadcast_is_a_tree() {
    assert_eq!(broadcast(2), 1);
    // Those about triple each round.
    assert_eq!(broadcast(8), 2);
    assert_eq!(broadcast(80), 4);
    assert!(broadcast(1000) <= 8);
}

#[test]
fn a_source_that_failed_is_not_named_again_while_there_are_others() {
    let (mut one, _, key) = borrowed_by_2();
    let (len, at) = (10, node(3));
    did(&mut one, |o, out| {
        o.settled(key, Stand::Ready { len, at }, out)
    });
    let mut seen = Vec::new();
    let mut failed = None;
    for ask in 1..=3 {
        let out = hear(&mut one, 2, Message::Where { key, ask, failed });
        let [
            Effect::Send {
                message: Message::At { from, .. },
                ..
            },
        ] = out[..]
        else {
            panic!("{out:?}");
        };
        failed = from;
        seen.extend(from);
    }
    seen[..2].sort();
    assert_eq!(seen[..2], [node(1), node(3)]);
    assert_eq!(seen.len(), 3, "when all failed, they are tried again");
    assert_eq!(hear(&mut one, 2, Message::Stop { key }), []);
    assert!(one.loads.is_empty());
}

fn any_key() -> impl Strategy<Value = ObjectKey> {
    (1u64..4, 0u64..3).prop_map(|(owner, number)| key(owner, number))
}

fn any_message() -> impl Strategy<Value = Message> {
    let nodes = || (1u64..5).prop_map(node);
    let state = prop_oneof![
        Just(RefState::Pending),
        Just(RefState::Failed),
        any::<u64>().prop_map(|len| RefState::Ready { len, at: vec![] }),
    ];
    prop_oneof![
        (any_key(), 0u64..4).prop_map(|(key, received)| Message::Release { key, received }),
        (any_key(), nodes(), 0u64..4).prop_map(|(key, from, transit)| Message::Borrow {
            key,
            from,
            transit
        }),
        (any_key(), nodes(), 0u64..4, state.clone()).prop_map(|(key, from, transit, state)| {
            Message::Borrowed {
                key,
                from,
                transit,
                state,
            }
        }),
        (0u64..6).prop_map(|transit| Message::Arrived { transit }),
        (any_key(), state).prop_map(|(key, state)| Message::Settled { key, state }),
        any_key().prop_map(|key| Message::Gone { key }),
        any_key().prop_map(|key| Message::Copy { key }),
        any_key().prop_map(|key| Message::CopyGone { key }),
        any_key().prop_map(|key| Message::Free { key }),
        any_key().prop_map(|key| Message::Pin { key }),
        any_key().prop_map(|key| Message::Stop { key }),
        (any_key(), 0u64..4, prop::option::of(nodes()))
            .prop_map(|(key, ask, failed)| Message::Where { key, ask, failed }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Hear(u64, Message),
    Export(u64, u64),
    Import(ObjectKey, u64),
    Dropped(ObjectKey),
    HandOn(ObjectKey),
    Copied(ObjectKey),
    Settled(u64, bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (2u64..5, any_message()).prop_map(|(from, message)| Step::Hear(from, message)),
        1 => (0u64..3, 2u64..5).prop_map(|(number, to)| Step::Export(number, to)),
        1 => (any_key(), 2u64..5).prop_map(|(key, via)| Step::Import(key, via)),
        1 => any_key().prop_map(Step::Dropped),
        1 => any_key().prop_map(Step::HandOn),
        1 => any_key().prop_map(Step::Copied),
        1 => (0u64..3, any::<bool>()).prop_map(|(number, ok)| Step::Settled(number, ok)),
    ]
}

proptest! {
    /// Whatever others say, the machine stands; it keeps what it takes and lets it go in turn; and once all others are dead
    /// and nothing is referred to, nothing is left.
    #[test]
    fn it_outlives_any_liar(steps in prop::collection::vec(any_step(), 0..120)) {
        let mut one = owners(1);
        let mut kept = std::collections::BTreeSet::new();
        let mut carry_out = |one: &mut Owners, out: Vec<Effect>| {
            let mut out = std::collections::VecDeque::from(out);
            while let Some(effect) = out.pop_front() {
                match effect {
                    Effect::Keep(key) | Effect::Find(key) => assert!(kept.insert(key), "{key} is kept twice"),
                    Effect::Let(key) => assert!(kept.remove(&key), "{key} is let go twice"),
                    Effect::Lost(key) => out.extend(did(one, |o, out| o.settled(key, Stand::Failed, out))),
                    Effect::Misbehaves(by) => assert_ne!(by, node(1)),
                    Effect::Send { to, .. } => assert_ne!(to, node(1)),
                    _ => {}
                }
            }
        };
        for step in steps {
            let out = did(&mut one, |o, out| match step {
                Step::Hear(from, message) => o.handle(node(from), message, out),
                Step::Export(number, to) => drop(o.export(key(1, number), node(to), Stand::Pending, out)),
                Step::Import(key, via) => drop(o.import(key, node(via), 3, RefState::Pending, out)),
                Step::Dropped(key) if key.owner != node(1) => o.dropped(key, out),
                Step::HandOn(key) if key.owner != node(1) => drop(o.hand_on(key, node(4))),
                Step::Copied(key) if key.owner != node(1) => o.copied(key, out),
                Step::Settled(number, true) => {
                    o.settled(key(1, number), Stand::Ready { len: 1, at: node(2) }, out);
                }
                Step::Settled(number, false) => o.settled(key(1, number), Stand::Failed, out),
                _ => {}
            });
            carry_out(&mut one, out);
        }
        for dead in 2..5 {
            let out = did(&mut one, |o, out| o.peer_died(Duration::ZERO, node(dead), out));
            carry_out(&mut one, out);
        }
        let out = did(&mut one, |o, out| o.tick(GRACE, out));
        carry_out(&mut one, out);
        prop_assert!(one.is_idle(), "{one:?}");
        prop_assert!(kept.is_empty(), "{kept:?}");
    }
}
