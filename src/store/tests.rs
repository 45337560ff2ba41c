//! The store as its users see it: contents stay, room comes back, errors say who holds what.

use super::*;
use proptest::prelude::*;
use std::panic::Location;

const F: Origin = Origin::Result("f");
const MIB: usize = 1 << 20;

fn open(capacity: usize) -> Store {
    Store::open(StoreOptions {
        capacity: Some(capacity as u64),
        prefault: Prefault::Off,
        huge_pages: HugePages::Off,
        spill: SpillTo::Off,
        patience: Duration::ZERO,
        watch: None,
    })
    .unwrap()
}

fn put(store: &Store, bytes: &[u8], origin: Origin) -> Sealed {
    let mut draft = store.create(bytes.len(), origin).unwrap();
    draft.write_at(0, bytes);
    draft.seal()
}

/// Bytes that tell objects apart and notice a shift.
fn contents(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (i.wrapping_mul(31) ^ seed.wrapping_mul(97) ^ (i >> 8)) as u8)
        .collect()
}

#[test]
fn an_object_is_small_to_hold_and_aligned() {
    assert!(size_of::<Sealed>() <= 32 && size_of::<Stored>() <= 32);
    let store = open(MIB);
    for len in [0, 1, 63, 64, 65, 4096, 40_000] {
        let object = put(&store, &contents(len as u64, len), F);
        assert_eq!(object.address().addr() % 64, 0);
        assert_eq!(object.len(), len);
        assert_eq!(*object, contents(len as u64, len));
    }
    assert_eq!((store.stats().used, store.stats().objects), (0, 0));
}

#[test]
fn a_draft_is_written_in_place_and_freed_when_dropped() {
    let store = open(MIB);
    let mut draft = store.create(8, F).unwrap();
    draft.fill(1);
    draft.write_at(3, &[2, 3]);
    draft.write_at(8, &[]);
    assert_eq!(*draft, [1, 1, 1, 2, 3, 1, 1, 1]);
    assert_eq!(store.stats().objects, 1);
    drop(draft);
    assert_eq!(store.stats().objects, 0);
}

#[test]
fn writing_outside_a_draft_panics() {
    let store = open(MIB);
    let mut draft = store.create(8, F).unwrap();
    for (pos, len) in [(5, 4), (9, 0), (usize::MAX, 2)] {
        let write = std::panic::AssertUnwindSafe(|| draft.write_at(pos, &vec![0; len]));
        assert!(std::panic::catch_unwind(write).is_err(), "{len} at {pos}");
    }
}

#[test]
fn objects_outlive_the_store_handle() {
    let store = open(MIB);
    let object = put(&store, b"still here", F);
    drop(store);
    assert_eq!(&*object, b"still here");
}

#[test]
fn a_full_store_says_who_holds_it_and_recovers() {
    let store = open(4 * MIB);
    let here = Origin::Put(Location::caller());
    let big = put(&store, &[1; 2 * MIB], here);
    let small: Vec<Sealed> = (0..3).map(|_| put(&store, &[2; 300 << 10], F)).collect();
    let refused = store.create(2 * MIB, Origin::Argument("g")).unwrap_err();
    assert_eq!(
        (refused.requested, refused.capacity),
        (2 * MIB as u64, 4 * MIB as u64)
    );
    assert_eq!(refused.used, (2 * MIB + 3 * (300 << 10)) as u64);
    assert_eq!(refused.largest_free, refused.capacity - refused.used);
    assert_eq!(refused.origin, Origin::Argument("g"));
    let holders = [
        Holder {
            origin: here,
            bytes: 2 * MIB as u64,
            objects: 1,
            spilled: 0,
        },
        Holder {
            origin: F,
            bytes: 3 * (300 << 10),
            objects: 3,
            spilled: 0,
        },
    ];
    assert_eq!(refused.holders, holders);
    assert_eq!(store.holders(1), holders[..1]);
    drop(big);
    let again = store.create(2 * MIB, F).unwrap();
    assert!(small.iter().all(|s| s.iter().all(|b| *b == 2)));
    drop((again, small));
    assert!(
        store.create(4 * MIB, F).is_ok(),
        "all of it is one run again"
    );
    assert!(store.holders(9).is_empty());
}

