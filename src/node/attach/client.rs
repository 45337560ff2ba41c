//! The client: finds running programs and asks them.
//!
//! Invariant: an answer is read up to a bound and for a bounded time; what is no answer is an error. Left out: showing it.

use std::io::{self, BufRead, BufReader, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::folder::{self, Socket};
use super::{ANSWER_MAX, Answer, AttachError, Question, Recorded};
use crate::base::query::Query;
use crate::base::snapshot::{Program, Snapshot};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program of this user to which one can attach.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Running {
    /// Its process id.
    pub pid: u32,
    /// Where it listens.
    pub socket: PathBuf,
    /// When it started to.
    pub since: SystemTime,
}

/// The programs of this user that listen, newest first; one that is stopped is among them. What dead programs left behind is
/// removed. Takes a few system calls for each, and 20 ms for one that is stopped and that many wait for.
pub fn running() -> Vec<Running> {
    let mut found = all_sockets();
    found.retain(folder::is_heard);
    found.sort_by_key(|s| std::cmp::Reverse(s.since));
    found
        .into_iter()
        .map(|s| Running {
            pid: s.pid,
            socket: s.path,
            since: s.since,
        })
        .collect()
}

fn all_sockets() -> Vec<Socket> {
    let places = folder::places();
    places.iter().flat_map(|p| folder::sockets(p)).collect()
}

/// A connection to a running program.
///
/// ```no_run
/// use mobula::inspect::{Client, Query};
/// let mut client = Client::attach(None)?; // the newest of this user
/// println!("{} tasks run", client.snapshot(&Query::default())?.counts.running);
/// # Ok::<(), mobula::inspect::AttachError>(())
/// ```
#[derive(Debug)]
pub struct Client {
    program: Running,
    stream: BufReader<UnixStream>,
    /// Whether anything was answered on this connection.
    answered: bool,
}

impl Client {
    /// Connects to the program with this process id, or to the newest of this user.
    ///
    /// # Errors
    /// [`AttachError::NothingRuns`], [`AttachError::NotRunning`], [`AttachError::Io`]; [`AttachError::Folder`] if programs
    /// could not be found because the folder of their sockets is not this user's alone.
    pub fn attach(pid: Option<u32>) -> Result<Client, AttachError> {
        let all = running();
        let found = match pid {
            None => all.first().ok_or_else(|| {
                folder::trouble(&folder::places()).unwrap_or(AttachError::NothingRuns)
            })?,
            Some(pid) => {
                all.iter()
                    .find(|r| r.pid == pid)
                    .ok_or_else(|| AttachError::NotRunning {
                        pid,
                        others: all.iter().map(|r| r.pid).collect(),
                    })?
            }
        };
        Client::connect(found)
    }

    /// Connects to a program that was found.
    ///
    /// # Errors
    /// [`AttachError::Io`] if it ended meanwhile, [`AttachError::Refused`] if the socket is another user's.
    pub fn connect(to: &Running) -> Result<Client, AttachError> {
        let io = |source| AttachError::Io {
            what: format!("attaching to process {}", to.pid),
            source: patient(source),
        };
        let stream = folder::open(&to.socket, PATIENCE).map_err(io)?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|e| io(e.into()))?;
        if peer.uid.as_raw() != folder::user() {
            return Err(AttachError::Refused(format!(
                "user {} listens there",
                peer.uid.as_raw()
            )));
        }
        stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(io)?;
        Ok(Client {
            program: to.clone(),
            stream: BufReader::new(stream),
            answered: false,
        })
    }

    /// The process id of the program.
    pub fn pid(&self) -> u32 {
        self.program.pid
    }

    /// The program, as it was found.
    pub fn running(&self) -> &Running {
        &self.program
    }

    /// Which program it is.
    ///
    /// # Errors
    /// As for [`snapshot`](Self::snapshot).
    pub fn program(&mut self) -> Result<Program, AttachError> {
        match self.persist(|client| client.ask(&Question::Hello))? {
            Answer::Hello(program) => Ok(program),
            _ => Err(AttachError::Answer("to another question".into())),
        }
    }

    /// A look at it. Waits for the answer, at most 20 s.
    ///
    /// # Errors
    /// [`AttachError::Io`] if the program ended or does not answer, [`AttachError::Refused`] and [`AttachError::Answer`]
    /// if its answer is none.
    pub fn snapshot(&mut self, query: &Query) -> Result<Snapshot, AttachError> {
        let question = Question::Snapshot(query.clone());
        match self.persist(|client| client.ask(&question))? {
            Answer::Snapshot(snapshot) => Ok(*snapshot),
            _ => Err(AttachError::Answer("to another question".into())),
        }
    }

    /// What it recorded, and goes on to record. Costs the program nothing but the handing over of a file; what is read in
    /// it afterwards can be read also when the program has ended.
    ///
    /// # Errors
    /// As for [`snapshot`](Self::snapshot); [`AttachError::Refused`] if it records nothing.
    pub fn recorded(&mut self) -> Result<Recorded, AttachError> {
        let (line, file) = self.persist(|client| {
            client.send(&Question::Recording)?;
            client.receive_with_file()
        })?;
        match (read(&line)?, file) {
            (Answer::Recording(program), Some(file)) => Recorded::new(program, file),
            (Answer::Recording(_), None) => Err(AttachError::Answer(
                "the recording's file is missing".into(),
            )),
            _ => Err(AttachError::Answer("to another question".into())),
        }
    }

    /// Asks, and once more over a new connection if the old one has ended: a program hangs up on those who ask nothing for
    /// long, and on the most silent when too many connect. That is not its own end.
    fn persist<T>(
        &mut self,
        mut ask: impl FnMut(&mut Client) -> Result<T, AttachError>,
    ) -> Result<T, AttachError> {
        let mut asked = ask(self);
        if self.answered && asked.as_ref().is_err_and(AttachError::has_ended) {
            *self = Client::connect(&self.program)?;
            asked = ask(self);
        }
        self.answered |= asked.is_ok();
        asked
    }

    fn io(&self, source: io::Error) -> AttachError {
        let pid = self.program.pid;
        AttachError::Io {
            what: match source.kind() {
                io::ErrorKind::WouldBlock => format!("process {pid} does not answer"),
                _ => format!("talking to process {pid}"),
            },
            source: patient(source),
        }
    }

    fn send(&mut self, question: &Question) -> Result<(), AttachError> {
        let mut line = serde_json::to_vec(question).map_err(|e| self.io(e.into()))?;
        line.push(b'\n');
        self.stream
            .get_mut()
            .write_all(&line)
            .map_err(|e| self.io(e))
    }

    /// One short line, and the first file that comes beside its bytes.
    fn receive_with_file(&mut self) -> Result<(Vec<u8>, Option<OwnedFd>), AttachError> {
        const SHORT: usize = 64 << 10;
        let (mut line, mut first) = (self.stream.buffer().to_vec(), None);
        self.stream.consume(line.len());
        while line.last() != Some(&b'\n') {
            if line.len() > SHORT {
                return Err(AttachError::Answer("it is longer than 64 KiB".into()));
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut beside = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [0; 4096];
            let mut into = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let got =
                match rustix::net::recvmsg(self.stream.get_ref(), &mut into, &mut beside, flags) {
                    Ok(message) => message.bytes,
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(e) => return Err(self.io(e.into())),
                };
            for message in beside.drain() {
                if let RecvAncillaryMessage::ScmRights(files) = message {
                    // All are taken, so that those nobody asked for are closed.
                    first = files.fold(first, |first, file| first.or(Some(file)));
                }
            }
            if got == 0 {
                return Err(self.io(io::ErrorKind::UnexpectedEof.into()));
            }
            line.extend_from_slice(&bytes[..got]);
        }
        Ok((line, first))
    }

    fn ask(&mut self, question: &Question) -> Result<Answer, AttachError> {
        self.send(question)?;
        let mut line = Vec::new();
        let got = (&mut self.stream)
            .take(ANSWER_MAX)
            .read_until(b'\n', &mut line)
            .map_err(|e| self.io(e))?;
        if line.last() != Some(&b'\n') {
            return match got as u64 {
                ANSWER_MAX => Err(AttachError::Answer("it is longer than 512 MiB".into())),
                _ => Err(self.io(io::ErrorKind::UnexpectedEof.into())),
            };
        }
        read(&line)
    }
}

/// What the system calls a resource that is not there is a program that does not answer in time.
fn patient(e: io::Error) -> io::Error {
    match e.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "nothing for {PATIENCE:?}; it may be stopped, held by a debugger, or short of CPU time"
            ),
        ),
        _ => e,
    }
}

pub(super) fn read(line: &[u8]) -> Result<Answer, AttachError> {
    match serde_json::from_slice(line) {
        Ok(Answer::Error(why)) => Err(AttachError::Refused(why)),
        Ok(answer) => Ok(answer),
        Err(e) => Err(AttachError::Answer(e.to_string())),
    }
}
