//! Fields to bytes and back.
//!
//! Invariant: a [`Reader`] never looks past its bytes and never reserves more than they hold. Left
//! out: what the fields mean.

use super::Malformed;
use crate::base::ObjectId;

/// Reads fields off the front of a frame.
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) = self
            .bytes
            .split_at_checked(len)
            .ok_or(Malformed("a frame ends within a field"))?;
        self.bytes = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("as many were taken"))
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is neither 0 nor 1")),
        }
    }

    pub fn id(&mut self) -> Result<ObjectId, Malformed> {
        Ok(ObjectId(self.array()?))
    }

    /// A length of four bytes, then as many bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    /// What is left, all of it.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// Ends the reading: a frame with bytes to spare is not one of ours.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(Malformed("a frame is longer than its message"))
    }
}

/// Appends one frame to a buffer; its length is filled in by [`Writer::end`].
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    begin: usize,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut Vec<u8>, kind: u8) -> Writer<'a> {
        let begin = out.len();
        out.extend_from_slice(&[0, 0, 0, 0, kind]);
        Writer { out, begin }
    }

    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.out.push(value);
        self
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn id(&mut self, id: ObjectId) -> &mut Self {
        self.raw(&id.0)
    }

    /// Bytes whose number the reader knows.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// Bytes with their number in front.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(bytes.len() as u32).raw(bytes)
    }

    pub fn end(&mut self) {
        let len = (self.out.len() - self.begin - 4) as u32;
        self.out[self.begin..self.begin + 4].copy_from_slice(&len.to_le_bytes());
    }
}
