//! Calls by handles of the host's own node, from their turn until they may be told.
//!
//! Nobody can ask for one again, since whoever could ends with this host: so there is no table of what came of them.
//!
//! Invariant: a call is given out once, after it has ended and when all calls up to its place are written down; one that has not ended
//! holds up none behind it. Left out: calls that only look at the state, which have no place.

use std::collections::{BTreeMap, VecDeque};

use crate::core::recovery::CallId;

/// See the file.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnCalls {
    /// The places of those that have not ended, by number.
    open: BTreeMap<u64, u64>,
    /// Those that have and that nobody was told, by place.
    ended: VecDeque<(u64, CallId)>,
}

impl OwnCalls {
    /// Whether its turn has come, and not its end.
    pub fn runs(&self, call: CallId) -> bool {
        self.open.contains_key(&call.number)
    }

    /// Its turn has come, and it was given a place.
    pub fn begin(&mut self, call: CallId, order: u64) {
        self.open.insert(call.number, order);
    }

    /// It has ended: its place, if it had one.
    pub fn end(&mut self, call: CallId) -> Option<u64> {
        let order = self.open.remove(&call.number)?;
        // Nearly always the last: only calls that run beside each other end in another order.
        let at = match self.ended.back() {
            Some((last, _)) if *last > order => self.ended.partition_point(|(o, _)| *o < order),
            _ => self.ended.len(),
        };
        self.ended.insert(at, (order, call));
        Some(order)
    }

    /// The next that may be told, now that all up to this place is written down.
    pub fn tell(&mut self, order: u64) -> Option<CallId> {
        let next = self.ended.pop_front_if(|(at, _)| *at <= order);
        next.map(|(_, call)| call)
    }

    /// How many have ended that nobody was told.
    pub fn waiting(&self) -> usize {
        self.ended.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::base::{ActorKey, NodeId};
    use crate::core::recovery::host::{Effect, Event};
    use crate::core::recovery::{Host, Limits, ToBackup, ToHost};
    use proptest::prelude::*;

    const NOW: Duration = Duration::ZERO;

    fn node(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn own(number: u64) -> CallId {
        let node = node(99);
        CallId { node, number }
    }

    /// A host whose record names node 2, what it sent there, in order, and whom it told.
    struct World {
        host: Host<u64>,
        sent: Vec<(u64, u64)>,
        answered: usize,
        has: u64,
        told: Vec<CallId>,
    }

    impl World {
        fn new() -> World {
            let host = node(1);
            let at = ActorKey { host, number: 1 };
            let limits = Limits::default();
            let mut world = World {
                host: Host::new(NOW, at, (0, 1), limits, vec![node(2)]),
                sent: Vec::new(),
                answered: 0,
                has: 0,
                told: Vec::new(),
            };
            world.happens(Event::Tick);
            world.answer();
            world.happens(Event::Swapped);
            world
        }

        fn happens(&mut self, event: Event<u64>) {
            let mut out = Vec::new();
            self.host.handle(NOW, event, &mut out);
            for effect in out {
                match effect {
                    Effect::Send {
                        message: ToBackup::Save { beat, entries, .. },
                        ..
                    } => {
                        let before = self.sent.last().map_or(0, |(_, order)| *order);
                        let last = entries.last().map_or(before, |entry| entry.order);
                        self.sent.push((beat, last));
                    }
                    Effect::Own(call) => self.told.push(call),
                    _ => {}
                }
            }
        }

        /// The backup answers the oldest message that it has not.
        fn answer(&mut self) -> bool {
            let Some(&(beat, order)) = self.sent.get(self.answered) else {
                return false;
            };
            self.answered += 1;
            self.has = order;
            let message = ToHost::Saved {
                incarnation: 1,
                beat,
            };
            let from = node(2);
            self.happens(Event::Message { from, message });
            true
        }
    }

    fn turn(number: u64) -> Event<u64> {
        Event::OwnTurn {
            call: own(number),
            bytes: 10,
            load: number,
        }
    }

    #[test]
    fn what_looked_only_waits_for_what_it_may_have_seen() {
        let mut world = World::new();
        world.happens(turn(1));
        world.happens(Event::OwnEnded(own(1)));
        world.happens(Event::OwnEnded(own(2)));
        assert_eq!(world.told, [], "the backup has neither");
        while world.answer() {}
        assert_eq!(world.told, [own(1), own(2)]);
    }

    #[test]
    fn a_turn_that_comes_twice_is_logged_once() {
        let mut world = World::new();
        world.happens(turn(1));
        world.happens(turn(1));
        assert_eq!(world.host.logged(), 1);
    }

    #[test]
    fn the_next_message_goes_when_as_much_waits_as_is_under_way() {
        let mut world = World::new();
        let begin = world.sent.len();
        for number in 1..=100 {
            world.happens(turn(number));
        }
        let orders = |world: &World| -> Vec<u64> {
            world.sent[begin..]
                .iter()
                .map(|(_, order)| *order)
                .collect()
        };
        assert_eq!(
            orders(&world),
            [1, 2, 4, 8],
            "each as long as all before, and four at most"
        );
        world.answer();
        assert_eq!(orders(&world), [1, 2, 4, 8, 100], "and then all that waits");
    }

    proptest! {
        /// However calls begin and end and the backup answers, each is told once, after it has ended and the backup has it; and all are
        /// told when the backup has answered everything.
        #[test]
        fn each_is_told_once_and_not_before_the_backup_has_it(
            steps in prop::collection::vec((0u8..3, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut world = World::new();
            let mut running = Vec::new();
            let mut ended = Vec::new();
            let mut orders = BTreeMap::new();
            let mut next = 1;
            for (what, which) in steps {
                match what {
                    0 => {
                        world.happens(turn(next));
                        orders.insert(own(next), world.host.orders().0);
                        running.push(own(next));
                        next += 1;
                    }
                    1 if !running.is_empty() => {
                        let call = running.swap_remove(which.index(running.len()));
                        ended.push(call);
                        world.happens(Event::OwnEnded(call));
                    }
                    _ => drop(world.answer()),
                }
                for call in &world.told {
                    prop_assert!(ended.contains(call));
                    prop_assert!(orders[call] <= world.has);
                }
            }
            for call in running.drain(..) {
                ended.push(call);
                world.happens(Event::OwnEnded(call));
            }
            while world.answer() {}
            let mut told = world.told.clone();
            told.sort();
            ended.sort();
            prop_assert_eq!(told, ended);
            prop_assert_eq!(world.host.load().0, 0);
        }
    }
}
