//! Nodes of one machine, whose frames go over a socket of it.
//!
//! Invariant: no frame is lost or repeated, whichever way it goes and whatever becomes of the socket; who lies about it loses
//! its connection, no more. Left out: the books of both sides, which `core::carrier` tests.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use quinn::{Connection, RecvStream, SendStream};
use rustix::net::Shutdown;

use super::raw::*;
use super::*;
use crate::link::greet::{Greeting, read_message, write_message};
use crate::link::near::Offer;
use crate::link::ways::Word;

fn near(ca: &Ca, number: u64) -> Settings {
    let mut settings = settings(ca, number);
    settings.near = true;
    settings
}

/// Two endpoints whose frames go over a socket.
fn near_pair(one: Settings, two: Settings) -> (Endpoint, Arc<Heard>, Endpoint, Arc<Heard>) {
    let (one, heard_one) = start(one);
    let (two, heard_two) = start(two);
    one.connect(two.local_addr(), Some(node(2)));
    heard_one.connected(node(2));
    heard_two.connected(node(1));
    until("socket", || one.is_near(node(2)) && two.is_near(node(1)));
    (one, heard_one, two, heard_two)
}

fn numbered(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    range.map(|i| i.to_le_bytes().to_vec()).collect()
}

#[test]
fn frames_go_over_a_socket_and_datagrams_do_not() {
    let ca = Ca::new().unwrap();
    let (one, heard_one, two, heard_two) = near_pair(near(&ca, 1), near(&ca, 2));
    let before = one.stats();
    assert_eq!((before.connected, before.near), (1, 1));
    for frame in numbered(0..1000) {
        one.send(node(2), frame.clone().into()).unwrap();
        two.send(node(1), frame.into()).unwrap();
    }
    let long: Vec<u8> = (0..MAX_FRAME).map(|i| (i / 7) as u8).collect();
    one.send(node(2), long.clone().into()).unwrap();
    let frames = heard_two.frames(1001);
    assert_eq!(frames[..1000], numbered(0..1000));
    assert!(frames[1000] == long);
    assert_eq!(heard_one.frames(1000), numbered(0..1000));
    let after = one.stats();
    assert_eq!(after.frames_near - before.frames_near, 1001);
    assert!(after.bytes_out < 1 << 20, "{after:?}");
    one.datagram(node(2), b"gossip").unwrap();
    heard_two.until("datagram", |events| {
        events
            .contains(&Event::Datagram(node(1), b"gossip".to_vec()))
            .then_some(())
    });
    // Nobody waits for the last acknowledgement, and nothing that was handed in is lost.
    one.send(node(2), "last".into()).unwrap();
    one.stop(PATIENCE);
    assert_eq!(heard_two.frames(1002)[1001], b"last");
    assert_eq!(heard_two.disconnected(node(1)), LinkError::Left(node(1)));
}

#[test]
fn who_does_not_want_a_socket_is_spoken_to_over_the_network() {
    let ca = Ca::new().unwrap();
    for (first, second) in [(true, false), (false, true)] {
        let (mut calling, mut called) = (near(&ca, 1), near(&ca, 2));
        (calling.near, called.near) = (first, second);
        let (one, heard_one) = start(calling);
        let (two, heard_two) = start(called);
        one.connect(two.local_addr(), Some(node(2)));
        heard_one.connected(node(2));
        heard_two.connected(node(1));
        for frame in numbered(0..100) {
            one.send(node(2), frame.clone().into()).unwrap();
            two.send(node(1), frame.into()).unwrap();
        }
        assert_eq!(heard_one.frames(100), numbered(0..100));
        assert_eq!(heard_two.frames(100), numbered(0..100));
        assert_eq!((one.stats().frames_near, two.stats().frames_near), (0, 0));
        assert!(!one.is_near(node(2)) && !two.is_near(node(1)));
    }
}

#[test]
fn frames_survive_a_socket_that_breaks() {
    let ca = Ca::new().unwrap();
    for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
        let (one, heard_one, two, heard_two) = near_pair(near(&ca, 1), near(&ca, 2));
        std::thread::scope(|scope| {
            for (from, to) in [(&one, node(2)), (&two, node(1))] {
                scope.spawn(move || {
                    for (at, mut frame) in numbered(0..3000).into_iter().enumerate() {
                        frame.resize(if at % 100 == 0 { 50_000 } else { 4 }, 0);
                        from.send(to, frame.into()).unwrap();
                    }
                });
            }
            heard_two.frames(500);
            one.cut_near(node(2), how);
        });
        for heard in [&heard_one, &heard_two] {
            let numbers = |frame: &Vec<u8>| frame[..4].to_vec();
            let frames: Vec<_> = heard.frames(3000).iter().map(numbers).collect();
            assert!(frames == numbered(0..3000), "{how:?}");
            let ends = |event: &Event| matches!(event, Event::Disconnected(..));
            assert!(!heard.events().iter().any(ends), "the connection went on");
        }
        until("way back", || {
            !one.is_near(node(2)) && !two.is_near(node(1))
        });
        // And it goes on over the network.
        one.send(node(2), "behind".into()).unwrap();
        two.send(node(1), "behind".into()).unwrap();
        assert_eq!(heard_two.frames(3001)[3000], b"behind");
        assert_eq!(heard_one.frames(3001)[3000], b"behind");
        assert_eq!((one.stats().connections, one.stats().near), (1, 0));
    }
}

