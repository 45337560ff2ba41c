//! How an object lies on disk: a header, then its bytes.
//!
//! A segment is such pieces one after the other. Invariant: a header that [`check`] accepts is the
//! one that was written for this object of this segment, and its checksum is that of the bytes.
//! Left out: files.

use crate::base::Loss;

/// Bytes of a header.
pub const HEADER: usize = 64;
const MAGIC: [u8; 8] = *b"MOBSPILL";
const VERSION: u64 = 1;

/// The checksum of an object's bytes.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// What stands before the bytes of an object of `len` bytes, at `at` of segment `segment`.
pub fn header(segment: u64, at: u64, len: u64, sum: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    for (field, value) in [VERSION, segment, at, len, sum].into_iter().enumerate() {
        header[8 * (field + 1)..][..8].copy_from_slice(&value.to_le_bytes());
    }
    let own = checksum(&header[..HEADER - 8]);
    header[HEADER - 8..].copy_from_slice(&own.to_le_bytes());
    header
}

/// Whether the header and the bytes are what was written.
pub fn check(found: &[u8], expected: &[u8; HEADER], sum: u64, bytes: &[u8]) -> Result<(), Loss> {
    if found == expected && checksum(bytes) == sum {
        Ok(())
    } else {
        Err(Loss::Corrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_tell_everything_apart() {
        let base = header(1, 2, 3, 4);
        assert_eq!(&base[..8], b"MOBSPILL");
        for other in [
            header(9, 2, 3, 4),
            header(1, 9, 3, 4),
            header(1, 2, 9, 4),
            header(1, 2, 3, 9),
        ] {
            assert_ne!(base, other);
            assert_ne!(
                base[HEADER - 8..],
                other[HEADER - 8..],
                "its own checksum too"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None,
            cases: if cfg!(miri) { 4 } else { 200 }, ..ProptestConfig::default() })]

        /// One flipped bit anywhere is noticed.
        #[test]
        fn a_flipped_bit_is_noticed(bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<usize>(), bit in 0u32..8) {
            let sum = checksum(&bytes);
            let expected = header(5, 64, bytes.len() as u64, sum);
            prop_assert_eq!(check(&expected, &expected, sum, &bytes), Ok(()));
            let mut stored = expected.to_vec();
            stored.extend(&bytes);
            let at = at % stored.len();
            stored[at] ^= 1 << bit;
            let (head, body) = stored.split_at(HEADER);
            prop_assert_eq!(check(head, &expected, sum, body), Err(Loss::Corrupted));
        }
    }
}
