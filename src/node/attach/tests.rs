//! Folders that are not to be trusted, and sockets that nobody listens on.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::folder::{self, Socket};
use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("mobula-attach-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Folder(path)
    }

    fn socket(&self, pid: u32, age: Duration) -> Socket {
        Socket {
            pid,
            path: self.0.join(folder::name(pid, 0)),
            since: SystemTime::now() - age,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_folder_is_made_for_its_user_alone() {
    let outer = Folder::new("made");
    let place = outer.0.join("mobula");
    folder::prepare(&place).unwrap();
    let mode = fs::metadata(&place).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    folder::prepare(&place).unwrap();
}

#[test]
fn what_others_could_have_made_is_not_used() {
    let outer = Folder::new("untrusted");
    let (open, file, link) = (outer.0.join("a"), outer.0.join("b"), outer.0.join("c"));
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(&outer.0, &link).unwrap();
    for (path, what) in [
        (&open, "chmod 700"),
        (&file, "not a folder"),
        (&link, "not a folder"),
    ] {
        let why = folder::prepare(path).unwrap_err().to_string();
        assert!(why.contains(what), "{why}");
        assert!(Server::start_in(path).is_err());
        assert!(folder::sockets(path).is_empty());
    }
    let said = |places: &[&PathBuf]| {
        let places: Vec<PathBuf> = places.iter().map(|&p| p.clone()).collect();
        folder::trouble(&places).map(|e| e.to_string())
    };
    let gone = outer.0.join("gone");
    assert!(said(&[&gone, &open, &file]).is_some_and(|why| why.contains("chmod 700")));
    assert_eq!(said(&[&open, &outer.0]), None, "one can be used");
    assert_eq!(said(&[&gone]), None);
    // In the folder of somebody who is not there.
    assert!(folder::prepare(&outer.0.join("no/such")).is_err());
}

#[test]
fn only_what_nobody_listens_on_is_swept() {
    let folder = Folder::new("sweep");
    let me = std::process::id();
    // A process that has ended and was waited for: its number is free.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead = child.id();
    child.wait().unwrap();
    let leave = |pid| {
        let path = folder.0.join(folder::name(pid, 0));
        drop(UnixListener::bind(&path).unwrap());
        path
    };
    let (ours, theirs) = (leave(me), leave(dead));
    fs::write(folder.0.join("notes.txt"), "").unwrap();
    folder::sweep(&folder.0);
    assert!(!theirs.exists(), "its program is dead");
    assert!(ours.exists(), "its program may be about to listen");
    // One that is old and refuses is dead whatever its number means by now.
    assert!(folder::connect(&folder.socket(me, Duration::from_secs(60))).is_err());
    assert!(!ours.exists());
    assert!(folder.0.join("notes.txt").exists());
    let _listener = UnixListener::bind(&ours).unwrap();
    assert!(folder::connect(&folder.socket(me, Duration::from_secs(60))).is_ok());
    assert!(ours.exists());
}

#[test]
fn a_program_that_lets_nobody_in_holds_nobody_up() {
    let folder = Folder::new("stopped");
    let socket = folder.socket(std::process::id(), Duration::from_secs(60));
    let listener = UnixListener::bind(&socket.path).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let mut line = Vec::new();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let full = loop {
        match folder::open(&socket.path, Duration::from_millis(1)) {
            Ok(stream) => line.push(stream),
            Err(e) => break e,
        }
        assert!(std::time::Instant::now() < deadline, "the line has an end");
    };
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
    // It is not dead: who looks sees it, who sweeps leaves it, and one more of its number takes another name.
    assert!(folder::is_heard(&socket));
    folder::sweep(&folder.0);
    assert!(socket.path.exists());
    let server = Server::start_in(&folder.0).unwrap();
    assert_ne!(server.path(), socket.path);
}

#[test]
fn who_was_silent_for_long_asks_on() {
    let folder = Folder::new("silent");
    let socket = folder.socket(std::process::id(), Duration::ZERO);
    let listener = UnixListener::bind(&socket.path).unwrap();
    let path = socket.path.clone();
    // Answers once on each of two connections, then ends.
    let program = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = String::new();
            BufReader::new(&stream).read_line(&mut question).unwrap();
            stream.write_all(b"{\"hello\":{\"pid\":7}}\n").unwrap();
        }
        drop(listener);
        fs::remove_file(path).unwrap();
    });
    let mut client = Client::connect(&Running {
        pid: socket.pid,
        socket: socket.path,
        since: socket.since,
    })
    .unwrap();
    assert_eq!(client.program().unwrap().pid, 7);
    assert_eq!(client.program().unwrap().pid, 7);
    program.join().unwrap();
    assert!(client.program().unwrap_err().has_ended());
}

