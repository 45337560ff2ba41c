//! The table against a model of it: any order of any clients' requests, deaths and times.
//!
//! Left out: sockets (`tests/store_*.rs`), errands (`tests/store_spilled.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::shm::Prefault;
use crate::store::{SpillTo, Store, StoreOptions};

const CLIENTS: u64 = 3;
const NAMES: u8 = 4;

fn table() -> Table {
    let store = Store::open(StoreOptions {
        capacity: Some(4 << 20),
        prefault: Prefault::Off,
        spill: SpillTo::Off,
        patience: Duration::ZERO,
        ..StoreOptions::default()
    });
    let mut table = Table::new(Shelf::new(store.unwrap()));
    (1..=CLIENTS).for_each(|client| table.join(client));
    table
}

fn id(n: u8) -> ObjectId {
    ObjectId([n; 16])
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8, bool),
    Put(u8),
    Seal,
    Abort,
    Get(u8, u64),
    Cancel,
    Release,
    Delete(u8),
    Evict(u64),
    Subscribe(bool),
    Die,
    Time(u64),
}

fn step() -> impl Strategy<Value = (Client, Step)> {
    let name = 0..NAMES;
    let step = prop_oneof![
        3 => (name.clone(), any::<bool>()).prop_map(|(n, large)| Step::Create(n, large)),
        2 => name.clone().prop_map(Step::Put),
        3 => Just(Step::Seal),
        1 => Just(Step::Abort),
        4 => (name.clone(), prop_oneof![Just(0), 1u64..40, Just(FOREVER)])
            .prop_map(|(n, nanos)| Step::Get(n, nanos)),
        1 => Just(Step::Cancel),
        3 => Just(Step::Release),
        2 => name.prop_map(Step::Delete),
        1 => (0u64..200_000).prop_map(Step::Evict),
        1 => any::<bool>().prop_map(Step::Subscribe),
        1 => Just(Step::Die),
        2 => (1u64..30).prop_map(Step::Time),
    ];
    (1..=CLIENTS, step)
}

/// What the table must be, told in the plainest way.
#[derive(Default)]
struct Model {
    now: Nanos,
    seq: u64,
    /// Being written: by whom, which number.
    drafts: BTreeMap<ObjectId, (Client, Serial)>,
    sealed: BTreeMap<ObjectId, Serial>,
    /// Held: by whom, which number, once for each pin.
    pins: Vec<(Client, Serial)>,
    /// Gets without an answer: what they await and until when.
    waits: BTreeMap<(Client, u64), (ObjectId, Nanos)>,
    subscribers: BTreeSet<Client>,
    events: u64,
}

impl Model {
    /// One request and all that comes of it, checked; the answer.
    fn ask(&mut self, table: &mut Table, client: Client, request: Request<'_>) -> Option<Answer> {
        self.seq += 1;
        let seq = self.seq;
        let mut out = Effects::default();
        table
            .handle(self.now, client, seq, request, &mut out)
            .unwrap();
        assert!(
            out.errands.is_empty(),
            "nothing is waited for without a disk"
        );
        self.receive(out, (client, seq))
    }

