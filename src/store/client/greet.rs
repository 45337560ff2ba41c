//! The beginning of a connection: who is there, which version, and the file of the memory.
//!
//! Invariant: nothing is mapped before the server's user and version are known to be right, and what
//! it says of its memory is checked against the file. Left out: everything after the welcome.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::StoreError;
use crate::shm::{Attached, Peer, peer};
use crate::store::proto::{Frames, Greeting, Hello, VERSION, Welcome};
use crate::store::socket;

use std::os::fd::AsFd;

/// How long a server may take to answer a hello.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// A connection that was welcomed.
pub struct Greeted {
    pub socket: OwnedFd,
    pub frames: Frames,
    pub attached: Attached,
    pub server: Peer,
}

/// Connects, and says hello as this crate.
pub fn connect(path: &Path, user: Option<u32>) -> Result<Greeted, StoreError> {
    greet(path, user, &Hello::of_this_crate())
}

pub fn greet(path: &Path, user: Option<u32>, hello: &Hello) -> Result<Greeted, StoreError> {
    let gone = |why: &dyn std::fmt::Display| StoreError::Gone {
        path: path.to_owned(),
        why: Arc::from(why.to_string()),
    };
    let os = |what: &str, e: io::Error| StoreError::Os {
        what: format!("{what} of the store at {}", path.display()),
        source: Arc::new(e),
    };
    let stream = UnixStream::connect(path).map_err(|e| gone(&e))?;
    stream
        .set_nonblocking(true)
        .map_err(|e| os("the socket", e))?;
    let server = peer(&stream).map_err(|e| os("asking for the user", e))?;
    let own = rustix::process::geteuid().as_raw();
    // The superuser can read and write this process anyway.
    if ![own, 0].contains(&server.uid) && user != Some(server.uid) {
        return Err(StoreError::RefusedUser {
            who: "the store",
            found: server.uid,
            expected: user.unwrap_or(own),
        });
    }
    let mut bytes = Vec::new();
    hello.encode(&mut bytes);
    // A server that refuses has closed its end already, and its reason is still to be read.
    let _ = socket::send(&stream, &bytes);
    let mut frames = Frames::default();
    let (greeting, file) = welcome(&stream, &mut frames, &gone)?;
    let welcome = match greeting {
        Greeting::Welcome(welcome) if welcome.version == VERSION => welcome,
        Greeting::Welcome(Welcome {
            version, program, ..
        })
        | Greeting::Version(Hello { version, program }) => {
            return Err(StoreError::Version {
                server: version,
                server_crate: program,
                client: hello.version,
                client_crate: hello.program.clone(),
            });
        }
        Greeting::User { found, server } => {
            return Err(StoreError::RefusedUser {
                who: "this program",
                found,
                expected: server,
            });
        }
        Greeting::TooMany { clients } => return Err(StoreError::TooManyClients { clients }),
    };
    let file = file.ok_or_else(|| StoreError::BadFrame {
        why: "the welcome came without the store's memory".to_owned(),
    })?;
    let attached = Attached::map(file.as_fd(), welcome.capacity, welcome.grain)
        .map_err(|e| os("mapping the memory", e))?;
    Ok(Greeted {
        socket: stream.into(),
        frames,
        attached,
        server: Peer {
            // From another pid namespace the kernel's number is 0; the server's own is for people.
            pid: if server.pid == 0 {
                welcome.pid
            } else {
                server.pid
            },
            ..server
        },
    })
}

/// Waits for the first frame and what comes beside it.
fn welcome(
    stream: &UnixStream,
    frames: &mut Frames,
    gone: &dyn Fn(&dyn std::fmt::Display) -> StoreError,
) -> Result<(Greeting, Option<OwnedFd>), StoreError> {
    let until = Instant::now() + WELCOME_WITHIN;
    let mut file = None;
    loop {
        match socket::receive_with(stream, frames.room()) {
            Ok((0, _)) => return Err(gone(&"it closed the connection at once")),
            Ok((received, beside)) => {
                frames.received(received);
                file = file.or(beside);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(gone(&format_args!(
                        "it did not answer within {WELCOME_WITHIN:?}"
                    )));
                }
                socket::wait(stream, false, Some(left)).map_err(|e| gone(&e))?;
            }
            Err(e) => return Err(gone(&e)),
        }
        let bad = |why: String| StoreError::BadFrame { why };
        match frames.next() {
            Ok(None) => {}
            Ok(Some(frame)) => {
                let greeting = Greeting::decode(frame).map_err(|m| bad(m.0.to_owned()))?;
                return Ok((greeting, file));
            }
            Err(long) => return Err(bad(format!("a first frame of {} bytes", long.0))),
        }
    }
}
