//! What a node tells of itself, as the bytes that ride on gossip.
//!
//! One byte of format, one of flags, the node's number, then varints and texts with their length in front. Names come in
//! order, once each, and amounts are never zero, so that one view has one encoding.
//!
//! Invariant: at most [`MAX_BYTES`] bytes, so that they fit into a datagram beside membership's own; reading never panics
//! and never reserves more than the bytes hold. Left out: `seen`, which is the reader's.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::NodeView;
use crate::base::{Capacity, Demand, NodeId, Units};

/// The longest encoding.
pub const MAX_BYTES: usize = 1_024;
/// Labels of one node; and its custom resources.
pub const MAX_NAMES: usize = 32;
/// Bytes of a name or of the value of a label.
pub const MAX_TEXT: usize = 128;

const FORMAT: u8 = 1;
const DRAINING: u8 = 1;

/// Bytes that are no view, or a view that is too large to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadView {
    /// The encoding is longer than [`MAX_BYTES`].
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// More than [`MAX_NAMES`] labels or custom resources.
    TooMany {
        /// `labels` or `resources`.
        what: &'static str,
        /// How many.
        count: u64,
    },
    /// A name or value longer than [`MAX_TEXT`] bytes.
    LongText {
        /// Its first characters.
        begins: String,
        /// How long.
        bytes: u64,
    },
    /// Not our encoding.
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Before this byte.
        at: usize,
    },
}

impl fmt::Display for BadView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadView::TooLong { bytes } => write!(
                f,
                "what a node tells of itself takes {bytes} bytes, at most {MAX_BYTES} travel: \
                 give it fewer or shorter labels and custom resources"
            ),
            BadView::TooMany { what, count } => {
                write!(
                    f,
                    "a node has {count} {what}, at most {MAX_NAMES} are allowed: give it fewer"
                )
            }
            BadView::LongText { begins, bytes } => write!(
                f,
                "the label or resource \"{begins}..\" has {bytes} bytes, at most {MAX_TEXT} are allowed: shorten it"
            ),
            BadView::Malformed { what, at } => write!(f, "no view of a node: {what}, at byte {at}"),
        }
    }
}

impl Error for BadView {}

/// Appends what `node` tells. Nothing is appended when it is refused.
pub fn encode(node: NodeId, view: &NodeView, out: &mut Vec<u8>) -> Result<(), BadView> {
    let begin = out.len();
    let done = write(node, view, out);
    let bytes = out.len() - begin;
    let done = done.and(if bytes > MAX_BYTES {
        Err(BadView::TooLong { bytes })
    } else {
        Ok(())
    });
    if done.is_err() {
        out.truncate(begin);
    }
    done
}

fn write(node: NodeId, view: &NodeView, out: &mut Vec<u8>) -> Result<(), BadView> {
    out.push(FORMAT);
    out.push(if view.draining { DRAINING } else { 0 });
    out.extend_from_slice(&node.get().to_le_bytes());
    varint(view.version, out);
    varint(view.queued.into(), out);
    varint(view.capacity.cpu.steps(), out);
    varint(view.capacity.gpus.into(), out);
    amounts(view.capacity.custom(), out)?;
    varint(view.free.cpu.steps(), out);
    varint(view.free.gpu.steps(), out);
    amounts(view.free.custom(), out)?;
    count("labels", view.labels.len(), out)?;
    for (name, value) in &view.labels {
        text(name, out)?;
        text(value, out)?;
    }
    Ok(())
}

fn amounts(list: &[(String, Units)], out: &mut Vec<u8>) -> Result<(), BadView> {
    count("resources", list.len(), out)?;
    for (name, amount) in list {
        text(name, out)?;
        varint(amount.steps(), out);
    }
    Ok(())
}

fn count(what: &'static str, n: usize, out: &mut Vec<u8>) -> Result<(), BadView> {
    if n > MAX_NAMES {
        return Err(BadView::TooMany {
            what,
            count: n as u64,
        });
    }
    varint(n as u64, out);
    Ok(())
}

