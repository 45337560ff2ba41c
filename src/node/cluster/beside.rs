//! What of an object is small enough to travel with a reference to it.
//!
//! Invariant: what comes with the references of one frame leaves room for the rest of it; whoever gets a reference without its value
//! asks for that. Left out: the references.

use crate::base::NodeId;
use crate::core::owners::{RefState, Stand};
use crate::exec::RawRef;
use crate::exec::cell::{self, Phase};
use crate::exec::far::take::{self, Told};
use crate::wire::{Beside, CapBody};

/// What of a frame is for a value with references inside, and for the rest.
const ROOM: usize = crate::link::MAX_FRAME - (1 << 20);
/// A reference alone, at most, but for the nodes that have it.
const REFERENCE: usize = 96;

/// How an object stands, and what of it is small enough to travel with the reference.
pub(super) fn describe(me: NodeId, record: &RawRef) -> (Stand, Beside) {
    match cell::phase(record.state()) {
        Phase::Done => match take::told(record) {
            Told::Value(len, refers) => {
                let stand = Stand::Ready {
                    len: len as u64,
                    at: me,
                };
                let beside = if refers {
                    Beside::Refers
                } else if take::is_stored(record) {
                    Beside::Nothing
                } else {
                    Beside::Value {
                        whole: false,
                        bytes: record.archive().to_vec(),
                    }
                };
                (stand, beside)
            }
            Told::Failed(why) => (Stand::Failed, Beside::Failed(why)),
        },
        Phase::Failed => match take::peek(record) {
            Told::Failed(why) => (Stand::Failed, Beside::Failed(why)),
            Told::Value(..) => (Stand::Failed, Beside::Nothing),
        },
        _ => (Stand::Pending, Beside::Nothing),
    }
}

/// Takes away what is too much for one frame that has `len` bytes beside the references; those before it keep theirs.
pub(super) fn lighten(len: usize, caps: &mut Vec<CapBody>) {
    let mut left = ROOM.saturating_sub(len + REFERENCE * caps.len());
    for cap in caps {
        let CapBody::Object(object) = cap else {
            continue;
        };
        if let RefState::Ready { at, .. } = &mut object.state {
            // One is enough to ask.
            if at.len() > 1 && size_of_val(at.as_slice()) > left {
                at.truncate(1);
            }
            left = left.saturating_sub(size_of_val(at.as_slice()));
        }
        let bytes = match &object.beside {
            Beside::Value { bytes, .. } | Beside::Failed(bytes) => bytes.len(),
            // Not left away: nothing else says so.
            Beside::Durable { at, .. } => {
                left = left.saturating_sub(at.len());
                continue;
            }
            Beside::Nothing | Beside::Refers | Beside::Replicated => 0,
        };
        match left.checked_sub(bytes) {
            Some(less) => left = less,
            // Why it failed is then not told.
            None if matches!(object.beside, Beside::Failed(_)) => object.beside = Beside::Nothing,
            None => object.beside = Beside::Refers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectKey;
    use crate::wire::RefBody;

    /// What five references leave for what comes with them.
    const LEFT: usize = ROOM - 1000 - 5 * REFERENCE;

    #[test]
    fn what_comes_with_references_is_bounded_and_small_ones_still_come() {
        let cap = |beside| {
            CapBody::Object(RefBody {
                key: ObjectKey {
                    owner: NodeId::new(1).unwrap(),
                    number: 1,
                },
                tag: 1,
                transit: 0,
                state: RefState::Failed,
                beside,
            })
        };
        let value = |n| Beside::Value {
            whole: false,
            bytes: vec![1; n],
        };
        let mut caps = vec![
            cap(Beside::Refers),
            cap(value(LEFT - 10)),
            cap(Beside::Failed(vec![0; 11])),
            cap(value(10)),
            cap(value(1)),
        ];
        lighten(1000, &mut caps);
        let left = [
            Beside::Refers,
            value(LEFT - 10),
            Beside::Nothing,
            value(10),
            Beside::Refers,
        ];
        assert_eq!(caps, left.map(cap));
    }
}
