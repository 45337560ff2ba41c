//! Datagrams of membership: their bytes, and the checks that stand before anything believes them.
//!
//! A datagram is one frame: its kind, its fields, and at its end views that ride along. Numbers are big-endian. A
//! frame is read as a whole and every rule checked before the machine changes: one that is cut, forged or too long
//! changes nothing.
//!
//! Invariant: whatever [`read`] accepts, `foca` accepts. Left out: who may send at all; the link knows who it is from.

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message};

use super::codec::{BadDatagram, Codec, Read, node, peer, put_peer, take};
use super::peer::Peer;
use super::views::{Duty, Item};
use super::{DATAGRAM_MAX, VIEW_MAX};
use crate::base::NodeId;

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
    /// Does `target` live? If `suspected`, the cluster was told that it may not, in this incarnation. `origin` wants
    /// to know.
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

/// The most peers of one page.
pub const PAGE_MAX: usize = 40;

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
            let (swim, tail) = rest
                .split_at_checked(len)
                .ok_or(BadDatagram::Short("message"))?;
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
            Frame::Ask {
                origin,
                target,
                suspected,
            }
        }
        ALIVE => {
            let origin = peer(&mut rest, "origin")?;
            let who = peer(&mut rest, "node")?;
            let incarnation = take!(rest, try_get_u16, "incarnation")?;
            if origin.node != me && who.node != from {
                return Err(BadDatagram::Misdirected(origin.node));
            }
            Frame::Alive {
                origin,
                who,
                incarnation,
            }
        }
        VIEWS => Frame::Views,
        PULL => Frame::Pull {
            from: take!(rest, try_get_u64, "number")?,
        },
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
            Frame::Page {
                members: members.collect::<Read<_>>()?,
                last,
            }
        }
        KNOCK => Frame::Knock,
        VERDICT => {
            let head = match take!(rest, try_get_u8, "head")? {
                n @ (0 | 1) => n == 1,
                n => return Err(BadDatagram::Value("head", u64::from(n))),
            };
            let living = take!(rest, try_get_u32, "living")?;
            let lowest = take!(rest, try_get_u64, "lowest")?;
            Frame::Verdict(Rank {
                head,
                living,
                lowest,
            })
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
        return Err(BadDatagram::Forged {
            says: header.src.node,
            from,
        });
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
    Ok(Frame::Swim {
        bytes,
        header,
        updates,
    })
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
    let (bytes, tail) = rest
        .split_at_checked(len)
        .ok_or(BadDatagram::Short("view"))?;
    *rest = tail;
    Ok(Item {
        node,
        version,
        duty,
        bytes,
    })
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

/// The bytes of any frame but foca's.
pub fn write(frame: &Frame<'_>) -> Vec<u8> {
    let mut to = Vec::with_capacity(64);
    match frame {
        Frame::Swim { bytes, .. } => return swim(bytes),
        Frame::Ask {
            origin,
            target,
            suspected,
        } => {
            to.put_u8(ASK);
            put_peer(&mut to, origin);
            put_peer(&mut to, target);
            to.put_u8(u8::from(suspected.is_some()));
            if let Some(incarnation) = suspected {
                to.put_u16(*incarnation);
            }
        }
        Frame::Alive {
            origin,
            who,
            incarnation,
        } => {
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
