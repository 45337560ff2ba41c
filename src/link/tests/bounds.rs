//! What happens at each bound of a link, and after it.
//!
//! Invariant: what is beyond a bound is refused with its number, nothing that was taken before is lost, and there is room again
//! when some of it is over. Left out: bounds in bytes, see `hostile`, and those that only malice reaches, see `floods`.

use std::net::UdpSocket;

use super::raw::*;
use super::*;
use crate::link::greet::{Greeting, write_message};

fn no_room(what: &'static str, limit: usize) -> LinkError {
    LinkError::NoRoom { what, limit }
}

#[test]
fn calls_beyond_the_bound_are_refused_at_once() {
    let ca = Ca::new().unwrap();
    let mut few = settings(&ca, 1);
    few.bounds.calls = 5;
    few.handshake = Duration::from_millis(500);
    let (one, heard) = start(few);
    // Nobody answers there.
    let silent = UdpSocket::bind(loopback()).unwrap();
    for _ in 0..8 {
        one.connect(silent.local_addr().unwrap(), None);
    }
    let count = |events: &[Event], is: &dyn Fn(&LinkError) -> bool| {
        let refused = events.iter().filter(|event| match event {
            Event::Refused(why) => is(why),
            _ => false,
        });
        refused.count()
    };
    let refused = |why: &LinkError| *why == no_room("call", 5);
    assert_eq!(count(&heard.events(), &refused), 3, "{:?}", heard.events());
    // Each of those that were taken ends, and then others may.
    heard.until("end of five calls", |events| {
        let late = |why: &LinkError| matches!(why, LinkError::Timeout { .. });
        (count(events, &late) == 5).then_some(())
    });
    let (two, _two) = start(settings(&ca, 2));
    until("room for a call", || {
        one.connect(two.local_addr(), Some(node(2)));
        one.is_connected(node(2))
    });
}

#[test]
fn peers_beyond_the_bound_are_refused_and_told_why() {
    let ca = Ca::new().unwrap();
    let mut small = settings(&ca, 1);
    small.bounds.peers = 2;
    let (one, heard) = start(small);
    let others: Vec<_> = (2..5).map(|n| start(settings(&ca, n))).collect();
    for (other, heard_other) in &others[..2] {
        other.connect(one.local_addr(), Some(node(1)));
        heard_other.connected(node(1));
    }
    let (third, heard_third) = &others[2];
    third.connect(one.local_addr(), Some(node(1)));
    assert_eq!(heard.refused(), no_room("peer", 2));
    let told = heard_third.refused().to_string();
    assert!(
        told.contains("no room for another peer: 2 is the bound"),
        "{told}"
    );
    // Nor is it called.
    one.connect(third.local_addr(), Some(node(4)));
    heard.until("second refusal", |events| {
        let refused = |event: &&Event| **event == Event::Refused(no_room("peer", 2));
        (events.iter().filter(refused).count() == 2).then_some(())
    });
    // Those that were there are heard.
    for (other, _) in &others[..2] {
        other.send(node(1), Bytes::from_static(b"here")).unwrap();
    }
    assert_eq!(heard.frames(2), [b"here", b"here"]);
    // One is declared dead: there is room for another.
    one.forget(node(2));
    third.connect(one.local_addr(), Some(node(1)));
    heard_third.connected(node(1));
    third.send(node(1), Bytes::from_static(b"me too")).unwrap();
    assert_eq!(heard.frames(3)[2], b"me too");
}

#[test]
fn who_was_never_met_takes_no_room() {
    let ca = Ca::new().unwrap();
    let mut small = settings(&ca, 1);
    small.bounds.peers = 1;
    small.handshake = Duration::from_millis(500);
    let (one, heard) = start(small);
    // It says nothing until the time of the handshake is over.
    let (_silent, addr) = silent(&ca.identity(node(7)).unwrap());
    one.connect(addr, Some(node(7)));
    assert!(matches!(heard.refused(), LinkError::Timeout { .. }));
    for number in 2..6 {
        // Of another program: the two part after their first words.
        let mut stranger = settings(&ca, number);
        stranger.registry = Registry::new([("other".to_owned(), 1)]);
        stranger.hello = Hello::new(ca.cluster(), node(number), &stranger.registry);
        let (stranger, heard_stranger) = start(stranger);
        one.connect(stranger.local_addr(), Some(node(number)));
        heard_stranger.refused();
        heard.until("refusal", |events| {
            (events.len() as u64 > number - 1).then_some(())
        });
    }
    let refused = heard.events().split_off(1);
    // The machine may be busy for as long as a handshake may take.
    let ended = |event: &Event| {
        let registry = matches!(event, Event::Refused(LinkError::Registry(_)));
        registry || matches!(event, Event::Refused(LinkError::Timeout { .. }))
    };
    assert!(refused.iter().all(ended), "{refused:?}");
    let (two, _two) = start(settings(&ca, 9));
    until("room for one that is met", || {
        one.connect(two.local_addr(), Some(node(9)));
        one.is_connected(node(9))
    });
}

