//! What leases are for: streams that ask nobody, fair shares, turns, and peers that stall or lie.

use super::*;
use crate::core::leases::grantor::QUANTUM;

fn slots(lease: u32, slots: u32) -> LeaseMsg {
    let blocked = 0;
    LeaseMsg::Slots {
        lease,
        slots,
        blocked,
    }
}

fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

impl World {
    /// Everything on the way arrives.
    fn settle(&mut self) {
        while self.deliver(0) {}
    }

    fn queue(&mut self, from: usize, to: usize, n: usize) {
        for _ in 0..n {
            // Kind 3: unbound, one CPU, priority 0; for the node of this index among all others.
            self.submit(from, to, 3);
        }
    }

    fn running_at(&self, n: u64) -> BTreeMap<NodeId, usize> {
        let mut by = BTreeMap::new();
        for (from, _) in self.nodes[&node(n)].running.keys() {
            *by.entry(*from).or_default() += 1;
        }
        by
    }
}

#[test]
fn a_steady_stream_asks_once() {
    let mut world = World::new(&[1, 2]);
    world.queue(0, 0, 10);
    world.settle();
    assert_eq!(world.running_at(2).values().sum::<usize>(), 2);
    let asked = world.messages;
    assert!(asked <= 20, "{asked} messages to begin with");
    for _ in 0..5_000 {
        world.now += us(20);
        world.finish(1, 0);
        world.queue(0, 0, 1);
        world.settle();
        assert_eq!(
            world.running_at(2).values().sum::<usize>(),
            2,
            "a slot idles"
        );
    }
    let steady = world.messages - asked;
    assert!(
        steady <= 4 && world.refused == 0,
        "{steady} messages in the steady state"
    );
    world.run_dry();
    let closing = world.messages - asked;
    assert!(closing <= 20, "{closing} messages to end with");
}

#[test]
fn a_call_with_room_needs_no_choice_and_others_wait_for_whoever_is_first() {
    let mut world = World::new(&[0, 1, 1]);
    world.queue(0, 0, 1);
    world.settle();
    // It ran for 50 us, and was on its way for as long.
    world.now += us(100);
    world.finish(1, 0);
    world.settle();
    let one = Demand::ONE_CPU;
    let (now, mut out) = (world.now, Vec::new());
    let own = &mut world.nodes.get_mut(&node(1)).unwrap().submitter;
    let call = |id, bound| Call {
        id,
        demand: &one,
        priority: 0,
        bound,
    };
    assert!(!own.reuse(
        now,
        &Call {
            priority: 1,
            ..call(50, false)
        },
        &mut out
    ));
    assert!(!own.reuse(now, &call(50, true), &mut out));
    assert!(out.is_empty());
    assert!(own.reuse(now, &call(50, false), &mut out));
    assert!(matches!(out[..], [Submitted::Run { call: 50, node: n, .. }] if n == node(2)));
    // The next three: one goes ahead of the slot, the others wait, whatever node was chosen for them.
    for id in 51..54 {
        own.submit(now, &call(id, false), Some(node(2)), &mut out)
            .unwrap();
    }
    assert_eq!(own.load(), (2, 2));
    // Another node has room: they go there.
    own.submit(now, &call(54, false), Some(node(3)), &mut out)
        .unwrap();
    out.clear();
    let lease = 2;
    own.handle(now, node(3), &slots(lease, 2), &mut out);
    let runs = out
        .iter()
        .filter(|e| matches!(e, Submitted::Run { node: n, .. } if *n == node(3)));
    assert_eq!(runs.count(), 3, "{out:?}");
}

#[test]
fn shares_are_even_and_follow_the_load() {
    let mut world = World::new(&[0, 0, 0, 6]);
    world.queue(0, 2, 40);
    world.settle();
    assert_eq!(world.running_at(4)[&node(1)], 6);
    for from in 1..3 {
        world.queue(from, 2, 40);
    }
    world.settle();
    for _ in 0..4 {
        world.finish(3, 0);
        world.settle();
    }
    // Those that have less are first: two each.
    assert_eq!(
        world.running_at(4).values().copied().collect::<Vec<_>>(),
        [2, 2, 2]
    );
    // The node's own calls are one more submitter.
    let mut out = Vec::new();
    let own = world.nodes.get_mut(&node(4)).unwrap();
    own.grantor.local(9, &Demand::NONE, &mut out);
    world.granted(node(4), out);
    world.settle();
    let slots =
        |world: &World| -> u32 { world.nodes[&node(4)].grantor.leases().map(|l| l.2).sum() };
    for n in 0..40 {
        world.finish(3, n);
        world.settle();
    }
    let left = slots(&world);
    assert!((4..=5).contains(&left), "{left} of 6 are left to others");
    world.run_dry();
}

