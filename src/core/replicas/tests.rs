//! Replicas between a few nodes, by hand; by chance in [`world`].

mod world;

use super::*;

const GRACE: Duration = Duration::from_millis(100);
const NOW: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_millis(1);

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn key(owner: u64) -> ObjectKey {
    let owner = node(owner);
    ObjectKey { owner, number: 7 }
}

fn did<R>(
    machine: &mut Replicas,
    f: impl FnOnce(&mut Replicas, &mut Vec<Effect>) -> R,
) -> Vec<Effect> {
    let mut out = Vec::new();
    f(machine, &mut out);
    out
}

fn hear(machine: &mut Replicas, from: u64, message: Message) -> Vec<Effect> {
    did(machine, |r, out| r.handle(NOW, node(from), message, out))
}

fn told(to: u64, message: Message) -> Effect {
    let to = node(to);
    Effect::Send { to, message }
}

/// Node `me` of so many, all connected; those of odd numbers are on one machine.
fn one_of(me: u64, nodes: u64) -> Replicas {
    let mut machine = Replicas::new(node(me), GRACE);
    for other in (1..=nodes).filter(|n| *n != me) {
        let near = other % 2 == me % 2;
        let out = did(&mut machine, |r, out| r.peer_up(node(other), near, out));
        assert_eq!(out, []);
    }
    machine
}

/// Whom an owner asked.
fn asked(out: &[Effect]) -> Vec<u64> {
    let all = out.iter().filter_map(|effect| match effect {
        Effect::Send {
            to,
            message: Message::Make { .. },
        } => Some(to.get()),
        _ => None,
    });
    all.collect()
}

#[test]
fn nodes_of_other_machines_go_first_and_who_declines_is_passed_over() {
    let mut one = one_of(1, 5);
    let out = did(&mut one, |r, out| r.put(SOON, (7, 10), 2, out));
    let mut first = asked(&out);
    first.sort_unstable();
    assert_eq!(first, [2, 4]);
    let key = key(1);
    assert_eq!(hear(&mut one, 2, Message::Made { key }), []);
    let why = Why::NoRoom;
    let out = hear(&mut one, 4, Message::Declined { key, why });
    let next = asked(&out);
    assert!(next == [3] || next == [5], "{out:?}");
    let kept = hear(&mut one, next[0], Message::Made { key });
    assert_eq!(kept, [Effect::Kept(7)]);
    // Once.
    assert_eq!(hear(&mut one, next[0], Message::Made { key }), []);
    let mut out = did(&mut one, |r, out| r.forget(7, out));
    out.sort_by_key(|effect| format!("{effect:?}"));
    let free = Message::Free { key };
    assert_eq!(out, [told(2, free), told(next[0], free)]);
    assert_eq!(one.size(), Size::default());
}

#[test]
fn too_few_nodes_are_told_soon_with_what_they_said() {
    let mut one = one_of(1, 3);
    let asked_both = did(&mut one, |r, out| r.put(SOON, (7, 10), 3, out));
    assert_eq!(asked_both.len(), 2, "another may come");
    let out = did(&mut one, |r, out| r.tick(SOON, out));
    let short = |effect: &Effect| match effect {
        Effect::Short(7, short) => Some(short.clone()),
        _ => None,
    };
    let said = out
        .iter()
        .find_map(short)
        .expect("two are too few for three");
    assert_eq!((said.made, said.nodes, said.declined), (0, 2, vec![]));
    let mut one = one_of(1, 3);
    assert_eq!(
        asked(&did(&mut one, |r, out| r.put(SOON, (7, 10), 2, out))),
        [2, 3]
    );
    let (key, why) = (key(1), Why::Leaves);
    assert_eq!(hear(&mut one, 3, Message::Made { key }), []);
    assert_eq!(hear(&mut one, 2, Message::Declined { key, why }), []);
    let out = did(&mut one, |r, out| r.tick(SOON, out));
    let said = out.iter().find_map(short).expect("nobody else is there");
    assert_eq!((said.made, said.declined), (1, vec![(node(2), why)]));
}

