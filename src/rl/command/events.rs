//! Event files, which TensorBoard reads: scalars by step.
//!
//! Invariant: a file is a row of records (TFRecord: the length, its checksum, the bytes, their checksum), each one message `Event` in
//! Protocol Buffers' wire format; a record is written whole by one call, so a run that is killed leaves all that it
//! had. Left out: pictures, histograms, and reading.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What names of our files begin with; TensorBoard looks for it.
const PREFIX: &str = "events.out.tfevents.";
/// What they end in.
const SUFFIX: &str = ".mobula";

/// The row of records of one run.
pub(super) struct Events {
    file: File,
}

impl Events {
    /// A new file in `dir`. Those of earlier runs stay where `keep` says so: TensorBoard reads all, by their names' order.
    pub fn new(dir: &Path, keep: bool) -> io::Result<Events> {
        if !keep {
            for entry in std::fs::read_dir(dir)? {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
                    std::fs::remove_file(entry.path())?;
                }
            }
        }
        let now = now();
        let (seconds, micros) = (now.as_secs(), now.subsec_micros());
        let process = std::process::id();
        let name = format!("{PREFIX}{seconds:010}.{micros:06}.{process}{SUFFIX}");
        let mut file = File::create_new(dir.join(name))?;
        let mut event = Message::default();
        event.double(1, now.as_secs_f64());
        event.bytes(3, b"brain.Event:2");
        file.write_all(&record(&event.0))?;
        Ok(Events { file })
    }

    /// Adds scalars, all of one step.
    pub fn add(&mut self, step: u64, scalars: &[(String, f32)]) -> io::Result<()> {
        let mut summary = Message::default();
        for (tag, number) in scalars {
            let mut value = Message::default();
            value.bytes(1, tag.as_bytes());
            value.float(2, *number);
            summary.bytes(1, &value.0);
        }
        let mut event = Message::default();
        event.double(1, now().as_secs_f64());
        event.varint(2, step);
        event.bytes(5, &summary.0);
        self.file.write_all(&record(&event.0))
    }
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// A message under way. Each field is its number and kind, then what it holds.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn varint(&mut self, field: u64, n: u64) {
        self.number(field << 3);
        self.number(n);
    }

    fn double(&mut self, field: u64, x: f64) {
        self.number(field << 3 | 1);
        self.0.extend(x.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.number(field << 3 | 2);
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn float(&mut self, field: u64, x: f32) {
        self.number(field << 3 | 5);
        self.0.extend(x.to_le_bytes());
    }
}

/// The bytes with what stands around them.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(bytes.len() + 16);
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(bytes);
    out.extend(masked(bytes).to_le_bytes());
    out
}

/// The checksum as records have it: turned and moved, since checksums of what holds checksums are weak.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's checksum.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    let step = |crc: u32, byte: &u8| crc >> 8 ^ TABLE[(crc as u8 ^ byte) as usize];
    !bytes.iter().fold(!0, step)
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_castagnolis() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn messages_are_as_the_wire_format_says() {
        let mut message = Message::default();
        message.varint(2, 300);
        message.float(2, 1.0);
        message.bytes(5, b"ab");
        message.double(1, 2.0);
        let want = b"\x10\xac\x02\x15\0\0\x80\x3f\x2a\x02ab\x09\0\0\0\0\0\0\0\x40";
        assert_eq!(message.0, want);
    }
}