#[test]
fn priority_comes_first_and_takes_slots_as_they_fall_idle() {
    let mut world = World::new(&[0, 0, 2]);
    world.queue(0, 1, 20);
    world.settle();
    for _ in 0..4 {
        world.submit(1, 1, 2);
    }
    world.settle();
    for _ in 0..2 {
        assert!(!world.running_at(3).contains_key(&node(2)) || world.running_at(3)[&node(2)] == 1);
        world.finish(2, 0);
        world.settle();
    }
    assert_eq!(world.running_at(3), [(node(2), 2)].into());
    world.run_dry();
}

#[test]
fn more_submitters_than_slots_take_turns() {
    let mut world = World::new(&[0, 0, 0, 0, 1]);
    for from in 0..4 {
        world.queue(from, 3, 400);
    }
    world.settle();
    let mut ran: BTreeMap<NodeId, usize> = BTreeMap::new();
    let rounds = 4 * 10;
    for _ in 0..rounds {
        for _ in 0..4 {
            world.tick(QUANTUM.as_millis() as u64 / 4);
            for (from, n) in world.running_at(5) {
                *ran.entry(from).or_default() += n;
            }
            world.finish(4, 0);
            world.settle();
        }
    }
    let least = ran.values().min().unwrap();
    assert!(ran.len() == 4 && *least >= rounds / 2, "{ran:?}");
    world.run_dry();
}

#[test]
fn a_call_that_waits_for_one_behind_it_does_not_wait_for_ever() {
    let mut world = World::new(&[0, 1]);
    world.queue(0, 0, 2);
    world.settle();
    assert_eq!(world.running_at(2).values().sum::<usize>(), 1);
    world.block(1, 0, true);
    world.settle();
    let running = &world.nodes[&node(2)].running;
    assert_eq!(
        running
            .values()
            .map(|(_, blocked)| *blocked)
            .collect::<Vec<_>>(),
        [true, false]
    );
    world.run_dry();
}

#[test]
fn any_number_of_calls_may_be_blocked_on_one_slot() {
    let mut world = World::new(&[0, 1]);
    for n in 0..40 {
        world.queue(0, 0, 1);
        world.settle();
        let running = &world.nodes[&node(2)].running;
        assert_eq!(running.len(), n + 1, "the call that the others wait for");
        let last = running.values().position(|(_, blocked)| !blocked);
        world.block(1, last.expect("it runs"), true);
        world.settle();
        // It is free, or held by a slot in which nothing runs, for the next call.
        let lends = &world.nodes[&node(2)];
        let idle = u64::from(lends.grantor.idle() != Demand::NONE) * 10_000;
        assert_eq!(lends.ledger.free_cpu_steps() as u64 + idle, 10_000);
    }
    world.run_dry();
}

#[test]
fn a_lease_whose_calls_were_all_blocked_when_slots_were_divided_has_one_again_when_they_go_on() {
    for goes_on in [false, true] {
        let mut world = World::new(&[0, 1]);
        world.queue(0, 0, 1);
        world.settle();
        world.block(1, 0, true);
        // Divided anew while the lease could use nothing.
        for cpus in [1, 0] {
            let (own, mut out) = (world.nodes.get_mut(&node(2)).unwrap(), Vec::new());
            own.grantor.local(cpus, &Demand::NONE, &mut out);
            world.granted(node(2), out);
        }
        world.settle();
        if goes_on {
            world.block(1, 0, false);
        }
        world.finish(1, 0);
        world.settle();
        // As many as before: there is nothing new to ask for.
        world.queue(0, 0, 1);
        world.settle();
        let running = world.running_at(2).values().sum::<usize>();
        assert_eq!(running, 1, "goes_on {goes_on}");
        world.run_dry();
    }
}

#[test]
fn a_dead_node_loses_what_it_had_and_the_rest_is_placed_anew() {
    let mut world = World::new(&[0, 1, 1]);
    world.queue(0, 0, 5);
    world.settle();
    let (_, sent) = world.nodes[&node(1)].submitter.load();
    world.kill(1);
    assert_eq!(world.lost.len(), sent);
    assert_eq!(world.open.len(), 5 - sent);
    world.run_dry();
    assert_eq!(world.lost.len(), sent);
    // What is still submitted for it comes straight back.
    let (one, mut out) = (Demand::ONE_CPU, Vec::new());
    let call = Call {
        id: 99,
        demand: &one,
        priority: 0,
        bound: true,
    };
    let own = &mut world.nodes.get_mut(&node(1)).unwrap().submitter;
    own.submit(world.now, &call, Some(node(2)), &mut out)
        .unwrap();
    assert_eq!(out, [Submitted::Place { call: 99 }]);
}

