//! A recorder's memory read back, newest chunk first, while others go on writing.
//!
//! Invariant: a chunk is handed over whole as of one moment, or not at all. What its words claim is checked by whoever
//! reads them: kinds by [`Event::read`](super::event::Event::read), names by the table. Left out: what to make of it.

use super::event::WORDS;
use super::pool::{Recorder, Whose};

/// What came of a reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Chunks read.
    pub chunks: u64,
    /// Chunks that were overwritten while they were read.
    pub missed: u64,
}

/// Hands every chunk with events to `each`, the newest first, with how many are left. Copies a chunk at a time: 16 KiB.
pub(super) fn each_chunk(
    recorder: &Recorder,
    mut each: impl FnMut(Whose, &[[u64; WORDS]], usize),
) -> Seen {
    each_of(
        recorder,
        |_| true,
        |_, whose, events, left| each(whose, events, left),
    )
}

/// One filling of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Filling {
    pub base: usize,
    pub ticket: u64,
}

/// As [`each_chunk`], for those fillings that are `wanted`.
pub(super) fn each_of(
    recorder: &Recorder,
    wanted: impl Fn(Filling) -> bool,
    mut each: impl FnMut(Filling, Whose, &[[u64; WORDS]], usize),
) -> Seen {
    let mut tickets: Vec<(u64, usize)> = (0..recorder.chunks())
        .map(|chunk| recorder.base(chunk))
        .map(|base| (recorder.ticket(base), base))
        .filter(|&(ticket, base)| ticket != 0 && wanted(Filling { base, ticket }))
        .collect();
    tickets.sort_unstable_by(|a, b| b.cmp(a));
    let mut seen = Seen::default();
    let mut events = Vec::new();
    let all = tickets.len();
    for (at, (ticket, base)) in tickets.into_iter().enumerate() {
        match recorder.copy(base, ticket, &mut events) {
            Some(whose) => {
                seen.chunks += 1;
                each(Filling { base, ticket }, whose, &events, all - at - 1);
            }
            None => seen.missed += 1,
        }
    }
    seen
}
