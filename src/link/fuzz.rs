//! Every decoder of this room, for bytes from anywhere: fuzz targets, and their stand-in among the tests.
//!
//! Invariant: no bytes panic here. Left out: judging what was decoded.

use bytes::Bytes;

use crate::base::NodeId;
use crate::link::bulk::Stripe;
use crate::link::control::Records;
use crate::link::greet::Greeting;
use crate::link::join::Request;
use crate::link::ways::Word;
use crate::link::{Ca, JoinToken, Registry, verify};

/// What a handshake carries.
pub fn handshake(bytes: &[u8]) {
    let _ = Greeting::decode(bytes);
    let _ = Registry::decode(bytes);
    let _ = Request::decode(bytes);
    let _ = Stripe::decode(bytes);
    let _ = Word::decode(bytes);
    let cert = bytes.into();
    let _ = verify::accepted(&cert);
    let _ = verify::check_issued(&cert, &cert, NodeId::new(1).expect("not 0"));
}

/// The control stream, in pieces whose length the first byte says.
pub fn records(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let mut records = Records::default();
    for piece in rest.chunks(usize::from(*first).max(1)) {
        if records
            .take(Bytes::copy_from_slice(piece), |_| Ok(()))
            .is_err()
        {
            break;
        }
    }
}

/// Texts that people paste, and files.
pub fn text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = text.parse::<JoinToken>();
    let _ = Ca::from_pem(&text);
}