#[test]
fn small_objects_fill_the_store_to_the_last_block() {
    let store = open(MIB);
    for len in [1, 1000, 5000, 32 << 10, (32 << 10) + 1] {
        let mut live = Vec::new();
        let refused = loop {
            match store.create(len, F) {
                Ok(draft) => live.push(draft),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.used, (live.len() * len) as u64);
        let block = len
            .next_multiple_of(64)
            .max(if len > 32 << 10 { 36 << 10 } else { 64 });
        assert!(live.len() * block > MIB * 6 / 10, "{} of {len}", live.len());
        live.pop();
        assert!(store.create(len, F).is_ok());
        drop(live);
        // Empty chunks that shards keep do not stand in the way of one long object.
        assert!(store.create(MIB, F).is_ok());
    }
    assert_eq!(store.stats().used, 0);
}

#[test]
fn a_last_small_object_takes_a_larger_block() {
    let store = open(256 << 10);
    let large = store.create(20_000, F).unwrap();
    let small = store.create(10, F).unwrap();
    assert_eq!(
        store.stats().reserved,
        256 << 10,
        "the only chunk is cut for large blocks"
    );
    drop((large, small));
    assert!(store.create(256 << 10, F).is_ok());
}

#[test]
fn prefault_by_request_is_visible() {
    let prefault = Prefault::Bytes(MIB as u64);
    let store = Store::open(StoreOptions {
        capacity: Some(4 << 20),
        prefault,
        huge_pages: HugePages::Off,
        ..StoreOptions::default()
    })
    .unwrap();
    let start = std::time::Instant::now();
    while store.stats().prefaulted < MIB as u64 && store.stats().prefault_error.is_none() {
        assert!(start.elapsed().as_secs() < 20);
        std::thread::yield_now();
    }
    assert_eq!(store.stats().frontier, 0);
}

#[test]
fn threads_share_the_store_without_mixing_contents() {
    // Room for all of it at once: nothing bounds how far the makers run ahead.
    let store = open(128 * MIB);
    let (send, receive) = std::sync::mpsc::channel::<(u64, Sealed)>();
    let make = |seed: u64, send: std::sync::mpsc::Sender<(u64, Sealed)>| {
        let store = store.clone();
        move || {
            let mut kept = Vec::new();
            let mut random = seed;
            for round in 0..1500 {
                random = random
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                let len = (random >> 33) as usize % [100, 3000, 40_000][round % 3];
                let object = put(&store, &contents(random, len), Origin::Argument("stress"));
                match random >> 61 {
                    0..3 => kept.push((random, object)),
                    3..6 => send.send((random, object)).unwrap(),
                    _ => kept.truncate(kept.len() / 2),
                }
            }
            kept.iter()
                .for_each(|(seed, o)| assert_eq!(**o, contents(*seed, o.len())));
        }
    };
    std::thread::scope(|scope| {
        for seed in 1..=3 {
            scope.spawn(make(seed, send.clone()));
        }
        drop(send);
        // Everything sent is checked and freed here: on another thread than made it.
        for (seed, object) in receive {
            assert_eq!(*object, contents(seed, object.len()));
        }
    });
    assert_eq!((store.stats().used, store.stats().objects), (0, 0));
    assert!(store.create(128 * MIB, F).is_ok());
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Free(usize),
    Abandon(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![
        4 => 0usize..2000,
        2 => 2000usize..70_000,
        1 => 70_000usize..400_000,
        1 => prop::sample::select(vec![32 << 10, (32 << 10) + 1, 4096, 64, 256 << 10]),
    ];
    prop_oneof![
        4 => len.clone().prop_map(Step::Put),
        3 => any::<prop::sample::Index>().prop_map(|i| Step::Free(i.index(1 << 16))),
        1 => len.prop_map(Step::Abandon),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None,
        ..ProptestConfig::default() })]

    /// Any sequence: objects keep apart and keep their contents, counts are exact, and in the end
    /// the whole capacity is one run again.
    #[test]
    fn behaves_as_a_list_of_vectors(steps in prop::collection::vec(step(), 1..120)) {
        let store = open(2 * MIB);
        let mut model: Vec<(u64, Sealed)> = Vec::new();
        for (seed, step) in steps.into_iter().enumerate() {
            let seed = seed as u64;
            match step {
                Step::Free(i) if !model.is_empty() => {
                    let i = i % model.len();
                    model.swap_remove(i);
                }
                Step::Free(_) => {}
                Step::Abandon(len) => drop(store.create(len, F)),
                Step::Put(len) => match store.create(len, F) {
                    Ok(mut draft) => {
                        draft.write_at(0, &contents(seed, len));
                        model.push((seed, draft.seal()));
                    }
                    Err(full) => {
                        prop_assert_eq!(full.requested, len as u64);
                        prop_assert!(full.largest_free < full.requested.next_multiple_of(4096));
                    }
                },
            }
            let used: usize = model.iter().map(|(_, o)| o.len()).sum();
            let stats = store.stats();
            prop_assert_eq!((stats.used, stats.objects), (used as u64, model.len() as u64));
            prop_assert!(stats.used <= stats.reserved && stats.reserved <= stats.frontier);
        }
        let mut spans: Vec<(usize, usize)> =
            model.iter().map(|(_, o)| (o.address().addr(), o.len())).collect();
        spans.sort_unstable();
        for pair in spans.windows(2) {
            prop_assert!(pair[0].0 + pair[0].1.max(1) <= pair[1].0);
        }
        for (seed, object) in &model {
            prop_assert_eq!(object.address().addr() % 64, 0);
            prop_assert!(**object == *contents(*seed, object.len()));
        }
        model.clear();
        prop_assert_eq!((store.stats().used, store.stats().objects), (0, 0));
        prop_assert!(store.create(2 * MIB, F).is_ok());
    }
}
