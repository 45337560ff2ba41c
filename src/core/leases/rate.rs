//! A stream of calls through both halves of a lease, for measuring what one costs.
//!
//! Invariant: the same arguments give the same events. Left out: the clock, which the caller holds, and everything between
//! the two nodes.

use std::collections::VecDeque;
use std::time::Duration;

use super::submitter::{Call, Submitter};
use super::{Grantor, LeaseMsg, grantor, submitter};
use crate::base::{Capacity, Demand, NodeId, Units};

/// Slots of the node that runs them; twice as many calls are under way.
const SLOTS: u64 = 4;

/// Runs so many calls, each submitted as another ends. Says how many ran, and how many messages the steady part took.
pub fn stream(calls: u64) -> (u64, u64) {
    let (Some(from), Some(to)) = (NodeId::new(1), NodeId::new(2)) else {
        return (0, 0);
    };
    let one = Demand::ONE_CPU;
    let mut submitter = Submitter::new();
    let mut grantor = Grantor::new(to, Capacity::new(Units::whole(SLOTS), 0), 1 << 32..1 << 63);
    let mut running: VecDeque<u64> = VecDeque::new();
    let (mut sent, mut held) = (Vec::new(), Vec::new());
    let (mut ran, mut messages) = (0, 0);
    for n in 0..calls + 2 * SLOTS {
        let now = Duration::from_micros(n);
        if n >= 2 * SLOTS {
            let Some(call) = running.pop_front() else {
                break;
            };
            ran += 1;
            grantor.ended(from, call, &mut held);
            submitter.ended(now, call, Duration::from_micros(1), &mut sent);
        }
        let call = Call {
            id: n,
            demand: &one,
            priority: 0,
            bound: false,
        };
        if !submitter.reuse(now, &call, &mut sent)
            && submitter.submit(now, &call, Some(to), &mut sent).is_err()
        {
            break;
        }
        // All that comes of it, at once.
        while !sent.is_empty() || !held.is_empty() {
            for effect in std::mem::take(&mut sent) {
                match effect {
                    submitter::Effect::Run { call, lease, .. } => {
                        grantor.arrived(now, from, lease, call, &mut held)
                    }
                    submitter::Effect::Send { msg, .. } => {
                        messages += u64::from(n > 4 * SLOTS);
                        grantor.handle(now, from, &msg, &mut held);
                    }
                    _ => {}
                }
            }
            for effect in std::mem::take(&mut held) {
                match effect {
                    grantor::Effect::Start { call, .. } => running.push_back(call),
                    grantor::Effect::Reserve { ticket, .. } => grantor.reserved(ticket, &mut held),
                    grantor::Effect::Send { msg, .. } => {
                        messages +=
                            u64::from(n > 4 * SLOTS && !matches!(msg, LeaseMsg::Slots { .. }));
                        submitter.handle(now, to, &msg, &mut sent);
                    }
                    _ => {}
                }
            }
        }
    }
    (ran, messages)
}
