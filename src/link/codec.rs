//! Numbers, bytes and texts in a row, as handshakes carry them.
//!
//! Invariant: reading never takes more than there is, nor more than the reader's own bound for a field, and allocates
//! nothing before it has seen the bytes. Left out: control frames, whose bodies are the driver's.

use crate::link::LinkError;

/// Writes fields one after another.
#[derive(Default)]
pub(crate) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u8(&mut self, value: u8) -> &mut Writer {
        self.0.push(value);
        self
    }

    pub fn u32(&mut self, value: u32) -> &mut Writer {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Writer {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Bytes whose length the reader knows.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Writer {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes with their length before them.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Writer {
        self.u32(u32::try_from(bytes.len()).expect("fields are far below 4 GiB"));
        self.raw(bytes)
    }
}

/// Reads fields one after another.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub fn raw(&mut self, len: usize, what: &str) -> Result<&'a [u8], LinkError> {
        if len > self.rest.len() {
            return Err(LinkError::Protocol(format!(
                "{what} of {len} bytes, of which {} came",
                self.rest.len()
            )));
        }
        let (field, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(field)
    }

    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], LinkError> {
        Ok(self.raw(N, what)?.try_into().expect("of this length"))
    }

    pub fn u8(&mut self, what: &str) -> Result<u8, LinkError> {
        Ok(self.array::<1>(what)?[0])
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, LinkError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, LinkError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Bytes with their length before them, at most `limit` of them.
    pub fn bytes(&mut self, limit: usize, what: &str) -> Result<&'a [u8], LinkError> {
        let len = self.u32(what)? as usize;
        if len > limit {
            return Err(LinkError::Protocol(format!(
                "{what} of {len} bytes, of at most {limit}"
            )));
        }
        self.raw(len, what)
    }

    pub fn text(&mut self, limit: usize, what: &str) -> Result<&'a str, LinkError> {
        std::str::from_utf8(self.bytes(limit, what)?)
            .map_err(|_| LinkError::Protocol(format!("{what} that is no text")))
    }

    pub fn end(&self, what: &str) -> Result<(), LinkError> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(LinkError::Protocol(format!("{more} bytes behind {what}"))),
        }
    }
}
