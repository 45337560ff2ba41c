//! Connections that break, stall, and are made twice.
//!
//! Invariant: no frame is lost or repeated, whatever the connection did. Left out: peers that lie.

use super::raw::*;
use super::*;

/// Panics at a certain frame.
struct Fragile(Arc<Heard>);

impl Handler for Fragile {
    fn connected(&self, peer: &Peer) {
        Handler::connected(&*self.0, peer);
    }

    fn frame(&self, from: NodeId, frame: &[u8]) {
        assert_ne!(frame, b"panic", "as the test wants");
        Handler::frame(&*self.0, from, frame);
    }

    fn datagram(&self, _: NodeId, _: &[u8]) {}

    fn disconnected(&self, node: NodeId, why: &LinkError) {
        Handler::disconnected(&*self.0, node, why);
    }

    fn refused(&self, _: SocketAddr, _: &LinkError) {}
}

#[test]
fn a_handler_that_panics_breaks_the_connection_only() {
    let ca = Ca::new().unwrap();
    let fragile = Arc::new(Fragile(Arc::default()));
    let one = Endpoint::start(settings(&ca, 1), fragile.clone()).unwrap();
    let (two, heard_two) = start(settings(&ca, 2));
    two.connect(one.local_addr(), None);
    heard_two.connected(node(1));
    for frame in ["before", "panic", "behind"] {
        two.send(node(1), frame.into()).unwrap();
    }
    assert_eq!(fragile.0.frames(2), [b"before", b"behind"]);
    assert!(matches!(
        fragile.0.disconnected(node(2)),
        LinkError::Broken(_)
    ));
}

fn quick(ca: &Ca, number: u64) -> Settings {
    let mut settings = settings(ca, number);
    settings.idle = Duration::from_millis(400);
    settings.keep_alive = Duration::from_millis(100);
    settings.handshake = Duration::from_millis(500);
    settings
}

#[test]
fn frames_survive_connections_that_break() {
    let ca = Ca::new().unwrap();
    let (one, heard_one) = start(quick(&ca, 1));
    let (two, heard_two) = start(quick(&ca, 2));
    let wire = Wire::to(two.local_addr());
    one.connect(wire.addr, Some(node(2)));
    heard_one.connected(node(2));
    heard_two.connected(node(1));
    let sent: Vec<Vec<u8>> = (0..3000u32).map(|i| i.to_le_bytes().to_vec()).collect();
    for (round, frames) in sent.chunks(1000).enumerate() {
        // The middle of each round goes into the void.
        for (at, frame) in frames.iter().enumerate() {
            if at == 500 {
                wire.cut(true);
            }
            one.send(node(2), frame.clone().into()).unwrap();
            two.send(node(1), frame.clone().into()).unwrap();
        }
        for (heard, peer) in [(&heard_one, node(2)), (&heard_two, node(1))] {
            heard.until("break", |events| {
                let breaks = events
                    .iter()
                    .filter(|e| matches!(e, Event::Disconnected(n, _) if *n == peer));
                (breaks.count() > round).then_some(())
            });
        }
        wire.cut(false);
        assert_eq!(
            heard_two.frames(1000 * (round + 1)),
            sent[..1000 * (round + 1)]
        );
        assert_eq!(
            heard_one.frames(1000 * (round + 1)),
            sent[..1000 * (round + 1)]
        );
    }
    assert!(one.stats().frames_resent + two.stats().frames_resent > 0);
}

#[test]
fn connections_made_from_both_sides_come_down_to_one() {
    let ca = Ca::new().unwrap();
    for round in 0..10 {
        let (one, heard_one) = start(settings(&ca, 1));
        let (two, heard_two) = start(settings(&ca, 2));
        let gate = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for (from, to, expect) in [(&one, &two, node(2)), (&two, &one, node(1))] {
                let gate = &gate;
                scope.spawn(move || {
                    gate.wait();
                    from.connect(to.local_addr(), Some(expect).filter(|_| round % 2 == 0));
                });
            }
        });
        heard_one.connected(node(2));
        heard_two.connected(node(1));
        for i in 0..200u32 {
            one.send(node(2), i.to_le_bytes().to_vec().into()).unwrap();
            two.send(node(1), i.to_le_bytes().to_vec().into()).unwrap();
        }
        let expected: Vec<Vec<u8>> = (0..200u32).map(|i| i.to_le_bytes().to_vec()).collect();
        assert_eq!(heard_one.frames(200), expected);
        assert_eq!(heard_two.frames(200), expected);
        assert_eq!((one.stats().connected, two.stats().connected), (1, 1));
        for heard in [heard_one, heard_two] {
            let refused = heard
                .events()
                .into_iter()
                .find(|event| matches!(event, Event::Refused(_)));
            assert_eq!(refused, None);
        }
    }
}

