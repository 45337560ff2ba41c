//! Any bytes as what a served store and its clients say to each other, in both directions.
//!
//! Invariant: bytes are cut into frames and refused or read, at little memory, and what was read is written as it came. Left
//! out: a server's books, to which the fuzz target `store_frames` sends the same over a socket.

use super::frames::Oversize;
use super::*;
use crate::base::hostile::cheaply;
use crate::base::{ObjectId, ObjectState};

/// True streams: frames with their lengths.
pub fn samples() -> Vec<Vec<u8>> {
    let id = ObjectId([7; 16]);
    let requests = [
        Request::Create { id, len: 9 },
        Request::Write {
            serial: 1,
            at: 2,
            bytes: b"bytes",
        },
        Request::Put { id, bytes: b"more" },
        Request::Get { id, nanos: FOREVER },
        Request::List { after: Some(id) },
        Request::Stats,
    ];
    let mut all = Vec::new();
    let mut add = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        all.push(out);
    };
    requests
        .iter()
        .for_each(|request| add(&|out| request.encode(3, out)));
    let entry = Entry {
        id,
        len: 5,
        sealed: true,
        pins: 2,
    };
    let lost = || Denial::Lost { why: "why".into() };
    let deadline = Denial::Deadline {
        state: ObjectState::Written,
    };
    let answers = [
        Answer::Done,
        Answer::Found {
            serial: 1,
            offset: 64,
            len: 9,
        },
        Answer::Names {
            more: true,
            entries: vec![entry, entry],
        },
        Answer::Stats(Box::new(ServedStats::of(|| 1 << 20, "4 KiB".into()))),
        Answer::Denied(deadline),
        Answer::Denied(lost()),
    ];
    for answer in answers {
        let message = Message::Answer(4, answer);
        add(&|out| message.encode(out));
    }
    add(&|out| Message::Lagged { missed: 3 }.encode(out));
    add(&|out| Hello::of_this_crate().encode(out));
    let welcome = Greeting::Welcome(Welcome {
        version: VERSION,
        program: "0.0.0".into(),
        capacity: 1 << 20,
        grain: 4096,
        pid: 5,
    });
    add(&|out| welcome.encode(out));
    all
}

/// A stream that came in pieces.
pub fn streams(bytes: &[u8]) {
    cheaply(bytes.len(), 64, || {
        let mut frames = Frames::default();
        for piece in bytes.chunks(1000) {
            frames.room()[..piece.len()].copy_from_slice(piece);
            frames.received(piece.len());
            loop {
                match frames.next() {
                    Ok(Some(whole)) => frame(whole),
                    Ok(None) => break,
                    Err(Oversize(length)) => {
                        assert!(length as usize > FRAME_MAX);
                        return;
                    }
                }
            }
        }
    });
    frame(bytes);
}

fn frame(bytes: &[u8]) {
    let unframed = |out: Vec<u8>| out[4..].to_vec();
    if let Ok((seq, request)) = Request::decode(bytes) {
        let mut out = Vec::new();
        request.encode(seq, &mut out);
        assert_eq!(unframed(out), bytes);
    }
    if let Ok(message) = Message::decode(bytes) {
        let mut out = Vec::new();
        message.encode(&mut out);
        assert_eq!(Message::decode(&unframed(out)), Ok(message));
    }
    let _ = Hello::decode(bytes);
    let _ = Greeting::decode(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hostile::spoiled;

    #[test]
    fn spoiled_streams_are_refused_or_read() {
        spoiled(7, 10_000, &samples(), streams);
    }
}
