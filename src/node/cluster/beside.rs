//! What of an object is small enough to travel with a reference to it.
//!
//! Invariant: what comes with the references of one frame leaves room for the rest of it; whoever gets a reference without its value
//! asks for that. Left out: the references.

use crate::base::NodeId;
use crate::core::owners::Stand;
use crate::exec::RawRef;
use crate::exec::cell::{self, Phase};
use crate::exec::far::take::{self, Told};
use crate::wire::{Beside, CapBody};

/// Bytes that come with the references inside of one value, at most.
const MOST: usize = 4 << 20;

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

/// Takes away what is too much for one frame; those before it keep theirs.
pub(super) fn lighten(caps: &mut Vec<CapBody>) {
    let mut left = MOST;
    for cap in caps {
        let CapBody::Object(object) = cap else {
            continue;
        };
        let bytes = match &object.beside {
            Beside::Value { bytes, .. } | Beside::Failed(bytes) => bytes.len(),
            Beside::Nothing | Beside::Refers => 0,
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
    use crate::core::owners::RefState;
    use crate::wire::RefBody;

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
            cap(value(MOST - 10)),
            cap(Beside::Failed(vec![0; 11])),
            cap(value(10)),
            cap(value(1)),
        ];
        lighten(&mut caps);
        let left = [
            Beside::Refers,
            value(MOST - 10),
            Beside::Nothing,
            value(10),
            Beside::Refers,
        ];
        assert_eq!(caps, left.map(cap));
    }
}
