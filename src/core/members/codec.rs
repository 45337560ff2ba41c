//! The bytes of peers and of foca's messages, and why a datagram is refused.
//!
//! Invariant: what is written is read back equal; a peer that is read has an address that can be sent to. Left out:
//! frames.

use ::core::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};

use super::peer::Peer;

use super::DATAGRAM_MAX;
use crate::base::NodeId;

/// A datagram that is refused. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadDatagram {
    /// Longer than [`DATAGRAM_MAX`] bytes.
    TooLong(usize),
    /// It ends inside this field.
    Short(&'static str),
    /// This many bytes follow its end.
    Trailing(usize),
    /// A field has a value that it cannot have.
    Value(&'static str, u64),
    /// It says that it is from another node than the link says.
    Forged {
        /// Who it says that sent it.
        says: NodeId,
        /// Who sent it.
        from: NodeId,
    },
    /// It is for another node: whoever had this address before.
    Misdirected(NodeId),
    /// A new member, where [`super::MEMBERS_MAX`] are known.
    Full(NodeId),
    /// This machine was declared dead, or has left.
    Over,
}

impl std::fmt::Display for BadDatagram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            BadDatagram::TooLong(n) => {
                write!(f, "a datagram of {n} bytes; the most is {DATAGRAM_MAX}")
            }
            BadDatagram::Short(field) => write!(f, "a datagram that ends inside its {field}"),
            BadDatagram::Trailing(n) => write!(f, "a datagram with {n} bytes behind its end"),
            BadDatagram::Value(field, n) => {
                write!(f, "a datagram whose {field} is {n}, which cannot be")
            }
            BadDatagram::Forged { says, from } => {
                write!(f, "a datagram from node {from} that says it is from {says}")
            }
            BadDatagram::Misdirected(node) => {
                write!(f, "a datagram for node {node}, which this is not")
            }
            BadDatagram::Full(node) => write!(
                f,
                "node {node} cannot join: the cluster has {} members, the most that there can be",
                super::MEMBERS_MAX
            ),
            BadDatagram::Over => write!(f, "this node is no member any more"),
        }
    }
}

impl std::error::Error for BadDatagram {}

const V6: u8 = 1;
const HEAD: u8 = 2;

pub(super) type Read<T> = Result<T, BadDatagram>;

macro_rules! take {
    ($buf:expr, $get:ident, $field:expr) => {
        $buf.$get().map_err(|_| BadDatagram::Short($field))
    };
}
pub(super) use take;

pub(super) fn node(buf: &mut impl Buf, field: &'static str) -> Read<NodeId> {
    let number = take!(buf, try_get_u64, field)?;
    NodeId::new(number).ok_or(BadDatagram::Value(field, 0))
}

pub(super) fn peer(buf: &mut impl Buf, field: &'static str) -> Read<Peer> {
    let node = node(buf, field)?;
    let flags = take!(buf, try_get_u8, field)?;
    if flags & !(V6 | HEAD) != 0 {
        return Err(BadDatagram::Value(field, u64::from(flags)));
    }
    let ip = if flags & V6 == 0 {
        IpAddr::from(take!(buf, try_get_u32, field)?.to_be_bytes())
    } else {
        IpAddr::from(take!(buf, try_get_u128, field)?.to_be_bytes())
    };
    let port = take!(buf, try_get_u16, field)?;
    if port == 0 || ip.is_unspecified() || ip.is_multicast() {
        return Err(BadDatagram::Value("address", u64::from(port)));
    }
    Ok(Peer {
        node,
        addr: SocketAddr::new(ip, port),
        head: flags & HEAD != 0,
    })
}

pub(super) fn put_peer(to: &mut impl BufMut, peer: &Peer) {
    to.put_u64(peer.node.get());
    let head = if peer.head { HEAD } else { 0 };
    match peer.addr.ip() {
        IpAddr::V4(ip) => {
            to.put_u8(head);
            to.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            to.put_u8(head | V6);
            to.put_slice(&ip.octets());
        }
    }
    to.put_u16(peer.addr.port());
}

/// A peer of which only the number is known and needed.
pub fn named(node: NodeId) -> Peer {
    Peer {
        node,
        addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        head: false,
    }
}

/// How foca's messages are written.
#[derive(Clone, Copy, Debug)]
pub struct Codec;

/// Bytes of the longest header and member.
const HEADER_MAX: usize = 27 + 2 + 8 + 1 + 27 + 1;
const MEMBER_MAX: usize = 27 + 2 + 1;

