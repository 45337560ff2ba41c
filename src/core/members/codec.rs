//! Datagrams of membership: their bytes, and the checks that stand before anything believes them.
//!
//! A datagram is one frame: its kind, its fields, and at its end views that ride along. Numbers are big-endian. A frame is
//! read as a whole and every rule checked before the machine changes: one that is cut, forged or too long changes nothing.
//!
//! Invariant: whatever [`read`] accepts, `foca` accepts. Left out: who may send at all; the link knows who it is from.

use ::core::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};

use super::peer::Peer;
use super::views::{Duty, Item};
use super::{DATAGRAM_MAX, VIEW_MAX};
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
            BadDatagram::TooLong(n) => write!(f, "a datagram of {n} bytes; the most is {DATAGRAM_MAX}"),
            BadDatagram::Short(field) => write!(f, "a datagram that ends inside its {field}"),
            BadDatagram::Trailing(n) => write!(f, "a datagram with {n} bytes behind its end"),
            BadDatagram::Value(field, n) => write!(f, "a datagram whose {field} is {n}, which cannot be"),
            BadDatagram::Forged { says, from } => {
                write!(f, "a datagram from node {from} that says it is from {says}")
            }
            BadDatagram::Misdirected(node) => write!(f, "a datagram for node {node}, which this is not"),
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

/// How good a side of a partition is; the greater one goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// The head is on it.
    pub head: bool,
    /// Nodes that live there, the speaker with them.
    pub living: u32,
    /// Settles a tie: the complement of the lowest number of a node.
    pub lowest: u64,
}

/// One datagram, read.
#[derive(Debug)]
pub enum Frame<'a> {
    /// A message of foca's. With what was read of it, for checks.
    Swim {
        bytes: &'a [u8],
        header: Header<Peer>,
        updates: Vec<Member<Peer>>,
    },
    /// Does `target` live? If `suspected`, the cluster was told that it may not, in this incarnation. `origin` wants to know.
    Ask {
        origin: Peer,
        target: Peer,
        suspected: Option<u16>,
    },
    /// `who` does, in this incarnation; `origin` wanted to know.
    Alive {
        origin: Peer,
        who: Peer,
        incarnation: u16,
    },
    /// Views alone.
    Views,
    /// Whom do you know, from this number on?
    Pull { from: u64 },
    /// Some of them, in order. Their views follow.
    Page { members: Vec<Peer>, last: bool },
    /// Whoever was lost: are you there?
    Knock,
    /// You are dead, on this side.
    Verdict(Rank),
}

const SWIM: u8 = 1;
const ASK: u8 = 2;
const ALIVE: u8 = 3;
const VIEWS: u8 = 4;
const PULL: u8 = 5;
const PAGE: u8 = 6;
const KNOCK: u8 = 7;
const VERDICT: u8 = 8;

const V6: u8 = 1;
const HEAD: u8 = 2;

/// The most peers of one page.
pub const PAGE_MAX: usize = 40;

type Read<T> = Result<T, BadDatagram>;

macro_rules! take {
    ($buf:expr, $get:ident, $field:expr) => {
        $buf.$get().map_err(|_| BadDatagram::Short($field))
    };
}

fn node(buf: &mut impl Buf, field: &'static str) -> Read<NodeId> {
    let number = take!(buf, try_get_u64, field)?;
    NodeId::new(number).ok_or(BadDatagram::Value(field, 0))
}