#[test]
fn bodies_beyond_the_bound_fail_at_once() {
    let ca = Ca::new().unwrap();
    let (mut few, mut fewer) = (settings(&ca, 1), settings(&ca, 2));
    few.bounds.bodies = 2;
    fewer.bounds.bodies = 3;
    let (one, heard) = start(few);
    let slow = Arc::new(Slow(Mutex::new(()), Arc::default()));
    let two = Endpoint::start(fewer, slow.clone()).unwrap();
    one.connect(two.local_addr(), Some(node(2)));
    heard.connected(node(2));
    slow.1.connected(node(1));
    let expect = |transfer| {
        let landed = Landed::of(5);
        two.expect_bulk(node(1), transfer, 5, Box::new(landed.clone()));
        landed
    };
    let send = |transfer| {
        let sent = Landed::default();
        one.send_bulk(node(2), transfer, Bytes::from_static(b"bytes"), sent.done());
        sent
    };
    // Three may be expected, a fourth not.
    let landed = [1, 2, 3].map(expect);
    assert_eq!(expect(4).outcome(), Err(no_room("body on its way in", 3)));
    // Two may be on their way, a third not. Nothing is taken there meanwhile.
    let held = slow.0.lock();
    one.send(node(2), Bytes::from_static(b"stops it")).unwrap();
    until("a handler that stands still", || two.stats().frames_in > 0);
    let sent = [send(1), send(2)];
    assert_eq!(send(3).outcome(), Err(no_room("body on its way out", 2)));
    drop(held);
    for (sent, landed) in sent.iter().zip(&landed) {
        assert_eq!((sent.outcome(), landed.outcome()), (Ok(()), Ok(())));
        assert_eq!(landed.body(), b"bytes");
    }
    // Then there is room, both ways.
    until("room for a body", || one.all_sent());
    let fourth = expect(4);
    assert_eq!(
        [send(3), send(4)].map(|sent| sent.outcome()),
        [Ok(()), Ok(())]
    );
    assert_eq!((landed[2].outcome(), fourth.outcome()), (Ok(()), Ok(())));
    assert_eq!((one.stats().bulk_out, two.stats().bulk_in), (20, 20));
}

#[test]
fn a_connection_with_a_number_that_cannot_be_is_refused() {
    let ca = Ca::new().unwrap();
    let (one, heard) = start(settings(&ca, 1));
    for (times, epoch) in [0, (1 << 48) + 1, u64::MAX].into_iter().enumerate() {
        let raw = Raw::new();
        let connection = raw.member(&ca.identity(node(2)).unwrap(), one.local_addr());
        let lies = Greeting {
            epoch,
            ..greeting(&ca, 2)
        };
        raw.runtime.block_on(async {
            let (mut send, _recv) = connection.open_bi().await.unwrap();
            let lies = lies.encode();
            write_message(&mut send, &lies).await.unwrap();
        });
        raw.closed(&connection);
        let why = heard.until("refusal", |events| events.get(times).cloned());
        let Event::Refused(LinkError::Protocol(why)) = why else {
            panic!("{why:?}")
        };
        assert!(why.contains(&format!("epoch {epoch}")), "{why}");
    }
    // It may come as it should.
    let (two, heard_two) = start(settings(&ca, 2));
    two.connect(one.local_addr(), Some(node(1)));
    heard_two.connected(node(1));
    one.send(node(2), Bytes::from_static(b"welcome")).unwrap();
    heard_two.frames(1);
}
