//! What a served store survives: garbage, truncation, lies about lengths, other versions, other users,
//! clients that do not read, and very many clients.
//!
//! The bytes are written here by hand, apart from the crate's own encoder, so this also pins the wire.
//! Left out: deaths (`store_deaths`), servers that lie (unit tests of the client).

#[path = "store_common/mod.rs"]
mod common;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Folder, LONG, Scene, until};
use mobula::store::{Client, Event, ObjectId, Server, StoreError};
use proptest::prelude::*;

const CREATE: u8 = 16;
const GET: u8 = 21;
const RELEASE: u8 = 23;
const STATE: u8 = 24;
const SUBSCRIBE: u8 = 28;
const CLOSING: u8 = 99;

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

fn hello(version: u32) -> Vec<u8> {
    let mut body = vec![1];
    body.extend_from_slice(b"mobula/s");
    body.extend_from_slice(&version.to_le_bytes());
    body.extend_from_slice(&5u32.to_le_bytes());
    body.extend_from_slice(b"0.0.0");
    frame(&body)
}

fn request(kind: u8, seq: u64, fields: &[&[u8]]) -> Vec<u8> {
    let mut body = vec![kind];
    body.extend_from_slice(&seq.to_le_bytes());
    body.extend(fields.concat());
    frame(&body)
}

/// A connection that was welcomed, or not if `version` is wrong, and what was answered.
fn greet(scene: &Scene, version: u32) -> (UnixStream, Vec<u8>) {
    let mut stream = UnixStream::connect(scene.socket()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(&hello(version)).unwrap();
    let answer = read_frame(&mut stream).expect("an answer to hello");
    (stream, answer)
}

/// The next frame; none at the end of the stream.
fn read_frame(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("waited {LONG:?} for a frame"),
        Err(_) => return None,
    }
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

/// Why the server hears this connection no more.
fn reason(stream: &mut UnixStream) -> String {
    while let Some(body) = read_frame(stream) {
        if body[0] == CLOSING {
            assert!(read_frame(stream).is_none(), "nothing follows");
            return String::from_utf8(body[5..].to_vec()).unwrap();
        }
    }
    panic!("the connection ended without a reason")
}

/// The server works, and nothing of others is left in it.
fn sound(scene: &Scene) {
    let client = scene.client();
    let id = ObjectId::random();
    client.put(id, &vec![1u64, 2, 3]).unwrap();
    let view = client.view::<Vec<u64>>(id, Some(LONG)).unwrap();
    assert_eq!(view.as_slice(), [1, 2, 3]);
    drop(view);
    client.delete(id).unwrap();
    let stats = until("the others to be gone", || {
        let stats = client.stats().unwrap();
        (stats.clients == 1).then_some(stats)
    });
    assert_eq!((stats.used, stats.objects, stats.drafts), (0, 0, 0));
    assert_eq!((stats.pinned, stats.waiting, stats.subscribers), (0, 0, 0));
}

#[test]
fn versions_that_differ_are_named_on_both_sides() {
    let scene = Scene::new(1 << 20);
    let (mut stream, answer) = greet(&scene, 999);
    assert_eq!(answer[0], 3, "a refusal of the version");
    assert_eq!(answer[1..9], *b"mobula/s");
    assert_eq!(answer[9..13], 1u32.to_le_bytes());
    assert!(read_frame(&mut stream).is_none(), "and the end");
    sound(&scene);

    let folder = Folder::new();
    let listener = UnixListener::bind(folder.join("later")).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut body = vec![3];
        body.extend_from_slice(b"mobula/s");
        body.extend_from_slice(&77u32.to_le_bytes());
        body.extend_from_slice(&5u32.to_le_bytes());
        body.extend_from_slice(b"9.9.9 and fields of the future");
        stream.write_all(&frame(&body)).unwrap();
    });
    let refused = Client::connect(folder.join("later")).unwrap_err();
    server.join().unwrap();
    let StoreError::Version { server, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(*server, 77);
    let said = refused.to_string();
    assert!(
        said.contains("9.9.9") && said.contains(env!("CARGO_PKG_VERSION")),
        "{said}"
    );
}

