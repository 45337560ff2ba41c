//! Laws of the view and of its bytes.

use super::*;
use crate::base::Units;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn node(n: u64) -> NodeId {
    NodeId::new(n).unwrap()
}

fn told(version: u64) -> NodeView {
    let capacity = Capacity::new(Units::whole(4), 1).with_custom("tpu", Units::ONE);
    NodeView {
        version,
        ..NodeView::idle(capacity)
    }
}

#[test]
fn newer_news_win_and_the_removed_stay_out() {
    let mut view = View::new();
    assert_eq!(view.merge(node(1), told(2)), Merged::New);
    assert_eq!(view.merge(node(1), told(1)), Merged::Old);
    assert_eq!(view.merge(node(1), told(2)), Merged::Old);
    assert_eq!(view.merge(node(1), told(3)), Merged::Newer);
    assert!(view.remove(node(1)) && !view.remove(node(1)) && !view.remove(node(2)));
    assert_eq!(view.merge(node(1), told(9)), Merged::Gone);
    assert_eq!(view.merge(node(2), told(1)), Merged::Gone);
    assert!(view.is_empty() && view.is_gone(node(1)));
}

#[test]
fn a_view_is_bounded() {
    let mut view = View::new();
    for n in 1..=MAX_NODES as u64 {
        assert_eq!(view.merge(node(n), NodeView::default()), Merged::New);
    }
    assert_eq!(view.merge(node(u64::MAX), told(1)), Merged::Full);
    assert_eq!(view.merge(node(7), told(1)), Merged::Newer);
    for n in 1..=MAX_GONE as u64 + 5 {
        view.remove(node(n));
    }
    assert_eq!(view.gone.len(), MAX_GONE);
    assert!(!view.is_gone(node(5)) && view.is_gone(node(6)));
}

#[test]
fn what_is_sent_is_free_no_more_until_news_come() {
    let mut view = View::new();
    view.merge(node(1), told(1));
    for _ in 0..6 {
        view.sent(node(1), &Demand::ONE_CPU.with_custom("tpu", Units::ONE));
    }
    let known = view.get(node(1)).unwrap();
    assert_eq!(
        (known.view.free.cpu, known.outstanding, known.unseen),
        (Units::ZERO, 6, 6)
    );
    assert!(known.view.free.custom().is_empty());
    view.ended(node(1));
    view.merge(node(1), told(2));
    let known = view.get(node(1)).unwrap();
    assert_eq!(
        (known.view.free.cpu, known.outstanding, known.unseen),
        (Units::whole(4), 5, 0)
    );
}

#[test]
fn an_actor_is_no_call_that_ends() {
    let mut view = View::new();
    view.merge(node(1), told(1));
    view.took(node(1), &Demand::ONE_CPU);
    let known = view.get(node(1)).unwrap();
    assert_eq!((known.turn, known.outstanding, known.unseen), (1, 0, 1));
}

#[test]
fn a_view_goes_stale() {
    let mut view = View::new();
    let at = |s| Duration::from_secs(s);
    for n in 1..=3 {
        view.merge(
            node(n),
            NodeView {
                seen: at(n),
                ..told(1)
            },
        );
    }
    assert_eq!(view.stale(at(12), at(10)).collect::<Vec<_>>(), [node(1)]);
    assert_eq!(view.stale(at(0), at(10)).count(), 0);
}

#[test]
fn what_is_too_large_to_tell_is_refused_with_the_remedy() {
    let mut out = vec![7];
    let many = |n: usize, len: usize| NodeView {
        labels: (0..n)
            .map(|i| (format!("l{i:02}"), "x".repeat(len)))
            .collect(),
        ..told(1)
    };
    for (view, says) in [
        (many(33, 1), "33 labels, at most 32"),
        (many(1, 129), "129 bytes, at most 128"),
        (many(32, 40), "at most 1024 travel"),
    ] {
        let e = encode(node(1), &view, &mut out).unwrap_err().to_string();
        assert!(e.contains(says), "{e}");
        assert_eq!(out, [7]);
    }
}

#[test]
fn the_common_view_is_small() {
    let mut out = Vec::new();
    let view = NodeView {
        queued: 100,
        version: 1_000_000,
        ..NodeView::idle(Capacity::new(Units::whole(64), 8))
    };
    encode(node(u64::MAX), &view, &mut out).unwrap();
    assert!(out.len() <= 32, "{}", out.len());
}

fn views() -> impl Strategy<Value = NodeView> {
    let amounts = || btree_map("[a-z]{1,6}", 1..u64::MAX, 0..4);
    let labels = btree_map("[a-zµ.]{0,6}", ".{0,8}", 0..4);
    (
        any::<(u64, u64, u32, u64, u32, bool)>(),
        amounts(),
        amounts(),
        labels,
    )
        .prop_map(
            |((cpu, gpu, gpus, version, queued, draining), have, free, labels)| {
                let units = Units::from_steps;
                let start = Capacity::new(units(cpu), gpus);
                let add = |c: Capacity, (name, x): (&String, &u64)| c.with_custom(name, units(*x));
                let capacity = have.iter().fold(start, add);
                let start = Demand::cpu_only(units(cpu / 2)).with_gpu(units(gpu));
                let add = |d: Demand, (name, x): (&String, &u64)| d.with_custom(name, units(*x));
                NodeView {
                    capacity,
                    free: free.iter().fold(start, add),
                    labels,
                    queued,
                    version,
                    seen: Duration::from_secs(5),
                    draining,
                }
            },
        )
}

/// The same bytes with some changed, cut or added.
fn damage(bytes: &[u8], changes: &[(usize, u8)], len: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(len % (bytes.len() + 4), 1);
    for (at, to) in changes {
        if let Some(byte) = bytes.get_mut(*at % 64) {
            *byte = *to;
        }
    }
    bytes
}

proptest! {
    #[test]
    fn a_view_comes_back_as_it_was(view in views(), id in 1..u64::MAX) {
        let mut bytes = Vec::new();
        encode(node(id), &view, &mut bytes).unwrap();
        prop_assert_eq!(decode(&bytes, Duration::from_secs(5)), Ok((node(id), view)));
    }

    /// Whatever is accepted is the one encoding of what it says.
    #[test]
    fn hostile_bytes_are_refused_or_mean_one_thing(
        view in views(),
        changes in vec(any::<(usize, u8)>(), 0..4),
        len in any::<usize>(),
        noise in vec(any::<u8>(), 0..80),
    ) {
        let mut bytes = Vec::new();
        encode(node(3), &view, &mut bytes).unwrap();
        for bytes in [damage(&bytes, &changes, len), damage(&bytes, &changes, bytes.len()), noise] {
            if let Ok((id, view)) = decode(&bytes, Duration::ZERO) {
                let mut again = Vec::new();
                encode(id, &view, &mut again).unwrap();
                prop_assert_eq!(again, bytes);
            }
        }
    }

    /// The order in which news come does not matter.
    #[test]
    fn news_in_any_order_give_one_view(versions in vec(0..9u64, 1..9)) {
        let mut view = View::new();
        for v in &versions {
            view.merge(node(1), told(*v));
        }
        let newest = versions.iter().max();
        prop_assert_eq!(view.get(node(1)).map(|k| &k.view.version), newest);
    }
}
