//! Sockets between nodes of one machine and one user.
//!
//! A node listens on a Unix socket whose name is removed before anybody could see it: it is reached through `/proc`, where the
//! kernel lets only those in who may look into the process. Of two nodes that have a connection, with certificates on both
//! sides, the one that was called offers its socket over it, with two secrets of that connection. The other checks that it is
//! the very file, and the very process and user; it shows the first secret, and the listener answers with the second.
//!
//! Invariant: a socket belongs to one connection, whose peer has proven over that connection's TLS who it is. Whoever shows no
//! secret in time is dropped, and only so many may try at once. Left out: what goes over it (`ways`).

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::link::LinkError;
use crate::link::codec::{Reader, Writer};
use crate::link::peer::PeerLink;
use crate::link::shared::Shared;
use crate::link::ways::Ways;

/// Bytes of a secret.
const SECRET: usize = 16;
/// How long it may take to show one, and to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Those who have not shown one yet, at one time.
const STRANGERS: usize = 64;
/// What names a machine, since it was started, is at most this long.
const MAX_MACHINE: usize = 64;

type Secret = [u8; SECRET];

/// Where this node listens for others of its machine.
pub(crate) struct Door {
    listener: Mutex<Option<StdListener>>,
    /// Names the socket, whose own name is gone.
    file: OwnedFd,
    machine: String,
    device: u64,
    inode: u64,
    /// Who may come, by the first secret.
    expected: Mutex<HashMap<Secret, Guest>>,
}

struct Guest {
    answer: Secret,
    peer: Arc<PeerLink>,
    ways: Arc<Ways>,
}

/// What is told of a door over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    machine: String,
    process: u32,
    file: u32,
    device: u64,
    inode: u64,
    ask: Secret,
    answer: Secret,
}

/// What this machine is called, since it was started.
fn machine() -> std::io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

impl Door {
    /// Listens.
    pub fn open() -> std::io::Result<Door> {
        let mut name = [0; 8];
        aws_lc_rs::rand::fill(&mut name)
            .map_err(|_| std::io::Error::other("no random numbers to be had"))?;
        let folder = format!("mobula-{:016x}", u64::from_le_bytes(name));
        let folder = std::env::temp_dir().join(folder);
        // Nobody else may enter it, and it must not be there yet.
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let made = Door::open_in(&folder);
        let _ = std::fs::remove_file(folder.join("s"));
        let _ = std::fs::remove_dir(&folder);
        made
    }

    fn open_in(folder: &std::path::Path) -> std::io::Result<Door> {
        let path = folder.join("s");
        let listener = StdListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, rustix::fs::Mode::empty())?;
        let meta = File::from(file.try_clone()?).metadata()?;
        Ok(Door {
            listener: Mutex::new(Some(listener)),
            file,
            machine: machine()?,
            device: meta.dev(),
            inode: meta.ino(),
            expected: Mutex::default(),
        })
    }

    /// Expects the peer of a connection.
    fn offer(&self, peer: &Arc<PeerLink>, ways: &Arc<Ways>) -> Option<Offer> {
        let (mut ask, mut answer) = ([0; SECRET], [0; SECRET]);
        aws_lc_rs::rand::fill(&mut ask).ok()?;
        aws_lc_rs::rand::fill(&mut answer).ok()?;
        let guest = Guest {
            answer,
            peer: peer.clone(),
            ways: ways.clone(),
        };
        self.expected.lock().insert(ask, guest);
        Some(Offer {
            machine: self.machine.clone(),
            process: std::process::id(),
            file: self.file.as_raw_fd().cast_unsigned(),
            device: self.device,
            inode: self.inode,
            ask,
            answer,
        })
    }
}

/// A peer that is expected as long as its connection lives.
pub(crate) struct Invited {
    door: Arc<Door>,
    pub offer: Offer,
}

impl Invited {
    pub fn new(door: &Arc<Door>, peer: &Arc<PeerLink>, ways: &Arc<Ways>) -> Option<Invited> {
        ways.offered().ok()?;
        let offer = door.offer(peer, ways)?;
        Some(Invited {
            door: door.clone(),
            offer,
        })
    }
}

