//! Order of calls per caller when some of them wait for their arguments.
//!
//! Invariant: what one caller sent comes out in the order it arrived. A call whose reference
//! arguments are not ready holds back the later calls of the same caller and nobody else's. Nothing
//! held costs nothing: no allocation, one comparison. Left out: knowing when arguments are ready
//! (the driver tells), and order between callers (none).

use std::collections::{BTreeMap, VecDeque};

/// The calls of one actor that cannot run yet. An item that is not ready is known by the key it
/// arrived with (the call's task id, say), unique among the held calls of its caller.
#[derive(Debug)]
pub struct Order<T> {
    lanes: BTreeMap<u64, Lane<T>>,
    len: usize,
}

/// What is held of one caller.
#[derive(Debug)]
struct Lane<T> {
    /// In order of arrival.
    queue: VecDeque<Held<T>>,
    /// The place of each held key, counted from the lane's beginning, `popped` of which are gone.
    places: BTreeMap<u64, u64>,
    popped: u64,
}

#[derive(Debug)]
struct Held<T> {
    key: u64,
    ready: bool,
    item: T,
}

impl<T> Default for Order<T> {
    fn default() -> Order<T> {
        Order::new()
    }
}

impl<T> Order<T> {
    /// Holds nothing.
    pub const fn new() -> Order<T> {
        Order {
            lanes: BTreeMap::new(),
            len: 0,
        }
    }

    /// A call arrives. `Some`: run it now. `None`: it is held, until its own arguments are ready
    /// and those of every earlier call of this caller are.
    pub fn arrive(&mut self, caller: u64, key: u64, ready: bool, item: T) -> Option<T> {
        if ready && (self.len == 0 || !self.lanes.contains_key(&caller)) {
            return Some(item);
        }
        let lane = self.lanes.entry(caller).or_insert_with(|| Lane {
            queue: VecDeque::new(),
            places: BTreeMap::new(),
            popped: 0,
        });
        let place = lane.popped + lane.queue.len() as u64;
        let before = lane.places.insert(key, place);
        debug_assert!(
            before.is_none(),
            "caller {caller} has two held calls with the key {key}"
        );
        lane.queue.push_back(Held { key, ready, item });
        self.len += 1;
        None
    }

    /// The arguments of a held call are ready (or will never be, which running it reports). Appends
    /// to
    /// `out`, in order, what may run now. Nothing happens if no such call is held.
    pub fn resolved(&mut self, caller: u64, key: u64, out: &mut Vec<T>) {
        let Some(lane) = self.lanes.get_mut(&caller) else {
            return;
        };
        if let Some(held) = lane.find(key) {
            held.ready = true;
        }
        self.release(caller, out);
    }

    /// Takes out everything, because the actor died: callers by id, the calls of each in order.
    pub fn drain(&mut self) -> Vec<T> {
        self.len = 0;
        let lanes = std::mem::take(&mut self.lanes);
        lanes
            .into_values()
            .flat_map(|lane| lane.queue)
            .map(|held| held.item)
            .collect()
    }

    /// How many calls are held.
    #[cfg(test)]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no call is held. Then a ready call may run without asking.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Pops what may run from the front of a lane, and the lane once it is empty.
    fn release(&mut self, caller: u64, out: &mut Vec<T>) {
        let Some(lane) = self.lanes.get_mut(&caller) else {
            return;
        };
        while lane.queue.front().is_some_and(|held| held.ready) {
            let Some(held) = lane.queue.pop_front() else {
                break;
            };
            lane.popped += 1;
            lane.places.remove(&held.key);
            self.len -= 1;
            out.push(held.item);
        }
        if lane.queue.is_empty() {
            self.lanes.remove(&caller);
        }
    }
}