#[test]
fn a_frame_that_breaks_the_protocol_is_answered_with_the_reason() {
    let scene = Scene::new(1 << 20);
    let id = [9; 16];
    let n = |n: u64| n.to_le_bytes();
    let forever = n(u64::MAX);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (u32::MAX.to_le_bytes().to_vec(), "4294967295 bytes"),
        (70_000u32.to_le_bytes().to_vec(), "70000 bytes"),
        (frame(&[]), "ends within a field"),
        (request(200, 1, &[]), "no known kind"),
        (request(CREATE, 1, &[&id]), "ends within a field"),
        (request(STATE, 1, &[&id, &[0]]), "longer than its message"),
        (request(GET, 0, &[&id, &forever]), "under one number"),
        (request(RELEASE, 1, &[&n(1)]), "does not hold"),
        (request(18, 1, &[&n(1)]), "not writing"),
        (request(19, 1, &[&n(77)]), "not writing"),
        (request(17, 1, &[&n(1), &n(0), b"bytes"]), "not writing"),
    ];
    for (bytes, expected) in cases {
        let (mut stream, answer) = greet(&scene, 1);
        assert_eq!(answer[0], 2, "welcome");
        stream.write_all(&bytes).unwrap();
        let said = reason(&mut stream);
        assert!(said.contains(expected), "{bytes:?}: {said}");
    }
    // Two gets under one number.
    let (mut stream, _) = greet(&scene, 1);
    let get = request(GET, 5, &[&id, &forever]);
    stream.write_all(&[get.clone(), get].concat()).unwrap();
    assert!(reason(&mut stream).contains("under one number"));
    drop(stream);
    sound(&scene);
}

#[test]
fn writing_outside_an_object_breaks_the_protocol() {
    let scene = Scene::new(1 << 20);
    let n = |n: u64| n.to_le_bytes();
    for (len, at) in [(100, 96), (100, u64::MAX - 2), (100_000, 0)] {
        let (mut stream, _) = greet(&scene, 1);
        let create = request(CREATE, 1, &[&[3; 16], &n(len)]);
        stream.write_all(&create).unwrap();
        let begun = read_frame(&mut stream).unwrap();
        let serial = &begun[9..17];
        let write = request(17, 2, &[serial, &n(at), b"bytes"]);
        stream.write_all(&write).unwrap();
        assert!(reason(&mut stream).contains("outside an object"));
        drop(stream);
        // The last was lent its pages, and this process could go on writing there while it lives: only
        // its death ends that, whatever it says or closes.
        let lent = u64::from(len == 100_000);
        let client = scene.client();
        until("the end of the connection", || {
            (client.stats().unwrap().clients == 1 + lent).then_some(())
        });
        assert_eq!(client.stats().unwrap().drafts, lent);
    }
}

#[test]
fn hostile_streams_do_no_harm() {
    let scene = Scene::new(1 << 20);
    let strategy = (
        any::<bool>(),
        proptest::collection::vec(
            prop_oneof![
                // Garbage.
                proptest::collection::vec(any::<u8>(), 0..200),
                // Frames of garbage.
                proptest::collection::vec(any::<u8>(), 0..100).prop_map(|body| frame(&body)),
                // Requests with any fields, but none that makes a draft: those outlive the connection.
                (
                    18u8..31,
                    1u64..5,
                    proptest::collection::vec(any::<u8>(), 0..40)
                )
                    .prop_map(|(kind, seq, fields)| request(kind, seq, &[&fields])),
                // Sound requests over few names.
                (0u8..3).prop_map(|n| request(STATE, 7, &[&[n; 16]])),
                (0u8..3, 1u64..4).prop_map(|(n, seq)| request(
                    GET,
                    seq,
                    &[&[n; 16], &u64::MAX.to_le_bytes()]
                )),
                (0u8..3).prop_map(|n| request(20, 9, &[&[n; 16], b"contents"])),
                (0u8..3).prop_map(|n| request(25, 9, &[&[n; 16]])),
            ],
            0..12,
        ),
        0usize..60,
    );
    let config = ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |((greeted, messages, cut) in strategy)| {
        let mut stream = UnixStream::connect(scene.socket()).unwrap();
        if greeted {
            stream.write_all(&hello(1)).unwrap();
        }
        let mut bytes = messages.concat();
        // The last frame ends somewhere within.
        bytes.truncate(bytes.len().saturating_sub(cut));
        // The server may have had enough before the end.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
    });
    let client = scene.client();
    for object in client.list().unwrap() {
        client.delete(object.id).unwrap();
    }
    drop(client);
    sound(&scene);
}

