//! A few nodes that put, hand on, drop, die and leave as chance has it, with messages and news of deaths that come late.
//!
//! Invariant: between two nodes messages are in order, and each death is known to all before the grace period is over. Left out: bytes.

use proptest::prelude::*;

use super::*;

const NODES: u64 = 5;

#[derive(Clone, Debug)]
enum Step {
    Put {
        at: u64,
        wanted: usize,
        durable: bool,
    },
    HandOn {
        from: u64,
        to: u64,
        which: usize,
    },
    Drop {
        at: u64,
        which: usize,
    },
    Deliver {
        from: u64,
        to: u64,
    },
    /// An attempt ends, well or not.
    Ends {
        at: u64,
        why: Option<Why>,
    },
    Kill(u64),
    Notice {
        by: u64,
        dead: u64,
    },
    Leave(u64),
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    let n = 1..=NODES;
    let why = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Why::NoRoom)),
        1 => Just(Some(Why::Failed))
    ];
    prop_oneof![
        3 => (n.clone(), 0..4usize, any::<bool>())
            .prop_map(|(at, wanted, durable)| Step::Put { at, wanted, durable }),
        6 => (n.clone(), n.clone(), 0..4usize)
            .prop_map(|(from, to, which)| Step::HandOn { from, to, which }),
        4 => (n.clone(), 0..4usize).prop_map(|(at, which)| Step::Drop { at, which }),
        16 => (n.clone(), n.clone()).prop_map(|(from, to)| Step::Deliver { from, to }),
        8 => (n.clone(), why).prop_map(|(at, why)| Step::Ends { at, why }),
        1 => n.clone().prop_map(Step::Kill),
        3 => (n.clone(), n.clone()).prop_map(|(by, dead)| Step::Notice { by, dead }),
        1 => n.prop_map(Step::Leave),
        1 => Just(Step::Pass),
    ]
}

/// An object, as nobody in the world sees it.
#[derive(Default)]
struct Object {
    /// Who has references.
    refs: BTreeSet<u64>,
    wanted: usize,
    durable: bool,
    kept: bool,
    /// When its owner died: who had it whole, and was not about to be told to free it.
    survivors: Option<BTreeSet<u64>>,
}

struct World {
    now: Duration,
    machines: BTreeMap<u64, Replicas>,
    alive: BTreeSet<u64>,
    /// Who knows of whose death.
    noticed: BTreeSet<(u64, u64)>,
    leaving: BTreeSet<u64>,
    net: BTreeMap<(u64, u64), VecDeque<Message>>,
    /// Attempts under way.
    making: BTreeMap<u64, VecDeque<(ObjectKey, u64)>>,
    /// What lies where.
    bytes: BTreeSet<(u64, ObjectKey)>,
    objects: BTreeMap<ObjectKey, Object>,
    /// Durable copies, and who knows where they are.
    stored: BTreeSet<ObjectKey>,
    places: BTreeSet<(u64, ObjectKey)>,
    sources: BTreeMap<(u64, ObjectKey), Option<NodeId>>,
    last: u64,
}

impl World {
    fn new() -> World {
        World {
            now: NOW,
            machines: (1..=NODES).map(|n| (n, one_of(n, NODES))).collect(),
            alive: (1..=NODES).collect(),
            noticed: BTreeSet::new(),
            leaving: BTreeSet::new(),
            net: BTreeMap::new(),
            making: BTreeMap::new(),
            bytes: BTreeSet::new(),
            objects: BTreeMap::new(),
            stored: BTreeSet::new(),
            places: BTreeSet::new(),
            sources: BTreeMap::new(),
            last: 0,
        }
    }

    fn at(&mut self, at: u64, f: impl FnOnce(&mut Replicas, Duration, &mut Vec<Effect>)) {
        let mut out = Vec::new();
        f(self.machines.get_mut(&at).unwrap(), self.now, &mut out);
        for effect in out {
            self.follow(at, effect);
        }
    }

