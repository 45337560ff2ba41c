//! What is said about leases, as bytes and back.
//!
//! Invariant: reading is total, and the list of calls that come back is bounded by the frame. Left out: what the messages mean
//! (`core::leases`).

use super::codec::{Read, Reader, Writer, bad};
use super::grouping::{infeasible, read_infeasible};
use crate::core::leases::{Ending, LeaseMsg};

pub(super) fn message(w: &mut Writer, msg: &LeaseMsg) {
    match msg {
        LeaseMsg::Want {
            lease,
            demand,
            priority,
            slots,
        } => {
            w.u8(0);
            w.u32(*lease);
            w.demand(demand);
            w.u32(priority.cast_unsigned());
            w.u32(*slots);
        }
        LeaseMsg::Slots {
            lease,
            slots,
            blocked,
        } => {
            w.u8(1);
            w.u32(*lease);
            w.u32(*slots);
            w.u32(*blocked);
        }
        LeaseMsg::Refused {
            lease,
            slots,
            calls,
        } => {
            w.u8(2);
            w.u32(*lease);
            w.u32(*slots);
            w.list(calls, |w, call| w.u64(*call));
        }
        LeaseMsg::Ended { lease, why } => {
            w.u8(3);
            w.u32(*lease);
            match why {
                Ending::Infeasible(why) => {
                    w.u8(0);
                    infeasible(w, why);
                }
                Ending::Full => w.u8(1),
                Ending::Draining => w.u8(2),
                Ending::Lapsed => w.u8(3),
            }
        }
    }
}

pub(super) fn read_message(r: &mut Reader<'_>) -> Read<LeaseMsg> {
    let kind = r.u8()?;
    let lease = r.u32()?;
    Ok(match kind {
        0 => LeaseMsg::Want {
            lease,
            demand: r.demand()?,
            priority: r.u32()?.cast_signed(),
            slots: r.u32()?,
        },
        1 => LeaseMsg::Slots {
            lease,
            slots: r.u32()?,
            blocked: r.u32()?,
        },
        2 => LeaseMsg::Refused {
            lease,
            slots: r.u32()?,
            calls: r.list(8, Reader::u64)?,
        },
        3 => LeaseMsg::Ended {
            lease,
            why: match r.u8()? {
                0 => Ending::Infeasible(read_infeasible(r)?),
                1 => Ending::Full,
                2 => Ending::Draining,
                3 => Ending::Lapsed,
                _ => return bad("end of a lease"),
            },
        },
        _ => return bad("message about a lease"),
    })
}
