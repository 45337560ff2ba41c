//! What is said about replicas, as bytes and back.
//!
//! Invariant: reading is total, and every message is small. Left out: what the messages mean (`core::replicas`).

use super::codec::{Read, Reader, Writer, bad};
use crate::core::replicas::{Message, Why};

pub(super) fn message(w: &mut Writer, message: &Message) {
    match message {
        Message::Make { key, len } => {
            w.u8(0);
            w.key(*key);
            w.u64(*len);
        }
        Message::Made { key } => {
            w.u8(1);
            w.key(*key);
        }
        Message::Declined { key, why } => {
            w.u8(2);
            w.key(*key);
            w.u8(match why {
                Why::NoRoom => 0,
                Why::Leaves => 1,
                Why::Failed => 2,
            });
        }
        Message::Free { key } => {
            w.u8(3);
            w.key(*key);
        }
        Message::Seek { key, durable } => {
            w.u8(4);
            w.key(*key);
            w.bool(*durable);
        }
        Message::Found { key, len } => {
            w.u8(5);
            w.key(*key);
            w.option(*len, Writer::u64);
        }
        Message::Quit { key } => {
            w.u8(6);
            w.key(*key);
        }
    }
}

pub(super) fn read_message(r: &mut Reader<'_>) -> Read<Message> {
    let kind = r.u8()?;
    let key = r.key()?;
    Ok(match kind {
        0 => Message::Make { key, len: r.u64()? },
        1 => Message::Made { key },
        2 => Message::Declined {
            key,
            why: match r.u8()? {
                0 => Why::NoRoom,
                1 => Why::Leaves,
                2 => Why::Failed,
                _ => return bad("reason without a replica"),
            },
        },
        3 => Message::Free { key },
        4 => Message::Seek {
            key,
            durable: r.bool()?,
        },
        5 => Message::Found {
            key,
            len: r.option(Reader::u64)?,
        },
        6 => Message::Quit { key },
        _ => return bad("message about a replica"),
    })
}
