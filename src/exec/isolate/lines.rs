//! From bytes as they come to whole lines, and the last of them.
//!
//! Invariant: memory is bounded whatever comes: a line keeps [`LINE_MAX`] bytes, the tail [`TAIL_LINES`] lines of
//! [`TAIL_BYTES`]. Every byte is in the line it belongs to, or is counted in that line's mark.
//! Left out: where bytes come from and lines go (`output`, `sink`).

use std::collections::VecDeque;

/// Bytes that are kept of a line.
pub const LINE_MAX: usize = 8 << 10;
/// Lines that are kept for the report of a death.
pub const TAIL_LINES: usize = 20;
/// Bytes that are kept of each.
pub const TAIL_BYTES: usize = 400;

/// Puts the lines of one stream together.
#[derive(Debug, Default)]
pub struct Lines {
    part: Vec<u8>,
    skipped: u64,
}

impl Lines {
    /// Takes bytes; gives each line that they end, without its newline.
    pub fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(String)) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.keep(&bytes[..end]);
            line(self.take());
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// The stream has ended: gives what is left as a line, if anything is.
    pub fn finish(&mut self, line: impl FnOnce(String)) {
        if !self.part.is_empty() || self.skipped > 0 {
            line(self.take());
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_MAX - self.part.len();
        let kept = bytes.len().min(room);
        self.part.extend_from_slice(&bytes[..kept]);
        self.skipped += (bytes.len() - kept) as u64;
    }

    fn take(&mut self) -> String {
        let mut skipped = std::mem::take(&mut self.skipped);
        if skipped == 0 {
            if self.part.last() == Some(&b'\r') {
                self.part.pop();
            }
        } else if let Err(e) = std::str::from_utf8(&self.part)
            && e.error_len().is_none()
        {
            // The bound fell into a character: all of it is among what is skipped.
            skipped += (self.part.len() - e.valid_up_to()) as u64;
            self.part.truncate(e.valid_up_to());
        }
        let mut text = String::from_utf8_lossy(&self.part).into_owned();
        self.part.clear();
        // One long line must not keep its memory for a worker's life.
        self.part.shrink_to(256);
        if skipped > 0 {
            text.push_str(&format!(" ... ({skipped} more bytes)"));
        }
        text
    }
}

/// Lines kept of a backtrace, whose end is of no use and would drive out what was said before it.
const FRAMES: usize = 10;
/// Lines within which the report of a failed allocation is still its process's last word: a backtrace may follow it.
const LAST_WORD: u64 = 300;

/// The last lines of a worker, of both its streams.
#[derive(Debug, Default)]
pub struct Tail {
    lines: VecDeque<String>,
    seen: u64,
    /// How many were ever kept.
    kept: u64,
    /// Lines of a backtrace in a row.
    frames: usize,
    /// The bytes of an allocation that was said to have failed, and at which line.
    failed: Option<(u64, u64)>,
}

impl Tail {
    /// One more.
    pub fn push(&mut self, line: &str) {
        self.seen += 1;
        if let Some(bytes) = failed_allocation(line) {
            self.failed = Some((bytes, self.seen));
        }
        self.frames = if is_frame(line) { self.frames + 1 } else { 0 };
        let line = match self.frames {
            0..FRAMES => line,
            FRAMES => "      ... (more of the backtrace)",
            _ => return,
        };
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        const MARK: &str = " ...";
        self.kept += 1;
        self.lines.push_back(if line.len() <= TAIL_BYTES {
            line.to_owned()
        } else {
            let end = line.floor_char_boundary(TAIL_BYTES - MARK.len());
            format!("{}{MARK}", &line[..end])
        });
    }

    /// The bytes of the allocation that failed at the end, as the process said.
    pub fn failed_allocation(&self) -> Option<u64> {
        let (bytes, at) = self.failed?;
        (self.seen - at <= LAST_WORD).then_some(bytes)
    }

    /// The last `n`, oldest first, and how many there have been.
    pub fn last(&self, n: usize) -> (Vec<String>, u64) {
        let skipped = self.lines.len().saturating_sub(n);
        let last = self.lines.iter().skip(skipped).cloned().collect();
        (last, self.kept)
    }

