//! A server that lies: whatever it says, a client gets an error, and touches no memory that is not
//! there.
//!
//! Left out: clients that lie to a server (`tests/store_hostile.rs`).

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread::JoinHandle;

use rustix::fs::{MemfdFlags, SealFlags};

use super::*;
use crate::store::proto::{Entry, Greeting, Hello, Message, VERSION, Welcome};
use crate::store::socket;

const LEN: u64 = 1 << 16;

/// A file like a store's memory.
fn memory(seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("test", flags).unwrap();
    rustix::fs::ftruncate(&file, LEN).unwrap();
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file
}

fn welcome() -> Welcome {
    Welcome {
        version: VERSION,
        program: "0.0.0".to_owned(),
        pid: 1,
        capacity: LEN,
        grain: 4096,
    }
}

/// Serves one connection by `script`, after the hello was read.
fn lying(script: impl FnOnce(UnixStream) + Send + 'static) -> (PathBuf, JoinHandle<()>) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Relaxed);
    let name = format!("mobula-lie-{}-{n}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn({
        let path = path.clone();
        move || {
            let (mut stream, _) = listener.accept().unwrap();
            std::fs::remove_file(path).unwrap();
            let hello = read_frame(&mut stream).unwrap();
            assert_eq!(Hello::decode(&hello), Ok(Hello::of_this_crate()));
            script(stream);
        }
    });
    (path, server)
}

fn read_frame(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut frame = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut frame).ok()?;
    Some(frame)
}

fn greet(stream: &UnixStream, welcome: Welcome, file: &OwnedFd) {
    let mut bytes = Vec::new();
    Greeting::Welcome(welcome).encode(&mut bytes);
    socket::send_with(stream, &bytes, file.as_fd()).unwrap();
}

/// Connects to a server that greets with this.
fn greeted(welcome: Welcome, seals: SealFlags) -> Result<Client, StoreError> {
    let (path, server) = lying(move |stream| greet(&stream, welcome, &memory(seals)));
    let client = Client::connect(path);
    server.join().unwrap();
    client
}

/// A client of a server that answers each request with what `answer` makes of its number; and what
/// was asked afterwards, once the client is gone.
fn answered(
    answer: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ask: impl FnOnce(&Client) -> StoreError,
) -> (StoreError, Vec<Vec<u8>>) {
    let (sender, asked) = std::sync::mpsc::channel();
    let (path, server) = lying(move |mut stream| {
        greet(&stream, welcome(), &memory(SealFlags::SHRINK));
        while let Some(frame) = read_frame(&mut stream) {
            let (seq, _) = Request::decode(&frame).unwrap();
            // The client may have had enough.
            let _ = stream.write_all(&answer(seq));
            sender.send(frame).unwrap();
        }
    });
    let client = Client::connect(path).unwrap();
    let error = ask(&client);
    drop(client);
    server.join().unwrap();
    (error, asked.iter().collect())
}

fn answer(answer: Answer) -> impl Fn(u64) -> Vec<u8> + Send {
    move |seq| {
        let mut bytes = Vec::new();
        if seq != 0 {
            Message::Answer(seq, answer.clone()).encode(&mut bytes);
        }
        bytes
    }
}

const ID: ObjectId = ObjectId([7; 16]);

fn get(client: &Client) -> StoreError {
    client.get(ID, None).unwrap_err()
}

fn create(client: &Client) -> StoreError {
    client.create(ID, 5000).unwrap_err()
}

#[test]
fn memory_that_is_not_as_told_is_not_mapped() {
    let good = greeted(welcome(), SealFlags::SHRINK);
    assert!(good.is_ok(), "{good:?}");
    assert!(greeted(welcome(), SealFlags::GROW).is_err());
    for (capacity, grain) in [
        (LEN * 2, 4096),
        (0, 4096),
        (LEN - 1, 4096),
        (LEN, 0),
        (LEN, 3),
        (LEN, u64::MAX),
        (u64::MAX, 4096),
    ] {
        let lie = Welcome {
            capacity,
            grain,
            ..welcome()
        };
        let refused = greeted(lie, SealFlags::SHRINK).unwrap_err();
        assert!(matches!(refused, StoreError::Os { .. }), "{refused}");
    }
}

