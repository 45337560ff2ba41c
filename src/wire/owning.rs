//! What nodes tell each other about references, as bytes.
//!
//! Invariant: what is read back is what was written. Left out: what it means (`core::owners`).

use super::body::{read_state, state};
use super::codec::{Read, Reader, Writer, bad};
use crate::core::owners::Message;

pub(super) fn message(w: &mut Writer, message: &Message) {
    match message {
        Message::Release { key, received } => {
            w.u8(0);
            w.key(*key);
            w.u64(*received);
        }
        Message::Borrow { key, from, transit } => {
            w.u8(1);
            w.key(*key);
            w.node(*from);
            w.u64(*transit);
        }
        Message::Borrowed {
            key,
            from,
            transit,
            state: s,
        } => {
            w.u8(2);
            w.key(*key);
            w.node(*from);
            w.u64(*transit);
            state(w, s);
        }
        Message::Arrived { transit } => {
            w.u8(3);
            w.u64(*transit);
        }
        Message::Settled { key, state: s } => {
            w.u8(4);
            w.key(*key);
            state(w, s);
        }
        Message::Gone { key } => {
            w.u8(5);
            w.key(*key);
        }
        Message::Copy { key } => {
            w.u8(6);
            w.key(*key);
        }
        Message::CopyGone { key } => {
            w.u8(7);
            w.key(*key);
        }
        Message::Free { key } => {
            w.u8(8);
            w.key(*key);
        }
        Message::Pin { key } => {
            w.u8(9);
            w.key(*key);
        }
        Message::Where { key, ask, failed } => {
            w.u8(10);
            w.key(*key);
            w.u64(*ask);
            w.option(*failed, Writer::node);
        }
        Message::Stop { key } => {
            w.u8(11);
            w.key(*key);
        }
        Message::At { key, ask, from } => {
            w.u8(12);
            w.key(*key);
            w.u64(*ask);
            w.option(*from, Writer::node);
        }
        Message::Buried { node } => {
            w.u8(13);
            w.node(*node);
        }
    }
}

pub(super) fn read_message(r: &mut Reader<'_>) -> Read<Message> {
    let kind = r.u8()?;
    // Those that are about no single object.
    match kind {
        3 => return Ok(Message::Arrived { transit: r.u64()? }),
        13 => return Ok(Message::Buried { node: r.node()? }),
        _ => {}
    }
    let key = r.key()?;
    Ok(match kind {
        0 => Message::Release {
            key,
            received: r.u64()?,
        },
        1 => Message::Borrow {
            key,
            from: r.node()?,
            transit: r.u64()?,
        },
        2 => Message::Borrowed {
            key,
            from: r.node()?,
            transit: r.u64()?,
            state: read_state(r)?,
        },
        4 => Message::Settled {
            key,
            state: read_state(r)?,
        },
        5 => Message::Gone { key },
        6 => Message::Copy { key },
        7 => Message::CopyGone { key },
        8 => Message::Free { key },
        9 => Message::Pin { key },
        10 => Message::Where {
            key,
            ask: r.u64()?,
            failed: r.option(Reader::node)?,
        },
        11 => Message::Stop { key },
        12 => Message::At {
            key,
            ask: r.u64()?,
            from: r.option(Reader::node)?,
        },
        _ => return bad("message about a reference"),
    })
}