impl Drop for Invited {
    fn drop(&mut self) {
        self.door.expected.lock().remove(&self.offer.ask);
    }
}

impl Offer {
    pub fn encode(&self, out: &mut Writer) {
        out.bytes(self.machine.as_bytes())
            .u32(self.process)
            .u32(self.file)
            .u64(self.device)
            .u64(self.inode)
            .raw(&self.ask)
            .raw(&self.answer);
    }

    pub fn decode(from: &mut Reader<'_>) -> Result<Offer, LinkError> {
        Ok(Offer {
            machine: from.text(MAX_MACHINE, "a machine's name")?.to_owned(),
            process: from.u32("a process")?,
            file: from.u32("a file's number")?,
            device: from.u64("a device")?,
            inode: from.u64("a file")?,
            ask: from.array("a secret")?,
            answer: from.array("an answer")?,
        })
    }

    /// Where it is.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", self.process, self.file)
    }

    /// Connects to it, if it is on this machine and what it says it is.
    pub async fn connect(&self) -> std::io::Result<UnixStream> {
        let no = |why: &str| Err(std::io::Error::other(why.to_owned()));
        if machine()? != self.machine {
            return no("another machine");
        }
        let path = self.path();
        let meta = std::fs::metadata(&path)?;
        let same = (meta.dev(), meta.ino()) == (self.device, self.inode);
        if !same || !meta.file_type().is_socket() {
            return no("another file");
        }
        let mut stream = UnixStream::connect(path).await?;
        let listens = stream.peer_cred()?;
        let process = listens.pid().and_then(|pid| u32::try_from(pid).ok());
        if listens.uid() != user() || process != Some(self.process) {
            return no("somebody else listens there");
        }
        stream.write_all(&self.ask).await?;
        let mut answer = Secret::default();
        stream.read_exact(&mut answer).await?;
        if answer != self.answer {
            return no("it does not know the answer");
        }
        Ok(stream)
    }
}

#[cfg(test)]
impl Offer {
    pub fn secrets(&self) -> (Secret, Secret) {
        (self.ask, self.answer)
    }

    /// Others like it that are not true, and what is found.
    pub fn lies(&self) -> Vec<(Offer, &'static str)> {
        let lie = |change: fn(&mut Offer)| {
            let mut offer = self.clone();
            change(&mut offer);
            offer
        };
        vec![
            (lie(|o| o.machine = "other".to_owned()), "another machine"),
            (lie(|o| o.inode += 1), "another file"),
            (lie(|o| o.device += 1), "another file"),
            (lie(|o| o.file = 0), "another file"),
            (lie(|o| o.process = u32::MAX), "No such file"),
            (lie(|o| o.ask[0] ^= 1), "early eof"),
        ]
    }
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Follows an offer; what comes of it is in the connection's ways.
pub(crate) async fn visit(peer: Arc<PeerLink>, ways: Arc<Ways>, offer: Offer) {
    match tokio::time::timeout(PATIENCE, offer.connect()).await {
        Ok(Ok(stream)) => ways.opened(&peer, stream),
        _ => ways.broke(&peer),
    }
}

/// Lets in who shows a secret, for as long as the endpoint lives.
pub(crate) async fn listen(shared: Arc<Shared>) {
    let Some(door) = shared.door.clone() else {
        return;
    };
    let listener = door.listener.lock().take();
    let Some(Ok(listener)) = listener.map(UnixListener::from_std) else {
        return;
    };
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: the network does as well.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if stream.peer_cred().is_ok_and(|who| who.uid() == user())
            && let Ok(permit) = strangers.clone().try_acquire_owned()
        {
            let door = door.clone();
            tokio::spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, door.let_in(stream)).await;
                drop(permit);
            });
        }
    }
}

impl Door {
    async fn let_in(&self, mut stream: UnixStream) {
        let mut ask = Secret::default();
        if stream.read_exact(&mut ask).await.is_err() {
            return;
        }
        let Some(guest) = self.expected.lock().remove(&ask) else {
            return;
        };
        match stream.write_all(&guest.answer).await {
            Ok(()) => guest.ways.opened(&guest.peer, stream),
            Err(_) => guest.ways.broke(&guest.peer),
        }
    }
}
