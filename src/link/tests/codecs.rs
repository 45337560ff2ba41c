//! What is decoded, from any bytes at all.
//!
//! Invariant: no bytes make a decoder panic, and what is encoded is decoded. The fuzz targets do the first for longer. Left
//! out: the bodies of frames.

use proptest::prelude::*;

use super::*;
use crate::link::bulk::Stripe;
use crate::link::ca::ClusterId;
use crate::link::control::Records;
use crate::link::fuzz;
use crate::link::greet::Greeting;

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz::handshake(&bytes);
        fuzz::records(&bytes);
        fuzz::text(&bytes);
    }

    #[test]
    fn nearly_right_greetings_are_decoded_or_refused(at in 0..150usize, to: u8, cut in 0..150usize) {
        let ca = ClusterId([3; 16]);
        let mut hello = Hello::new(ca, node(5), &Registry::default());
        hello.reach = Some(loopback());
        let greeting = Greeting { hello, epoch: 1, attempt: 2, received: 3 };
        let mut bytes = greeting.encode();
        prop_assert_eq!(Greeting::decode(&bytes), Ok(greeting));
        let len = bytes.len();
        bytes[at % len] = to;
        let _ = Greeting::decode(&bytes);
        prop_assert!(Greeting::decode(&bytes[..cut.min(len - 1)]).is_err());
    }

    #[test]
    fn records_are_the_same_however_they_are_cut(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..20),
        cuts in prop::collection::vec(1..50usize, 1..100),
    ) {
        let mut stream = Vec::new();
        for (index, body) in bodies.iter().enumerate() {
            stream.extend((body.len() as u32).to_le_bytes());
            stream.extend((index as u64 + 1).to_le_bytes());
            stream.extend(body);
        }
        let mut records = Records::default();
        let mut found = Vec::new();
        let mut rest = Bytes::from(stream);
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let piece = rest.split_to(cut.min(rest.len()));
            records.take(piece, |record| {
                found.push((record.number, record.body.to_vec()));
                Ok(())
            }).unwrap();
        }
        let expected: Vec<_> = bodies.into_iter().enumerate().map(|(i, body)| (i as u64 + 1, body)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_body_is_cut_without_gap_or_overlap(total in 0..MAX_BULK) {
        let stripes = Stripe::cut(7, total);
        let mut next = 0;
        for stripe in &stripes {
            prop_assert_eq!(stripe.offset, next);
            next += stripe.len;
            prop_assert_eq!(Stripe::decode(&stripe.encode()), Ok(*stripe));
        }
        prop_assert_eq!(next, total);
    }

    #[test]
    fn a_token_is_read_back_and_no_other_text_is(at in 0..117usize, to in "[a-z2-7A-Z0-9 -]", cut in 0..117usize) {
        let token = JoinToken::new([5; 32], [9; 32]);
        let text = token.to_string();
        prop_assert_eq!(text.len(), 117);
        prop_assert_eq!(text.parse::<JoinToken>(), Ok(token));
        let why = text[..cut].parse::<JoinToken>().unwrap_err().to_string();
        prop_assert!(why.contains(if cut < 8 { "begins with" } else { "cut off" }), "{}", why);
        let mut typed = text.clone();
        typed.replace_range(at..=at, &to);
        if !typed.eq_ignore_ascii_case(&text) {
            prop_assert!(typed.parse::<JoinToken>().is_err());
        }
    }
}

#[test]
fn an_authority_is_read_back_whole_or_not_at_all() {
    let (ca, other) = (Ca::new().unwrap(), Ca::new().unwrap());
    let text = ca.to_pem();
    let back = Ca::from_pem(&text).unwrap();
    assert_eq!((back.token(), back.to_pem()), (ca.token(), text.clone()));
    let identity = back.identity(node(3)).unwrap();
    assert_eq!(identity.cluster(), ca.cluster());
    let key = |text: &str| text[text.find("-----BEGIN PRIVATE").unwrap()..].to_owned();
    let swapped = text.replace(&key(&text), &key(&other.to_pem()));
    for bad in [
        "",
        &text[..200],
        &swapped,
        &text.replace("BEGIN CERT", "BEGIN CART"),
    ] {
        assert!(Ca::from_pem(bad).is_err(), "{bad}");
    }
    assert!(!format!("{ca:?} {identity:?}").contains("PRIVATE"));
}