impl<T> Lane<T> {
    fn find(&mut self, key: u64) -> Option<&mut Held<T>> {
        let place = *self.places.get(&key)?;
        let at = usize::try_from(place - self.popped).ok()?;
        self.queue.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANN: u64 = 1;
    const BOB: u64 = 2;

    fn resolved(order: &mut Order<&'static str>, caller: u64, key: u64) -> Vec<&'static str> {
        let mut out = Vec::new();
        order.resolved(caller, key, &mut out);
        out
    }

    #[test]
    fn ready_calls_pass_while_nothing_is_held() {
        let mut order = Order::new();
        assert_eq!(order.arrive(ANN, 1, true, "a1"), Some("a1"));
        assert_eq!(order.arrive(ANN, 2, true, "a2"), Some("a2"));
        assert!(order.is_empty() && order.lanes.is_empty());
    }

    #[test]
    fn a_waiting_call_holds_back_its_own_caller_only() {
        let mut order = Order::new();
        assert_eq!(order.arrive(ANN, 1, false, "a1"), None);
        assert_eq!(order.arrive(ANN, 2, true, "a2"), None);
        assert_eq!(order.arrive(BOB, 1, true, "b1"), Some("b1"));
        assert_eq!(order.arrive(ANN, 3, false, "a3"), None);
        assert_eq!(order.arrive(ANN, 4, true, "a4"), None);
        assert_eq!(order.len(), 4);
        assert_eq!(resolved(&mut order, ANN, 1), ["a1", "a2"]);
        assert_eq!(order.len(), 2);
        assert_eq!(order.arrive(ANN, 5, true, "a5"), None);
        assert_eq!(resolved(&mut order, ANN, 3), ["a3", "a4", "a5"]);
        assert_eq!(order.arrive(ANN, 6, true, "a6"), Some("a6"));
        assert!(order.is_empty());
    }

    #[test]
    fn arguments_may_become_ready_in_any_order() {
        let mut order = Order::new();
        for (key, name) in [(1, "a1"), (2, "a2"), (3, "a3")] {
            assert_eq!(order.arrive(ANN, key, false, name), None);
        }
        assert!(resolved(&mut order, ANN, 3).is_empty());
        assert!(resolved(&mut order, ANN, 2).is_empty());
        assert!(
            resolved(&mut order, ANN, 9).is_empty(),
            "an unknown key is nothing"
        );
        assert!(
            resolved(&mut order, BOB, 1).is_empty(),
            "nor is an unknown caller"
        );
        assert_eq!(resolved(&mut order, ANN, 1), ["a1", "a2", "a3"]);
    }

    #[test]
    fn death_hands_back_everything_in_order() {
        let mut order = Order::new();
        for (caller, key, name) in [
            (BOB, 1, "b1"),
            (ANN, 1, "a1"),
            (BOB, 2, "b2"),
            (ANN, 2, "a2"),
        ] {
            assert_eq!(order.arrive(caller, key, false, name), None);
        }
        assert_eq!(order.drain(), ["a1", "a2", "b1", "b2"]);
        assert!(order.is_empty());
        assert_eq!(order.arrive(ANN, 3, true, "a3"), Some("a3"));
    }

    #[test]
    fn a_hundred_thousand_held_calls_resolve_in_the_worst_order() {
        let mut order = Order::new();
        let mut out = Vec::new();
        for key in 0..100_000u64 {
            assert_eq!(order.arrive(ANN, key, false, key), None);
        }
        for key in (0..100_000).rev() {
            assert!(out.is_empty());
            order.resolved(ANN, key, &mut out);
        }
        assert_eq!(out, (0..100_000).collect::<Vec<_>>());
    }

    proptest! {
        /// Against a plain model: what comes out is, per caller, the longest ready prefix.
        #[test]
        fn each_caller_sees_its_order(
            steps in prop::collection::vec((0u8..4, 0u64..3, any::<bool>(), any::<u8>()), 0..200),
        ) {
            let mut order = Order::new();
            // Per caller: (key, ready) of every call not out.
            let mut model: BTreeMap<u64, Vec<(u64, bool)>> = BTreeMap::new();
            let mut next = 0u64;
            for (what, caller, ready, pick) in steps {
                let lane = model.entry(caller).or_default();
                let mut out = Vec::new();
                if what < 2 {
                    next += 1;
                    lane.push((next, ready));
                    out.extend(order.arrive(caller, next, ready, next));
                } else if let Some(at) = (pick as usize).checked_rem(lane.len()) {
                    lane[at].1 = true;
                    order.resolved(caller, lane[at].0, &mut out);
                }
                let ready = lane.iter().take_while(|call| call.1).count();
                let expect: Vec<u64> = lane.drain(..ready).map(|call| call.0).collect();
                prop_assert_eq!(out, expect);
                prop_assert_eq!(order.len(), model.values().map(Vec::len).sum::<usize>());
            }
            let left: Vec<u64> = model.into_values().flatten().map(|call| call.0).collect();
            prop_assert_eq!(order.drain(), left);
        }
    }
}