/// The first of so many nodes, whose object has a replica on the second.
fn kept_on_two(nodes: u64) -> (Replicas, ObjectKey) {
    let mut one = one_of(1, nodes);
    let key = key(1);
    assert_eq!(
        asked(&did(&mut one, |r, out| r.put(SOON, (7, 10), 1, out))),
        [2]
    );
    assert_eq!(hear(&mut one, 2, Message::Made { key }), [Effect::Kept(7)]);
    (one, key)
}

#[test]
fn who_leaves_is_freed_at_once_where_nobody_can_take_its_place() {
    let (mut one, key) = kept_on_two(2);
    let free = told(2, Message::Free { key });
    let out = did(&mut one, |r, out| r.peer_leaves(node(2), out));
    assert_eq!(out, std::slice::from_ref(&free));
    // Nor does one that was asked, and declines, keep it waiting.
    let (mut one, key) = kept_on_two(3);
    let out = did(&mut one, |r, out| r.peer_leaves(node(2), out));
    assert_eq!(out, [told(3, Message::Make { key, len: 10 })]);
    let why = Why::NoRoom;
    assert_eq!(hear(&mut one, 3, Message::Declined { key, why }), [free]);
}

#[test]
fn who_leaves_is_replaced_first_and_freed_then() {
    let (mut one, key) = kept_on_two(3);
    let out = did(&mut one, |r, out| r.peer_leaves(node(2), out));
    assert_eq!(out, [told(3, Message::Make { key, len: 10 })]);
    let out = hear(&mut one, 3, Message::Made { key });
    assert_eq!(out, [told(2, Message::Free { key })]);
}

#[test]
fn a_death_makes_another_and_want_of_nodes_waits_for_one_to_come() {
    let (mut one, _) = kept_on_two(2);
    let out = did(&mut one, |r, out| r.peer_died(NOW, node(2), out));
    assert_eq!(out, [], "whoever put it was told before");
    let out = did(&mut one, |r, out| r.peer_up(node(4), false, out));
    assert_eq!(asked(&out), [4]);
}

#[test]
fn who_had_no_room_is_asked_again_later() {
    let (mut one, key) = kept_on_two(3);
    let out = did(&mut one, |r, out| r.peer_died(NOW, node(2), out));
    assert_eq!(asked(&out), [3]);
    let why = Why::NoRoom;
    assert_eq!(hear(&mut one, 3, Message::Declined { key, why }), []);
    let mut tick = |now| asked(&did(&mut one, |r, out| r.tick(now, out)));
    assert!(tick(NOW).is_empty());
    assert!(tick(NOW + Duration::from_secs(4)).is_empty());
    assert_eq!(tick(NOW + Duration::from_secs(6)), [3]);
}

#[test]
fn only_so_many_are_made_at_once_and_what_was_freed_is_not() {
    let mut two = one_of(2, 2);
    let owner = node(1);
    let mut begun = Vec::new();
    for number in 0..MAKING as u64 + 2 {
        let key = ObjectKey { owner, number };
        begun.extend(hear(&mut two, 1, Message::Make { key, len: 10 }));
        assert_eq!(
            hear(&mut two, 1, Message::Make { key, len: 10 }),
            [],
            "once"
        );
    }
    assert_eq!(begun.len(), MAKING);
    let waits = ObjectKey {
        owner,
        number: MAKING as u64,
    };
    let next = ObjectKey {
        owner,
        number: MAKING as u64 + 1,
    };
    assert_eq!(
        hear(&mut two, 1, Message::Free { key: waits }),
        [Effect::Drop(waits)]
    );
    let Effect::Make { key, attempt, .. } = begun[0] else {
        panic!("{begun:?}")
    };
    // One that is under way and not wanted any more holds its place until the driver says that it ended.
    assert_eq!(
        hear(&mut two, 1, Message::Free { key }),
        [Effect::Drop(key)]
    );
    let out = did(&mut two, |r, out| r.made(key, attempt, out));
    assert!(
        matches!(&out[..], [Effect::Make { key, .. }] if *key == next),
        "{out:?}"
    );
    assert_eq!(two.has(key), None);
    // Asked for anew, the end of the earlier attempt is not its end.
    assert_eq!(hear(&mut two, 1, Message::Make { key, len: 10 }), []);
    assert_eq!(
        did(&mut two, |r, out| r.failed(key, attempt, Why::Failed, out)),
        []
    );
}

