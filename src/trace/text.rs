//! JSON, written piece by piece into a buffer that is emptied as it fills.
//!
//! Invariant: at most a few hundred bytes beyond the buffer's size are held; an error of the file is kept and given at
//! the end. Left out: checking that the pieces make valid JSON, which is the caller's and its tests'.

use std::io::{self, Write};

/// Bytes gathered before they are written.
const FULL: usize = 64 << 10;

/// Where JSON goes.
pub(super) struct Out<W> {
    to: W,
    buffer: Vec<u8>,
    bytes: u64,
    error: Option<io::Error>,
}

impl<W: Write> Out<W> {
    pub fn new(to: W) -> Out<W> {
        Out {
            to,
            buffer: Vec::with_capacity(FULL + 4096),
            bytes: 0,
            error: None,
        }
    }

    /// Text as it is.
    #[inline]
    pub fn raw(&mut self, text: &str) -> &mut Self {
        self.buffer.extend_from_slice(text.as_bytes());
        if self.buffer.len() >= FULL {
            self.empty();
        }
        self
    }

    /// A whole number.
    pub fn number(&mut self, n: u64) -> &mut Self {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = n;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.buffer.extend_from_slice(&digits[at..]);
        self
    }

    /// Nanoseconds as microseconds, with three digits after the point.
    pub fn micros(&mut self, nanos: u64) -> &mut Self {
        self.number(nanos / 1000);
        let part = (nanos % 1000) as u32;
        let digit = |n: u32| b'0' + (n % 10) as u8;
        self.buffer
            .extend_from_slice(&[b'.', digit(part / 100), digit(part / 10), digit(part)]);
        self
    }

    /// An id: in hexadecimal, as a string, since numbers above 2^53 do not survive every reader.
    pub fn id(&mut self, id: u64) -> &mut Self {
        self.buffer.extend_from_slice(b"\"0x");
        let digits = (64 - id.leading_zeros()).div_ceil(4).max(1);
        for i in (0..digits).rev() {
            let digit = (id >> (4 * i)) as usize & 0xf;
            self.buffer.push(b"0123456789abcdef"[digit]);
        }
        self.raw("\"")
    }

    /// A number with a fraction; what JSON has no word for is 0.
    pub fn float(&mut self, value: f64) -> &mut Self {
        let value = if value.is_finite() { value } else { 0.0 };
        let _ = write!(self.buffer, "{value}");
        self
    }

    /// A string, with its quotes.
    pub fn string(&mut self, text: &str) -> &mut Self {
        escape(text, &mut self.buffer);
        self.raw("")
    }

    fn empty(&mut self) {
        if self.error.is_none()
            && let Err(e) = self.to.write_all(&self.buffer)
        {
            self.error = Some(e);
        }
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
    }

    /// Writes what is left; how many bytes there were in all.
    pub fn finish(mut self) -> io::Result<u64> {
        self.empty();
        match self.error {
            Some(e) => Err(e),
            None => self.to.flush().map(|()| self.bytes),
        }
    }
}

/// Appends `text` as a JSON string with its quotes.
fn escape(text: &str, to: &mut Vec<u8>) {
    to.push(b'"');
    for c in text.chars() {
        match c {
            '"' => to.extend_from_slice(b"\\\""),
            '\\' => to.extend_from_slice(b"\\\\"),
            '\n' => to.extend_from_slice(b"\\n"),
            '\t' => to.extend_from_slice(b"\\t"),
            c if c.is_control() => {
                let _ = write!(to, "\\u{:04x}", u32::from(c));
            }
            c => to.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    to.push(b'"');
}

/// `text` as a JSON string with its quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len() + 2);
    escape(text, &mut bytes);
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(f: impl FnOnce(&mut Out<&mut Vec<u8>>)) -> String {
        let mut bytes = Vec::new();
        let mut out = Out::new(&mut bytes);
        f(&mut out);
        out.finish().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn numbers_and_strings_are_what_json_has() {
        assert_eq!(
            written(|o| {
                o.number(0)
                    .raw(",")
                    .number(u64::MAX)
                    .raw(",")
                    .micros(1_002_003);
            }),
            "0,18446744073709551615,1002.003"
        );
        assert_eq!(
            written(|o| {
                o.id(0).raw(",").id(0xab_0000_0001).raw(",").float(f64::NAN);
            }),
            "\"0x0\",\"0xab00000001\",0"
        );
        assert_eq!(
            written(|o| {
                o.string("a \"quoted\"\\ line\nand \u{1} é");
            }),
            "\"a \\\"quoted\\\"\\\\ line\\nand \\u0001 é\""
        );
    }

    #[test]
    fn much_is_written_in_pieces_and_an_error_is_told_at_the_end() {
        struct Short(usize);
        impl Write for Short {
            fn write(&mut self, b: &[u8]) -> io::Result<usize> {
                assert!(b.len() <= FULL + 4096, "held {} bytes", b.len());
                self.0 += 1;
                if self.0 > 3 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Ok(b.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = Out::new(Short(0));
        for _ in 0..100_000 {
            out.raw("0123456789");
        }
        assert_eq!(out.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
