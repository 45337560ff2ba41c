//! Members and strangers that pour all they can at a node, while an honest member joins and talks.
//!
//! Invariant: what is kept of a flood has the bound that was set for it, the honest member is heard meanwhile, and whoever pours is
//! held back or refused. Left out: bounds that are reached without malice, see `bounds`.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use quinn::Connection;

use super::raw::*;
use super::*;
use crate::link::bulk::Stripe;

/// What one stream, and one connection's datagrams, may keep here.
const STREAM: u64 = 8 << 20;
const DATAGRAMS: u64 = 1 << 20;
/// The one who pours.
const POURS: u64 = 66;

/// Counts what comes from the one who pours, and stands still when it is told to.
#[derive(Default)]
struct Flooded {
    gate: Mutex<()>,
    bytes: AtomicU64,
    heard: Heard,
}

impl Flooded {
    fn is_from(&self, from: NodeId, bytes: &[u8]) -> bool {
        let pours = from == node(POURS);
        if pours {
            drop(self.gate.lock());
            self.bytes.fetch_add(bytes.len() as u64, Relaxed);
        }
        pours
    }
}

impl Handler for Flooded {
    fn connected(&self, peer: &Peer) {
        Handler::connected(&self.heard, peer);
    }

    fn frame(&self, from: NodeId, frame: &[u8]) {
        if !self.is_from(from, frame) {
            self.heard.frame(from, frame);
        }
    }

    fn datagram(&self, from: NodeId, bytes: &[u8]) {
        if !self.is_from(from, bytes) {
            self.heard.datagram(from, bytes);
        }
    }

    fn disconnected(&self, node: NodeId, why: &LinkError) {
        Handler::disconnected(&self.heard, node, why);
    }

    fn refused(&self, addr: SocketAddr, why: &LinkError) {
        Handler::refused(&self.heard, addr, why);
    }
}

/// An honest member comes, and is answered so many times.
fn talks(ca: &Ca, one: &Endpoint, heard: &Heard, rounds: usize) {
    let (honest, heard_honest) = start(settings(ca, 88));
    honest.connect(one.local_addr(), Some(node(1)));
    heard_honest.connected(node(1));
    heard.until("the honest member", |events| {
        events.contains(&Event::Connected(node(88))).then_some(())
    });
    let before = frames(&heard.events()).len();
    for round in 1..=rounds {
        honest.send(node(1), Bytes::from_static(b"asks")).unwrap();
        heard.frames(before + round);
        one.send(node(88), Bytes::from_static(b"says")).unwrap();
        heard_honest.frames(round);
    }
    assert_eq!(
        honest.stats().connections,
        1,
        "it never lost its connection"
    );
}

/// A node, and one with a certificate that does as the test wants.
fn flooded(settings: Settings, ca: &Ca) -> (Endpoint, Arc<Flooded>, Raw, Connection) {
    let flooded = Arc::<Flooded>::default();
    let one = Endpoint::start(settings, flooded.clone()).unwrap();
    let raw = Raw::new();
    let identity = ca.identity(node(POURS)).unwrap();
    let connection = raw.member(&identity, one.local_addr());
    (one, flooded, raw, connection)
}

/// Does this on a thread again and again, until `ended`; false ends it too.
fn pouring<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    ended: &'scope AtomicBool,
    mut pour: impl FnMut() -> bool + Send + 'scope,
) {
    scope.spawn(move || while !ended.load(Relaxed) && pour() {});
}

