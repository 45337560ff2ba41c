//! More calls than a submitter may have.
//!
//! Invariant: a call beyond the bound is refused with the number, and is nowhere; those before it are as they were. Left out: where a
//! refused call goes, which its driver says.

use super::super::submitter::TooManyCalls;
use super::*;

const LIMIT: usize = 5;
static CPU: Demand = Demand::ONE_CPU;

fn call(id: u64) -> Call<'static> {
    Call {
        id,
        demand: &CPU,
        priority: 0,
        bound: false,
    }
}

/// Calls that are sent, in order.
fn run(out: &[Submitted]) -> Vec<u64> {
    let sent = |effect: &Submitted| match effect {
        Submitted::Run { call, .. } => Some(*call),
        _ => None,
    };
    out.iter().filter_map(sent).collect()
}

#[test]
fn beyond_the_bound_calls_are_refused_until_some_have_ended() {
    let (now, there) = (Duration::from_secs(1), node(2));
    let mut submitter = Submitter::with_limit(LIMIT);
    let mut out = Vec::new();
    for id in 0..LIMIT as u64 {
        assert_eq!(
            submitter.submit(now, &call(id), Some(there), &mut out),
            Ok(())
        );
    }
    let too_many = TooManyCalls { limit: LIMIT };
    let full = Err(too_many);
    assert_eq!(submitter.submit(now, &call(5), Some(there), &mut out), full);
    let why = too_many.to_string();
    assert!(
        why.starts_with("5 calls to other nodes have not ended"),
        "{why}"
    );
    // It is not there: nobody can cancel it, and it is never sent.
    assert_eq!(submitter.cancel(5), Cancelled::Unknown);
    assert_eq!(submitter.load(), (LIMIT, 0));
    let asked = out.iter().find_map(|effect| match effect {
        Submitted::Send {
            msg: LeaseMsg::Want { lease, .. },
            ..
        } => Some(*lease),
        _ => None,
    });
    let lease = asked.expect("slots are asked for");
    // All slots that there could be: all five go, and still there is no room for a sixth, by whichever way.
    out.clear();
    let slots = LeaseMsg::Slots {
        lease,
        slots: 8,
        blocked: 0,
    };
    submitter.handle(now, there, &slots, &mut out);
    assert_eq!(run(&out), [0, 1, 2, 3, 4]);
    assert_eq!(submitter.load(), (0, LIMIT));
    assert!(
        !submitter.reuse(now, &call(5), &mut out),
        "the lease has room, the bound has not"
    );
    assert_eq!(submitter.submit(now, &call(5), Some(there), &mut out), full);
    // As many as end may come.
    out.clear();
    submitter.ended(now, 1, Duration::from_micros(50), &mut out);
    assert!(submitter.reuse(now, &call(5), &mut out));
    assert_eq!(run(&out), [5]);
    assert_eq!(submitter.submit(now, &call(6), Some(there), &mut out), full);
    out.clear();
    submitter.ended(now, 0, Duration::from_micros(50), &mut out);
    submitter.ended(now, 2, Duration::from_micros(50), &mut out);
    for id in [6, 7] {
        assert_eq!(
            submitter.submit(now, &call(id), Some(there), &mut out),
            Ok(())
        );
    }
    assert_eq!(run(&out), [6, 7]);
    assert_eq!(submitter.submit(now, &call(8), None, &mut out), full);
    // A death gives back all.
    out.clear();
    submitter.died(there, &mut out);
    let lost: BTreeSet<u64> = (out.iter())
        .filter_map(|effect| match effect {
            Submitted::Lost { call, .. } => Some(*call),
            _ => None,
        })
        .collect();
    assert_eq!(lost, BTreeSet::from([3, 4, 5, 6, 7]));
    assert_eq!(submitter.load(), (0, 0));
    assert_eq!(
        submitter.submit(now, &call(9), Some(node(3)), &mut out),
        Ok(())
    );
}