#[test]
fn a_silent_lease_lapses_and_is_asked_for_again() {
    let mut world = World::new(&[0, 1]);
    world.queue(0, 0, 3);
    world.settle();
    // The submitter stalls; its calls end meanwhile.
    world.finish(1, 0);
    world.finish(1, 0);
    let own = world.nodes.get_mut(&node(2)).unwrap();
    let mut out = Vec::new();
    own.grantor.tick(world.now + TERM + us(1), &mut out);
    assert!(out.iter().any(|e| matches!(
        e,
        Granted::Send {
            msg: LeaseMsg::Ended {
                why: Ending::Lapsed,
                ..
            },
            ..
        }
    )));
    assert_eq!(own.grantor.leases().count(), 0);
    world.granted(node(2), out);
    world.settle();
    assert_eq!(world.running_at(2).values().sum::<usize>(), 1);
    world.run_dry();
}

#[test]
fn a_submitter_that_lies_gains_nothing() {
    let mut world = World::new(&[0, 2]);
    let mut out = Vec::new();
    let now = world.now;
    let grantor = &mut world.nodes.get_mut(&node(2)).unwrap().grantor;
    grantor.arrived(now, node(1), 7, 1, &mut out);
    assert!(
        matches!(&out[..], [Granted::Send { msg: LeaseMsg::Refused { calls, .. }, .. }] if calls[..] == [1])
    );
    out.clear();
    let want = |lease, slots| LeaseMsg::Want {
        lease,
        demand: Demand::ONE_CPU,
        priority: i32::MAX,
        slots,
    };
    for lease in 0..1_000 {
        grantor.handle(now, node(1), &want(lease, u32::MAX), &mut out);
    }
    let reserved = out
        .iter()
        .filter(|e| matches!(e, Granted::Reserve { .. }))
        .count();
    let full = out.iter().filter(|e| {
        matches!(
            e,
            Granted::Send {
                msg: LeaseMsg::Ended {
                    why: Ending::Full,
                    ..
                },
                ..
            }
        )
    });
    assert_eq!(full.count(), 1_000 - MAX_LEASES);
    assert!(
        grantor.tickets() <= 2 && reserved < 10,
        "{} {reserved}",
        grantor.tickets()
    );
    // Far more calls than slots, each of them twice.
    world.granted(node(2), out);
    let mut out = Vec::new();
    let grantor = &mut world.nodes.get_mut(&node(2)).unwrap().grantor;
    for call in 100..2_000 {
        grantor.arrived(now, node(1), 0, call, &mut out);
        grantor.arrived(now, node(1), 0, call, &mut out);
    }
    let started = out
        .iter()
        .filter(|e| matches!(e, Granted::Start { .. }))
        .count();
    assert!(
        started <= 2 && grantor.calls() <= 2 * MAX_DEPTH as usize + 2,
        "{started} {}",
        grantor.calls()
    );
}

#[test]
fn a_grantor_that_lies_is_left_alone_for_a_while() {
    let mut own = Submitter::new();
    let one = Demand::ONE_CPU;
    let mut out = Vec::new();
    for id in 0..10 {
        let call = Call {
            id,
            demand: &one,
            priority: 0,
            bound: true,
        };
        own.submit(us(0), &call, Some(node(2)), &mut out).unwrap();
    }
    let (mut ran, mut asked) = (0, 0);
    for step in 0..1_000 {
        let now = us(step * 1_000);
        let mut next = Vec::new();
        for effect in out.drain(..) {
            match effect {
                Submitted::Run { call, lease, .. } => {
                    ran += 1;
                    let calls = vec![call];
                    own.handle(
                        now,
                        node(2),
                        &LeaseMsg::Refused {
                            lease,
                            slots: u32::MAX,
                            calls,
                        },
                        &mut next,
                    );
                }
                Submitted::Send {
                    msg: LeaseMsg::Want { lease, .. },
                    ..
                } => {
                    asked += 1;
                    own.handle(now, node(2), &slots(lease, u32::MAX), &mut next);
                }
                other => panic!("{other:?}"),
            }
        }
        own.tick(now, &mut next);
        out = next;
    }
    // In a second, about ten tries of a few calls each.
    assert!(
        (8..=25).contains(&asked) && ran <= 600,
        "asked {asked} times, sent {ran}"
    );
    assert_eq!(own.load().0 + own.load().1, 10);
}

#[test]
fn the_stream_to_measure_runs_to_its_end() {
    assert_eq!(crate::core::leases::rate::stream(2_000), (2_000, 0));
}
