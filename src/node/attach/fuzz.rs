//! Any bytes as what the socket of a program is asked, and as what a program answers.
//!
//! Invariant: questions are cut into lines and refused or read; answers likewise; either way at little memory. Left out: looking
//! (`exec`).

use std::time::Instant;

use super::connection::{Connection, Next};
use super::{Answer, Question, client};
use crate::base::hostile::cheaply;
use crate::base::query::{Part, Query};
use crate::base::snapshot::Program;

/// True ones.
pub fn samples() -> Vec<Vec<u8>> {
    let line = |value: serde_json::Result<Vec<u8>>| {
        let mut line = value.expect("it is JSON");
        line.push(b'\n');
        line
    };
    let question = |question: &Question| line(serde_json::to_vec(question));
    let answer = |answer: &Answer| line(serde_json::to_vec(answer));
    vec![
        question(&Question::Hello),
        question(&Question::Recording),
        question(&Question::Snapshot(Query::of(&Part::ALL))),
        answer(&Answer::Hello(Program::default())),
        answer(&Answer::Snapshot(Box::default())),
        answer(&Answer::Error("why".into())),
    ]
}

/// See the file.
pub fn lines(bytes: &[u8]) {
    let now = Instant::now();
    cheaply(bytes.len(), 128, || {
        let mut connection = Connection::new(now);
        let mut rest = bytes;
        loop {
            match connection.next() {
                Next::Read if rest.is_empty() => connection.received(&[], now),
                Next::Read => {
                    let (piece, after) = rest.split_at(rest.len().min(8192));
                    connection.received(piece, now);
                    rest = after;
                }
                Next::Answer(line) => {
                    if let Ok(question) = serde_json::from_slice::<Question>(&line) {
                        let again = serde_json::to_vec(&question).expect("it is JSON");
                        let twice = serde_json::from_slice::<Question>(&again);
                        assert_eq!(twice.ok(), Some(question));
                    }
                    connection.answer(b"!".to_vec(), false, now);
                }
                Next::Write => connection.sent(1, now),
                Next::Refuse(why) => connection.answer(why.into(), true, now),
                Next::Close => break,
            }
        }
    });
    // A snapshot's entries are larger than the least that may be said of one.
    let _ = cheaply(bytes.len(), 1024, || client::read(bytes).map(drop));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hostile::spoiled;

    #[test]
    fn spoiled_lines_are_refused_or_read() {
        spoiled(11, 5_000, &samples(), lines);
    }
}
