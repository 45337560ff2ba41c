//! Peers that lie, flood, stall or replay, and strangers at the port.
//!
//! Invariant: whoever does so is refused or loses its connection; the node goes on. Left out: certificates, see `join`.

use std::net::UdpSocket;

use super::raw::*;
use super::*;

/// A member that says this after its greeting is cut off, and why is heard.
fn cut_off(bytes: &[u8], word: &str) {
    let ca = Ca::new().unwrap();
    let (one, heard) = start(settings(&ca, 1));
    let raw = Raw::new();
    let connection = raw.member(&ca.identity(node(2)).unwrap(), one.local_addr());
    raw.runtime
        .block_on(greet_and_say(&connection, &greeting(&ca, 2), bytes));
    raw.closed(&connection);
    let why = heard.disconnected(node(2)).to_string();
    assert!(why.contains(word), "{why}");
    unharmed(&ca, &one, &heard);
}

fn unharmed(ca: &Ca, one: &Endpoint, heard: &Heard) {
    let (other, _) = start(settings(ca, 88));
    other.connect(one.local_addr(), Some(node(1)));
    heard.connected(node(88));
}

fn record(len: u32, number: u64, body: &[u8]) -> Vec<u8> {
    [&len.to_le_bytes()[..], &number.to_le_bytes(), body].concat()
}

#[test]
fn records_that_lie_end_the_connection() {
    cut_off(&record(u32::MAX, 1, b""), "record of 4294967295 bytes");
    cut_off(&record(7, 0, b"1234567"), "record of 7 bytes");
    cut_off(&record(1, 5, b"x"), "frame 5 came where 1 was due");
    cut_off(&record(8, 0, &9u64.to_le_bytes()), "frame 9");
}

/// A member that sends this stream of a body of 100 bytes is cut off, and the body fails.
fn cut_off_body(stripe: &[u64; 4], bytes: usize) {
    let ca = Ca::new().unwrap();
    let (one, heard) = start(settings(&ca, 1));
    let raw = Raw::new();
    let connection = raw.member(&ca.identity(node(2)).unwrap(), one.local_addr());
    raw.runtime
        .block_on(greet_and_say(&connection, &greeting(&ca, 2), b""));
    heard.connected(node(2));
    let landed = Landed::of(100);
    one.expect_bulk(node(2), 1, 100, Box::new(landed.clone()));
    raw.runtime.block_on(async {
        let mut stream = connection.open_uni().await.unwrap();
        let header: Vec<u8> = stripe
            .iter()
            .flat_map(|field| field.to_le_bytes())
            .collect();
        stream.write_all(&header).await.unwrap();
        let _ = stream.write_all(&vec![1; bytes]).await;
        let _ = stream.finish();
    });
    raw.closed(&connection);
    assert!(matches!(
        heard.disconnected(node(2)),
        LinkError::Protocol(_)
    ));
    assert!(landed.outcome().is_err());
    unharmed(&ca, &one, &heard);
}

#[test]
fn bodies_that_lie_end_the_connection() {
    cut_off_body(&[1, 101, 0, 101], 101);
    cut_off_body(&[1, 100, 50, 51], 51);
    cut_off_body(&[1, 100, u64::MAX, 2], 2);
    cut_off_body(&[1, 100, 0, 100], 101);
    cut_off_body(&[1, 100, 0, 100], 99);
}

#[test]
fn strangers_at_the_port_do_no_harm() {
    let ca = Ca::new().unwrap();
    let (one, heard) = start(settings(&ca, 1));
    let socket = UdpSocket::bind(loopback()).unwrap();
    let mut state = 1u64;
    for round in 0..2000usize {
        let mut packet = vec![0; round % 1500];
        for byte in &mut packet {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            *byte = (state >> 56) as u8;
        }
        // Some look like the beginning of a connection.
        if round % 3 == 0 && packet.len() > 5 {
            packet[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        socket.send_to(&packet, one.local_addr()).unwrap();
    }
    unharmed(&ca, &one, &heard);
}

#[test]
fn who_stalls_in_the_handshake_is_dropped() {
    let ca = Ca::new().unwrap();
    let mut hasty = settings(&ca, 1);
    hasty.handshake = Duration::from_millis(300);
    let (one, heard) = start(hasty);
    let raw = Raw::new();
    // Through with TLS, but never greets.
    let connection = raw.member(&ca.identity(node(2)).unwrap(), one.local_addr());
    assert!(matches!(heard.refused(), LinkError::Timeout { .. }));
    raw.closed(&connection);
    // Nor does a call wait for one that never answers.
    let silent = UdpSocket::bind(loopback()).unwrap();
    one.connect(silent.local_addr().unwrap(), None);
    heard.until("second refusal", |events| {
        let late = |event: &&Event| matches!(event, Event::Refused(LinkError::Timeout { .. }));
        (events.iter().filter(late).count() == 2).then_some(())
    });
    unharmed(&ca, &one, &heard);
}

#[test]
fn a_handshake_that_is_replayed_leads_nowhere() {
    let ca = Ca::new().unwrap();
    let (one, heard) = start(settings(&ca, 1));
    let (two, heard_two) = start(settings(&ca, 2));
    let wire = Wire::to(one.local_addr());
    two.connect(wire.addr, Some(node(1)));
    heard_two.connected(node(1));
    two.send(node(1), Bytes::from_static(b"once")).unwrap();
    heard.frames(1);
    let packets = wire.seen.lock().clone();
    assert!(!packets.is_empty());
    let socket = UdpSocket::bind(loopback()).unwrap();
    for packet in packets.iter().chain(&packets) {
        socket.send_to(packet, one.local_addr()).unwrap();
    }
    two.send(node(1), Bytes::from_static(b"twice")).unwrap();
    assert_eq!(heard.frames(2), [&b"once"[..], b"twice"]);
    assert_eq!(one.stats().connections, 1);
    unharmed(&ca, &one, &heard);
}

#[test]
fn a_flood_is_held_back() {
    let ca = Ca::new().unwrap();
    flood_is_held_back(settings(&ca, 1), settings(&ca, 2), |_, _| true);
}
