//! Frames as bytes and back, and bytes that are none.

use proptest::prelude::*;

use super::samples::frames;
use super::*;
use crate::core::leases::LeaseMsg;

#[test]
fn a_frame_is_read_as_it_was_written() {
    for frame in frames() {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }
}

#[test]
fn a_part_of_a_frame_is_none() {
    for frame in frames() {
        let bytes = frame.encode();
        for end in 0..bytes.len() {
            assert!(
                Frame::decode(&bytes[..end]).is_err(),
                "{frame:?} cut at {end}"
            );
        }
        let longer = [bytes, vec![0]].concat();
        assert!(
            Frame::decode(&longer).is_err(),
            "{frame:?} and one byte more"
        );
    }
}

#[test]
fn a_list_is_not_longer_than_its_bytes() {
    // Calls that come back: 2^32 - 1, and no number of one.
    let message = LeaseMsg::Refused {
        lease: 1,
        slots: 1,
        calls: vec![],
    };
    let mut bytes = Frame::Lease { message }.encode();
    let at = bytes.len() - 4;
    bytes[at..].fill(0xff);
    assert!(Frame::decode(&bytes).is_err());
    // A call with no arguments and 2^32 - 1 references.
    let mut bytes = Frame::Cancel { number: 1 }.encode();
    bytes[0] = 0;
    bytes.extend_from_slice(&[0; 64]);
    bytes.extend_from_slice(&[0xff; 4]);
    assert!(Frame::decode(&bytes).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn a_spoiled_frame_is_read_or_refused(which in 0usize..96, at in any::<usize>(), bits in 1u8..) {
        let frames = frames();
        let mut bytes = frames[which % frames.len()].encode();
        let at = at % bytes.len();
        bytes[at] ^= bits;
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
    }
}