impl foca::Codec<Peer> for Codec {
    type Error = BadDatagram;

    fn encode_header(&mut self, header: &Header<Peer>, mut to: impl BufMut) -> Read<()> {
        if to.remaining_mut() < HEADER_MAX {
            return Err(BadDatagram::TooLong(HEADER_MAX));
        }
        put_peer(&mut to, &header.src);
        to.put_u16(header.src_incarnation);
        to.put_u64(header.dst.node.get());
        let (kind, other, number) = match &header.message {
            Message::Ping(n) => (1, None, Some(*n)),
            Message::Ack(n) => (2, None, Some(*n)),
            Message::PingReq {
                target,
                probe_number,
            } => (3, Some(target), Some(*probe_number)),
            Message::IndirectPing {
                origin,
                probe_number,
            } => (4, Some(origin), Some(*probe_number)),
            Message::IndirectAck {
                target,
                probe_number,
            } => (5, Some(target), Some(*probe_number)),
            Message::ForwardedAck {
                origin,
                probe_number,
            } => (6, Some(origin), Some(*probe_number)),
            Message::Announce => (7, None, None),
            Message::Feed => (8, None, None),
            Message::Gossip => (9, None, None),
            // With neither custom broadcasts nor notes to the dead, foca sends no other.
            Message::Broadcast => (10, None, None),
            Message::TurnUndead => (11, None, None),
        };
        to.put_u8(kind);
        if let Some(peer) = other {
            put_peer(&mut to, peer);
        }
        if let Some(number) = number {
            to.put_u8(number);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut from: impl Buf) -> Read<Header<Peer>> {
        let src = peer(&mut from, "sender")?;
        let src_incarnation = take!(from, try_get_u16, "incarnation")?;
        let dst = named(node(&mut from, "receiver")?);
        let kind = take!(from, try_get_u8, "message")?;
        let other = match kind {
            3..=6 => peer(&mut from, "third node")?,
            _ => src,
        };
        let probe_number = match kind {
            1..=6 => take!(from, try_get_u8, "probe")?,
            _ => 0,
        };
        let message = match kind {
            1 => Message::Ping(probe_number),
            2 => Message::Ack(probe_number),
            3 => Message::PingReq {
                target: other,
                probe_number,
            },
            4 => Message::IndirectPing {
                origin: other,
                probe_number,
            },
            5 => Message::IndirectAck {
                target: other,
                probe_number,
            },
            6 => Message::ForwardedAck {
                origin: other,
                probe_number,
            },
            7 => Message::Announce,
            8 => Message::Feed,
            9 => Message::Gossip,
            n => return Err(BadDatagram::Value("message", u64::from(n))),
        };
        Ok(Header {
            src,
            src_incarnation,
            dst,
            message,
        })
    }

    fn encode_member(&mut self, member: &Member<Peer>, mut to: impl BufMut) -> Read<()> {
        if to.remaining_mut() < MEMBER_MAX {
            return Err(BadDatagram::TooLong(MEMBER_MAX));
        }
        put_peer(&mut to, member.id());
        to.put_u16(member.incarnation());
        to.put_u8(match member.state() {
            State::Alive => 1,
            State::Suspect => 2,
            State::Down => 3,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut from: impl Buf) -> Read<Member<Peer>> {
        let id = peer(&mut from, "member")?;
        let incarnation = take!(from, try_get_u16, "incarnation")?;
        let state = match take!(from, try_get_u8, "state")? {
            1 => State::Alive,
            2 => State::Suspect,
            3 => State::Down,
            n => return Err(BadDatagram::Value("state", u64::from(n))),
        };
        Ok(Member::new(id, incarnation, state))
    }
}

/// The sender's incarnation in a message that foca wrote.
pub fn incarnation(mut bytes: &[u8]) -> Option<u16> {
    peer(&mut bytes, "sender").ok()?;
    bytes.try_get_u16().ok()
}

/// foca's message again, with these updates instead of its own.
pub fn swim_with(header: &Header<Peer>, updates: &[Member<Peer>]) -> Vec<u8> {
    use foca::Codec as _;
    let mut to = Vec::with_capacity(DATAGRAM_MAX);
    // A vector has room for anything.
    let _ = Codec.encode_header(header, &mut to);
    if header.message != Message::Announce {
        to.put_u16(updates.len() as u16);
        for update in updates {
            let _ = Codec.encode_member(update, &mut to);
        }
    }
    to
}
