//! Messages about placement groups, as bytes and back.
//!
//! Invariant: as many bundles as a group may have, and no more, are read. Left out: what they mean (`core::groups`).

use super::codec::{Read, Reader, Writer, bad};
use crate::base::{Demand, GroupId, Infeasible, NodeId, Units};
use crate::core::groups::{GroupMsg, MAX_BUNDLES, Refusal};

/// A group, and a bundle of it if one is named.
pub type InGroup = (GroupId, Option<u32>);

fn id(w: &mut Writer, group: GroupId) {
    w.node(group.node);
    w.u64(group.number);
}

fn read_id(r: &mut Reader<'_>) -> Read<GroupId> {
    Ok(GroupId {
        node: r.node()?,
        number: r.u64()?,
    })
}

pub(super) fn in_group(w: &mut Writer, (group, bundle): InGroup) {
    id(w, group);
    w.option(bundle, Writer::u32);
}

pub(super) fn read_in_group(r: &mut Reader<'_>) -> Read<InGroup> {
    Ok((read_id(r)?, r.option(Reader::u32)?))
}

pub(super) fn infeasible(w: &mut Writer, why: &Infeasible) {
    w.text(&why.resource);
    w.u64(why.requested.steps());
    w.u64(why.capacity.steps());
}

pub(super) fn read_infeasible(r: &mut Reader<'_>) -> Read<Infeasible> {
    Ok(Infeasible {
        resource: r.text()?.to_owned(),
        requested: Units::from_steps(r.u64()?),
        capacity: Units::from_steps(r.u64()?),
    })
}

pub(super) fn message(w: &mut Writer, msg: &GroupMsg) {
    let epoch = |w: &mut Writer, kind: u8, group: &GroupId, epoch: &u64| {
        w.u8(kind);
        id(w, *group);
        w.u64(*epoch);
    };
    match msg {
        GroupMsg::Prepare {
            group,
            epoch: attempt,
            priority,
            bundles,
        } => {
            epoch(w, 0, group, attempt);
            w.u32(priority.cast_unsigned());
            w.list(bundles, |w, (at, demand)| {
                w.u32(*at);
                w.demand(demand);
            });
        }
        GroupMsg::Commit { group, epoch: e } => epoch(w, 1, group, e),
        GroupMsg::Abort { group, epoch: e } => epoch(w, 2, group, e),
        GroupMsg::Remove { group } => {
            w.u8(3);
            id(w, *group);
        }
        GroupMsg::Prepared { group, epoch: e } => epoch(w, 4, group, e),
        GroupMsg::Refused {
            group,
            epoch: e,
            why,
        } => {
            epoch(w, 5, group, e);
            match why {
                Refusal::Infeasible(why) => {
                    w.u8(0);
                    infeasible(w, why);
                }
                Refusal::Full => w.u8(1),
                Refusal::Draining => w.u8(2),
            }
        }
        GroupMsg::Committed { group, epoch: e } => epoch(w, 6, group, e),
        GroupMsg::Locate { group } => {
            w.u8(7);
            id(w, *group);
        }
        GroupMsg::Located {
            group,
            version,
            bundles,
        } => {
            epoch(w, 8, group, version);
            w.option(bundles.as_ref(), |w, list| {
                w.list(list, |w, (node, demand): &(Option<NodeId>, Demand)| {
                    w.option(*node, Writer::node);
                    w.demand(demand);
                });
            });
        }
    }
}

pub(super) fn read_message(r: &mut Reader<'_>) -> Read<GroupMsg> {
    let kind = r.u8()?;
    let group = read_id(r)?;
    if kind == 3 {
        return Ok(GroupMsg::Remove { group });
    }
    if kind == 7 {
        return Ok(GroupMsg::Locate { group });
    }
    let epoch = r.u64()?;
    Ok(match kind {
        0 => GroupMsg::Prepare {
            group,
            epoch,
            priority: r.u32()?.cast_signed(),
            bundles: r.list_of(MAX_BUNDLES, 24, |r| Ok((r.u32()?, r.demand()?)))?,
        },
        1 => GroupMsg::Commit { group, epoch },
        2 => GroupMsg::Abort { group, epoch },
        4 => GroupMsg::Prepared { group, epoch },
        5 => GroupMsg::Refused {
            group,
            epoch,
            why: match r.u8()? {
                0 => Refusal::Infeasible(read_infeasible(r)?),
                1 => Refusal::Full,
                2 => Refusal::Draining,
                _ => return bad("refusal"),
            },
        },
        6 => GroupMsg::Committed { group, epoch },
        8 => GroupMsg::Located {
            group,
            version: epoch,
            bundles: r.option(|r| {
                r.list_of(MAX_BUNDLES, 21, |r| {
                    Ok((r.option(Reader::node)?, r.demand()?))
                })
            })?,
        },
        _ => return bad("message about a placement group"),
    })
}