#[test]
fn two_of_one_number_share_a_folder() {
    let folder = Folder::new("twins");
    let first = Server::start_in(&folder.0).unwrap();
    let second = Server::start_in(&folder.0).unwrap();
    assert_ne!(first.path(), second.path());
    let found = folder::sockets(&folder.0);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|s| s.pid == std::process::id()));
    drop((first, second));
    assert!(folder::sockets(&folder.0).is_empty());
}

#[test]
fn a_server_without_a_runtime_says_so_and_serves_on() {
    let folder = Folder::new("idle");
    let server = Server::start_in(&folder.0).unwrap();
    let mut stream = UnixStream::connect(server.path()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    // Many questions at once are answered one after the other.
    stream.write_all(&b"nonsense\n".repeat(1000)).unwrap();
    let mut lines = BufReader::new(stream).lines();
    for _ in 0..1000 {
        let line = lines.next().unwrap().unwrap();
        assert!(
            matches!(serde_json::from_str(&line), Ok(Answer::Error(_))),
            "{line}"
        );
    }
}

/// A program that answers what it is told to, once, with a file beside it.
fn liar(folder: &Folder, answer: &'static str, file: Option<std::os::fd::OwnedFd>) -> AttachError {
    use std::os::fd::AsFd;
    let socket = folder.socket(std::process::id(), Duration::ZERO);
    let _ = fs::remove_file(&socket.path);
    let listener = UnixListener::bind(&socket.path).unwrap();
    let lie = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        BufReader::new(&stream)
            .read_line(&mut String::new())
            .unwrap();
        let Some(file) = file else {
            return stream.write_all(answer.as_bytes()).unwrap();
        };
        let files = [file.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = rustix::net::SendAncillaryBuffer::new(&mut space);
        beside.push(rustix::net::SendAncillaryMessage::ScmRights(&files));
        let bytes = [std::io::IoSlice::new(answer.as_bytes())];
        let flags = rustix::net::SendFlags::NOSIGNAL;
        rustix::net::sendmsg(&stream, &bytes, &mut beside, flags).unwrap();
    });
    let running = Running {
        pid: socket.pid,
        socket: socket.path,
        since: socket.since,
    };
    let e = Client::connect(&running).unwrap().recorded().unwrap_err();
    lie.join().unwrap();
    e
}

#[test]
fn a_recording_that_is_none_is_refused() {
    use crate::shm::Words;
    let folder = Folder::new("liars");
    let fine = "{\"recording\":{\"name\":\"x\",\"pid\":1}}\n";
    let null = || Some(fs::File::open("/dev/null").unwrap().into());
    let words = |bytes| Words::create(bytes).unwrap().for_reading().ok();
    let short = fs::File::open("/proc/self/exe").unwrap().into();
    for (answer, file, why) in [
        (fine, None, "file is missing"),
        (fine, null(), "mapping the recording"),
        (fine, Some(short), "mapping the recording"),
        (fine, words(4096), "none that this version reads"),
        (fine, words(1 << 20), "none that this version reads"),
        ("{\"error\":\"no\"}\n", null(), "refused: no"),
        ("nonsense\n", null(), "makes no sense"),
        ("half of", null(), "talking to process"),
        ("", None, "talking to process"),
    ] {
        let e = liar(&folder, answer, file).to_string();
        assert!(e.contains(why), "{answer:?}: {e}");
    }
}

#[test]
fn questions_and_answers_read_back() {
    let query = Query::all().limit(7).state("running").id(u64::MAX);
    let question = Question::Snapshot(query);
    let text = serde_json::to_string(&question).unwrap();
    assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), question);
    let mut snapshot = Snapshot::default();
    snapshot.tasks.items.push(crate::base::snapshot::Task {
        id: crate::base::snapshot::Id(u64::MAX),
        ..Default::default()
    });
    let text = serde_json::to_string(&snapshot).unwrap();
    assert!(text.contains("\"0xffffffffffffffff\""), "{text}");
    assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    // A program of another version may know less, or more.
    let other = r#"{"taken": 5, "counts": {"running": 2, "news": true}, "more": []}"#;
    let read: Snapshot = serde_json::from_str(other).unwrap();
    assert_eq!((read.taken, read.counts.running), (5, 2));
}
