//! Placement groups: resources on one or several nodes that are reserved together, for calls and actors to run in.
//!
//! Invariant: what a group holds comes back when its `PlacementGroup` goes, whoever has handles to it. Left out: reserving
//! (`core::groups`).

use std::num::NonZeroU64;
use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rkyv::{Archive, Deserialize, Serialize};

use crate::base::{Demand, Error, GroupId, GroupSpec, GroupStrategy, NodeId, Result, Units};
use crate::exec::groups::{self, Groups};
use crate::exec::local;

/// Resources that are reserved together or not at all, as bundles: each is held by one node, and several by one or by several
/// nodes, as the [`GroupStrategy`] says.
///
/// Calls and actors run in a group with `options().group(&group)`, or in one bundle of it with `group_bundle(&group, 1)`. All that
/// run in a bundle share what it holds, and never take more; nobody else takes any of it.
///
/// If a node dies, its bundles are reserved anew where there is room, and calls for them wait. When the last word is said,
/// by [`remove`](PlacementGroup::remove) or by dropping this, everything comes back: calls that wait in the group fail,
/// its actors end, and calls that run are told to [cancel](crate::check_cancelled()) and give back what they hold when they end.
///
/// ```
/// use mobula::prelude::*;
/// use mobula::{GroupStrategy, PlacementGroup};
///
/// #[remote]
/// fn square(x: u64) -> u64 { x * x }
///
/// let _mobula = mobula::Config::new().num_cpus(4).init()?; // one node will do; a cluster, for `StrictSpread`
/// let group = PlacementGroup::options()
///     .bundle(|b| b.num_cpus(2))
///     .bundle(|b| b.num_cpus(1))
///     .strategy(GroupStrategy::Pack)
///     .create()?;
/// group.wait_ready(secs(5))?;
/// let two_at_a_time: Vec<_> = (0..10).map(|x| square::options().group_bundle(&group, 0).remote(x)).collect();
/// let anywhere = square::options().group(&group).remote(10);
/// assert_eq!(mobula::get(&two_at_a_time)?[9], 81);
/// assert_eq!(mobula::get(&anywhere)?, 100);
/// group.remove(); // as does dropping it
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "a placement group is removed when this is dropped"]
pub struct PlacementGroup {
    handle: GroupHandle,
    // The runtime that has it, which may be over.
    groups: Weak<dyn Groups>,
}

impl std::fmt::Debug for PlacementGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "PlacementGroup({}, {} bundles)",
            self.id(),
            self.bundles()
        )
    }
}

/// Names a placement group, wherever it is: calls and actors run in it with `options().group(&handle)`, on any node. A value, so
/// it can be an argument, a result, or part of one. It does not keep the group: that is up to its [`PlacementGroup`], and
/// calls for a group that is no more fail with [`Error::Group`].
///
/// ```
/// use mobula::prelude::*;
/// use mobula::{GroupHandle, PlacementGroup};
///
/// #[remote]
/// fn square(x: u64) -> u64 { x * x }
///
/// /// Runs where it may, and has its parts run in the group.
/// #[remote]
/// fn sum_of_squares(group: GroupHandle) -> u64 {
///     let parts: Vec<_> = (0..10).map(|x| square::options().group(&group).remote(x)).collect();
///     mobula::get(&parts).unwrap().iter().sum()
/// }
///
/// let _mobula = mobula::Config::new().num_cpus(2).init()?;
/// let group = PlacementGroup::options().bundle(|b| b.num_cpus(1)).create()?;
/// assert_eq!(mobula::get(sum_of_squares::remote(group.handle()))?, 285);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct GroupHandle {
    node: NonZeroU64,
    number: u64,
    bundles: u32,
}

impl GroupHandle {
    /// The group's name, in messages and for [`Strategy::Group`](crate::Strategy::Group).
    pub fn id(&self) -> GroupId {
        GroupId {
            node: NodeId::new(self.node.get()).expect("no node has the number 0"),
            number: self.number,
        }
    }

    /// How many bundles it has.
    pub fn bundles(&self) -> usize {
        self.bundles as usize
    }
}

impl std::fmt::Debug for GroupHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupHandle({}, {} bundles)", self.id(), self.bundles)
    }
}

/// What takes a [`GroupHandle`] takes the group itself, too.
impl Deref for PlacementGroup {
    type Target = GroupHandle;

    fn deref(&self) -> &GroupHandle {
        &self.handle
    }
}

/// What one bundle of a placement group holds; nothing, until something is said.
#[derive(Clone, Debug, Default)]
#[must_use = "a bundle is given back to the group's options"]
pub struct Bundle {
    cpus: f64,
    gpus: f64,
    custom: Vec<(String, f64)>,
}

impl Bundle {
    /// CPUs, fractions allowed.
    pub fn num_cpus(mut self, n: impl Into<f64>) -> Bundle {
        self.cpus = n.into();
        self
    }