#[test]
fn a_first_frame_that_is_no_welcome_is_an_error() {
    let first = |bytes: Vec<u8>| {
        let (path, server) = lying(move |mut stream| stream.write_all(&bytes).unwrap());
        let refused = Client::connect(path).unwrap_err();
        server.join().unwrap();
        refused
    };
    let mut plain = Vec::new();
    Greeting::Welcome(welcome()).encode(&mut plain);
    let without = first(plain.clone()).to_string();
    assert!(without.contains("without the store's memory"), "{without}");
    assert!(matches!(first(vec![]), StoreError::Gone { .. }));
    assert!(matches!(
        first(plain[..9].to_vec()),
        StoreError::Gone { .. }
    ));
    for garbage in [vec![0xff; 100], vec![3, 0, 0, 0, 1, 2, 3], vec![0; 8]] {
        let refused = first(garbage);
        assert!(matches!(refused, StoreError::BadFrame { .. }), "{refused}");
    }
}

#[test]
fn an_object_outside_the_memory_is_refused_and_released() {
    for (offset, len) in [
        (LEN, 1),
        (0, LEN + 1),
        (64, LEN),
        (u64::MAX - 63, 64),
        (1, 10),
    ] {
        let found = Answer::Found {
            serial: 9,
            offset,
            len,
        };
        let (error, asked) = answered(answer(found), get);
        assert!(matches!(error, StoreError::BadFrame { .. }), "{error}");
        let last = Request::decode(asked.last().unwrap()).unwrap();
        assert_eq!(last, (0, Request::Release { serial: 9 }));
    }
}

#[test]
fn pages_that_cannot_be_lent_are_refused_and_given_back() {
    for offset in [LEN, 1, 64, LEN - 4096, u64::MAX] {
        let lent = Answer::Lent { serial: 9, offset };
        let (error, asked) = answered(answer(lent), create);
        assert!(matches!(error, StoreError::Os { .. }), "{offset}: {error}");
        let last = Request::decode(asked.last().unwrap()).unwrap();
        assert_eq!(last, (0, Request::Abort { serial: 9 }));
    }
}

#[test]
fn pages_are_not_lent_twice() {
    let lent = Answer::Lent {
        serial: 9,
        offset: 4096,
    };
    answered(answer(lent), |client| {
        let first = client.create(ID, 5000).unwrap();
        let second = client.create(ID, 5000).unwrap_err();
        assert_eq!(first.len(), 5000);
        second
    });
}

#[test]
fn an_answer_to_another_question_is_an_error() {
    for wrong in [
        Answer::Done,
        Answer::Freed { bytes: 1 },
        Answer::Denied(Denial::Cancelled),
    ] {
        let (error, _) = answered(answer(wrong), get);
        assert!(matches!(error, StoreError::BadFrame { .. }), "{error}");
    }
    let found = Answer::Found {
        serial: 1,
        offset: 0,
        len: 1,
    };
    let (error, _) = answered(answer(found), create);
    assert!(matches!(error, StoreError::BadFrame { .. }), "{error}");
}

#[test]
fn a_listing_that_never_ends_is_an_error() {
    let entry = Entry {
        id: ID,
        len: 1,
        sealed: true,
        pins: 0,
    };
    for entries in [vec![], vec![entry]] {
        let names = Answer::Names {
            more: true,
            entries,
        };
        let (error, _) = answered(answer(names), |client| client.list().unwrap_err());
        assert!(matches!(error, StoreError::BadFrame { .. }), "{error}");
    }
}

#[test]
fn bytes_that_are_no_answer_end_the_connection() {
    let broken = |bytes: Vec<u8>| {
        let (error, _) = answered(
            move |_| bytes.clone(),
            |client| {
                let error = get(client);
                // And it stays broken.
                assert!(matches!(client.stats(), Err(StoreError::Gone { .. })));
                error
            },
        );
        assert!(matches!(error, StoreError::Gone { .. }), "{error}");
        error.to_string()
    };
    assert!(broken(u32::MAX.to_le_bytes().to_vec()).contains("4294967295 bytes"));
    assert!(broken(vec![1, 0, 0, 0, 200]).contains("ends within"));
    let mut unasked = Vec::new();
    Message::Answer(77, Answer::Done).encode(&mut unasked);
    assert!(broken(unasked).contains("what was not asked"));
    let mut closing = Vec::new();
    let why = "because".to_owned();
    Message::Closing { why }.encode(&mut closing);
    assert!(broken(closing).contains("because"));
}
