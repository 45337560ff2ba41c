//! Examples and laws of placement, and its speed.

use super::*;
use crate::base::{Capacity, GroupId};
use crate::core::view::NodeView;
use proptest::collection::vec;
use proptest::prelude::{Just, any, prop_assert, prop_oneof, proptest};
use proptest::strategy::Strategy as Gen;

const ME: u64 = 1;

fn node(n: u64) -> NodeId {
    NodeId::new(n).unwrap()
}

fn cpus(n: u64) -> NodeView {
    NodeView::idle(Capacity::new(Units::whole(n), 0))
}

/// Nodes 1.. with so many CPUs each; 1 is me.
fn view(all: &[NodeView]) -> View {
    let mut view = View::new();
    for (n, told) in (ME..).zip(all) {
        view.merge(node(n), told.clone());
    }
    view
}

fn busy(n: u64, queued: u32) -> NodeView {
    NodeView {
        free: Demand::NONE,
        queued,
        ..cpus(n)
    }
}

fn labelled(name: &str, value: &str) -> NodeView {
    let labels = [(name.to_owned(), value.to_owned())].into();
    NodeView { labels, ..cpus(1) }
}

fn request(strategy: &Strategy) -> Request<'_> {
    static ONE: Demand = Demand::ONE_CPU;
    Request::new(&ONE, strategy)
}

fn at(view: &View, request: &Request<'_>) -> Choice {
    choose(view, node(ME), request)
}

fn says(choice: Choice, expect: &str) {
    let Choice::Nowhere(why) = choice else {
        panic!("{choice:?}")
    };
    assert!(why.to_string().contains(expect), "{why}");
}

const DEFAULT: Strategy = Strategy::Default;
const SPREAD: Strategy = Strategy::Spread;

#[test]
fn local_first_then_who_has_room_then_the_own_line() {
    let one = request(&DEFAULT);
    assert_eq!(at(&view(&[cpus(1), cpus(64)]), &one), Choice::Here);
    assert_eq!(
        at(&view(&[busy(1, 0), cpus(2), busy(9, 0)]), &one),
        Choice::At(node(2))
    );
    assert_eq!(at(&view(&[busy(1, 50), busy(2, 0)]), &one), Choice::Here);
    // Who comes first in line is not sent away from it.
    let first = Request { priority: 1, ..one };
    let queued = NodeView {
        queued: 9,
        ..cpus(1)
    };
    assert_eq!(at(&view(&[queued.clone(), cpus(1)]), &first), Choice::Here);
    assert_eq!(at(&view(&[queued, cpus(1)]), &one), Choice::At(node(2)));
}

#[test]
fn a_call_goes_to_its_bytes_if_they_are_heavy() {
    let bytes = [(node(2), LIGHT / 2), (node(3), LIGHT * 3), (node(1), LIGHT)];
    let heavy = Request {
        bytes: &bytes,
        ..request(&DEFAULT)
    };
    let light = Request {
        bytes: &bytes[..1],
        ..heavy
    };
    let idle = view(&[cpus(1), cpus(1), cpus(1)]);
    assert_eq!(at(&idle, &heavy), Choice::At(node(3)));
    assert_eq!(at(&idle, &light), Choice::Here);
    // If they are where nobody has room, room counts; if nobody has any, it waits at its bytes.
    assert_eq!(
        at(&view(&[cpus(1), cpus(1), busy(1, 1)]), &heavy),
        Choice::Here
    );
    assert_eq!(
        at(&view(&[busy(1, 1), busy(1, 1), busy(1, 1)]), &heavy),
        Choice::At(node(3))
    );
    assert_eq!(
        at(&view(&[busy(1, 1), busy(1, 1), busy(1, 4)]), &heavy),
        Choice::Here
    );
}

#[test]
fn load_decides_between_others_and_their_long_lines_get_no_longer() {
    let one = request(&DEFAULT);
    let half = NodeView {
        free: Demand::cpu_only(Units::whole(2)),
        ..cpus(4)
    };
    assert_eq!(
        at(&view(&[busy(1, 0), half, cpus(4)]), &one),
        Choice::At(node(3))
    );
    // I have no CPU at all: the call waits with whoever has the shortest line, or with me if all are long.
    assert_eq!(
        at(&view(&[cpus(0), busy(2, 3), busy(2, 2)]), &one),
        Choice::At(node(3))
    );
    assert_eq!(
        at(&view(&[cpus(0), busy(2, 8), busy(2, 9)]), &one),
        Choice::Wait
    );
    let background = Request {
        priority: -1,
        ..one
    };
    assert_eq!(at(&view(&[cpus(0), busy(2, 1)]), &background), Choice::Wait);
}

#[test]
fn what_is_on_its_way_counts_as_load() {
    let mut view = view(&[cpus(0), cpus(2), cpus(2)]);
    let mut sent = [0; 2];
    for seed in 0.. {
        match at(
            &view,
            &Request {
                seed,
                ..request(&DEFAULT)
            },
        ) {
            Choice::At(n) => {
                view.sent(n, &Demand::ONE_CPU);
                sent[n.get() as usize - 2] += 1;
            }
            other => {
                assert_eq!(other, Choice::Wait);
                break;
            }
        }
        assert!(seed < 100, "sends without end");
    }
    assert_eq!(sent, [8, 8]);
}