/// Ends what pours, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_member_that_pours_frames_and_reads_nothing_is_held_back() {
    let ca = Ca::new().unwrap();
    let mut tight = settings(&ca, 1);
    tight.max_unacked = 1 << 20;
    let (one, flooded, raw, connection) = flooded(tight, &ca);
    let (poured, stuck, ended) = (
        AtomicU64::new(0),
        AtomicBool::new(false),
        AtomicBool::new(false),
    );
    let mut send = raw
        .runtime
        .block_on(greet(&connection, &greeting(&ca, POURS)));
    flooded.heard.connected(node(POURS));
    let mut number = 0u64;
    std::thread::scope(|scope| {
        let _ends = Ends(&ended);
        pouring(scope, &ended, || {
            let mut some = Vec::new();
            for _ in 0..100 {
                number += 1;
                some.extend_from_slice(&1000u32.to_le_bytes());
                some.extend_from_slice(&number.to_le_bytes());
                some.resize(some.len() + 1000, 7);
            }
            raw.runtime.block_on(async {
                let mut at = 0;
                while at < some.len() {
                    let write = send.write(&some[at..]);
                    match tokio::time::timeout(Duration::from_millis(300), write).await {
                        Ok(Ok(n)) => {
                            at += n;
                            poured.fetch_add(n as u64, Relaxed);
                        }
                        Ok(Err(_)) => return false,
                        // Held back; what is left goes when there is room.
                        Err(_) if ended.load(Relaxed) => return false,
                        Err(_) => stuck.store(true, Relaxed),
                    }
                }
                true
            })
        });
        talks(&ca, &one, &flooded.heard, 50);
        assert!(flooded.bytes.load(Relaxed) > 0);
        // Nothing that is for it is read there: so much is kept, and no more is taken.
        let frame = Bytes::from(vec![1; 64 << 10]);
        let full = loop {
            match one.send(node(POURS), frame.clone()) {
                Ok(()) => {}
                Err(full) => break full,
            }
        };
        let SendError::Full { held, limit, .. } = full else {
            panic!("{full}")
        };
        assert!(held <= limit && limit == 1 << 20, "{full}");
        // While nothing is taken, nothing more comes than fits the stream's window.
        let held = flooded.gate.lock();
        stuck.store(false, Relaxed);
        until("the flood stops", || stuck.load(Relaxed));
        let (poured, came) = (poured.load(Relaxed), flooded.bytes.load(Relaxed));
        // 1,000 of 1,012 bytes are of frames.
        let kept = poured - came / 1000 * 1012;
        assert!(kept <= STREAM + (STREAM / 4), "{kept} bytes lie here");
        drop(held);
        until("the flood goes on", || {
            flooded.bytes.load(Relaxed) > came + STREAM
        });
    });
    assert!(one.is_connected(node(POURS)), "it is slowed, not cut off");
    talks_again(&ca, &one, &flooded.heard);
}

/// The node goes on after it.
fn talks_again(ca: &Ca, one: &Endpoint, heard: &Heard) {
    let (other, heard_other) = start(settings(ca, 89));
    other.connect(one.local_addr(), Some(node(1)));
    heard_other.connected(node(1));
    heard.until("another member", |events| {
        events.contains(&Event::Connected(node(89))).then_some(())
    });
}

#[test]
fn a_member_that_pours_datagrams_is_heard_in_part() {
    let ca = Ca::new().unwrap();
    let (one, flooded, raw, connection) = flooded(settings(&ca, 1), &ca);
    raw.runtime
        .block_on(greet_and_say(&connection, &greeting(&ca, POURS), b""));
    flooded.heard.connected(node(POURS));
    let (poured, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _ends = Ends(&ended);
        pouring(scope, &ended, || {
            raw.runtime.block_on(async {
                for _ in 0..200 {
                    if connection
                        .send_datagram(Bytes::from_static(&[7; MAX_DATAGRAM]))
                        .is_err()
                    {
                        return false;
                    }
                    poured.fetch_add(MAX_DATAGRAM as u64, Relaxed);
                }
                // Lets packets out.
                tokio::task::yield_now().await;
                true
            })
        });
        talks(&ca, &one, &flooded.heard, 50);
        until("datagrams", || flooded.bytes.load(Relaxed) > 0);
        // Those that come while nothing is taken are forgotten, but for some.
        let held = flooded.gate.lock();
        let (came, before) = (flooded.bytes.load(Relaxed), poured.load(Relaxed));
        until("a flood", || poured.load(Relaxed) > before + 64 * DATAGRAMS);
        ended.store(true, Relaxed);
        drop(held);
        talks_again(&ca, &one, &flooded.heard);
        // Here and there, and what the kernel keeps between.
        let kept = flooded.bytes.load(Relaxed) - came;
        assert!(kept <= 2 * DATAGRAMS + (16 << 20), "{kept} bytes were kept");
    });
    assert!(one.is_connected(node(POURS)));
}

#[test]
fn a_datagram_that_is_too_long_ends_the_connection() {
    let ca = Ca::new().unwrap();
    let (one, flooded, raw, connection) = flooded(settings(&ca, 1), &ca);
    raw.runtime
        .block_on(greet_and_say(&connection, &greeting(&ca, POURS), b""));
    flooded.heard.connected(node(POURS));
    let long = Bytes::from(vec![0; MAX_DATAGRAM + 1]);
    connection.send_datagram(long).unwrap();
    raw.closed(&connection);
    let why = flooded.heard.disconnected(node(POURS)).to_string();
    assert!(why.contains("datagram of 1101 bytes"), "{why}");
    talks_again(&ca, &one, &flooded.heard);
}