#[test]
fn a_new_connection_gets_a_new_socket() {
    let ca = Ca::new().unwrap();
    let quick = |number| {
        let mut settings = near(&ca, number);
        settings.idle = Duration::from_millis(400);
        settings.keep_alive = Duration::from_millis(100);
        settings
    };
    let (one, heard_one) = start(quick(1));
    let (two, heard_two) = start(quick(2));
    let wire = Wire::to(two.local_addr());
    one.connect(wire.addr, Some(node(2)));
    heard_one.connected(node(2));
    until("socket", || one.is_near(node(2)) && two.is_near(node(1)));
    wire.cut(true);
    for frame in numbered(0..1000) {
        one.send(node(2), frame.into()).unwrap();
    }
    heard_one.disconnected(node(2));
    heard_two.disconnected(node(1));
    for frame in numbered(1000..2000) {
        one.send(node(2), frame.into()).unwrap();
    }
    wire.cut(false);
    assert_eq!(heard_two.frames(2000), numbered(0..2000));
    until("socket", || one.is_near(node(2)) && two.is_near(node(1)));
}

#[test]
fn a_flood_is_held_back_on_a_socket_too() {
    let ca = Ca::new().unwrap();
    flood_is_held_back(near(&ca, 1), near(&ca, 2), |one, two| {
        one.is_near(node(2)) && two.is_near(node(1))
    });
}

/// A member that does with the socket what the test wants.
struct Rogue {
    raw: Raw,
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    offer: Offer,
}

impl Rogue {
    /// Greets, and is offered a socket.
    fn calls(ca: &Ca, one: &Endpoint) -> Rogue {
        let raw = Raw::new();
        let connection = raw.member(&ca.identity(node(2)).unwrap(), one.local_addr());
        let (send, recv, offer) = raw.runtime.block_on(async {
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            let ours = greeting(ca, 2).encode();
            write_message(&mut send, &ours).await.unwrap();
            let theirs = read_message(&mut recv, 1 << 20, "a greeting").await;
            Greeting::decode(&theirs.unwrap()).unwrap();
            let mut header = [0; 12];
            recv.read_exact(&mut header).await.unwrap();
            assert_eq!(header[4..], u64::MAX.to_le_bytes());
            let mut word = vec![0; header[0].into()];
            recv.read_exact(&mut word).await.unwrap();
            let Word::Offer(offer) = Word::decode(&word).unwrap() else {
                panic!("no offer")
            };
            (send, recv, offer)
        });
        Rogue {
            raw,
            connection,
            send,
            recv,
            offer,
        }
    }

    fn says(&mut self, record: &[u8]) {
        // The other side may have had enough.
        let _ = self.raw.runtime.block_on(self.send.write_all(record));
    }

