//! The first words on a connection between members, and what closes one.
//!
//! Invariant: both sides come to the same verdict and can say it: each sends its own hello before it gives up on the
//! other's. Left out: certificates, which came before, and frames, which come after.

use std::time::Duration;

use quinn::{ConnectionError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};

use crate::base::NodeId;
use crate::link::codec::{Reader, Writer};
use crate::link::hello::{MAX_HELLO, MAX_LIST};
use crate::link::{Hello, LinkError, Registry};

/// How long last words may take.
const HEARD: Duration = Duration::from_secs(1);

/// Why a connection is closed, as the other side is told.
pub(crate) mod code {
    /// The node stops.
    pub const STOPPED: u32 = 1;
    /// Another connection of the same two is used.
    pub const SUPERSEDED: u32 = 2;
    /// The other was declared dead.
    pub const FORGOTTEN: u32 = 3;
    /// The other broke the protocol.
    pub const PROTOCOL: u32 = 4;
    /// The two do not fit, as both have found.
    pub const MISMATCH: u32 = 5;
    /// There are as many peers as may be.
    pub const NO_ROOM: u32 = 6;
    /// Something took too long.
    pub const LATE: u32 = 7;
    /// The node stops, since it was declared dead.
    pub const FENCED: u32 = 8;
}

/// The code with which to close a connection for this reason.
pub(crate) fn code_of(why: &LinkError) -> VarInt {
    VarInt::from_u32(match why {
        LinkError::Stopped => code::STOPPED,
        LinkError::Forgotten(_) => code::FORGOTTEN,
        LinkError::NoRoom { .. } => code::NO_ROOM,
        LinkError::Timeout { .. } => code::LATE,
        LinkError::Version { .. }
        | LinkError::Platform { .. }
        | LinkError::Registry(_)
        | LinkError::OtherCluster { .. } => code::MISMATCH,
        _ => code::PROTOCOL,
    })
}

/// Why a connection is lost, in our words; `peer` and `own` are who it was between.
pub(crate) fn lost(error: &ConnectionError, peer: NodeId, own: NodeId) -> LinkError {
    let ConnectionError::ApplicationClosed(close) = error else {
        return broken(error);
    };
    match u32::try_from(close.error_code.into_inner()).unwrap_or(0) {
        code::STOPPED => LinkError::Left(peer),
        code::FENCED => LinkError::Fenced(peer),
        code::FORGOTTEN => LinkError::Forgotten(own),
        _ => broken(error),
    }
}

/// Why a connection is lost, when it is not known whose it was.
pub(crate) fn broken(error: &ConnectionError) -> LinkError {
    match error {
        ConnectionError::TransportError(error) => {
            let code = u64::from(error.code);
            match (0x100..0x200).contains(&code) {
                true => LinkError::Certificate(error.reason.clone()),
                false => LinkError::Broken(error.to_string()),
            }
        }
        ConnectionError::ConnectionClosed(close) => {
            let code = u64::from(close.error_code);
            match (0x100..0x200).contains(&code) {
                true => LinkError::Certificate(format!("by the other side: {}", alert(code))),
                false => LinkError::Broken(error.to_string()),
            }
        }
        ConnectionError::ApplicationClosed(close) => {
            let said = String::from_utf8_lossy(&close.reason);
            LinkError::Broken(format!("the other side closed it: {said}"))
        }
        ConnectionError::TimedOut => {
            LinkError::Broken("nothing came from the other side".to_owned())
        }
        other => LinkError::Broken(other.to_string()),
    }
}

/// What TLS means by an alert, where it concerns us.
fn alert(code: u64) -> String {
    match code - 0x100 {
        42 | 46 => "it is bad".to_owned(),
        43 => "it is of a kind that is not supported".to_owned(),
        44 => "it was revoked".to_owned(),
        45 => "it has expired".to_owned(),
        48 => "the cluster's authority did not sign it".to_owned(),
        116 => "none was shown".to_owned(),
        120 => "it speaks another protocol".to_owned(),
        other => format!("alert {other} of TLS"),
    }
}

pub(crate) fn write_failed(error: &WriteError) -> LinkError {
    match error {
        WriteError::ConnectionLost(error) => broken(error),
        other => LinkError::Broken(other.to_string()),
    }
}

