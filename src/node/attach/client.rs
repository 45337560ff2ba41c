//! The client: finds running programs and asks them.
//!
//! Invariant: an answer is read up to a bound and for a bounded time; what is no answer is an error. Left out: showing it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::folder::{self, Socket};
use super::{ANSWER_MAX, Answer, AttachError, Question};
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

/// The programs of this user that answer, newest first. What dead programs left behind is removed. Takes a system call
/// or two for each.
pub fn running() -> Vec<Running> {
    let mut found: Vec<(Socket, UnixStream)> = all_sockets()
        .into_iter()
        .filter_map(|s| folder::connect(&s).ok().map(|stream| (s, stream)))
        .collect();
    found.sort_by_key(|(s, _)| std::cmp::Reverse(s.since));
    found
        .into_iter()
        .map(|(s, _)| Running {
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
    pid: u32,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the program with this process id, or to the newest of this user.
    ///
    /// # Errors
    /// [`AttachError::NothingRuns`], [`AttachError::NotRunning`], or [`AttachError::Io`].
    pub fn attach(pid: Option<u32>) -> Result<Client, AttachError> {
        let all = running();
        let found = match pid {
            None => all.first().ok_or(AttachError::NothingRuns)?,
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
            source,
        };
        let stream = UnixStream::connect(&to.socket).map_err(io)?;
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
            pid: to.pid,
            stream: BufReader::new(stream),
        })
    }

    /// The process id of the program.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Which program it is.
    ///
    /// # Errors
    /// As for [`snapshot`](Self::snapshot).
    pub fn program(&mut self) -> Result<Program, AttachError> {
        match self.ask(&Question::Hello)? {
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
        match self.ask(&Question::Snapshot(query.clone()))? {
            Answer::Snapshot(snapshot) => Ok(*snapshot),
            _ => Err(AttachError::Answer("to another question".into())),
        }
    }

    fn ask(&mut self, question: &Question) -> Result<Answer, AttachError> {
        let pid = self.pid;
        let io = |source: io::Error| AttachError::Io {
            what: match source.kind() {
                io::ErrorKind::WouldBlock => format!("process {pid} does not answer"),
                _ => format!("talking to process {pid}"),
            },
            source,
        };
        let mut line = serde_json::to_vec(question).map_err(|e| io(e.into()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(io)?;
        line.clear();
        let read = (&mut self.stream)
            .take(ANSWER_MAX)
            .read_until(b'\n', &mut line)
            .map_err(io)?;
        if line.last() != Some(&b'\n') {
            return match read as u64 {
                ANSWER_MAX => Err(AttachError::Answer("it is longer than 512 MiB".into())),
                _ => Err(io(io::ErrorKind::UnexpectedEof.into())),
            };
        }
        match serde_json::from_slice(&line) {
            Ok(Answer::Error(why)) => Err(AttachError::Refused(why)),
            Ok(answer) => Ok(answer),
            Err(e) => Err(AttachError::Answer(e.to_string())),
        }
    }
}