#[test]
fn who_is_not_connected_yet_is_asked_when_it_is() {
    let mut two = one_of(2, 3);
    let key = key(1);
    two.learn(key, false);
    let out = did(&mut two, |r, out| {
        r.peer_died(NOW, node(1), out);
        r.orphaned(NOW, key, [node(3), node(4)], out);
    });
    assert_eq!(
        out,
        [told(
            3,
            Message::Seek {
                key,
                durable: false
            }
        )]
    );
    let out = did(&mut two, |r, out| r.asks(key, 5, None, out));
    assert_eq!(out, [], "it may have one");
    assert_eq!(hear(&mut two, 3, Message::Found { key, len: None }), []);
    let out = did(&mut two, |r, out| r.peer_up(node(4), false, out));
    assert_eq!(
        out,
        [told(
            4,
            Message::Seek {
                key,
                durable: false
            }
        )]
    );
    let at = node(4);
    let out = hear(&mut two, 4, Message::Found { key, len: Some(10) });
    let readable = Effect::Readable { key, at, len: 10 };
    let source = |ask| Effect::Source {
        key,
        ask,
        from: Some(at),
    };
    assert_eq!(out, [readable.clone(), source(5)]);
    // The only one that has it is tried again; the pull knows when to stop.
    let out = did(&mut two, |r, out| r.asks(key, 6, Some(at), out));
    assert_eq!(out, [source(6)]);
    // Another record of it came to be.
    assert_eq!(
        did(&mut two, |r, out| r.orphaned(NOW, key, [], out)),
        [readable]
    );
    let out = did(&mut two, |r, out| r.dropped(NOW, key, out));
    assert_eq!(out, [told(4, Message::Quit { key })]);
    assert_eq!(two.size(), Size::default());
}

#[test]
fn who_cannot_be_reached_is_not_waited_for_without_end() {
    let mut two = one_of(2, 3);
    let key = key(1);
    two.learn(key, false);
    let out = did(&mut two, |r, out| {
        r.peer_died(NOW, node(1), out);
        r.peer_died(NOW, node(3), out);
        r.orphaned(NOW, key, [node(4), node(5)], out);
        r.asks(key, 5, None, out);
        r.peer_died(NOW, node(5), out);
        r.tick(NOW, out);
    });
    assert_eq!(out, []);
    let out = did(&mut two, |r, out| r.tick(NOW + GRACE, out));
    let (ask, from) = (5, None);
    assert_eq!(out, [Effect::Lost(key), Effect::Source { key, ask, from }]);
    did(&mut two, |r, out| r.dropped(NOW, key, out));
    assert_eq!(two.size(), Size::default());
}

#[test]
fn what_no_owner_says_changes_nothing() {
    let mut two = one_of(2, 3);
    let others = key(1);
    let mine = key(2);
    let lies = [
        Message::Make {
            key: others,
            len: 1,
        },
        Message::Free { key: others },
        Message::Made { key: others },
        Message::Declined {
            key: mine,
            why: Why::Failed,
        },
        Message::Quit { key: others },
        Message::Found {
            key: others,
            len: Some(1),
        },
    ];
    for lie in lies {
        assert_eq!(hear(&mut two, 3, lie), [], "{lie:?}");
    }
    let none = told(
        3,
        Message::Found {
            key: mine,
            len: None,
        },
    );
    assert_eq!(
        hear(
            &mut two,
            3,
            Message::Seek {
                key: mine,
                durable: false
            }
        ),
        [none]
    );
    assert_eq!(two.size(), Size::default());
}
