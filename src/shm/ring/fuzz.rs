//! Any bytes as the memory of a ring that another process writes.
//!
//! Invariant: a receiver takes frames that lie inside the ring, or says that the other process lied, and takes no more than was
//! claimed once. Left out: what frames mean.

use std::sync::Arc;

use super::{Aligned, DATA, HEADER, Lanes, MAX_FRAME, RING, SIZE, TAIL};

/// A true one: how far its writer is, and two frames.
pub fn samples() -> Vec<Vec<u8>> {
    let mut all = 24u32.to_le_bytes().to_vec();
    for (len, what) in [(3u32, 7u32), (0, 9)] {
        all.extend(len.to_le_bytes());
        all.extend(what.to_le_bytes());
        all.resize(all.len() + len.next_multiple_of(8) as usize, 1);
    }
    vec![all]
}

thread_local! {
    /// Mapped once: making it takes longer than reading it.
    static LANES: Arc<Lanes> = Lanes::create(1).expect("memory for a lane");
}

/// The first four bytes say how far the writer is, the others are what it wrote from the ring's beginning on.
pub fn rings(bytes: &[u8]) {
    let Some((tail, frames)) = bytes.split_first_chunk::<4>() else {
        return;
    };
    let lanes = LANES.with(Arc::clone);
    // As if its ends had never been handed out; the ones before are gone.
    lanes.taken.lock()[0] = false;
    let (_, mut receiver) = lanes.ends(0).expect("they were not taken");
    // Who made the lane reads its second ring.
    let write = |at: usize, bytes: &[u8]| {
        rustix::io::pwrite(lanes.file(), bytes, (RING + at) as u64).expect("it is memory");
    };
    write(DATA, &frames[..frames.len().min(SIZE)]);
    write(TAIL, tail);
    let (mut to, mut taken) = (Aligned::default(), 0);
    while let Ok(Some(_)) = receiver.take(&mut to) {
        assert!(to.len() <= MAX_FRAME);
        taken += HEADER + to.len();
        assert!(taken <= SIZE, "{taken} bytes of frames");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hostile::spoiled;

    #[test]
    fn spoiled_rings_are_refused_or_read() {
        spoiled(9, 5_000, &samples(), rings);
    }
}
