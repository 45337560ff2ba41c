//! One connection of the server's: bytes in, questions out; answers in, bytes out. No IO of its own.
//!
//! Invariant: at most one question's worth of bytes is kept unread and one answer unsent; while an answer is unsent no
//! question is taken. Left out: sockets, and answering.

use std::time::{Duration, Instant};

use super::QUESTION_MAX;

/// A client that neither takes its answer nor sends the rest of its question for so long is let go.
pub(super) const STALLED: Duration = Duration::from_secs(10);
/// One that asks nothing for so long is, too.
pub(super) const SILENT: Duration = Duration::from_secs(300);

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for bytes.
    Read,
    /// Answer this.
    Answer(Vec<u8>),
    /// Send what is [`unsent`](Connection::unsent).
    Write,
    /// Close it, after sending this.
    Refuse(&'static str),
    /// Close it.
    Close,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    /// When it last moved on.
    moved: Instant,
    ended: bool,
    closing: bool,
}

impl Connection {
    pub(super) fn new(now: Instant) -> Connection {
        Connection {
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            moved: now,
            ended: false,
            closing: false,
        }
    }

    /// Bytes came; none means that the client sends no more.
    pub(super) fn received(&mut self, bytes: &[u8], now: Instant) {
        self.moved = now;
        self.ended |= bytes.is_empty();
        self.input.extend_from_slice(bytes);
    }

    /// An answer is to be sent; `last` closes the connection after it.
    pub(super) fn answer(&mut self, answer: Vec<u8>, last: bool, now: Instant) {
        self.moved = now;
        self.output = answer;
        self.sent = 0;
        self.closing |= last;
    }

    /// What is to be sent.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// So much of it was.
    pub(super) fn sent(&mut self, bytes: usize, now: Instant) {
        self.moved = now;
        self.sent += bytes;
        if self.sent >= self.output.len() {
            // A large answer's memory is not kept for a client that may never ask again.
            self.output = Vec::new();
            self.sent = 0;
        }
    }

    /// What to do now.
    pub(super) fn next(&mut self) -> Next {
        if !self.output.is_empty() {
            return Next::Write;
        }
        if self.closing {
            return Next::Close;
        }
        match self.input.iter().position(|b| *b == b'\n') {
            Some(end) if end <= QUESTION_MAX => {
                let rest = self.input.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.input, rest);
                line.pop();
                Next::Answer(line)
            }
            None if self.input.len() <= QUESTION_MAX => {
                if self.ended {
                    Next::Close
                } else {
                    Next::Read
                }
            }
            _ => {
                self.input = Vec::new();
                Next::Refuse("a question is one line of at most 64 KiB")
            }
        }
    }

    /// Whether there is a whole question that was not answered yet.
    pub(super) fn has_question(&self) -> bool {
        self.input.contains(&b'\n')
    }

    /// When it is to be let go if nothing happens.
    pub(super) fn deadline(&self) -> Instant {
        let stalls = !self.output.is_empty() || !self.input.is_empty();
        self.moved + if stalls { STALLED } else { SILENT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_come_in_pieces_and_in_bunches() {
        let now = Instant::now();
        let mut c = Connection::new(now);
        c.received(b"{\"a\"", now);
        assert_eq!(c.next(), Next::Read);
        c.received(b":1}\n{}\nrest", now);
        assert_eq!(c.next(), Next::Answer(b"{\"a\":1}".to_vec()));
        c.answer(b"yes\n".to_vec(), false, now);
        assert_eq!(c.next(), Next::Write);
        c.sent(1, now);
        assert_eq!((c.next(), c.unsent()), (Next::Write, &b"es\n"[..]));
        c.sent(3, now);
        assert!(c.has_question());
        assert_eq!(c.next(), Next::Answer(b"{}".to_vec()));
        assert!(!c.has_question());
        assert_eq!(c.next(), Next::Read);
        c.received(b"", now);
        assert_eq!(c.next(), Next::Close, "half a question is none");
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_memory() {
        let now = Instant::now();
        let mut c = Connection::new(now);
        let mut refused = None;
        for i in 0..1000 {
            c.received(&[b'x'; 4096], now);
            if let Next::Refuse(why) = c.next() {
                refused = Some((i, why));
                break;
            }
        }
        let (i, why) = refused.expect("it is refused");
        assert_eq!(i, QUESTION_MAX / 4096);
        c.answer(why.as_bytes().to_vec(), true, now);
        c.sent(why.len(), now);
        assert_eq!(c.next(), Next::Close);
    }

    #[test]
    fn who_stalls_has_less_time_than_who_is_silent() {
        let now = Instant::now();
        let mut c = Connection::new(now);
        assert_eq!(c.deadline(), now + SILENT);
        c.received(b"half", now);
        assert_eq!(c.deadline(), now + STALLED);
    }
}
