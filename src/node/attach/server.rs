//! The server's thread: sleeps until somebody connects, answers, and sleeps again.
//!
//! Invariant: one thread, at most [`MOST`] connections, no wait for any client; without connections it never wakes.
//! Left out: what the answers say (`exec::inspect`).

use std::fs;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::connection::{Connection, Next};
use super::{Answer, AttachError, Question, folder};
use crate::base::query::{Part, Query};
use crate::exec::local;

/// The most connections at once.
const MOST: usize = 32;

/// A running server; stops when dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    /// Closing it wakes the thread.
    stop: Option<UnixStream>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Starts to listen, in the first place where that is possible.
    pub fn start() -> Result<Server, AttachError> {
        let mut failed = None;
        for place in folder::places() {
            match Server::start_in(&place) {
                Ok(server) => return Ok(server),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        Err(failed.unwrap_or(AttachError::NothingRuns))
    }

    pub(super) fn start_in(place: &Path) -> Result<Server, AttachError> {
        folder::prepare(place)?;
        let io = |what: String| move |source| AttachError::Io { what, source };
        let (listener, path) = listen(place)?;
        let (stop, stopped) = UnixStream::pair().map_err(io("making a pair of sockets".into()))?;
        let place = place.to_owned();
        let thread = std::thread::Builder::new()
            .name("mobula-attach".into())
            .stack_size(512 << 10)
            .spawn(move || {
                folder::sweep(&place);
                serve(&listener, &stopped);
            })
            .map_err(io("starting the thread that answers".into()))?;
        Ok(Server {
            path,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops to listen, removes the socket and waits for the thread.
    pub fn stop(&mut self) {
        if self.stop.take().is_none() {
            return;
        }
        let _ = fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn listen(place: &Path) -> Result<(UnixListener, PathBuf), AttachError> {
    let pid = std::process::id();
    for more in 0..16 {
        let path = place.join(folder::name(pid, more));
        let io = |source| AttachError::Io {
            what: format!("listening on {}", path.display()),
            source,
        };
        match UnixListener::bind(&path) {
            Ok(listener) => {
                listener.set_nonblocking(true).map_err(io)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(io)?;
                return Ok((listener, path));
            }
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                // A process before this one had the same number; or, in another container, still has it.
                let heard = folder::open(&path, Duration::from_millis(20));
                let dead = heard.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
                if dead && fs::remove_file(&path).is_ok() {
                    let listener = UnixListener::bind(&path).map_err(io)?;
                    listener.set_nonblocking(true).map_err(io)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(io)?;
                    return Ok((listener, path));
                }
            }
            Err(e) => return Err(io(e)),
        }
    }
    Err(AttachError::Folder {
        path: place.to_owned(),
        why: format!("is full of sockets of process {pid}"),
    })
}

/// A client.
struct Peer {
    stream: UnixStream,
    state: Connection,
    /// It has sent another question already, which waits until the others had their turn.
    more: bool,
    /// A file that goes with the next bytes.
    file: Option<OwnedFd>,
}

fn serve(listener: &UnixListener, stopped: &UnixStream) {
    let mut peers: Vec<Peer> = Vec::new();
    loop {
        let now = Instant::now();
        let timeout = peers
            .iter()
            .map(|p| p.state.deadline())
            .min()
            .map(|at| at.saturating_duration_since(now));
        let timeout = match peers.iter().any(|p| p.more) {
            true => Some(Duration::ZERO),
            false => timeout,
        };
        let timeout = timeout.map(|t| Timespec {
            tv_sec: t.as_secs() as i64,
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let ready = {
            let wants = |p: &Peer| match p.state.unsent() {
                [] => PollFlags::IN,
                _ => PollFlags::OUT,
            };
            let fixed: [(BorrowedFd<'_>, PollFlags); 2] = [
                (stopped.as_fd(), PollFlags::IN),
                (listener.as_fd(), PollFlags::IN),
            ];
            let mut fds: Vec<PollFd<'_>> = fixed
                .into_iter()
                .chain(peers.iter().map(|p| (p.stream.as_fd(), wants(p))))
                .map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags))
                .collect();
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Nothing that a client does leads here; without poll there is nothing to be served.
                Err(_) => return,
            }
            fds.iter()
                .map(|fd| !fd.revents().is_empty())
                .collect::<Vec<bool>>()
        };
        if ready[0] {
            return;
        }
        let now = Instant::now();
        let mut ready_peers = ready[2..].iter();
        peers.retain_mut(|peer| {
            let ready = ready_peers.next().copied().unwrap_or(false);
            if ready || peer.more {
                go_on(peer, now)
            } else {
                peer.state.deadline() > now
            }
        });
        if ready[1] {
            accept(listener, &mut peers, now);
        }
    }
}

fn accept(listener: &UnixListener, peers: &mut Vec<Peer>, now: Instant) {
    // One at a time: a flood of connections must not keep the others waiting.
    let stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
        Err(_) => {
            // No file descriptor is left, as a rule. Poll would say at once that there is somebody, again and again.
            std::thread::sleep(Duration::from_millis(20));
            return;
        }
    };
    let known = rustix::net::sockopt::socket_peercred(&stream)
        .is_ok_and(|c| c.uid.as_raw() == folder::user() || c.uid.is_root());
    if !known || stream.set_nonblocking(true).is_err() {
        return;
    }
    if peers.len() >= MOST {
        // Whoever has kept silent for longest makes room.
        let silent = (0..peers.len()).filter(|i| peers[*i].state.unsent().is_empty());
        match silent.min_by_key(|i| peers[*i].state.deadline()) {
            Some(i) => drop(peers.swap_remove(i)),
            None => return,
        }
    }
    peers.push(Peer {
        stream,
        state: Connection::new(now),
        more: false,
        file: None,
    });
}

/// Moves a client on as far as possible without waiting; false if it is to be let go.
fn go_on(peer: &mut Peer, now: Instant) -> bool {
    let mut buffer = [0; 8192];
    // One question at a time, so that nobody has the thread alone.
    let mut answered = false;
    peer.more = false;
    loop {
        if answered && peer.state.unsent().is_empty() {
            peer.more = peer.state.has_question();
            return true;
        }
        match peer.state.next() {
            Next::Close => return false,
            Next::Refuse(why) => {
                let answer = line(&Answer::Error(why.to_owned()));
                peer.state.answer(answer, true, now);
            }
            Next::Answer(question) => {
                let (answer, file) = answer(&question);
                peer.file = file;
                peer.state.answer(answer, false, now);
                answered = true;
            }
            Next::Write => match send(peer) {
                Ok(0) => return false,
                Ok(n) => peer.state.sent(n, now),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            },
            Next::Read => match peer.stream.read(&mut buffer) {
                Ok(n) => peer.state.received(&buffer[..n], now),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            },
        }
    }
}

/// Sends what the socket takes, the file beside its first byte.
fn send(peer: &mut Peer) -> io::Result<usize> {
    let Some(file) = &peer.file else {
        return peer.stream.write(peer.state.unsent());
    };
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    beside.push(SendAncillaryMessage::ScmRights(&files));
    let bytes = [io::IoSlice::new(peer.state.unsent())];
    let sent = rustix::net::sendmsg(&peer.stream, &bytes, &mut beside, SendFlags::NOSIGNAL)?;
    peer.file = None;
    Ok(sent)
}

/// The answer's line, and the file that goes with it.
fn answer(question: &[u8]) -> (Vec<u8>, Option<OwnedFd>) {
    let mut file = None;
    let answer = match serde_json::from_slice::<Question>(question) {
        Err(e) => Answer::Error(format!("this is no question: {e}")),
        Ok(question) => {
            // A mistake in looking must not end the program that is looked at, nor the next look.
            let looked = catch_unwind(AssertUnwindSafe(|| look(question, &mut file)));
            looked.unwrap_or_else(|_| Answer::Error("the look failed".to_owned()))
        }
    };
    (line(&answer), file)
}

fn look(question: Question, file: &mut Option<OwnedFd>) -> Answer {
    let query = match &question {
        Question::Hello | Question::Recording => Query::of(&[] as &[Part]),
        Question::Snapshot(query) => query.clone(),
    };
    match local::with(|local| local.engine.inspect(local, &query)) {
        Ok(snapshot) if question == Question::Recording => match recording() {
            Ok(memory) => {
                *file = Some(memory);
                Answer::Recording(snapshot.program)
            }
            Err(why) => Answer::Error(why),
        },
        Ok(snapshot) if question == Question::Hello => Answer::Hello(snapshot.program),
        Ok(snapshot) => Answer::Snapshot(Box::new(snapshot)),
        Err(e) => Answer::Error(e.to_string()),
    }
}

/// The file of the recording's memory, or why there is none.
fn recording() -> Result<OwnedFd, String> {
    let words = local::with(|local| local.engine.recording().map(|r| r.words.clone()));
    let words = words.map_err(|e| e.to_string())?;
    let words = words.ok_or("it records nothing: its settings say Trace::Off")?;
    words
        .for_reading()
        .map_err(|e| format!("opening its recording for reading: {e}"))
}

fn line(answer: &Answer) -> Vec<u8> {
    let mut line = serde_json::to_vec(answer)
        .unwrap_or_else(|e| format!("{{\"error\":\"no answer: {e:?}\"}}").into_bytes());
    line.push(b'\n');
    line
}