/// Opens a stream that says this first.
async fn stream(connection: &Connection, bytes: &[u8]) -> quinn::SendStream {
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

#[test]
fn bodies_that_nobody_expects_are_refused() {
    let ca = Ca::new().unwrap();
    let mut hasty = settings(&ca, 1);
    hasty.early = Duration::from_millis(1500);
    hasty.bounds.early = 4;
    let (one, flooded, raw, connection) = flooded(hasty, &ca);
    raw.runtime
        .block_on(greet_and_say(&connection, &greeting(&ca, POURS), b""));
    flooded.heard.connected(node(POURS));
    let header = |transfer| {
        let (total, offset, len) = (STREAM * 4, 0, STREAM * 4);
        let stripe = Stripe {
            transfer,
            total,
            offset,
            len,
        };
        stripe.encode()
    };
    let began = Instant::now();
    let mut early: Vec<quinn::SendStream> = raw.runtime.block_on(async {
        let mut early = Vec::new();
        for transfer in 0..4 {
            early.push(stream(&connection, &header(transfer)).await);
        }
        early
    });
    // Of one that is not expected so much is taken as a stream may keep.
    let poured = raw.runtime.block_on(async {
        let (piece, mut poured) = (vec![7; 1 << 20], 0);
        while let Ok(n) =
            tokio::time::timeout(Duration::from_millis(200), early[0].write(&piece)).await
        {
            poured += n.expect("it waits to be expected") as u64;
        }
        poured
    });
    assert!(poured <= STREAM, "{poured} bytes were taken");
    // Four wait; a fifth does not, nor a sixth.
    for fifth in 4..6 {
        let stopped = raw.runtime.block_on(async {
            let stream = stream(&connection, &header(fifth)).await;
            tokio::time::timeout(PATIENCE, stream.stopped()).await
        });
        assert_eq!(stopped.expect("it is refused"), Ok(Some(1u32.into())));
    }
    if began.elapsed() < Duration::from_millis(1500) {
        assert_eq!(one.stats().unexpected, 2, "those before them wait still");
    }
    // One that is expected goes past them, from there and from others.
    let landed = Landed::of(3);
    one.expect_bulk(node(POURS), 9, 3, Box::new(landed.clone()));
    raw.runtime.block_on(async {
        let of_three = Stripe {
            transfer: 9,
            total: 3,
            offset: 0,
            len: 3,
        };
        let mut stream = stream(&connection, &of_three.encode()).await;
        stream.write_all(b"abc").await.unwrap();
        stream.finish().unwrap();
    });
    assert_eq!((landed.outcome(), landed.body()), (Ok(()), b"abc".to_vec()));
    talks(&ca, &one, &flooded.heard, 10);
    // At last these are refused too.
    for waits in early {
        let stopped = async { tokio::time::timeout(PATIENCE, waits.stopped()).await };
        let stopped = raw
            .runtime
            .block_on(stopped)
            .expect("it is refused in time");
        assert_eq!(stopped, Ok(Some(1u32.into())));
    }
    assert_eq!(one.stats().unexpected, 6);
    assert!(one.is_connected(node(POURS)));
}

#[test]
fn streams_that_say_nothing_end_and_are_few() {
    let ca = Ca::new().unwrap();
    let mut hasty = settings(&ca, 1);
    hasty.early = Duration::from_millis(200);
    let (one, flooded, raw, connection) = flooded(hasty, &ca);
    raw.runtime
        .block_on(greet_and_say(&connection, &greeting(&ca, POURS), b""));
    flooded.heard.connected(node(POURS));
    let open = || async { tokio::time::timeout(PATIENCE, stream(&connection, b"?")).await };
    let mut open_now: Vec<quinn::SendStream> = (0..tune::BULK_STREAMS)
        .map(|_| raw.runtime.block_on(open()).expect("so many may be open"))
        .collect();
    let one_more = raw.runtime.block_on(async {
        tokio::time::timeout(Duration::from_millis(100), connection.open_uni()).await
    });
    assert!(one_more.is_err(), "that is one too many");
    talks(&ca, &one, &flooded.heard, 10);
    for silent in &mut open_now {
        let stopped = async { tokio::time::timeout(PATIENCE, silent.stopped()).await };
        let stopped = raw
            .runtime
            .block_on(stopped)
            .expect("it is refused in time");
        assert_eq!(stopped, Ok(Some(1u32.into())));
    }
    // Whoever gives them up may open others.
    open_now
        .into_iter()
        .for_each(|mut stream| drop(stream.reset(0u32.into())));
    raw.runtime.block_on(open()).expect("there is room again");
    assert_eq!(one.stats().unexpected, u64::from(tune::BULK_STREAMS));
}

#[test]
fn a_stranger_that_holds_handshakes_keeps_nobody_out() {
    let ca = Arc::new(Ca::new().unwrap());
    let mut head = settings(&ca, 1);
    head.ca = Some(ca.clone());
    head.bounds.handshakes = 16;
    head.bounds.handshakes_of_one = 8;
    // The handshakes are held for as long as the test takes.
    (head.handshake, head.idle) = (PATIENCE * 3, PATIENCE * 3);
    let (head, heard) = start(head);
    // It comes as newcomers do, and never asks for anything.
    let stranger = Raw::at((Ipv4Addr::new(127, 0, 0, 2), 0).into());
    let (config, _) = tls::joining(&ca.token()).unwrap();
    let mut config = config;
    let times = tune::Times {
        idle: PATIENCE * 3,
        keep_alive: Duration::from_millis(500),
    };
    config.transport_config(tune::Transports::new(times, 1 << 20).to(head.local_addr()));
    let call = || {
        let _inside = stranger.runtime.enter();
        let (config, addr) = (config.clone(), head.local_addr());
        let called = stranger.quic.connect_with(config, addr, "head.node.mobula");
        called.unwrap()
    };
    let held: Vec<Connection> = (0..8)
        .map(|_| {
            let connecting = async { tokio::time::timeout(PATIENCE, call()).await };
            let met = stranger.runtime.block_on(connecting);
            met.expect("a turn").expect("it gets so far")
        })
        .collect();
    assert_eq!(head.handshakes(), 8);
    // More of it are not answered at all.
    let more: Vec<quinn::Connecting> = (0..20).map(|_| call()).collect();
    until("those that are not answered", || {
        head.stats().unanswered >= 20
    });
    assert_eq!(head.handshakes(), 8);
    // Others join meanwhile, and talk.
    let identity = join(head.local_addr(), &ca.token(), node(77), PATIENCE).unwrap();
    let (newcomer, heard_newcomer) =
        start(Settings::new(loopback(), identity, Registry::default()));
    newcomer.connect(head.local_addr(), Some(node(1)));
    heard_newcomer.connected(node(1));
    heard.until("the newcomer", |events| {
        events.contains(&Event::Connected(node(77))).then_some(())
    });
    talks(&ca, &head, &heard, 10);
    // When it gives up, its turns are free, for itself too.
    drop(more);
    for connection in &held {
        connection.close(0u32.into(), b"");
    }
    until("the end of all turns", || head.handshakes() == 0);
    stranger.runtime.block_on(async {
        tokio::time::timeout(PATIENCE, call())
            .await
            .expect("a turn")
            .unwrap();
    });
}

#[test]
fn garbage_at_the_port_keeps_nobody_out() {
    let ca = Arc::new(Ca::new().unwrap());
    let mut head = settings(&ca, 1);
    head.ca = Some(ca.clone());
    let (head, heard) = start(head);
    let (poured, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 3), 0)).unwrap();
    let mut chance = crate::base::hostile::Chance(7);
    std::thread::scope(|scope| {
        let _ends = Ends(&ended);
        pouring(scope, &ended, || {
            let mut packet: Vec<u8> = (0..1200).map(|_| chance.next() as u8).collect();
            match chance.below(3) {
                // The beginning of a connection, as far as it goes; then of a version that there is not.
                0 => packet[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]),
                1 => packet[..5].copy_from_slice(&[0xc3, 9, 9, 9, 9]),
                _ => packet.truncate(chance.below(1200)),
            }
            // The same some times, so that it pours rather than draws.
            for _ in 0..20 {
                let _ = socket.send_to(&packet, head.local_addr());
                poured.fetch_add(1, Relaxed);
            }
            true
        });
        let identity = join(head.local_addr(), &ca.token(), node(77), PATIENCE).unwrap();
        let (newcomer, heard_newcomer) =
            start(Settings::new(loopback(), identity, Registry::default()));
        newcomer.connect(head.local_addr(), Some(node(1)));
        heard_newcomer.connected(node(1));
        talks(&ca, &head, &heard, 50);
    });
    assert!(poured.load(Relaxed) > 1000);
    assert_eq!(head.handshakes(), 0, "none of it led anywhere");
    assert_eq!(head.stats().connections, 2);
    talks_again(&ca, &head, &heard);
}
