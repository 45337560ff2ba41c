//! Numbers, texts and lists as bytes, and back.
//!
//! Invariant: reading is total: any bytes give a value or [`BadFrame`], and nothing is allocated that the bytes at hand could
//! not fill. Left out: what the fields mean.

use std::fmt;

use crate::base::{Demand, NodeId, ObjectKey, Units};

/// Bytes that are no frame of this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFrame {
    /// What was being read.
    pub what: &'static str,
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes that are no {}", self.what)
    }
}

impl std::error::Error for BadFrame {}

/// The result of reading.
pub type Read<T> = Result<T, BadFrame>;

/// Says what could not be read.
pub fn bad<T>(what: &'static str) -> Read<T> {
    Err(BadFrame { what })
}

/// Writes fields one after the other.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// One byte.
    pub fn u8(&mut self, n: u8) {
        self.0.push(n);
    }

    /// A yes or no.
    pub fn bool(&mut self, yes: bool) {
        self.u8(u8::from(yes));
    }

    /// Four bytes.
    pub fn u32(&mut self, n: u32) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, n: u64) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    /// Bytes, with their number.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Something that may be missing.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A list.
    pub fn list<T>(&mut self, list: &[T], mut write: impl FnMut(&mut Writer, &T)) {
        self.u32(list.len() as u32);
        list.iter().for_each(|item| write(self, item));
    }

    /// A node.
    pub fn node(&mut self, node: NodeId) {
        self.u64(node.get());
    }

    /// An object.
    pub fn key(&mut self, key: ObjectKey) {
        self.node(key.owner);
        self.u64(key.number);
    }

    /// Amounts of resources.
    pub fn demand(&mut self, demand: &Demand) {
        self.u64(demand.cpu.steps());
        self.u64(demand.gpu.steps());
        self.list(demand.custom(), |w, (name, amount)| {
            w.text(name);
            w.u64(amount.steps());
        });
    }
}

/// Reads them again.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Read<&'a [u8]> {
        match self.0.split_at_checked(n) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => bad("whole field"),
        }
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| BadFrame { what: "number" })
    }

    /// One byte.
    pub fn u8(&mut self) -> Read<u8> {
        Ok(self.take(1)?[0])
    }

    /// A yes or no.
    pub fn bool(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => bad("yes or no"),
        }
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Bytes.
    pub fn bytes(&mut self) -> Read<&'a [u8]> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    /// A text.
    pub fn text(&mut self) -> Read<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| BadFrame { what: "text" })
    }

    /// Something that may be missing.
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Reader<'a>) -> Read<T>) -> Read<Option<T>> {
        Ok(if self.bool()? {
            Some(read(self)?)
        } else {
            None
        })
    }

    /// A list whose items take at least `least` bytes each.
    pub fn list<T>(
        &mut self,
        least: usize,
        mut read: impl FnMut(&mut Reader<'a>) -> Read<T>,
    ) -> Read<Vec<T>> {
        let count = self.u32()? as usize;
        if count > self.0.len() / least.max(1) {
            return bad("list of that many");
        }
        (0..count).map(|_| read(self)).collect()
    }

    /// A list of at most so many items, which take at least `least` bytes each.
    pub fn list_of<T>(
        &mut self,
        most: usize,
        least: usize,
        read: impl FnMut(&mut Reader<'a>) -> Read<T>,
    ) -> Read<Vec<T>> {
        // Its number is looked at before anything is read, since an item may be larger than its bytes.
        match self.0.first_chunk::<4>() {
            Some(count) if u32::from_le_bytes(*count) as usize > most => {
                bad("list of so few as there can be")
            }
            _ => self.list(least, read),
        }
    }

    /// A node.
    pub fn node(&mut self) -> Read<NodeId> {
        NodeId::new(self.u64()?).ok_or(BadFrame { what: "node" })
    }

    /// An object.
    pub fn key(&mut self) -> Read<ObjectKey> {
        Ok(ObjectKey {
            owner: self.node()?,
            number: self.u64()?,
        })
    }

    /// Amounts of resources.
    pub fn demand(&mut self) -> Read<Demand> {
        let units = |steps: u64| match steps {
            0..=MOST => Ok(Units::from_steps(steps)),
            _ => bad("amount of a resource"),
        };
        let mut demand = Demand::cpu_only(units(self.u64()?)?);
        demand.gpu = units(self.u64()?)?;
        let mut last = None;
        for (name, amount) in self.list(12, |r| Ok((r.text()?, r.u64()?)))? {
            let amount = units(amount)?;
            // As they are written. In another order each would be put between the others: the square of their number.
            if Some(name) <= last || name == "cpu" || name == "gpu" || amount.is_zero() {
                return bad("list of resources in order");
            }
            last = Some(name);
            demand = demand.with_custom(name, amount);
        }
        Ok(demand)
    }

    /// Nothing is left.
    pub fn end(&self) -> Read<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            bad("frame of that length")
        }
    }
}

/// The largest amount there can be.
const MOST: u64 = Units::MAX_WHOLE * Units::PER_ONE;