    fn follow(&mut self, at: u64, effect: Effect) {
        match effect {
            Effect::Send { to, message } => {
                let to = to.get();
                assert_ne!(to, at);
                self.net.entry((at, to)).or_default().push_back(message);
            }
            Effect::Make { key, attempt, .. } => {
                self.making.entry(at).or_default().push_back((key, attempt));
            }
            Effect::Drop(key) => drop(self.bytes.remove(&(at, key))),
            Effect::Kept(number) => {
                let object = self.objects.get_mut(&ObjectKey {
                    owner: node(at),
                    number,
                });
                let object = object.expect("only what was put is kept");
                assert!(!std::mem::replace(&mut object.kept, true), "told twice");
            }
            Effect::Short(number, short) => {
                let key = ObjectKey {
                    owner: node(at),
                    number,
                };
                let object = self.objects.remove(&key).expect("told twice");
                self.stored.remove(&key);
                assert!(!object.kept && short.made < object.wanted);
                self.at(at, |r, _, out| r.forget(number, out));
            }
            Effect::Readable { key, at: has, .. } => {
                assert_ne!(has, key.owner);
            }
            Effect::Lost(key) => {
                let survive = self.objects.get(&key).and_then(|o| o.survivors.as_ref());
                let any = survive.is_some_and(|s| !s.is_disjoint(&self.alive));
                assert!(!any, "{at} takes {key} for lost");
            }
            Effect::Unneeded { key, first } => {
                let refs = self.objects.get(&key).map(|o| &o.refs);
                let needed = refs.is_some_and(|refs| !refs.is_disjoint(&self.alive));
                assert!(!needed, "{at} takes the copy of {key} for unneeded");
                assert!(!self.alive.contains(&key.owner.get()));
                if self.places.remove(&(at, key)) || first {
                    self.stored.remove(&key);
                }
            }
            Effect::Source { key, from, .. } => {
                self.sources.insert((at, key), from);
            }
        }
    }

    /// Objects that this node can hand on: those that it put are there once they are kept.
    fn of(&self, at: u64) -> Vec<ObjectKey> {
        let its = self.objects.iter();
        let its = its.filter(|(_, o)| o.kept && o.refs.contains(&at));
        its.map(|(key, _)| *key).collect()
    }

    fn knows_dead(&self, by: u64, dead: u64) -> bool {
        self.noticed.contains(&(by, dead))
    }