#[test]
fn spread_goes_round() {
    let mut view = view(&[cpus(4), cpus(1), cpus(8)]);
    let spread = request(&SPREAD);
    let mut round = || {
        let n = match at(&view, &spread) {
            Choice::Here => node(ME),
            Choice::At(n) => n,
            other => panic!("{other:?}"),
        };
        view.sent(n, &Demand::ONE_CPU);
        n.get()
    };
    let mut turns = [0; 3];
    for _ in 0..9 {
        turns[round() as usize - 1] += 1;
    }
    assert_eq!(turns, [3, 3, 3]);
    // Also when each call ends before the next.
    for n in 1..=3 {
        for _ in 0..3 {
            view.ended(node(n));
        }
    }
    let mut order = Vec::new();
    for _ in 0..6 {
        let Choice::At(n) = (match at(&view, &spread) {
            Choice::Here => Choice::At(node(ME)),
            other => other,
        }) else {
            panic!()
        };
        view.sent(n, &Demand::ONE_CPU);
        view.ended(n);
        order.push(n);
    }
    assert_eq!(order[..3], order[3..]);
}

#[test]
fn affinity_fails_by_name_unless_it_is_soft() {
    let mut view = view(&[cpus(1), cpus(2), busy(1, 99)]);
    let leaving = NodeView {
        draining: true,
        ..cpus(1)
    };
    view.merge(node(4), leaving);
    view.merge(node(5), cpus(1));
    view.remove(node(5));
    let to = |n: u64, soft| Strategy::Node {
        node: node(n),
        soft,
    };
    assert_eq!(at(&view, &request(&to(2, false))), Choice::At(node(2)));
    assert_eq!(at(&view, &request(&to(3, false))), Choice::At(node(3)));
    assert_eq!(at(&view, &request(&to(1, false))), Choice::Here);
    for (n, expect) in [
        (4, "which is leaving"),
        (5, "which is gone"),
        (6, "not in this cluster"),
    ] {
        says(at(&view, &request(&to(n, false))), expect);
        says(at(&view, &request(&to(n, false))), &node(n).to_string());
        assert_eq!(at(&view, &request(&to(n, true))), Choice::Here);
    }
    let two = Demand::cpu_only(Units::whole(2));
    let strict = to(3, false);
    says(at(&view, &Request::new(&two, &strict)), "needs 2 of `cpu`");
    assert_eq!(
        at(&view, &Request::new(&two, &to(3, true))),
        Choice::At(node(2))
    );
}

#[test]
fn labels_choose_nodes() {
    let view = view(&[cpus(1), labelled("zone", "a"), labelled("zone", "b")]);
    let with = |m: LabelMatch| Strategy::Labels(vec![("zone".to_owned(), m)]);
    let equals = |v: &str| with(LabelMatch::Equals(v.to_owned()));
    assert_eq!(at(&view, &request(&equals("b"))), Choice::At(node(3)));
    assert_eq!(at(&view, &request(&with(LabelMatch::Absent))), Choice::Here);
    says(
        at(&view, &request(&equals("c"))),
        "label `zone` is = c, which none of 3 nodes has",
    );
    let patient = equals("c");
    let patient = Request {
        patient: true,
        ..request(&patient)
    };
    assert_eq!(at(&view, &patient), Choice::Wait);
}

#[test]
fn what_no_node_can_run_names_the_nearest() {
    let tpu = NodeView::idle(Capacity::new(Units::whole(2), 0).with_custom("tpu", Units::ONE));
    let view = view(&[cpus(1), tpu, cpus(3)]);
    let demand = Demand::cpu_only(Units::whole(4));
    says(
        at(&view, &Request::new(&demand, &DEFAULT)),
        "needs 4 of `cpu` but none of 3 nodes can give it; nearest is node 0000000000000003 with 3",
    );
    let demand = Demand::ONE_CPU.with_custom("tpu", Units::whole(2));
    says(
        at(&view, &Request::new(&demand, &DEFAULT)),
        "needs 2 of `tpu` but none of 3 nodes",
    );
    says(at(&View::new(), &request(&DEFAULT)), "no node is known");
    says(
        at(&View::new(), &Request::new(&Demand::NONE, &DEFAULT)),
        "no node is known",
    );
}

#[test]
fn a_draining_node_takes_nothing_but_what_only_it_can_finish() {
    let leaving = |n| NodeView {
        draining: true,
        ..cpus(n)
    };
    let one = request(&DEFAULT);
    assert_eq!(at(&view(&[leaving(4), cpus(1)]), &one), Choice::At(node(2)));
    assert_eq!(
        at(&view(&[cpus(1), leaving(4)]), &request(&SPREAD)),
        Choice::Here
    );
    assert_eq!(at(&view(&[leaving(1), leaving(4)]), &one), Choice::Here);
    says(
        at(&view(&[cpus(0), leaving(4)]), &one),
        "node 0000000000000002 only, which is leaving",
    );
}

