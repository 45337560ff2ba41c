//! The tasks that wait for resources, by priority, then in order of submission.
//!
//! Invariant: tasks of one demand stand in one group, and only the first of a group is ever looked
//! at: if it does not fit, none of the same demand does. So a look at 100,000 tasks of three
//! demands is a look at three. Left out: what fits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use super::free::Shape;
use crate::base::{Capacity, Demand};

/// Where a task stands in line: the higher priority first, then the earlier submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) priority: Reverse<i32>,
    pub(super) ticket: u64,
}

impl Place {
    /// Whether this place is for work that runs only when there is no other.
    pub(super) fn is_background(self) -> bool {
        self.priority.0 < 0
    }
}

#[derive(Debug)]
struct Group {
    shape: Arc<Shape>,
    line: BTreeMap<Place, u64>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    groups: Vec<Group>,
    /// Groups whose line is empty, for reuse: demands may be many over a node's life.
    vacant: Vec<usize>,
    by_demand: BTreeMap<Demand, usize>,
    /// The first place of each group, with the group.
    firsts: BTreeMap<Place, usize>,
    tasks: BTreeMap<u64, (Place, usize)>,
    background: BTreeSet<u64>,
    next_ticket: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn has_background(&self) -> bool {
        !self.background.is_empty()
    }

    pub(super) fn contains(&self, task: u64) -> bool {
        self.tasks.contains_key(&task)
    }

    /// The next number in order of submission.
    pub(super) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// A task joins the line. True: it is the first of its demand, so it is worth a look.
    pub(super) fn push(
        &mut self,
        task: u64,
        demand: Demand,
        priority: i32,
        capacity: &Capacity,
    ) -> bool {
        let place = Place {
            priority: Reverse(priority),
            ticket: self.ticket(),
        };
        let group = match self.by_demand.get(&demand) {
            Some(&group) => group,
            None => self.open_group(demand, capacity),
        };
        let before = self.first(group);
        self.groups[group].line.insert(place, task);
        self.tasks.insert(task, (place, group));
        if place.is_background() {
            self.background.insert(task);
        }
        if before.is_some_and(|before| before < place) {
            return false;
        }
        if let Some(before) = before {
            self.firsts.remove(&before);
        }
        self.firsts.insert(place, group);
        true
    }

    /// Takes a task out of the line. `Some(true)`: it was the first of its demand.
    pub(super) fn remove(&mut self, task: u64) -> Option<bool> {
        let (place, group) = self.tasks.remove(&task)?;
        self.background.remove(&task);
        self.groups[group].line.remove(&place);
        let was_first = self.firsts.remove(&place).is_some();
        match self.first(group) {
            Some(next) if was_first => {
                self.firsts.insert(next, group);
            }
            Some(_) => {}
            None => {
                self.by_demand.remove(&self.groups[group].shape.demand);
                self.vacant.push(group);
            }
        }
        Some(was_first)
    }

    /// The first task behind `place` (or of all) that is the first of its demand.
    pub(super) fn first_after(&self, place: Option<Place>) -> Option<(Place, u64, &Arc<Shape>)> {
        let from = place.map_or(Unbounded, Excluded);
        let (&place, &group) = self.firsts.range((from, Unbounded)).next()?;
        let group = &self.groups[group];
        Some((place, *group.line.get(&place)?, &group.shape))
    }

    /// Where a task stands, how many are before it, and what it demands. Looks at every waiting
    /// task: for messages only.
    pub(super) fn position(&self, task: u64) -> Option<(Place, usize, &Arc<Shape>)> {
        let &(place, group) = self.tasks.get(&task)?;
        let before = self
            .groups
            .iter()
            .map(|group| group.line.range(..place).count())
            .sum();
        Some((place, before, &self.groups[group].shape))
    }

    /// The first `n` tasks of the line. Cost: `n` for each distinct demand.
    pub(super) fn line(&self, n: usize) -> Vec<(Place, u64, &Shape)> {
        let mut all: Vec<_> = self
            .groups
            .iter()
            .flat_map(|g| {
                g.line
                    .iter()
                    .take(n)
                    .map(|(p, task)| (*p, *task, &*g.shape))
            })
            .collect();
        all.sort_unstable_by_key(|(place, ..)| *place);
        all.truncate(n);
        all
    }

    fn first(&self, group: usize) -> Option<Place> {
        self.groups[group]
            .line
            .first_key_value()
            .map(|(place, _)| *place)
    }

    fn open_group(&mut self, demand: Demand, capacity: &Capacity) -> usize {
        let shape = Arc::new(Shape::new(demand.clone(), capacity));
        let fresh = Group {
            shape,
            line: BTreeMap::new(),
        };
        let group = match self.vacant.pop() {
            Some(group) => {
                self.groups[group] = fresh;
                group
            }
            None => {
                self.groups.push(fresh);
                self.groups.len() - 1
            }
        };
        self.by_demand.insert(demand, group);
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Units;

    fn cpus(n: u64) -> Demand {
        Demand::cpu_only(Units::whole(n))
    }

    fn firsts(queue: &Queue) -> Vec<u64> {
        let mut at = None;
        std::iter::from_fn(|| {
            let (place, task, _) = queue.first_after(at)?;
            at = Some(place);
            Some(task)
        })
        .collect()
    }

    #[test]
    fn only_the_first_of_each_demand_is_looked_at() {
        let node = Capacity::new(Units::whole(8), 0);
        let mut queue = Queue::default();
        assert!(queue.push(1, cpus(1), 0, &node));
        assert!(!queue.push(2, cpus(1), 0, &node));
        assert!(queue.push(3, cpus(2), 0, &node));
        assert!(
            queue.push(4, cpus(1), 1, &node),
            "a higher priority goes first"
        );
        assert_eq!(firsts(&queue), [4, 3]);
        let line = |n| {
            queue
                .line(n)
                .into_iter()
                .map(|(_, t, _)| t)
                .collect::<Vec<_>>()
        };
        assert_eq!((line(9), line(2)), (vec![4, 1, 2, 3], vec![4, 1]));
        assert_eq!(queue.remove(4), Some(true));
        assert_eq!(firsts(&queue), [1, 3]);
        assert_eq!(queue.remove(2), Some(false));
        assert_eq!(queue.remove(2), None);
        assert_eq!(queue.position(3).map(|(_, before, _)| before), Some(1));
        assert_eq!(queue.remove(1), Some(true));
        assert_eq!(firsts(&queue), [3]);
    }

    #[test]
    fn empty_groups_are_reused() {
        let node = Capacity::new(Units::whole(1_000), 0);
        let mut queue = Queue::default();
        for n in 1..500 {
            assert!(queue.push(n, cpus(n), -1, &node));
            assert!(queue.has_background());
            assert_eq!(queue.remove(n), Some(true));
        }
        assert!(queue.is_empty() && !queue.has_background());
        assert_eq!(
            (
                queue.groups.len(),
                queue.by_demand.len(),
                queue.firsts.len()
            ),
            (1, 0, 0)
        );
    }
}
