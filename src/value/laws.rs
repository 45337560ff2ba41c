//! Properties of archives: whatever is written comes back, and whatever bytes come, reading them is safe once accepted.
//!
//! Invariant: values are random but bounded, so that a run takes a second. Left out: references, which need records.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Placed, Ser, check, decode};

type Sample = (
    u32,
    Vec<String>,
    Option<i64>,
    BTreeMap<String, Vec<u16>>,
    [f64; 3],
);

/// Whole lines of 64 bytes, aligned as the store aligns.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// The bytes at an aligned address.
fn aligned(bytes: &[u8]) -> Vec<Line> {
    bytes
        .chunks(64)
        .map(|chunk| {
            let mut line = Line([0; 64]);
            line.0[..chunk.len()].copy_from_slice(chunk);
            line
        })
        .collect()
}

fn view(lines: &[Line], len: usize) -> &[u8] {
    assert!(len <= size_of_val(lines));
    // SAFETY: lines are plain bytes without padding, and there are at least `len`.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), len) }
}

fn sample() -> impl Strategy<Value = Sample> {
    (
        any::<u32>(),
        prop::collection::vec(".{0,40}", 0..8),
        any::<Option<i64>>(),
        prop::collection::btree_map(
            "[a-z]{0,12}",
            prop::collection::vec(any::<u16>(), 0..20),
            0..6,
        ),
        prop::array::uniform3(-1e9..1e9f64),
    )
}

fn archive(value: &Sample) -> Vec<u8> {
    let mut ser = Ser::default();
    ser.begin(0);
    assert_eq!(ser.place(value).unwrap(), Placed::Scratch);
    ser.bytes().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

    #[test]
    fn what_is_written_is_accepted_and_comes_back(value in sample()) {
        let bytes = archive(&value);
        let home = aligned(&bytes);
        let bytes = view(&home, bytes.len());
        prop_assert!(check::<Sample>(bytes).is_ok());
        // SAFETY: written by this crate's writer, at an aligned address.
        prop_assert_eq!(unsafe { decode::<Sample>(bytes, &[]) }.unwrap(), value);
    }

    #[test]
    fn measuring_and_writing_agree(value in sample()) {
        prop_assert_eq!(Ser::default().measure(&value).unwrap(), archive(&value).len());
    }

    #[test]
    fn spoiled_bytes_are_refused_or_safe_to_read(
        value in sample(),
        spoil in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = archive(&value);
        for (at, byte) in spoil {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for len in [bytes.len(), cut.index(bytes.len())] {
            let home = aligned(&bytes[..len]);
            let bytes = view(&home, len);
            if check::<Sample>(bytes).is_ok() {
                // SAFETY: accepted; that acceptance suffices is what this shows, under Miri and the sanitizers.
                drop(unsafe { decode::<Sample>(bytes, &[]) });
            }
        }
    }
}
