//! Any bytes as what a node tells of itself.
//!
//! Invariant: bytes are refused, or they are what is written for the view that was read: a view has one encoding. Left out: what
//! views are used for.

use std::time::Duration;

use super::{NodeView, decode, encode};
use crate::base::hostile::cheaply;
use crate::base::{Capacity, NodeId, Units};

/// True ones.
pub fn samples() -> Vec<Vec<u8>> {
    let plain = NodeView::idle(Capacity::new(Units::whole(2), 0));
    let rich = Capacity::new(Units::whole(300), 8)
        .with_custom("disk", Units::whole(3))
        .with_custom("tpu", Units::ONE);
    let rich = NodeView {
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        queued: 70_000,
        version: 1 << 40,
        draining: true,
        ..NodeView::idle(rich)
    };
    let bytes = |view: &NodeView| {
        let mut out = Vec::new();
        encode(NodeId::new(7).expect("not 0"), view, &mut out).expect("it is short");
        out
    };
    vec![bytes(&plain), bytes(&rich)]
}

/// See the file.
pub fn views(bytes: &[u8]) {
    let read = cheaply(bytes.len(), 64, || decode(bytes, Duration::ZERO));
    if let Ok((node, view)) = read {
        let mut again = Vec::new();
        encode(node, &view, &mut again).expect("it was read");
        assert_eq!(again, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hostile::spoiled;

    #[test]
    fn spoiled_views_are_refused_or_read() {
        spoiled(3, 20_000, &samples(), views);
    }
}