#[test]
fn a_peer_that_stalls_is_noticed() {
    let ca = Ca::new().unwrap();
    let (one, heard) = start(quick(&ca, 1));
    let (two, _two) = start(quick(&ca, 2));
    let wire = Wire::to(two.local_addr());
    one.connect(wire.addr, Some(node(2)));
    heard.connected(node(2));
    let (landed, sent) = (Landed::of(100), Landed::default());
    one.expect_bulk(node(2), 1, 100, Box::new(landed.clone()));
    wire.cut(true);
    one.send_bulk(node(2), 2, Bytes::from(vec![0; 1 << 20]), sent.done());
    assert!(matches!(heard.disconnected(node(2)), LinkError::Broken(_)));
    // Nothing that was under way waits for ever.
    assert!(landed.outcome().is_err() && sent.outcome().is_err());
}

#[test]
fn a_body_whose_sender_dies_fails() {
    let (one, _one, two, heard) = pair();
    // Long enough not to be through when the sender dies.
    const LENGTH: usize = 1 << 28;
    let landed = Landed::of(LENGTH);
    two.expect_bulk(node(1), 1, LENGTH as u64, Box::new(landed.clone()));
    let sent = Landed::default();
    one.send_bulk(node(2), 1, Bytes::from(vec![1; LENGTH]), sent.done());
    let until = Instant::now() + PATIENCE;
    while two.stats().bytes_in < 1 << 20 {
        assert!(Instant::now() < until, "nothing came");
        std::thread::yield_now();
    }
    one.stop(Duration::ZERO);
    assert!(landed.outcome().is_err());
    assert!(sent.outcome().is_err());
    // Its last word may be lost in the flood; silence says the same, later.
    match heard.disconnected(node(1)) {
        LinkError::Broken(_) => {}
        why => {
            assert_eq!(why, LinkError::Left(node(1)));
            let gone = Err(SendError::Gone(node(1)));
            assert_eq!(two.send(node(1), Bytes::new()), gone);
        }
    }
}

#[test]
fn who_was_declared_dead_stays_out() {
    let (one, heard_one, two, heard_two) = pair();
    one.forget(node(2));
    assert_eq!(
        heard_two.disconnected(node(1)),
        LinkError::Forgotten(node(2))
    );
    assert_eq!(
        one.send(node(2), Bytes::new()),
        Err(SendError::Gone(node(2)))
    );
    assert_eq!(
        heard_one.disconnected(node(2)),
        LinkError::Forgotten(node(2))
    );
    two.connect(one.local_addr(), Some(node(1)));
    heard_two.refused();
    one.connect(two.local_addr(), Some(node(2)));
    assert_eq!(heard_one.refused(), LinkError::Forgotten(node(2)));
    assert_eq!(one.stats().connected, 0);
    for heard in [heard_one, heard_two] {
        let ends = |event: &&Event| matches!(event, Event::Disconnected(..));
        assert_eq!(heard.events().iter().filter(ends).count(), 1);
    }
}

#[test]
fn senders_side_by_side_keep_their_orders() {
    let (one, _one, _two, heard) = pair();
    std::thread::scope(|scope| {
        for sender in 0..64u32 {
            let one = &one;
            scope.spawn(move || {
                for count in 0..100u32 {
                    let frame = [sender.to_le_bytes(), count.to_le_bytes()].concat();
                    one.send(node(2), frame.into()).unwrap();
                }
            });
        }
    });
    let mut next = [0u32; 64];
    for frame in heard.frames(6400) {
        let sender = u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize;
        assert_eq!(frame[4..], next[sender].to_le_bytes());
        next[sender] += 1;
    }
    assert_eq!(next, [100; 64]);
}

#[test]
fn what_is_held_arrives_before_a_node_stops() {
    let (one, _one, _two, heard) = pair();
    for _ in 0..1000 {
        one.send(node(2), Bytes::from_static(b"last words"))
            .unwrap();
    }
    one.stop(PATIENCE);
    assert_eq!(heard.frames(1000).len(), 1000);
}

#[test]
fn a_thread_that_spins_carries_frames_too() {
    let ca = Ca::new().unwrap();
    let (one, heard_one) = start(settings(&ca, 1));
    let mut keen = settings(&ca, 2);
    keen.spin = Duration::from_millis(5);
    let (two, heard_two) = start(keen);
    two.connect(one.local_addr(), None);
    heard_two.connected(node(1));
    heard_one.connected(node(2));
    for count in 1..=20 {
        two.send(node(1), Bytes::from_static(b"ping")).unwrap();
        heard_one.frames(count);
        one.send(node(2), Bytes::from_static(b"pong")).unwrap();
        heard_two.frames(count);
    }
}