    fn members(&self, of: u64) -> Vec<NodeId> {
        let others = (1..=NODES).filter(|n| *n != of && !self.knows_dead(of, *n));
        others.map(node).collect()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put {
                at,
                wanted,
                durable,
            } if self.alive.contains(&at) => {
                self.last += 1;
                let number = self.last;
                let key = ObjectKey {
                    owner: node(at),
                    number,
                };
                let object = Object {
                    refs: BTreeSet::from([at]),
                    wanted,
                    durable,
                    ..Object::default()
                };
                if durable {
                    self.stored.insert(key);
                }
                self.objects.insert(key, object);
                self.at(at, |r, now, out| r.put(now, (number, 10), wanted, out));
            }
            Step::HandOn { from, to, which } if self.alive.contains(&to) => {
                let all = self.of(from);
                if let Some(key) = all.get(which).copied()
                    && self.alive.contains(&from)
                    && !self.knows_dead(to, from)
                {
                    let object = self.objects.get_mut(&key).unwrap();
                    object.refs.insert(to);
                    let durable = object.durable;
                    if durable && node(to) != key.owner {
                        self.places.insert((to, key));
                    }
                    self.at(to, |r, _, _| r.learn(key, durable));
                    if self.knows_dead(to, key.owner.get()) {
                        let members = self.members(to);
                        self.at(to, |r, now, out| r.orphaned(now, key, members, out));
                    }
                }
            }
            Step::Drop { at, which } if self.alive.contains(&at) => {
                if let Some(key) = self.of(at).get(which).copied() {
                    self.unrefer(at, key);
                }
            }
            Step::Deliver { from, to } => drop(self.deliver(from, to)),
            Step::Ends { at, why } if self.alive.contains(&at) => {
                if let Some((key, attempt)) = self.making.get_mut(&at).and_then(VecDeque::pop_front)
                {
                    self.end(at, key, attempt, why);
                }
            }
            Step::Kill(dead) if self.alive.len() > 2 && self.alive.contains(&dead) => {
                self.kill(dead);
            }
            Step::Notice { by, dead }
                if self.alive.contains(&by) && !self.alive.contains(&dead) =>
            {
                self.notice(by, dead);
            }
            Step::Leave(who) if self.alive.contains(&who) && self.leaving.is_empty() => {
                self.leaving.insert(who);
                self.at(who, |r, _, _| r.leave());
                for other in self.alive.clone() {
                    self.at(other, |r, _, out| r.peer_leaves(node(who), out));
                }
            }
            Step::Pass => {
                self.settle();
                self.now += GRACE;
                for at in self.alive.clone() {
                    self.at(at, |r, now, out| r.tick(now, out));
                }
            }
            _ => {}
        }
    }

    fn unrefer(&mut self, at: u64, key: ObjectKey) {
        let object = self.objects.get_mut(&key).unwrap();
        object.refs.remove(&at);
        let free = object.refs.is_empty();
        if key.owner != node(at) {
            self.at(at, |r, now, out| r.dropped(now, key, out));
            if !self.machines[&at].watches(key) {
                self.places.remove(&(at, key));
            }
        }
        // The owner hears of it by other ways.
        let owner = key.owner.get();
        if free {
            self.objects.remove(&key);
            if self.alive.contains(&owner) {
                self.stored.remove(&key);
                self.at(owner, |r, _, out| r.forget(key.number, out));
            }
        }
    }

    fn deliver(&mut self, from: u64, to: u64) -> bool {
        let queue = self.net.get_mut(&(from, to));
        let Some(message) = queue.and_then(VecDeque::pop_front) else {
            return false;
        };
        if self.alive.contains(&to) && !self.knows_dead(to, from) {
            self.at(to, |r, now, out| r.handle(now, node(from), message, out));
        }
        true
    }

    fn end(&mut self, at: u64, key: ObjectKey, attempt: u64, why: Option<Why>) {
        let comes = self.alive.contains(&key.owner.get());
        match why {
            None if comes => {
                if self.machines[&at].wants(key, attempt) {
                    self.bytes.insert((at, key));
                }
                self.at(at, |r, _, out| r.made(key, attempt, out));
            }
            why => {
                let why = why.unwrap_or(Why::Failed);
                self.at(at, |r, _, out| r.failed(key, attempt, why, out));
            }
        }
    }

    fn kill(&mut self, dead: u64) {
        self.alive.remove(&dead);
        self.making.remove(&dead);
        self.bytes.retain(|(at, _)| *at != dead);
        for (key, object) in &mut self.objects {
            object.refs.remove(&dead);
            if key.owner == node(dead) && object.kept {
                let freed = |at: u64| {
                    let queue = self.net.get(&(dead, at));
                    queue.is_some_and(|q| q.contains(&Message::Free { key: *key }))
                };
                let have = self.bytes.iter().filter(|(_, k)| k == key);
                let have = have.map(|(at, _)| *at).filter(|at| !freed(*at));
                object.survivors = Some(have.collect());
            }
        }
        let unneeded = self.objects.iter().filter(|(_, o)| o.refs.is_empty());
        let unneeded: Vec<_> = unneeded.map(|(key, _)| *key).collect();
        for key in unneeded {
            let lives = self.alive.contains(&key.owner.get());
            self.objects.remove(&key);
            if lives {
                self.stored.remove(&key);
                self.at(key.owner.get(), |r, _, out| r.forget(key.number, out));
            }
        }
    }

    fn notice(&mut self, by: u64, dead: u64) {
        if !self.noticed.insert((by, dead)) {
            return;
        }
        self.net.remove(&(dead, by));
        self.at(by, |r, now, out| r.peer_died(now, node(dead), out));
        let members = self.members(by);
        let its = self.objects.iter();
        let its = its.filter(|(key, o)| key.owner == node(dead) && o.refs.contains(&by));
        for key in its.map(|(key, _)| *key).collect::<Vec<_>>() {
            let members = members.clone();
            self.at(by, |r, now, out| r.orphaned(now, key, members, out));
        }
    }

    /// Everybody knows of all deaths, and everything has arrived and ended.
    fn settle(&mut self) {
        for by in self.alive.clone() {
            for dead in (1..=NODES)
                .filter(|n| !self.alive.contains(n))
                .collect::<Vec<_>>()
            {
                self.notice(by, dead);
            }
        }
        loop {
            let mut quiet = true;
            for (from, to) in self.net.keys().copied().collect::<Vec<_>>() {
                while self.deliver(from, to) {
                    quiet = false;
                }
            }
            for at in self.alive.clone() {
                while let Some((key, attempt)) =
                    self.making.get_mut(&at).and_then(VecDeque::pop_front)
                {
                    self.end(at, key, attempt, None);
                    quiet = false;
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn have(&self, key: ObjectKey) -> BTreeSet<u64> {
        let have = self.bytes.iter().filter(|(_, k)| *k == key);
        have.map(|(at, _)| *at).collect()
    }

    fn judge(&mut self) {
        // Long enough that those who had no room were asked again.
        for _ in 0..2 {
            self.step(Step::Pass);
            self.now += Duration::from_secs(10);
            self.step(Step::Pass);
        }
        self.settle();
        for (key, object) in &self.objects {
            assert!(object.kept, "{key}: whoever put it was told nothing");
            let have = self.have(*key);
            let owner = key.owner.get();
            if self.alive.contains(&owner) {
                let able = self.alive.iter();
                let able = able
                    .filter(|n| **n != owner && !self.leaving.contains(n))
                    .count();
                let there = have.iter().filter(|n| !self.leaving.contains(n)).count();
                assert_eq!(there, able.min(object.wanted), "{key} is at {have:?}");
            } else {
                let survive = object.survivors.iter().flatten();
                let survive: BTreeSet<u64> = survive
                    .filter(|n| self.alive.contains(n))
                    .copied()
                    .collect();
                assert!(survive.is_subset(&have), "{key}: {survive:?} of {have:?}");
            }
        }
        let orphans: Vec<_> = self
            .objects
            .iter()
            .flat_map(|(key, object)| {
                let dead = !self.alive.contains(&key.owner.get());
                object
                    .refs
                    .iter()
                    .filter(move |_| dead)
                    .map(|at| (*at, *key))
            })
            .collect();
        for (at, key) in orphans {
            self.at(at, |r, _, out| r.asks(key, 1, None, out));
            let from = self.sources.get(&(at, key)).copied().expect("an answer");
            let have = self.have(key);
            assert_eq!(from.is_some(), !have.is_empty(), "{at}: {key}");
            assert!(from.is_none_or(|from| have.contains(&from.get())));
        }
        for (key, object) in &self.objects {
            assert_eq!(self.stored.contains(key), object.durable, "{key}");
        }
        let needed: Vec<_> = self.objects.keys().copied().collect();
        for at in self.alive.clone() {
            for key in self.of(at) {
                self.unrefer(at, key);
            }
        }
        self.step(Step::Pass);
        self.step(Step::Pass);
        assert_eq!(self.bytes, BTreeSet::new(), "nobody needs these");
        // What nobody heard of but dead ones stays.
        for key in needed {
            assert!(
                !self.stored.contains(&key),
                "nobody needs the copy of {key}"
            );
        }
        for at in &self.alive {
            assert_eq!(self.machines[at].size(), Size::default(), "{at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn replicas_are_kept_while_needed_found_when_there_and_freed_after(
        steps in prop::collection::vec(step(), 1..160)
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.judge();
    }
}
