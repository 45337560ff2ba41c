//! Any bytes as what a worker process says of the call that it ran.
//!
//! Invariant: bytes are refused or read, at little memory, that of names which live for ever too. Left out: the ring that they
//! come through (`shm`), and whether pages that a worker names were lent to it (`driver`).

use std::sync::Arc;

use super::super::call::CallError;
use super::failure;
use super::frame::{Answer, FAILED, HEAD, NOTHING, Place, Reader, STORED, VALUE, Writer};
use crate::base::hostile::cheaply;
use crate::base::{Error, Failure, FailureKind, Stack};

/// True ones: what it is, then its bytes.
pub fn samples() -> Vec<Vec<u8>> {
    let answer = |what: u32, rest: &dyn Fn(&mut Writer)| {
        let mut w = Writer(what.to_le_bytes().to_vec());
        w.0.resize(4 + HEAD, 0);
        rest(&mut w);
        w.0
    };
    let failed = |error: CallError| answer(FAILED, &|w| failure::write(&error, w));
    let runtime = |error| failed(CallError::Runtime(error));
    let why = || Arc::from("why");
    let mut places = Writer::default();
    places.place(Place::Inline { end: 7 });
    places.place(Place::Tail { len: 8 });
    places.place(Place::Arena { offset: 64, len: 9 });
    vec![
        places.0,
        answer(NOTHING, &|_| {}),
        answer(VALUE, &|w| w.0.extend_from_slice(&[9; 40])),
        answer(STORED, &|w| (w.u64(64), w.u64(128)).1),
        failed(CallError::Function(Failure {
            kind: FailureKind::Panicked,
            function: "f",
            message: "what".into(),
            type_name: "app::What",
            sources: vec!["why".into(), "why that".into()],
            location: "a.rs:1:2".into(),
            attempts: 1,
            backtrace: Some(Arc::new(Stack::told("0: f".into()))),
        })),
        runtime(Error::Cancelled { function: "f" }),
        runtime(Error::Encode {
            value: "app::Value",
            why: why(),
        }),
        runtime(Error::Decode {
            expected: "app::Value",
            why: why(),
        }),
    ]
}

/// See the file.
pub fn answers(bytes: &[u8]) {
    if let Some((what, rest)) = bytes.split_first_chunk::<4>() {
        let what = u32::from_le_bytes(*what);
        cheaply(bytes.len(), 16, || {
            if let Ok(Answer::Failed { mut why, .. }) = Answer::read(what, rest) {
                let _ = failure::read(&mut why, "f");
            }
        });
    }
    cheaply(bytes.len(), 8, || {
        let mut r = Reader(bytes);
        while r.place().is_ok() {}
        let _ = r.text();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hostile::spoiled;

    #[test]
    fn spoiled_answers_are_refused_or_read() {
        spoiled(8, 20_000, &samples(), answers);
    }

    /// They are kept for ever, so a worker must not say how long they are.
    #[test]
    fn the_longest_name_is_kept_short() {
        let mut w = Writer::default();
        w.u32(3); // a value that could not be written
        w.text(&"n".repeat(100 << 10));
        w.text("why");
        let Ok(CallError::Runtime(Error::Encode { value, .. })) =
            failure::read(&mut Reader(&w.0), "f")
        else {
            panic!("it was told of a value");
        };
        assert!(value.len() <= 1024, "{}", value.len());
    }
}