    /// GPUs: a fraction of one, or a whole number.
    pub fn num_gpus(mut self, n: impl Into<f64>) -> Bundle {
        self.gpus = n.into();
        self
    }

    /// An amount of a resource of your own.
    pub fn resource(mut self, name: &str, amount: impl Into<f64>) -> Bundle {
        self.custom.push((name.to_owned(), amount.into()));
        self
    }

    fn demand(&self) -> Result<Demand> {
        let units = |resource: &str, amount: f64| {
            Units::from_f64(amount).map_err(|why| Error::BadAmount {
                resource: resource.to_owned(),
                why,
            })
        };
        let start =
            Demand::cpu_only(units("num_cpus", self.cpus)?).with_gpu(units("num_gpus", self.gpus)?);
        self.custom
            .iter()
            .try_fold(start, |demand, (name, amount)| {
                Ok(demand.with_custom(name, units(name, *amount)?))
            })
    }
}

/// What a placement group is to hold; [`PlacementGroup::options`] begins one.
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing before create()"]
pub struct GroupOptions {
    bundles: Vec<Bundle>,
    strategy: GroupStrategy,
}

impl GroupOptions {
    /// One more bundle. They are named by their place, from 0.
    pub fn bundle(mut self, holds: impl FnOnce(Bundle) -> Bundle) -> GroupOptions {
        self.bundles.push(holds(Bundle::default()));
        self
    }

    /// So many more bundles that hold the same.
    pub fn bundles(mut self, n: usize, holds: impl FnOnce(Bundle) -> Bundle) -> GroupOptions {
        let bundle = holds(Bundle::default());
        self.bundles.extend(std::iter::repeat_n(bundle, n));
        self
    }

    /// How the bundles lie on the nodes. Default: [`GroupStrategy::Pack`].
    pub fn strategy(mut self, strategy: GroupStrategy) -> GroupOptions {
        self.strategy = strategy;
        self
    }

    /// Makes the group. Its resources are reserved as they become free: see [`PlacementGroup::wait_ready`].
    ///
    /// # Errors
    /// [`Error::Group`] if it could not be even if nothing ran on the nodes that there are, with what is missing;
    /// [`Error::BadAmount`]; [`Error::NotInitialized`].
    pub fn create(self) -> Result<PlacementGroup> {
        let demands = self.bundles.iter().map(Bundle::demand);
        let spec = GroupSpec {
            strategy: self.strategy,
            bundles: demands.collect::<Result<_>>()?,
        };
        local::with(|local| {
            let groups = local.engine.groups().ok_or_else(groups::none)?;
            let id = groups.create(local, spec)?;
            Ok(PlacementGroup {
                handle: GroupHandle {
                    node: NonZeroU64::new(id.node.get()).expect("no node has the number 0"),
                    number: id.number,
                    bundles: self.bundles.len() as u32,
                },
                groups: Arc::downgrade(groups),
            })
        })?
    }
}

impl PlacementGroup {
    /// Begins a group without bundles.
    pub fn options() -> GroupOptions {
        GroupOptions::default()
    }

    /// What names it elsewhere: in arguments, results and objects, on any node.
    pub fn handle(&self) -> GroupHandle {
        self.handle
    }

    /// Whether all of its bundles are reserved now.
    pub fn ready(&self) -> bool {
        self.placed().iter().all(Option::is_some)
    }

    /// Waits until all of its bundles are reserved; this thread's CPU is lent to others meanwhile.
    ///
    /// # Errors
    /// [`Error::Timeout`] with how many of the bundles are; [`Error::ShutDown`].
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        let groups = self.groups.upgrade().ok_or(Error::ShutDown)?;
        let deadline = Instant::now().checked_add(timeout);
        let wait = || groups.wait_ready(self.id(), deadline);
        let ready = local::with(|local| local.engine.wait_apart(local, "a placement group", wait))?;
        if ready? {
            return Ok(());
        }
        let placed = self.placed().iter().flatten().count();
        Err(Error::Timeout {
            waited: timeout,
            awaited: format!(
                "placement group {}, of whose {} bundles {placed} are reserved",
                self.id(),
                self.bundles()
            ),
        })
    }

    /// The node of each bundle; `None` for one that is not reserved now.
    pub fn placed(&self) -> Vec<Option<NodeId>> {
        let groups = self.groups.upgrade();
        let placed = groups.and_then(|g| g.placed(self.id()));
        placed.unwrap_or_else(|| vec![None; self.bundles()])
    }

    /// Removes it, as dropping it does.
    pub fn remove(self) {}
}

impl Drop for PlacementGroup {
    fn drop(&mut self) {
        if let Some(groups) = self.groups.upgrade() {
            // Without a runtime there is nothing left to remove.
            let _ = local::with(|local| groups.remove(local, self.id()));
        }
    }
}
