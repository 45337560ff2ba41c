//! Several nodes keep one busy: each gets its part of it, and who has priority goes first.
//!
//! Invariant: of slots for all, each submitter has as many as the even division gives it, rounded down; of fewer slots than
//! submitters each has its turns. A burst of higher priority has all slots as they fall idle. Left out: crashes, and calls of
//! unequal length, which the other runs have.

use std::collections::BTreeMap;

use super::{Open, Slip, World};
use crate::base::{Demand, NodeId};
use crate::chance::Chance;
use crate::net::Event;
use crate::plan::Plan;

/// Calls that each submitter keeps open, for each slot there is.
const BACKLOG: usize = 24;

/// When parts begin to be counted, and until when, in microseconds.
const FROM: u64 = 1_000_000;
const UNTIL: u64 = 4_000_000;

/// Calls of the burst, for each slot.
const BURST: u64 = 16;

/// A run; how many calls each submitter had run.
pub fn run(seed: u64, slip: Slip) -> Result<BTreeMap<NodeId, u64>, String> {
    let mut chance = Chance::new(seed ^ 0x6661_6972);
    let slots = chance.between(1, 6);
    let submitters = chance.between(2, 5);
    let length = chance.between(20_000, 40_000);
    let plan = Plan {
        nodes: submitters + 1,
        latency: chance.between(100, 2_000),
        losses: chance.between(0, 50),
        late: 10_000,
        breaks: chance.below(6),
        reconnect: 20_000,
        splits: 0,
        crashes: 0,
        ..Plan::of(seed)
    };
    let lender = NodeId::new(submitters + 1).ok_or("no lender")?;
    let breaks = plan.breaks;
    // Who submits has no CPUs of its own.
    let mut number = 0;
    let mut world = World::new(plan, slip, |_| {
        number += 1;
        if number > submitters { slots } else { 0 }
    });
    world.length = Some(length);
    for _ in 0..breaks {
        let at = world.net.chance.below(UNTIL);
        world.net.after(at, Event::Break);
    }
    let call = |owner, priority| Open {
        owner,
        demand: Demand::ONE_CPU,
        priority,
        bound: true,
    };
    let who: Vec<NodeId> = (1..=submitters).filter_map(NodeId::new).collect();
    let mut counted = BTreeMap::new();
    while world.net.now < UNTIL {
        for &me in &who {
            let open = world.having.get(&me).copied().unwrap_or_default();
            for _ in open..BACKLOG * slots as usize {
                let id = world.submit(call(me, 0), Some(lender));
                counted.insert(id, me);
            }
        }
        // Only those that started within the time count.
        if world.net.now < FROM {
            world.ran.clear();
        }
        world.step(false)?;
    }
    let mut parts: BTreeMap<NodeId, u64> = who.iter().map(|n| (*n, 0)).collect();
    for id in world.ran.keys() {
        if let Some(part) = counted.get(id).and_then(|me| parts.get_mut(me)) {
            *part += 1;
        }
    }
    let whole = (UNTIL - FROM) / length;
    let (least, of) = if slots >= submitters {
        (whole * (slots / submitters) * 8 / 10, "its slots")
    } else {
        (whole * slots / submitters / 2, "its turns")
    };
    let told = format!("{parts:?} of {submitters} on {slots} slots of {length} us");
    if let Some((me, part)) = parts.iter().find(|(_, part)| **part < least) {
        return Err(format!("{me:?} ran {part} calls, {of} are {least}: {told}"));
    }
    burst(&mut world, lender, slots, length, call(who[0], 1))?;
    Ok(parts)
}

/// Calls of a higher priority while all want the slots.
fn burst(
    world: &mut World,
    lender: NodeId,
    slots: u64,
    length: u64,
    call: Open,
) -> Result<(), String> {
    let began = world.net.now;
    let ids: Vec<u64> = (0..BURST * slots)
        .map(|_| world.submit(call.clone(), Some(lender)))
        .collect();
    // One that runs in each slot has to end, then they have them all; besides, wishes and slots are told.
    let told = 100_000 + 8 * (world.plan.latency + world.plan.late) + world.plan.reconnect;
    let until = began + (BURST + 2) * length + told;
    while world.net.now < until && !ids.iter().all(|id| world.ran.contains_key(id)) {
        world.step(false)?;
    }
    let ran = ids.iter().filter(|id| world.ran.contains_key(id)).count();
    if ran < ids.len() {
        let took = world.net.now - began;
        return Err(format!(
            "{ran} of {} calls of higher priority started within {took} us, {slots} slots, {length} us each",
            ids.len()
        ));
    }
    Ok(())
}