    /// Takes in what was sent; the answer to this request.
    fn receive(&mut self, out: Effects, asked: (Client, u64)) -> Option<Answer> {
        let mut own = None;
        for (client, message) in out.messages {
            match message {
                Message::Answer(seq, answer) => {
                    if let Answer::Found { serial, .. } = answer {
                        self.pins.push((client, serial));
                    }
                    if (client, seq) == asked {
                        assert!(own.replace(answer).is_none(), "answered twice");
                        continue;
                    }
                    let (id, until) = self.waits.remove(&(client, seq)).expect("it waited");
                    match answer {
                        Answer::Found { serial, .. } => assert_eq!(self.sealed[&id], serial),
                        Answer::Denied(Denial::Deadline { .. }) => assert!(until <= self.now),
                        Answer::Denied(Denial::Cancelled) => {}
                        other => panic!("{other:?}"),
                    }
                }
                Message::Sealed { .. } | Message::Deleted { .. } => {
                    assert!(self.subscribers.contains(&client));
                    self.events += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        own
    }

    fn step(&mut self, table: &mut Table, client: Client, step: Step) {
        let drafted = self.drafts.iter().find(|(_, (by, _))| *by == client);
        let drafted = drafted.map(|(id, (_, serial))| (*id, *serial));
        match step {
            Step::Create(n, large) => {
                let (id, len) = (id(n), if large { 100_000 } else { 100 });
                let taken = self.drafts.contains_key(&id) || self.sealed.contains_key(&id);
                match self
                    .ask(table, client, Request::Create { id, len })
                    .unwrap()
                {
                    Answer::Lent { serial, .. } if large && !taken => {
                        self.drafts.insert(id, (client, serial));
                    }
                    Answer::Begun { serial } if !large && !taken => {
                        self.drafts.insert(id, (client, serial));
                    }
                    Answer::Denied(Denial::Exists) => assert!(taken),
                    // What is deleted and still held fills it up.
                    Answer::Denied(Denial::Full { .. }) => assert!(!self.pins.is_empty()),
                    other => panic!("{other:?}"),
                }
            }
            Step::Put(n) => {
                let id = id(n);
                let taken = self.drafts.contains_key(&id) || self.sealed.contains_key(&id);
                if !taken {
                    // The next number is this object's; waiting gets are told it before the answer.
                    let next = table.objects.begun();
                    self.sealed.insert(id, next + 1);
                }
                let bytes = &[n; 50];
                match self.ask(table, client, Request::Put { id, bytes }).unwrap() {
                    Answer::Done => assert!(!taken),
                    Answer::Denied(Denial::Exists) => assert!(taken),
                    other => panic!("{other:?}"),
                }
            }
            Step::Seal => {
                let Some((id, serial)) = drafted else {
                    return;
                };
                self.drafts.remove(&id);
                self.sealed.insert(id, serial);
                let done = self.ask(table, client, Request::Seal { serial });
                assert_eq!(done, Some(Answer::Done));
            }
            Step::Abort => {
                let Some((id, serial)) = drafted else {
                    return;
                };
                self.drafts.remove(&id);
                let done = self.ask(table, client, Request::Abort { serial });
                assert_eq!(done, Some(Answer::Done));
            }
            Step::Get(n, nanos) => {
                let id = id(n);
                let answer = self.ask(table, client, Request::Get { id, nanos });
                let sealed = self.sealed.get(&id).copied();
                match answer {
                    Some(Answer::Found { serial, .. }) => assert_eq!(sealed, Some(serial)),
                    Some(Answer::Denied(Denial::Deadline { .. })) => {
                        assert!(nanos == 0 && sealed.is_none());
                    }
                    None => {
                        assert!(nanos > 0 && sealed.is_none());
                        let until = self.now.saturating_add(nanos);
                        self.waits.insert((client, self.seq), (id, until));
                    }
                    other => panic!("{other:?}"),
                }
            }
            Step::Cancel => {
                let wait = self.waits.keys().find(|(by, _)| *by == client);
                let get = wait.map_or(77, |(_, seq)| *seq);
                let waited = wait.is_some();
                let waits = self.waits.len() - usize::from(waited);
                let done = self.ask(table, client, Request::Cancel { get });
                assert_eq!(done, Some(Answer::Done));
                assert_eq!(self.waits.len(), waits);
            }
            Step::Release => {
                let Some(held) = self.pins.iter().position(|(by, _)| *by == client) else {
                    return;
                };
                let (_, serial) = self.pins.swap_remove(held);
                let done = self.ask(table, client, Request::Release { serial });
                assert_eq!(done, Some(Answer::Done));
            }
            Step::Delete(n) => {
                let id = id(n);
                let expected = match (self.sealed.remove(&id), self.drafts.contains_key(&id)) {
                    (Some(_), _) => Answer::Done,
                    (None, true) => Answer::Denied(Denial::NotSealed),
                    (None, false) => Answer::Denied(Denial::NotFound),
                };
                let answer = self.ask(table, client, Request::Delete { id });
                assert_eq!(answer, Some(expected));
            }
            Step::Evict(bytes) => {
                let answer = self.ask(table, client, Request::Evict { bytes });
                assert!(matches!(answer, Some(Answer::Freed { .. })));
                let pinned: BTreeSet<Serial> = self.pins.iter().map(|(_, s)| *s).collect();
                self.sealed.retain(|id, serial| {
                    let stays = table.objects.state(*id) == ObjectState::Sealed;
                    assert!(
                        stays || !pinned.contains(serial),
                        "what is held is not evicted"
                    );
                    stays
                });
            }
            Step::Subscribe(on) => {
                let request = match on {
                    true => Request::Subscribe,
                    false => Request::Unsubscribe,
                };
                match on {
                    true => self.subscribers.insert(client),
                    false => self.subscribers.remove(&client),
                };
                assert_eq!(self.ask(table, client, request), Some(Answer::Done));
            }
            Step::Die => {
                table.leave(client);
                table.join(client);
                self.drafts.retain(|_, (by, _)| *by != client);
                self.pins.retain(|(by, _)| *by != client);
                self.waits.retain(|(by, _), _| *by != client);
                self.subscribers.remove(&client);
            }
            Step::Time(nanos) => {
                self.now += nanos;
                let mut out = Effects::default();
                table.expire(self.now, &mut out);
                assert_eq!(self.receive(out, (0, 0)), None);
                assert!(self.waits.values().all(|(_, until)| *until > self.now));
                assert!(table.next_deadline().is_none_or(|at| at > self.now));
            }
        }
    }

    fn compare(&self, table: &Table) {
        let stats = table.stats();
        assert_eq!(stats.objects, self.sealed.len() as u64);
        assert_eq!(stats.drafts, self.drafts.len() as u64);
        assert_eq!(stats.waiting, self.waits.len() as u64);
        assert_eq!(stats.subscribers, self.subscribers.len() as u64);
        let pinned: BTreeSet<Serial> = self.pins.iter().map(|(_, serial)| *serial).collect();
        assert_eq!(stats.pinned, pinned.len() as u64);
        let named: BTreeSet<Serial> = self.sealed.values().copied().collect();
        assert_eq!(stats.deleted, pinned.difference(&named).count() as u64);
        for n in 0..NAMES {
            let expected = match (self.sealed.get(&id(n)), self.drafts.get(&id(n))) {
                (Some(_), _) => ObjectState::Sealed,
                (None, Some(_)) => ObjectState::Written,
                (None, None) => ObjectState::Absent,
            };
            assert_eq!(table.objects.state(id(n)), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_is_as_the_model(steps in proptest::collection::vec(step(), 0..120)) {
        let (mut table, mut model) = (table(), Model::default());
        for (client, step) in steps {
            model.step(&mut table, client, step);
            model.compare(&table);
        }
        // When all are gone, only what is sealed and named is left, and it can be evicted whole.
        (1..=CLIENTS).for_each(|client| table.leave(client));
        let stats = table.stats();
        prop_assert_eq!((stats.drafts, stats.pinned, stats.deleted), (0, 0, 0));
        prop_assert_eq!((stats.waiting, stats.subscribers, stats.clients), (0, 0, 0));
        prop_assert_eq!(stats.objects, model.sealed.len() as u64);
        prop_assert_eq!(table.next_deadline(), None);
        table.objects.evict(u64::MAX, |_| ());
        prop_assert_eq!(table.stats().used, 0);
    }
}

#[test]
fn what_is_lent_is_kept_from_the_end_of_the_connection_to_the_death() {
    let mut table = table();
    let mut out = Effects::default();
    for (n, len) in [(1, 100), (2, 100_000)] {
        let create = Request::Create { id: id(n), len };
        table.handle(0, 1, u64::from(n), create, &mut out).unwrap();
    }
    assert!(!table.hang_up(1), "it may still write to what it was lent");
    assert_eq!(table.objects.state(id(1)), ObjectState::Absent);
    assert_eq!(table.objects.state(id(2)), ObjectState::Written);
    table.leave(1);
    assert_eq!(table.objects.state(id(2)), ObjectState::Absent);
    assert!(table.hang_up(2), "it has nothing");
}

#[test]
fn too_many_waits_break_the_protocol() {
    let mut table = table();
    let mut out = Effects::default();
    let get = Request::Get {
        id: id(1),
        nanos: FOREVER,
    };
    for seq in 1..=WAITS_MAX as u64 {
        table.handle(0, 1, seq, get.clone(), &mut out).unwrap();
    }
    let more = table.handle(0, 1, u64::MAX, get, &mut out);
    assert!(more.is_err());
    table.silence(1);
    assert_eq!(table.stats().waiting, 0);
}
