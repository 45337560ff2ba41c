//! Laws of the protocol: what is written is read back, and no bytes do harm.
//!
//! Left out: sockets; `tests/store_hostile.rs` sends such bytes to a server.

use proptest::prelude::*;

use super::*;
use crate::base::{ObjectId, ObjectState};

fn id() -> impl Strategy<Value = ObjectId> {
    any::<[u8; 16]>().prop_map(ObjectId)
}

fn state() -> impl Strategy<Value = ObjectState> {
    prop_oneof![
        Just(ObjectState::Absent),
        Just(ObjectState::Written),
        Just(ObjectState::Sealed)
    ]
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        Just(vec![7; PIECE_MAX])
    ]
}

/// `bytes` are leaked: a strategy may hold nothing borrowed.
fn request(bytes: &'static [u8]) -> impl Strategy<Value = Request<'static>> {
    prop_oneof![
        (id(), any::<u64>()).prop_map(|(id, len)| Request::Create { id, len }),
        (any::<u64>(), any::<u64>()).prop_map(move |(serial, at)| Request::Write {
            serial,
            at,
            bytes
        }),
        any::<u64>().prop_map(|serial| Request::Seal { serial }),
        any::<u64>().prop_map(|serial| Request::Abort { serial }),
        id().prop_map(move |id| Request::Put { id, bytes }),
        (id(), any::<u64>()).prop_map(|(id, nanos)| Request::Get { id, nanos }),
        any::<u64>().prop_map(|get| Request::Cancel { get }),
        any::<u64>().prop_map(|serial| Request::Release { serial }),
        id().prop_map(|id| Request::State { id }),
        id().prop_map(|id| Request::Delete { id }),
        proptest::option::of(id()).prop_map(|after| Request::List { after }),
        any::<u64>().prop_map(|bytes| Request::Evict { bytes }),
        Just(Request::Subscribe),
        Just(Request::Unsubscribe),
        Just(Request::Stats),
    ]
}

fn denial() -> impl Strategy<Value = Denial> {
    prop_oneof![
        Just(Denial::NotFound),
        Just(Denial::Exists),
        Just(Denial::NotSealed),
        Just(Denial::Cancelled),
        state().prop_map(|state| Denial::Deadline { state }),
        any::<(u64, u64, u64)>().prop_map(|(capacity, used, largest_free)| Denial::Full {
            capacity,
            used,
            largest_free
        }),
        any::<u64>().prop_map(|capacity| Denial::TooLarge { capacity }),
        ".{0,40}".prop_map(|why| Denial::Lost { why }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (id(), any::<(u64, bool, u32)>()).prop_map(|(id, (len, sealed, pins))| Entry {
        id,
        len,
        sealed,
        pins,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let answer = prop_oneof![
        Just(Answer::Done),
        any::<(u64, u64)>().prop_map(|(serial, offset)| Answer::Lent { serial, offset }),
        any::<u64>().prop_map(|serial| Answer::Begun { serial }),
        any::<(u64, u64, u64)>().prop_map(|(serial, offset, len)| Answer::Found {
            serial,
            offset,
            len
        }),
        state().prop_map(Answer::State),
        (any::<bool>(), proptest::collection::vec(entry(), 0..20))
            .prop_map(|(more, entries)| Answer::Names { more, entries }),
        any::<u64>().prop_map(|bytes| Answer::Freed { bytes }),
        (any::<u64>(), "[a-z ]{0,20}").prop_map(|(mut n, pages)| {
            let next = || {
                n = n.wrapping_mul(31).wrapping_add(7);
                n
            };
            Answer::Stats(Box::new(ServedStats::of(next, pages)))
        }),
        denial().prop_map(Answer::Denied),
    ];
    prop_oneof![
        (any::<u64>(), answer).prop_map(|(seq, answer)| Message::Answer(seq, answer)),
        (id(), any::<u64>()).prop_map(|(id, len)| Message::Sealed { id, len }),
        id().prop_map(|id| Message::Deleted { id }),
        any::<u64>().prop_map(|missed| Message::Lagged { missed }),
        ".{0,40}".prop_map(|why| Message::Closing { why }),
    ]
}

/// The one frame in `bytes`.
fn frame(bytes: &[u8]) -> &[u8] {
    let (length, frame) = bytes.split_first_chunk::<4>().unwrap();
    assert_eq!(u32::from_le_bytes(*length) as usize, frame.len());
    assert!(frame.len() <= FRAME_MAX);
    frame
}

proptest! {
    #[test]
    fn requests_come_back(
        seq: u64,
        (bytes, request) in pieces().prop_flat_map(|bytes| {
            let bytes: &'static [u8] = bytes.leak();
            (Just(bytes), request(bytes))
        }),
    ) {
        let mut out = Vec::new();
        request.encode(seq, &mut out);
        prop_assert_eq!(Request::decode(frame(&out)), Ok((seq, request)));
        prop_assert!(bytes.len() <= PIECE_MAX);
    }

    #[test]
    fn messages_come_back(message in message()) {
        let mut out = Vec::new();
        message.encode(&mut out);
        prop_assert_eq!(Message::decode(frame(&out)), Ok(message));
    }

    /// Every kind is tried with any fields, and every truncation of them.
    #[test]
    fn any_bytes_are_a_message_or_an_error(kind: u8, rest in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![kind];
        bytes.extend(rest);
        for end in 0..=bytes.len() {
            let _ = Request::decode(&bytes[..end]);
            let _ = Message::decode(&bytes[..end]);
            let _ = Hello::decode(&bytes[..end]);
            let _ = Greeting::decode(&bytes[..end]);
        }
    }

    #[test]
    fn a_stream_of_any_bytes_is_cut_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000), step in 1usize..500) {
        let mut frames = Frames::default();
        'all: for piece in bytes.chunks(step) {
            frames.room()[..piece.len()].copy_from_slice(piece);
            frames.received(piece.len());
            loop {
                match frames.next() {
                    Ok(Some(frame)) => prop_assert!(frame.len() <= FRAME_MAX),
                    Ok(None) => break,
                    Err(_) => break 'all,
                }
            }
        }
    }
}

#[test]
fn a_full_page_of_names_fits_a_frame() {
    let entry = Entry {
        id: ObjectId([1; 16]),
        len: 1,
        sealed: true,
        pins: 3,
    };
    let names = Answer::Names {
        more: true,
        entries: vec![entry; Entry::MAX],
    };
    let mut out = Vec::new();
    Message::Answer(1, names.clone()).encode(&mut out);
    assert_eq!(Message::decode(frame(&out)), Ok(Message::Answer(1, names)));
}

#[test]
fn greetings_come_back() {
    let hello = Hello {
        version: 77,
        program: "9.9.9".into(),
    };
    let welcome = Welcome {
        version: VERSION,
        program: "0.1.0".into(),
        pid: 12,
        capacity: 1 << 30,
        grain: 4096,
    };
    let mut out = Vec::new();
    hello.encode(&mut out);
    assert_eq!(Hello::decode(frame(&out)), Ok(hello.clone()));
    for greeting in [
        Greeting::Welcome(welcome),
        Greeting::Version(hello),
        Greeting::User {
            found: 7,
            server: 8,
        },
        Greeting::TooMany { clients: 9 },
    ] {
        let mut out = Vec::new();
        greeting.encode(&mut out);
        assert_eq!(Greeting::decode(frame(&out)), Ok(greeting));
    }
}

#[test]
fn a_hello_of_a_later_version_is_understood_as_far_as_it_must() {
    let mut out = Vec::new();
    let hello = Hello {
        version: VERSION + 1,
        program: "2.0.0".into(),
    };
    hello.encode(&mut out);
    out.extend_from_slice(b"fields of the future");
    assert_eq!(Hello::decode(&out[4..]), Ok(hello));
}