#[test]
fn a_group_chooses_among_its_bundles() {
    let group = GroupId {
        node: node(ME),
        number: 1,
    };
    let strategy = Strategy::Group {
        group,
        bundle: None,
    };
    let mut view = view(&[cpus(1), busy(1, 99), busy(1, 99)]);
    let bundles = [node(2), node(3), node(9)];
    let inside = Request {
        bundles: Some(&bundles),
        ..request(&strategy)
    };
    for _ in 0..4 {
        let Choice::At(n) = at(&view, &inside) else {
            panic!()
        };
        view.sent(n, &Demand::NONE);
    }
    assert_eq!(
        [2, 3].map(|n| view.get(node(n)).unwrap().outstanding),
        [2, 2]
    );
    let degraded = Request {
        bundles: Some(&[]),
        ..inside
    };
    assert_eq!(at(&view, &degraded), Choice::Wait);
    says(
        at(&view, &request(&strategy)),
        "placement group 0000000000000001/1",
    );
}

#[test]
fn equals_are_told_apart_by_the_seed() {
    let all: Vec<_> = [busy(1, 0)]
        .into_iter()
        .chain((0..10).map(|_| cpus(2)))
        .collect();
    let view = view(&all);
    let mut chosen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let with = Request {
            seed,
            ..request(&DEFAULT)
        };
        let Choice::At(n) = at(&view, &with) else {
            panic!()
        };
        assert_eq!(at(&view, &with), Choice::At(n));
        chosen.insert(n);
    }
    assert_eq!(chosen.len(), 10);
}

#[test]
fn the_cluster_to_measure_in_sends_calls_away() {
    let made = rate::cluster(1_000);
    assert_eq!(made.len(), 1_000);
    assert_eq!(rate::decide(&made, 200, 7), 200);
    assert_eq!(rate::decide(&made, 200, 8), 200);
}

fn told() -> impl Gen<Value = NodeView> {
    (0..4u64, 0..5u64, 0..20u32, any::<bool>(), 0..3u8).prop_map(
        |(cpu, free, queued, draining, zone)| {
            let mut told = cpus(cpu);
            told.free = Demand::cpu_only(Units::whole(free.min(cpu)));
            told.queued = queued;
            told.draining = draining;
            if zone > 0 {
                told.labels.insert("zone".to_owned(), zone.to_string());
            }
            told
        },
    )
}

fn strategies() -> impl Gen<Value = Strategy> {
    prop_oneof![
        Just(Strategy::Default),
        Just(Strategy::Spread),
        (1..8u64, any::<bool>()).prop_map(|(n, soft)| Strategy::Node {
            node: node(n),
            soft
        }),
        (0..4u8).prop_map(|z| Strategy::Labels(vec![(
            "zone".into(),
            LabelMatch::Equals(z.to_string())
        )])),
    ]
}

proptest! {
    #[test]
    fn whoever_is_chosen_may_get_it(
        all in vec(told(), 0..6),
        strategy in strategies(),
        cpu in 0..4u64,
        priority in -1..2i32,
        bytes in vec((1..7u64, 0..LIGHT * 4), 0..3),
        seed in any::<u64>(),
    ) {
        let view = view(&all);
        let demand = Demand::cpu_only(Units::whole(cpu));
        let bytes: Vec<_> = bytes.into_iter().map(|(n, b)| (node(n), b)).collect();
        let request = Request { priority, bytes: &bytes, seed, ..Request::new(&demand, &strategy) };
        let may = |k: &Known| suits(k, &request);
        let choice = at(&view, &request);
        match &choice {
            Choice::Here => {
                let me = view.get(node(ME));
                let alone = view.iter().all(|(n, k)| n == node(ME) || !may(k));
                let asked = matches!(strategy, Strategy::Node { .. });
                prop_assert!(me.is_some_and(|k| able(k, &request) && (!k.view.draining || alone || asked)));
            }
            Choice::At(n) => prop_assert!(view.get(*n).is_some_and(may) && *n != node(ME)),
            Choice::Wait => {
                prop_assert!(view.iter().any(|(_, k)| may(k)) && !view.get(node(ME)).is_some_and(may));
                prop_assert!(view.iter().all(|(_, k)| !may(k) || !ready(k, &request)));
            }
            Choice::Nowhere(why) => {
                let strict = matches!(strategy, Strategy::Node { soft: false, .. });
                prop_assert!(strict || !view.iter().any(|(_, k)| may(k)));
                prop_assert!(!why.to_string().is_empty());
            }
        }
        // Nobody with room is passed over for a line elsewhere.
        if matches!(strategy, Strategy::Default | Strategy::Labels(_)) {
            let room = |n: NodeId| view.get(n).is_some_and(|k| ready(k, &request));
            let chosen = match choice {
                Choice::Here => Some(node(ME)),
                Choice::At(n) => Some(n),
                _ => None,
            };
            let any = view.iter().any(|(n, k)| may(k) && room(n));
            prop_assert!(!any || chosen.is_some_and(room));
        }
    }
}