    /// Connects, and is let in.
    fn enters(&self) -> UnixStream {
        let mut stream = self.knocks();
        stream.write_all(&self.offer.secrets().0).unwrap();
        let mut answer = [0; 16];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, self.offer.secrets().1);
        stream
    }

    fn knocks(&self) -> UnixStream {
        let stream = UnixStream::connect(self.offer.path()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

fn record(number: u64, body: &[u8]) -> Vec<u8> {
    let len = body.len() as u32;
    [&len.to_le_bytes()[..], &number.to_le_bytes(), body].concat()
}

fn word(word: &Word) -> Vec<u8> {
    record(u64::MAX, &word.encode())
}

/// A member that does this is cut off, and why is heard; others are still spoken to.
fn cut_off(what: impl FnOnce(&mut Rogue) -> Option<UnixStream>, why: &str) {
    let ca = Ca::new().unwrap();
    let (one, heard) = start(near(&ca, 1));
    let mut rogue = Rogue::calls(&ca, &one);
    let socket = what(&mut rogue);
    rogue.raw.closed(&rogue.connection);
    let found = heard.disconnected(node(2));
    assert!(matches!(found, LinkError::Protocol(_)), "{found}");
    assert!(found.to_string().contains(why), "{found}");
    if let Some(mut socket) = socket {
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
    }
    let (other, _other) = start(near(&ca, 88));
    other.connect(one.local_addr(), Some(node(1)));
    heard.connected(node(88));
    until("socket", || other.is_near(node(1)));
}

#[test]
fn words_that_lie_end_the_connection() {
    let says = |records: &[Vec<u8>], why: &str| {
        let said = records.concat();
        cut_off(
            move |rogue| {
                rogue.says(&said);
                None
            },
            why,
        );
    };
    says(&[word(&Word::Move), word(&Word::Move)], "a move");
    says(&[word(&Word::Back(0)), word(&Word::Back(0))], "a second");
    says(&[word(&Word::Move), record(1, b"x")], "beside the socket");
    says(&[record(u64::MAX, &[9])], "word 9");
    says(&[record(u64::MAX, &[0; 257])], "257 bytes");
    says(&[record(u64::MAX, &[1, 1])], "behind a word");
    cut_off(
        |rogue| {
            let offer = Word::Offer(rogue.offer.clone());
            rogue.says(&word(&offer));
            None
        },
        "a second socket",
    );
}

#[test]
fn what_lies_on_the_socket_ends_the_connection() {
    let says = |bytes: Vec<u8>, why: &str| {
        cut_off(
            move |rogue| {
                let mut socket = rogue.enters();
                socket.write_all(&bytes).unwrap();
                rogue.says(&word(&Word::Move));
                Some(socket)
            },
            why,
        );
    };
    says(vec![0xff; 64], "record of 4294967295 bytes");
    says(record(7, b"x"), "frame 7 came where 1 was due");
    says(record(0, &9u64.to_le_bytes()), "frame 9");
    says(word(&Word::Back(0)), "on the socket");
    cut_off(
        |rogue| {
            let socket = rogue.enters();
            rogue.says(&word(&Word::Back(9)));
            Some(socket)
        },
        "frame 9",
    );
}

#[test]
fn a_peer_that_does_not_read_its_socket_is_held_back() {
    let ca = Ca::new().unwrap();
    let mut eager = near(&ca, 1);
    eager.max_unacked = 1 << 20;
    let (one, heard) = start(eager);
    let mut rogue = Rogue::calls(&ca, &one);
    let socket = rogue.enters();
    until("socket", || one.is_near(node(2)));
    let frame = Bytes::from(vec![7; 10_000]);
    let mut sent = 0;
    while one.send(node(2), frame.clone()).is_ok() {
        sent += 1;
        assert!(sent < 200, "{sent} were taken");
    }
    // Its socket breaks while the writer waits for it: the writer goes back, and so do the frames.
    drop(socket);
    rogue.says(&word(&Word::Back(0)));
    let mut come = vec![0; 1 << 20];
    rogue.raw.runtime.block_on(async {
        let all = rogue.recv.read_exact(&mut come[..1_000_000]);
        tokio::time::timeout(PATIENCE, all).await.unwrap().unwrap();
    });
    rogue.connection.close(quinn::VarInt::from_u32(0), b"");
    heard.disconnected(node(2));
}

#[test]
fn strangers_at_the_socket_do_no_harm() {
    let ca = Ca::new().unwrap();
    let (one, heard) = start(near(&ca, 1));
    let rogue = Rogue::calls(&ca, &one);
    let mut wrong = rogue.knocks();
    wrong.write_all(&[1; 16]).unwrap();
    let mut answer = Vec::new();
    assert_eq!(wrong.read_to_end(&mut answer).unwrap(), 0);
    // A secret opens once.
    let _in = rogue.enters();
    let mut again = rogue.knocks();
    again.write_all(&rogue.offer.secrets().0).unwrap();
    assert_eq!(again.read_to_end(&mut answer).unwrap(), 0);
    // Those who say nothing take all places; others are spoken to over the network meanwhile.
    let idle: Vec<_> = (0..100).map(|_| rogue.knocks()).collect();
    let (other, heard_other) = start(near(&ca, 88));
    other.connect(one.local_addr(), Some(node(1)));
    heard.connected(node(88));
    heard_other.connected(node(1));
    one.send(node(88), "unharmed".into()).unwrap();
    assert_eq!(heard_other.frames(1), [b"unharmed"]);
    drop(idle);
}

#[test]
fn offers_that_lie_are_not_followed() {
    let ca = Ca::new().unwrap();
    let (one, _heard) = start(near(&ca, 1));
    let rogue = Rogue::calls(&ca, &one);
    let good = &rogue.offer;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let connects = |offer: &Offer| {
        let all = async { tokio::time::timeout(PATIENCE, offer.connect()).await };
        runtime.block_on(all).expect("it ends").map(drop)
    };
    let why = |offer: &Offer| connects(offer).unwrap_err().to_string();
    for (change, said) in good.lies() {
        assert!(why(&change).contains(said), "{said}: {}", why(&change));
    }
    connects(good).unwrap();
}
