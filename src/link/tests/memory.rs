//! The contract of a link, held by the one in memory too.
//!
//! Invariant: what a driver may rely on, it may rely on here. Left out: what only a network does.

use super::*;
use crate::link::ca::ClusterId;
use crate::link::memory::{Hub, MemoryLink};

fn member(hub: &Hub, number: u64) -> (MemoryLink, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let hello = Hello::new(ClusterId([1; 16]), node(number), &Registry::default());
    (hub.start(hello, Registry::default(), heard.clone()), heard)
}

fn memory_pair() -> (Hub, MemoryLink, Arc<Heard>, MemoryLink, Arc<Heard>) {
    let hub = Hub::new();
    let (one, heard_one) = member(&hub, 1);
    let (two, heard_two) = member(&hub, 2);
    one.connect(two.local_addr(), Some(node(2)));
    heard_one.connected(node(2));
    heard_two.connected(node(1));
    (hub, one, heard_one, two, heard_two)
}

/// What any link does, whatever carries it.
fn contract(one: &dyn Link, heard_one: &Heard, two: &dyn Link, heard_two: &Heard) {
    for i in 0..100u8 {
        one.send(node(2), vec![i].into()).unwrap();
        two.send(node(1), vec![i].into()).unwrap();
    }
    let expected: Vec<Vec<u8>> = (0..100u8).map(|i| vec![i]).collect();
    assert_eq!(heard_one.frames(100), expected);
    assert_eq!(heard_two.frames(100), expected);
    assert!(one.is_connected(node(2)) && !one.is_connected(node(9)));
    assert_eq!(
        one.send(node(9), Bytes::new()),
        Err(SendError::Gone(node(9)))
    );
    let limit = MAX_DATAGRAM;
    let large = Err(SendError::TooLarge {
        len: limit + 1,
        limit,
    });
    assert_eq!(one.datagram(node(2), &[0; MAX_DATAGRAM + 1]), large);
    one.datagram(node(2), b"x").unwrap();
    // Either may be first: the body, or whoever expects it.
    for (transfer, len) in [(1, 0), (2, 1), (3, 3_000_000)] {
        let body: Bytes = vec![7; len].into();
        let (landed, sent) = (Landed::of(len), Landed::default());
        if transfer % 2 == 0 {
            one.send_bulk(node(2), transfer, body.clone(), sent.done());
        }
        two.expect_bulk(node(1), transfer, len as u64, Box::new(landed.clone()));
        if transfer % 2 == 1 {
            one.send_bulk(node(2), transfer, body.clone(), sent.done());
        }
        assert_eq!((landed.outcome(), sent.outcome()), (Ok(()), Ok(())));
        assert!(landed.body() == body);
    }
    let cancelled = Landed::of(5);
    two.expect_bulk(node(1), 9, 5, Box::new(cancelled.clone()));
    two.cancel_bulk(node(1), 9);
    assert!(cancelled.outcome().is_err());
    let lost = Landed::of(5);
    two.expect_bulk(node(1), 10, 5, Box::new(lost.clone()));
    two.forget(node(1));
    assert!(lost.outcome().is_err());
    assert_eq!(
        heard_one.disconnected(node(2)),
        LinkError::Forgotten(node(1))
    );
    heard_two.disconnected(node(1));
    assert_eq!(
        two.send(node(1), Bytes::new()),
        Err(SendError::Gone(node(1)))
    );
    let sent = Landed::default();
    one.send_bulk(node(2), 11, Bytes::new(), sent.done());
    assert!(sent.outcome().is_err());
    one.connect(two.local_addr(), Some(node(2)));
    heard_one.refused();
    one.stop(Duration::ZERO);
    two.stop(Duration::ZERO);
    one.stop(Duration::ZERO);
}

#[test]
fn a_link_in_memory_tells_who_was_declared_dead_from_who_leaves() {
    let (_hub, one, _, _two, heard_two) = memory_pair();
    one.retire();
    assert_eq!(heard_two.disconnected(node(1)), LinkError::Fenced(node(1)));
}

#[test]
fn a_link_in_memory_holds_the_contract() {
    let (_hub, one, heard_one, two, heard_two) = memory_pair();
    contract(&one, &heard_one, &two, &heard_two);
}

#[test]
fn a_link_over_quic_holds_the_contract() {
    let (one, heard_one, two, heard_two) = pair();
    contract(&one, &heard_one, &two, &heard_two);
}

#[test]
fn a_cut_in_memory_loses_no_frame() {
    let (hub, one, _one, two, heard_two) = memory_pair();
    for i in 0..10u8 {
        one.send(node(2), vec![i].into()).unwrap();
        hub.cut(node(1), node(2));
    }
    let expected: Vec<Vec<u8>> = (0..10u8).map(|i| vec![i]).collect();
    assert_eq!(heard_two.frames(10), expected);
    assert!(two.is_connected(node(1)));
}
