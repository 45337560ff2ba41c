//! Any bytes as what one node says to another.
//!
//! Invariant: bytes are refused, or they are a frame that is written and read as itself; either way at little memory. Left out:
//! what follows from a frame (`node`).

use super::samples;
use super::{Frame, Reader};
use crate::base::hostile::cheaply;

/// True ones.
pub fn samples() -> Vec<Vec<u8>> {
    samples::frames().iter().map(Frame::encode).collect()
}

/// See the file.
pub fn frames(bytes: &[u8]) {
    if let Ok(frame) = cheaply(bytes.len(), 48, || Frame::decode(bytes)) {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }
    let _ = cheaply(bytes.len(), 48, || Reader(bytes).demand());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hostile::spoiled;

    #[test]
    fn spoiled_frames_are_refused_or_read() {
        spoiled(1, 20_000, &samples(), frames);
    }

    /// A list whose items are larger than their bytes.
    #[test]
    fn a_call_of_many_arguments_costs_no_memory() {
        let call = |args: u32| {
            let mut bytes = Frame::Cancel { number: 1 }.encode();
            bytes[0] = 0;
            bytes.extend_from_slice(&[0; 17]); // no lease, and terms that say nothing
            bytes.extend_from_slice(&[0; 4]); // a function
            bytes.extend_from_slice(&args.to_le_bytes());
            bytes.resize(bytes.len() + args as usize * 5, 0);
            bytes.extend_from_slice(&[0; 8]);
            bytes
        };
        let few = call(3);
        assert!(Frame::decode(&few).is_ok(), "it is laid out as a call");
        let many = call(1 << 20);
        frames(&many);
        assert!(Frame::decode(&many).is_err());
    }

    /// Each would be put between the others, at the cost of the square of their number.
    #[test]
    fn resources_out_of_order_are_refused() {
        let of = |names: &[&str]| {
            let mut w = super::super::Writer::default();
            w.u64(0);
            w.u64(0);
            w.list(names, |w, name| {
                w.text(name);
                w.u64(1);
            });
            w.0
        };
        let read = |names: &[&str]| Reader(&of(names)).demand().is_ok();
        assert!(read(&["a", "b"]) && read(&[]));
        for names in [["b", "a"], ["a", "a"], ["a", "cpu"]] {
            assert!(!read(&names), "{names:?}");
        }
    }
}