/// Writes a message with its length before it.
pub(crate) async fn write_message(send: &mut SendStream, message: &[u8]) -> Result<(), LinkError> {
    let mut out = Vec::with_capacity(message.len() + 4);
    out.extend_from_slice(&(message.len() as u32).to_le_bytes());
    out.extend_from_slice(message);
    send.write_all(&out)
        .await
        .map_err(|error| write_failed(&error))
}

/// Reads a message of at most `limit` bytes.
pub(crate) async fn read_message(
    recv: &mut RecvStream,
    limit: usize,
    what: &str,
) -> Result<Vec<u8>, LinkError> {
    let mut len = [0; 4];
    read_exact(recv, &mut len, what).await?;
    let len = u32::from_le_bytes(len) as usize;
    if len > limit {
        return Err(LinkError::Protocol(format!(
            "{what} of {len} bytes, of at most {limit}"
        )));
    }
    let mut message = Vec::new();
    while message.len() < len {
        // Memory as bytes come, not as they are promised.
        let had = message.len();
        message.resize(len.min(had + (64 << 10)), 0);
        read_exact(recv, &mut message[had..], what).await?;
    }
    Ok(message)
}

async fn read_exact(recv: &mut RecvStream, into: &mut [u8], what: &str) -> Result<(), LinkError> {
    recv.read_exact(into).await.map_err(|error| match error {
        ReadExactError::FinishedEarly(_) => {
            LinkError::Protocol(format!("{what} that ends too early"))
        }
        ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error)) => broken(&error),
        ReadExactError::ReadError(error) => LinkError::Broken(error.to_string()),
    })
}

/// What each side says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub hello: Hello,
    /// Of the connection's claim.
    pub epoch: u64,
    /// Of the connection's claim.
    pub attempt: u64,
    /// Every frame up to this one has come.
    pub received: u64,
}

pub(crate) const MAX_GREETING: usize = MAX_HELLO + 24;

impl Greeting {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.hello.encode(&mut out);
        out.u64(self.epoch).u64(self.attempt).u64(self.received);
        out.0
    }

    pub fn decode(bytes: &[u8]) -> Result<Greeting, LinkError> {
        let mut from = Reader::new(bytes);
        let greeting = Greeting {
            hello: Hello::decode(&mut from)?,
            epoch: from.u64("an epoch")?,
            attempt: from.u64("an attempt")?,
            received: from.u64("a count of frames")?,
        };
        from.end("a greeting")?;
        Ok(greeting)
    }
}

/// What to do about the other side's greeting.
pub(crate) enum Verdict {
    Fits(Greeting),
    /// The hashes of the functions differ: the lists say how.
    CompareLists,
    Refused(LinkError),
}

/// Judges what the other side said; `certified` is the node of its certificate.
pub(crate) fn judge(ours: &Hello, theirs: &[u8], certified: NodeId) -> Verdict {
    let greeting = match Greeting::decode(theirs) {
        Ok(greeting) => greeting,
        Err(why) => return Verdict::Refused(why),
    };
    let found = greeting.hello.node;
    if found != certified {
        let expected = certified;
        return Verdict::Refused(LinkError::WrongNode { expected, found });
    }
    match ours.check(&greeting.hello) {
        Err(why) => Verdict::Refused(why),
        Ok(()) if ours.registry != greeting.hello.registry => Verdict::CompareLists,
        Ok(()) => Verdict::Fits(greeting),
    }
}

/// Exchanges the lists of functions and says how they differ.
pub(crate) async fn compare_lists(
    send: &mut SendStream,
    recv: &mut RecvStream,
    ours: &Registry,
) -> LinkError {
    let compared = async {
        write_message(send, &ours.encode()).await?;
        let theirs = read_message(recv, MAX_LIST, "a list of functions").await?;
        heard(send).await;
        Ok(ours.diff(&Registry::decode(&theirs)?))
    };
    match compared.await {
        Ok(diff) => LinkError::Registry(diff),
        Err(why) => why,
    }
}

/// Waits until the other side has what was said: closing drops what is under way.
pub(crate) async fn heard(send: &mut SendStream) {
    let _ = send.finish();
    let _ = tokio::time::timeout(HEARD, send.stopped()).await;
}