    /// All, oldest first.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

/// Whether this is a line of a backtrace as Rust prints it: `  12: function`, and `          at file:line:column`.
fn is_frame(line: &str) -> bool {
    let text = line.trim_start();
    let indented = text.len() < line.len();
    let number = text.trim_start_matches(|c: char| c.is_ascii_digit());
    indented && (text.starts_with("at ") || number.len() < text.len() && number.starts_with(": "))
}

/// The bytes of the allocation of which Rust's default handler says in this line that it failed.
fn failed_allocation(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("memory allocation of ")?;
    rest.split_once(" bytes failed")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.feed(chunk, |l| out.push(l));
        }
        lines.finish(|l| out.push(l));
        out
    }

    #[test]
    fn lines_come_whole_however_bytes_come() {
        assert_eq!(lines(&[b"a\nb", b"c\n", b"\nd"]), ["a", "bc", "", "d"]);
        assert_eq!(lines(&[b"a\r\n", b"b\r", b"\nc\rd\n"]), ["a", "b", "c\rd"]);
        assert!(lines(&[b"", b""]).is_empty());
        assert_eq!(lines(&["é".as_bytes(), b"\xff\n"]), ["é\u{fffd}"]);
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        let long = vec![b'x'; LINE_MAX + 5];
        let cut = lines(&[&long, b"yz\nnext\n"]);
        assert_eq!(
            cut,
            [
                format!("{} ... (7 more bytes)", "x".repeat(LINE_MAX)),
                "next".to_owned()
            ]
        );
        let exact = lines(&[&long[..LINE_MAX], b"\n"]);
        assert_eq!(exact, ["x".repeat(LINE_MAX)]);
        let mut split = vec![b'x'; LINE_MAX - 1];
        split.extend("é".bytes());
        assert_eq!(
            lines(&[&split]),
            [format!("{} ... (2 more bytes)", "x".repeat(LINE_MAX - 1))]
        );
    }

    #[test]
    fn the_tail_keeps_the_last_and_cuts_each() {
        let mut tail = Tail::default();
        for n in 0..TAIL_LINES + 3 {
            tail.push(&n.to_string());
        }
        tail.push(&"é".repeat(TAIL_BYTES));
        let kept = tail.into_lines();
        assert_eq!((kept.len(), kept[0].as_str()), (TAIL_LINES, "4"));
        let last = kept.last().unwrap();
        assert!(
            last.len() <= TAIL_BYTES && last.ends_with("é ..."),
            "{last}"
        );
    }

    #[test]
    fn a_backtrace_does_not_drive_out_its_reason() {
        let mut tail = Tail::default();
        tail.push("the reason");
        tail.push("stack backtrace:");
        for n in 0..50 {
            tail.push(&format!("  {n:2}: app::function"));
            tail.push("             at ./src/main.rs:3:5");
        }
        tail.push("note: Some details are omitted");
        let lines = tail.into_lines();
        assert_eq!(lines[0], "the reason");
        assert_eq!(lines.len(), 2 + FRAMES + 1);
        assert!(lines[FRAMES + 1].contains("more of the backtrace"));
        assert!(!is_frame("  12 apples: red") && !is_frame("12: x") && is_frame("   0: x"));
    }

    #[test]
    fn a_failed_allocation_is_remembered_past_its_backtrace() {
        let mut tail = Tail::default();
        tail.push("memory allocation of lots bytes failed");
        assert_eq!(tail.failed_allocation(), None);
        tail.push("memory allocation of 512 bytes failed");
        for _ in 0..LAST_WORD {
            tail.push("  12: main");
            assert_eq!(tail.failed_allocation(), Some(512));
        }
        tail.push("other news");
        assert_eq!(tail.failed_allocation(), None);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            text in prop::collection::vec(prop::sample::select(b"ab\n\r".to_vec()), 0..200),
            cuts in prop::collection::vec(0usize..200, 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let mut from = 0;
            let chunks: Vec<&[u8]> = cuts
                .into_iter()
                .map(|to| &text[std::mem::replace(&mut from, to)..to])
                .collect();
            prop_assert_eq!(lines(&chunks), lines(&[&text]));
        }
    }
}