#[test]
fn a_client_that_never_reads_harms_nobody() {
    let scene = Scene::new(8 << 20);
    let other = scene.client();
    // It asks without end and reads no answer.
    let (mut asking, _) = greet(&scene, 1);
    asking.set_nonblocking(true).unwrap();
    let asks = request(STATE, 1, &[&[1; 16]]).repeat(1000);
    let (mut sent, mut stuck_since) = (0, Instant::now());
    while stuck_since.elapsed() < Duration::from_millis(300) {
        match asking.write(&asks) {
            Ok(n) => (sent, stuck_since) = (sent + n, Instant::now()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(e) => panic!("{e}"),
        }
        assert!(sent < 64 << 20, "the server takes questions without end");
    }
    // It wants to be told everything and listens to nothing.
    let (mut deaf, _) = greet(&scene, 1);
    deaf.write_all(&request(SUBSCRIBE, 1, &[])).unwrap();
    assert_eq!(read_frame(&mut deaf).unwrap()[0], 64, "done");
    let id = ObjectId::from_name("again and again");
    for _ in 0..20_000 {
        other.put_bytes(id, b"x").unwrap();
        other.delete(id).unwrap();
    }
    // Once it listens, it hears how much it missed.
    let (mut heard, mut missed) = (0u64, 0u64);
    while heard + missed < 40_000 {
        let event = read_frame(&mut deaf).unwrap();
        match event[0] {
            96 | 97 => heard += 1,
            98 => missed += u64::from_le_bytes(event[1..].try_into().unwrap()),
            kind => panic!("a message of kind {kind}"),
        }
    }
    assert_eq!(heard + missed, 40_000);
    assert!(missed > 0, "a bound was reached");
    drop((asking, deaf, other));
    sound(&scene);
}

#[test]
fn a_slow_subscriber_is_told_how_much_it_missed() {
    let scene = Scene::new(8 << 20);
    let (slow, client) = (scene.client(), scene.client());
    let events = slow.subscribe().unwrap();
    let id = ObjectId::from_name("x");
    for _ in 0..20_000 {
        client.put_bytes(id, b"x").unwrap();
        client.delete(id).unwrap();
    }
    let (mut heard, mut missed) = (0, 0);
    while heard + missed < 40_000 {
        match events.recv_timeout(LONG).unwrap().expect("an event") {
            Event::Lagged { missed: more } => missed += more,
            _ => heard += 1,
        }
    }
    assert!(missed > 0 && heard > 0);
    assert_eq!(events.recv_timeout(Duration::from_millis(1)).unwrap(), None);
}

#[test]
fn another_users_process_is_refused_unless_it_may() {
    const OTHER: u32 = 65534;
    const TEST: &str = "another_users_process_is_refused_unless_it_may";
    if let Some(expected) = common::role("connect") {
        let said = match Client::connect(common::socket()) {
            Ok(client) => {
                client
                    .put_bytes(ObjectId::from_name(&expected), b"")
                    .unwrap();
                "welcome".to_owned()
            }
            Err(StoreError::RefusedUser {
                found, expected, ..
            }) => format!("{found} not {expected}"),
            Err(e) => e.to_string(),
        };
        assert_eq!(said, expected);
        return;
    }
    // Whoever runs this owns a folder just made.
    let folder = Folder::new();
    let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(folder.path()).unwrap());
    if me != 0 {
        return common::skip::skipped("only root can start another user's process");
    }
    // The other user may not be able to look where this executable lies.
    let program = folder.join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for (allowed, expected) in [
        (false, format!("{OTHER} not 0")),
        (true, "welcome".to_owned()),
    ] {
        let mut options = Server::options().capacity(1 << 20);
        if allowed {
            options = options.allow_user(OTHER);
        }
        let socket = folder.join(&expected);
        let _server = options.start(&socket).unwrap();
        // The file alone keeps others out; here the check behind it is tried.
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
        let mut child = Command::new(&program);
        child.args([TEST, "--exact", "--nocapture", "--test-threads=1"]);
        common::play(&mut child, "connect", &expected, &socket);
        let output = child
            .uid(OTHER)
            .gid(OTHER)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Client::connect(&socket).unwrap().stats().unwrap();
    }
}

#[test]
fn a_socket_is_the_owners_alone() {
    let scene = Scene::new(1 << 20);
    let mode = std::fs::metadata(scene.socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_thousand_clients_at_once() {
    const CLIENTS: usize = 1000;
    const THREADS: usize = 10;
    let folder = Folder::new();
    let options = Server::options().capacity(64 << 20).many_clients();
    // Three descriptors for each, since both ends are in this process.
    let limit = open_files();
    if limit < 3 * CLIENTS + 200 {
        return common::skip::skipped(format!("this process may have {limit} files open"));
    }
    let _server = options.start(folder.join("socket")).unwrap();
    let name = |n: usize| ObjectId::from_name(&format!("client {n}"));
    let all: Vec<Client> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|t| {
                let folder = &folder;
                scope.spawn(move || {
                    let mine = (t..CLIENTS).step_by(THREADS);
                    let connect = |n| {
                        let client = Client::connect(folder.join("socket")).unwrap();
                        client.put_bytes(name(n), &[n as u8; 100]).unwrap();
                        client
                    };
                    mine.map(connect).collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    let stats = all[0].stats().unwrap();
    assert_eq!((stats.clients, stats.objects), (1000, 1000));
    // Each reads what another wrote.
    for (n, client) in all.iter().enumerate() {
        let other = (n * 7 + 13) % CLIENTS;
        assert_eq!(
            client.get(name(other), Some(LONG)).unwrap()[..],
            [other as u8; 100]
        );
    }
    let last = Client::connect(folder.join("socket")).unwrap();
    drop(all);
    until("all to be gone", || {
        (last.stats().unwrap().clients == 1).then_some(())
    });
}

/// How many files this process may have open.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let soft = line.split_whitespace().nth(3).unwrap();
    soft.parse().unwrap_or(usize::MAX)
}
