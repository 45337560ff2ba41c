//! What two healthy nodes do.
//!
//! Invariant: frames arrive in order, each once; bodies whole. Left out: everything that goes wrong.

use super::*;

#[test]
fn frames_and_datagrams_go_both_ways() {
    let (one, heard_one, two, heard_two) = pair();
    let sent: Vec<Vec<u8>> = (0..1000u32)
        .map(|i| i.to_le_bytes().repeat(i as usize % 40))
        .collect();
    for frame in &sent {
        one.send(node(2), frame.clone().into()).unwrap();
        two.send(node(1), frame.clone().into()).unwrap();
    }
    assert_eq!(heard_one.frames(1000), sent);
    assert_eq!(heard_two.frames(1000), sent);
    one.datagram(node(2), b"gossip").unwrap();
    heard_two.until("datagram", |events| {
        events
            .contains(&Event::Datagram(node(1), b"gossip".to_vec()))
            .then_some(())
    });
    let limit = MAX_DATAGRAM;
    assert_eq!(
        one.datagram(node(2), &[0; MAX_DATAGRAM + 1]),
        Err(SendError::TooLarge {
            len: limit + 1,
            limit
        })
    );
    one.datagram(node(2), &[0; MAX_DATAGRAM]).unwrap();
    assert_eq!(
        one.send(node(3), Bytes::new()),
        Err(SendError::Gone(node(3)))
    );
}

#[test]
fn a_frame_may_be_long_but_not_longer() {
    let (one, _one, _two, heard) = pair();
    let long: Vec<u8> = (0..MAX_FRAME).map(|i| (i / 7) as u8).collect();
    one.send(node(2), Bytes::from_static(b"before")).unwrap();
    one.send(node(2), long.clone().into()).unwrap();
    one.send(node(2), Bytes::from_static(b"behind")).unwrap();
    let frames = heard.frames(3);
    assert!(frames[1] == long && frames[2] == b"behind");
    let more = Bytes::from(vec![0; MAX_FRAME + 1]);
    assert!(matches!(
        one.send(node(2), more),
        Err(SendError::TooLarge { .. })
    ));
}

#[test]
fn bodies_of_any_size_land() {
    let (one, _one, two, _two) = pair();
    for (number, len) in [0usize, 1, 4096, 1 << 20, (5 << 20) + 3, 100_000_000]
        .into_iter()
        .enumerate()
    {
        let body: Bytes = (0..len)
            .map(|i| ((i * 31) >> 3) as u8)
            .collect::<Vec<u8>>()
            .into();
        let (landed, sent) = (Landed::of(len), Landed::default());
        two.expect_bulk(node(1), number as u64, len as u64, Box::new(landed.clone()));
        one.send_bulk(node(2), number as u64, body.clone(), sent.done());
        assert_eq!(landed.outcome(), Ok(()), "{len} bytes");
        assert_eq!(sent.outcome(), Ok(()), "{len} bytes");
        assert!(landed.body() == body, "{len} bytes");
    }
}

#[test]
fn a_newcomer_joins_with_a_token() {
    let ca = Arc::new(Ca::new().unwrap());
    let mut head = settings(&ca, 1);
    head.ca = Some(ca.clone());
    let (head, heard) = start(head);
    let token: JoinToken = ca.token().to_string().parse().unwrap();
    let identity = join(head.local_addr(), &token, node(2), PATIENCE).unwrap();
    let (newcomer, heard_newcomer) =
        start(Settings::new(loopback(), identity, Registry::default()));
    newcomer.connect(head.local_addr(), None);
    heard_newcomer.connected(node(1));
    heard.connected(node(2));
    newcomer.send(node(1), Bytes::from_static(b"here")).unwrap();
    assert_eq!(heard.frames(1), [b"here"]);
    newcomer.stop(PATIENCE);
    assert_eq!(heard.disconnected(node(2)), LinkError::Left(node(2)));
}

#[test]
fn who_was_declared_dead_does_not_say_that_it_leaves() {
    let ca = Arc::new(Ca::new().unwrap());
    let (one, heard_one) = start(settings(&ca, 1));
    let (two, heard_two) = start(settings(&ca, 2));
    two.connect(one.local_addr(), Some(node(1)));
    heard_two.connected(node(1));
    heard_one.connected(node(2));
    one.retire();
    assert_eq!(heard_two.disconnected(node(1)), LinkError::Fenced(node(1)));
    assert_eq!(
        two.send(node(1), Bytes::new()),
        Err(SendError::Gone(node(1)))
    );
}
