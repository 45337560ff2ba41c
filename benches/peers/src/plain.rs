//! No runtime at all: what copying and archiving cost, the least a store has to do.

use std::hint::black_box;
use std::sync::Arc;

use rkyv::rancor::Error;
use rkyv::util::AlignedVec;

use crate::row::Clock;

/// `put_1kb`: encode into bytes of its own.
pub fn encode_1kb() -> f64 {
    let (value, mut clock) = (vec![7u8; 1000], Clock::new());
    while clock.more(100) {
        for _ in 0..100 {
            let bytes: AlignedVec = rkyv::to_bytes::<Error>(black_box(&value)).expect("room");
            assert!(black_box(bytes).len() >= 1000);
        }
    }
    clock.rate()
}

/// `put_1kb`: copy into a reference-counted slice.
pub fn copy_1kb() -> f64 {
    let (value, mut clock) = (vec![7u8; 1000], Clock::new());
    while clock.more(100) {
        for _ in 0..100 {
            let copy: Arc<[u8]> = black_box(&value[..]).into();
            assert_eq!(black_box(copy)[999], 7);
        }
    }
    clock.rate()
}

/// `view_1kb`: validate the archive and read from it.
pub fn access_1kb() -> f64 {
    let bytes = rkyv::to_bytes::<Error>(&vec![7u8; 1000]).expect("room");
    let mut clock = Clock::new();
    while clock.more(1000) {
        for _ in 0..1000 {
            let view = rkyv::access::<rkyv::vec::ArchivedVec<u8>, Error>(black_box(&bytes));
            assert_eq!(black_box(view.expect("a valid archive"))[999], 7);
        }
    }
    clock.nanos()
}