fn peer(buf: &mut impl Buf, field: &'static str) -> Read<Peer> {
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

fn put_peer(to: &mut impl BufMut, peer: &Peer) {
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
            Message::PingReq { target, probe_number } => (3, Some(target), Some(*probe_number)),
            Message::IndirectPing { origin, probe_number } => (4, Some(origin), Some(*probe_number)),
            Message::IndirectAck { target, probe_number } => (5, Some(target), Some(*probe_number)),
            Message::ForwardedAck { origin, probe_number } => (6, Some(origin), Some(*probe_number)),
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
            3 => Message::PingReq { target: other, probe_number },
            4 => Message::IndirectPing { origin: other, probe_number },
            5 => Message::IndirectAck { target: other, probe_number },
            6 => Message::ForwardedAck { origin: other, probe_number },
            7 => Message::Announce,
            8 => Message::Feed,
            9 => Message::Gossip,
            n => return Err(BadDatagram::Value("message", u64::from(n))),
        };
        Ok(Header { src, src_incarnation, dst, message })
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

/// Reads a datagram that `from` sent to `me`: its frame and the views at its end.
pub fn read(bytes: &[u8], from: NodeId, me: NodeId) -> Read<(Frame<'_>, Vec<Item<'_>>)> {
    if bytes.len() > DATAGRAM_MAX {
        return Err(BadDatagram::TooLong(bytes.len()));
    }
    let mut rest = bytes;
    let kind = take!(rest, try_get_u8, "kind")?;
    let frame = match kind {
        SWIM => {
            let len = usize::from(take!(rest, try_get_u16, "length")?);
            let (swim, tail) = rest.split_at_checked(len).ok_or(BadDatagram::Short("message"))?;
            rest = tail;
            swim_frame(swim, from, me)?
        }
        ASK => {
            let origin = peer(&mut rest, "origin")?;
            let target = peer(&mut rest, "target")?;
            let suspected = match take!(rest, try_get_u8, "suspicion")? {
                0 => None,
                1 => Some(take!(rest, try_get_u16, "incarnation")?),
                n => return Err(BadDatagram::Value("suspicion", u64::from(n))),
            };
            // It is passed on once: from its origin to one that asks the target.
            if origin.node != from && target.node != me {
                return Err(BadDatagram::Misdirected(target.node));
            }
            Frame::Ask { origin, target, suspected }
        }
        ALIVE => {
            let origin = peer(&mut rest, "origin")?;
            let who = peer(&mut rest, "node")?;
            let incarnation = take!(rest, try_get_u16, "incarnation")?;
            if origin.node != me && who.node != from {
                return Err(BadDatagram::Misdirected(origin.node));
            }
            Frame::Alive { origin, who, incarnation }
        }
        VIEWS => Frame::Views,
        PULL => Frame::Pull { from: take!(rest, try_get_u64, "number")? },
        PAGE => {
            let last = match take!(rest, try_get_u8, "end")? {
                n @ (0 | 1) => n == 1,
                n => return Err(BadDatagram::Value("end", u64::from(n))),
            };
            let count = take!(rest, try_get_u8, "count")?;
            if usize::from(count) > PAGE_MAX {
                return Err(BadDatagram::Value("count", u64::from(count)));
            }
            let members = (0..count).map(|_| peer(&mut rest, "member"));
            Frame::Page { members: members.collect::<Read<_>>()?, last }
        }
        KNOCK => Frame::Knock,
        VERDICT => {
            let head = match take!(rest, try_get_u8, "head")? {
                n @ (0 | 1) => n == 1,
                n => return Err(BadDatagram::Value("head", u64::from(n))),
            };
            let living = take!(rest, try_get_u32, "living")?;
            let lowest = take!(rest, try_get_u64, "lowest")?;
            Frame::Verdict(Rank { head, living, lowest })
        }
        n => return Err(BadDatagram::Value("kind", u64::from(n))),
    };
    let mut views = Vec::new();
    while !rest.is_empty() {
        if !matches!(kind, SWIM | VIEWS | PAGE) {
            return Err(BadDatagram::Trailing(rest.len()));
        }
        views.push(view(&mut rest)?);
    }
    Ok((frame, views))
}

fn swim_frame(bytes: &[u8], from: NodeId, me: NodeId) -> Read<Frame<'_>> {
    use foca::Codec as _;
    let mut rest = bytes;
    let header = Codec.decode_header(&mut rest)?;
    if header.src.node != from {
        return Err(BadDatagram::Forged { says: header.src.node, from });
    }
    if header.dst.node != me {
        return Err(BadDatagram::Misdirected(header.dst.node));
    }
    let third = match header.message {
        Message::PingReq { target: n, .. }
        | Message::IndirectPing { origin: n, .. }
        | Message::IndirectAck { target: n, .. }
        | Message::ForwardedAck { origin: n, .. } => Some(n.node),
        _ => None,
    };
    if third == Some(me) {
        return Err(BadDatagram::Misdirected(me));
    }
    let mut updates = Vec::new();
    if header.message == Message::Announce {
        if !rest.is_empty() {
            return Err(BadDatagram::Trailing(rest.len()));
        }
    } else if !rest.is_empty() {
        for _ in 0..take!(rest, try_get_u16, "count")? {
            updates.push(Codec.decode_member(&mut rest)?);
        }
        if !rest.is_empty() {
            return Err(BadDatagram::Trailing(rest.len()));
        }
    }
    Ok(Frame::Swim { bytes, header, updates })
}