fn text(s: &str, out: &mut Vec<u8>) -> Result<(), BadView> {
    if s.len() > MAX_TEXT {
        let begins = s.chars().take(24).collect();
        let bytes = s.len() as u64;
        return Err(BadView::LongText { begins, bytes });
    }
    varint(s.len() as u64, out);
    out.extend_from_slice(s.as_bytes());
    Ok(())
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn varint(mut x: u64, out: &mut Vec<u8>) {
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
}

/// Reads what a node told, at `now`; all of the bytes must be it.
pub fn decode(bytes: &[u8], now: Duration) -> Result<(NodeId, NodeView), BadView> {
    if bytes.len() > MAX_BYTES {
        return Err(BadView::TooLong { bytes: bytes.len() });
    }
    let mut r = Reader { bytes, at: 0 };
    if r.u8()? != FORMAT {
        return Err(r.bad("unknown format"));
    }
    let flags = r.u8()?;
    if flags & !DRAINING != 0 {
        return Err(r.bad("unknown flags"));
    }
    let number = u64::from_le_bytes(r.take(8)?.try_into().expect("eight were taken"));
    let node = NodeId::new(number).ok_or_else(|| r.bad("node 0, which names nobody"))?;
    let version = r.varint()?;
    let queued = r.u32()?;
    let capacity = Capacity::new(r.units()?, r.u32()?);
    let capacity = r
        .amounts()?
        .into_iter()
        .fold(capacity, |c, (name, x)| c.with_custom(name, x));
    let free = Demand::cpu_only(r.units()?).with_gpu(r.units()?);
    let free = r
        .amounts()?
        .into_iter()
        .fold(free, |d, (name, x)| d.with_custom(name, x));
    let labels = r.labels()?;
    if r.at != bytes.len() {
        return Err(r.bad("bytes to spare"));
    }
    let view = NodeView {
        capacity,
        free,
        labels,
        queued,
        version,
        seen: now,
        draining: flags & DRAINING != 0,
    };
    Ok((node, view))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bad(&self, what: &'static str) -> BadView {
        BadView::Malformed { what, at: self.at }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], BadView> {
        let rest = &self.bytes[self.at..];
        let taken = rest
            .get(..n)
            .ok_or_else(|| self.bad("it ends within a field"))?;
        self.at += n;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, BadView> {
        Ok(self.take(1)?[0])
    }

    fn varint(&mut self) -> Result<u64, BadView> {
        let mut x = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return Err(self.bad("a number above 64 bits"));
            }
            x |= part << shift;
            if byte & 0x80 == 0 {
                // One number has one encoding.
                let padded = byte == 0 && shift > 0;
                return if padded {
                    Err(self.bad("a padded number"))
                } else {
                    Ok(x)
                };
            }
        }
        Err(self.bad("a number above 64 bits"))
    }

    fn u32(&mut self) -> Result<u32, BadView> {
        let x = self.varint()?;
        u32::try_from(x).map_err(|_| self.bad("a number above 32 bits"))
    }

    fn units(&mut self) -> Result<Units, BadView> {
        let steps = self.varint()?;
        let units = Units::from_steps(steps);
        if units.steps() == steps {
            Ok(units)
        } else {
            Err(self.bad("an amount above the largest"))
        }
    }

    fn count(&mut self, what: &'static str) -> Result<usize, BadView> {
        let count = self.varint()?;
        if count > MAX_NAMES as u64 {
            return Err(BadView::TooMany { what, count });
        }
        Ok(count as usize)
    }

    fn text(&mut self) -> Result<&'a str, BadView> {
        let len = self.varint()?;
        if len > MAX_TEXT as u64 {
            let begins = String::new();
            return Err(BadView::LongText { begins, bytes: len });
        }
        let text = self.take(len as usize)?;
        std::str::from_utf8(text).map_err(|_| self.bad("a text that is not UTF-8"))
    }

    fn amounts(&mut self) -> Result<Vec<(&'a str, Units)>, BadView> {
        let count = self.count("resources")?;
        let mut list: Vec<(&str, Units)> = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.text()?;
            if list.last().is_some_and(|(last, _)| *last >= name) {
                return Err(self.bad("resources out of order"));
            }
            if name == "cpu" || name == "gpu" {
                return Err(self.bad("cpu or gpu as a custom resource"));
            }
            let amount = self.units()?;
            if amount.is_zero() {
                return Err(self.bad("a resource of which there is none"));
            }
            list.push((name, amount));
        }
        Ok(list)
    }

    fn labels(&mut self) -> Result<BTreeMap<String, String>, BadView> {
        let count = self.count("labels")?;
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        for _ in 0..count {
            let name = self.text()?;
            if labels
                .last_key_value()
                .is_some_and(|(last, _)| last.as_str() >= name)
            {
                return Err(self.bad("labels out of order"));
            }
            labels.insert(name.to_owned(), self.text()?.to_owned());
        }
        Ok(labels)
    }
}