fn view<'a>(rest: &mut &'a [u8]) -> Read<Item<'a>> {
    let node = node(rest, "view's node")?;
    let version = take!(rest, try_get_u64, "view's version")?;
    let duty = match take!(rest, try_get_u8, "duty")? {
        0 => Duty::Serving,
        1 => Duty::Draining,
        2 => Duty::Leaving,
        n => return Err(BadDatagram::Value("duty", u64::from(n))),
    };
    let len = usize::from(take!(rest, try_get_u16, "view's length")?);
    if len > VIEW_MAX {
        return Err(BadDatagram::Value("view's length", len as u64));
    }
    let (bytes, tail) = rest.split_at_checked(len).ok_or(BadDatagram::Short("view"))?;
    *rest = tail;
    Ok(Item { node, version, duty, bytes })
}

/// Bytes of a page besides its peers and views.
pub const PAGE_HEADER: usize = 3;
/// The most bytes of a peer.
pub const PEER_LEN: usize = 27;
/// Bytes of a view besides its own.
pub const VIEW_HEADER: usize = 8 + 8 + 1 + 2;

/// Appends a view.
pub fn put_view(to: &mut Vec<u8>, item: &Item<'_>) {
    to.put_u64(item.node.get());
    to.put_u64(item.version);
    to.put_u8(item.duty as u8);
    to.put_u16(item.bytes.len() as u16);
    to.put_slice(item.bytes);
}

/// A frame of foca's message; views may be appended.
pub fn swim(bytes: &[u8]) -> Vec<u8> {
    let mut to = Vec::with_capacity(bytes.len() + 3);
    to.put_u8(SWIM);
    to.put_u16(bytes.len() as u16);
    to.put_slice(bytes);
    to
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

/// The bytes of any frame but foca's.
pub fn write(frame: &Frame<'_>) -> Vec<u8> {
    let mut to = Vec::with_capacity(64);
    match frame {
        Frame::Swim { bytes, .. } => return swim(bytes),
        Frame::Ask { origin, target, suspected } => {
            to.put_u8(ASK);
            put_peer(&mut to, origin);
            put_peer(&mut to, target);
            to.put_u8(u8::from(suspected.is_some()));
            if let Some(incarnation) = suspected {
                to.put_u16(*incarnation);
            }
        }
        Frame::Alive { origin, who, incarnation } => {
            to.put_u8(ALIVE);
            put_peer(&mut to, origin);
            put_peer(&mut to, who);
            to.put_u16(*incarnation);
        }
        Frame::Views => to.put_u8(VIEWS),
        Frame::Pull { from } => {
            to.put_u8(PULL);
            to.put_u64(*from);
        }
        Frame::Page { members, last } => {
            to.put_u8(PAGE);
            to.put_u8(u8::from(*last));
            to.put_u8(members.len() as u8);
            members.iter().for_each(|peer| put_peer(&mut to, peer));
        }
        Frame::Knock => to.put_u8(KNOCK),
        Frame::Verdict(rank) => {
            to.put_u8(VERDICT);
            to.put_u8(u8::from(rank.head));
            to.put_u32(rank.living);
            to.put_u64(rank.lowest);
        }
    }
    to
}
