//! Two processes that share only a socket: what one writes the other reads in place.
//!
//! The other process is this test's own executable, run again with the role in its environment.
//! Left out: deaths (`store_deaths`), bytes that are no protocol (`store_hostile`).

#[path = "store_common/mod.rs"]
mod common;

use std::time::Duration;

use common::{Role, Scene, role};
use mobula::store::{Client, Event, ObjectId, ObjectState, StoreError, content_hash};

fn id(name: &str) -> ObjectId {
    ObjectId::from_name(name)
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i % 1000) as f32 * 0.5).collect()
}

#[test]
fn a_reader_waits_for_the_writers_seal() {
    if role("read").is_some() {
        let client = common::client();
        let object = client.get(id("small"), Some(common::LONG)).unwrap();
        assert_eq!(&*object, b"a few bytes");
        let view = client
            .view::<Vec<f32>>(id("large"), Some(common::LONG))
            .unwrap();
        assert_eq!(view.as_slice(), numbers(3 << 20));
        client.put_bytes(id("answer"), b"seen").unwrap();
        return;
    }
    let scene = Scene::new(64 << 20);
    let client = scene.client();
    let reader = scene.run(Role::Child("read"), "a_reader_waits_for_the_writers_seal");
    client.put_bytes(id("small"), b"a few bytes").unwrap();
    client.put(id("large"), &numbers(3 << 20)).unwrap();
    let answer = client.get(id("answer"), Some(common::LONG)).unwrap();
    assert_eq!(&*answer, b"seen");
    reader.succeeds();
}

#[test]
fn no_server_is_an_error_that_names_the_socket() {
    let refused = Client::connect("/nowhere/mobula.sock").unwrap_err();
    assert!(matches!(refused, StoreError::Gone { .. }));
    assert!(refused.to_string().contains("/nowhere/mobula.sock"));
}

#[test]
fn a_get_that_is_too_early_says_how_far_the_object_is() {
    let scene = Scene::new(1 << 20);
    let client = scene.client();
    let now = Some(Duration::ZERO);
    let absent = client.get(id("x"), now).unwrap_err();
    assert!(matches!(absent, StoreError::NotFound { .. }), "{absent}");
    let writing = client.create(id("x"), 10).unwrap();
    let early = client.get(id("x"), now).unwrap_err();
    assert!(matches!(early, StoreError::NotSealed { .. }), "{early}");
    let late = client.get(id("x"), Some(Duration::from_millis(20)));
    assert!(matches!(late.unwrap_err(), StoreError::Deadline { .. }));
    writing.seal().unwrap();
    assert_eq!(client.get(id("x"), now).unwrap().len(), 10);
}

#[mobula::value]
#[derive(Debug, PartialEq)]
struct Report {
    title: String,
    tags: Vec<String>,
    counts: std::collections::BTreeMap<String, u64>,
}

#[test]
fn values_of_all_sizes_are_read_in_place() {
    let scene = Scene::new(64 << 20);
    let (writer, reader) = (scene.client(), scene.client());
    // Around the bounds of what is sent, of what is sent in pieces, and of what is lent.
    for n in [
        0, 1, 1000, 4095, 4096, 4097, 16_383, 16_384, 16_385, 300_000,
    ] {
        let id = ObjectId::random();
        writer.put(id, &numbers(n)).unwrap();
        let view = reader.view::<Vec<f32>>(id, Some(common::LONG)).unwrap();
        assert_eq!(view.as_slice(), numbers(n), "{n} numbers");
        assert_eq!(view.to_owned().unwrap(), numbers(n));
        assert!(view.bytes().as_ptr().addr().is_multiple_of(64));
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let at = view.bytes().as_ptr().addr();
        let inside = maps.lines().any(|line| {
            let (range, rest) = line.split_once(' ').unwrap();
            let (begin, end) = range.split_once('-').unwrap();
            let end_at = usize::from_str_radix(end, 16).unwrap();
            let begin = usize::from_str_radix(begin, 16).unwrap();
            (begin..end_at).contains(&at) && rest.starts_with("r--s") && line.contains("memfd:")
        });
        assert!(inside, "read where the store has it, and read-only");
    }
    let report = Report {
        title: "a title that does not fit in a word".into(),
        tags: (0..5000).map(|n| format!("tag {n}")).collect(),
        counts: [("a".to_owned(), 1), ("b".to_owned(), 2)].into(),
    };
    writer.put(id("report"), &report).unwrap();
    let view = reader.view::<Report>(id("report"), None).unwrap();
    assert_eq!(view.tags[4999], "tag 4999");
    assert_eq!(view.counts.get("b").unwrap().to_native(), 2);
    assert_eq!(view.to_owned().unwrap(), report);
}

#[test]
fn bytes_that_are_no_such_value_are_refused() {
    let scene = Scene::new(1 << 20);
    let client = scene.client();
    client.put_bytes(id("bytes"), &[0xff; 100]).unwrap();
    let refused = client.view::<Vec<String>>(id("bytes"), None).unwrap_err();
    assert!(matches!(refused, StoreError::Decode { .. }), "{refused}");
    client.put_bytes(id("few"), &[1]).unwrap();
    assert!(client.view::<u64>(id("few"), None).is_err());
    // Nothing of the refused is held.
    assert_eq!(client.stats().unwrap().pinned, 0);
}

#[test]
fn references_of_a_node_are_refused() {
    let scene = Scene::new(1 << 20);
    let client = scene.client();
    let _mobula = mobula::init().unwrap();
    let reference = mobula::put(&7u32).unwrap();
    for many in [1, 20_000] {
        let value = (vec![0u64; many], reference.clone());
        let refused = client.put(id("reference"), &value).unwrap_err();
        assert!(matches!(refused, StoreError::Encode { .. }), "{refused}");
    }
    let stats = client.stats().unwrap();
    assert_eq!((stats.objects, stats.drafts, stats.used), (0, 0, 0));
}

#[test]
fn a_draft_is_seen_by_nobody_and_dropped_is_gone() {
    let scene = Scene::new(4 << 20);
    let (client, other) = (scene.client(), scene.client());
    for len in [0, 100, 30_000, 1 << 20] {
        let mut writing = client.create(id("draft"), len).unwrap();
        writing.fill(1);
        assert_eq!(other.state(id("draft")).unwrap(), ObjectState::Written);
        assert!(!other.contains(id("draft")).unwrap());
        let taken = other.create(id("draft"), 1).unwrap_err();
        assert!(matches!(taken, StoreError::Exists { .. }));
        let early = other.delete(id("draft")).unwrap_err();
        assert!(matches!(early, StoreError::NotSealed { .. }));
        drop(writing);
        assert_eq!(client.state(id("draft")).unwrap(), ObjectState::Absent);
        client.create(id("draft"), len).unwrap().abort().unwrap();
        assert_eq!(client.stats().unwrap().used, 0);
    }
}

#[test]
fn writing_past_the_end_of_a_draft_panics() {
    let scene = Scene::new(4 << 20);
    let client = scene.client();
    for len in [100, 1 << 20] {
        let mut writing = client.create(id("draft"), len).unwrap();
        let past = std::panic::AssertUnwindSafe(|| writing.write_at(len - 1, b"ab"));
        assert!(std::panic::catch_unwind(past).is_err());
        writing.write_at(len - 1, b"a");
        writing.seal().unwrap();
        assert_eq!(client.get(id("draft"), None).unwrap()[len - 1], b'a');
        client.delete(id("draft")).unwrap();
    }
}

#[test]
fn a_deleted_object_stays_with_those_that_hold_it() {
    let scene = Scene::new(4 << 20);
    let (client, other) = (scene.client(), scene.client());
    client.put_bytes(id("x"), &[1; 50_000]).unwrap();
    let held = other.get(id("x"), None).unwrap();
    client.delete(id("x")).unwrap();
    let absent = client.delete(id("x")).unwrap_err();
    assert!(matches!(absent, StoreError::NotFound { .. }));
    assert!(!other.contains(id("x")).unwrap());
    assert_eq!(client.list().unwrap(), []);
    // Another of the name has other memory.
    client.put_bytes(id("x"), &[2; 50_000]).unwrap();
    let second = other.get(id("x"), None).unwrap();
    assert!(held.iter().all(|b| *b == 1) && second.iter().all(|b| *b == 2));
    assert_eq!(client.stats().unwrap().deleted, 1);
    held.release();
    second.release();
    client.delete(id("x")).unwrap();
    let stats = client.stats().unwrap();
    assert_eq!((stats.used, stats.deleted, stats.pinned), (0, 0, 0));
}

#[test]
fn eviction_takes_the_least_recently_used_that_nobody_holds() {
    let scene = Scene::new(4 << 20);
    let client = scene.client();
    for name in ["a", "b", "c", "d"] {
        client.put_bytes(id(name), &[0; 10_000]).unwrap();
    }
    let held = client.get(id("a"), None).unwrap();
    drop(client.get(id("b"), None).unwrap());
    // Least recently used now: c, d, b. One is too few, two are enough.
    assert_eq!(client.evict(10_001).unwrap(), 20_000);
    let there = ["a", "b", "c", "d"].map(|name| client.contains(id(name)).unwrap());
    assert_eq!(there, [true, true, false, false]);
    assert_eq!(client.evict(u64::MAX).unwrap(), 10_000);
    assert_eq!(client.evict(1).unwrap(), 0);
    assert_eq!(held.len(), 10_000);
    assert_eq!(client.stats().unwrap().evicted, 3);
}

#[test]
fn a_full_store_says_so_with_numbers() {
    let scene = Scene::new(1 << 20);
    let client = scene.client();
    let _most = client.create(id("most"), 900 << 10).unwrap();
    let full = client.create(id("more"), 200 << 10).unwrap_err();
    let StoreError::Full {
        requested,
        capacity,
        used,
        ..
    } = full
    else {
        panic!("{full}");
    };
    assert_eq!((requested, capacity, used), (200 << 10, 1 << 20, 900 << 10));
    let never = client.create(id("more"), 2 << 20).unwrap_err();
    assert!(matches!(never, StoreError::TooLarge { .. }));
    let never = client.create(id("more"), usize::MAX).unwrap_err();
    assert!(matches!(never, StoreError::TooLarge { .. }));
    assert_eq!(client.state(id("more")).unwrap(), ObjectState::Absent);
}

#[test]
fn a_long_list_comes_in_order_and_whole() {
    let scene = Scene::new(16 << 20);
    let client = scene.client();
    let mut names: Vec<ObjectId> = (0..5000).map(|n| id(&n.to_string())).collect();
    for name in &names {
        client.put_bytes(*name, b"12345").unwrap();
    }
    let _held = client.get(names[0], None).unwrap();
    let first = names[0];
    names.sort();
    let listed = client.list().unwrap();
    assert!(listed.iter().map(|o| o.id).eq(names));
    assert!(listed.iter().all(|o| o.sealed && o.len == 5));
    let pinned: Vec<_> = listed
        .iter()
        .filter(|o| o.pins == 1)
        .map(|o| o.id)
        .collect();
    assert_eq!(pinned, [first]);
}

#[test]
fn subscribers_hear_of_seals_and_deletions() {
    let scene = Scene::new(4 << 20);
    let (client, other) = (scene.client(), scene.client());
    let events = other.subscribe().unwrap();
    let second = other.subscribe().unwrap();
    client.put_bytes(id("a"), &[0; 100]).unwrap();
    client.create(id("b"), 100_000).unwrap().seal().unwrap();
    drop(client.create(id("never"), 1).unwrap());
    client.delete(id("a")).unwrap();
    client.evict(1).unwrap();
    let expected = [
        Event::Sealed {
            id: id("a"),
            len: 100,
        },
        Event::Sealed {
            id: id("b"),
            len: 100_000,
        },
        Event::Deleted { id: id("a") },
        Event::Deleted { id: id("b") },
    ];
    for subscription in [events, second] {
        let heard: Vec<Event> = expected
            .iter()
            .map(|_| subscription.recv_timeout(common::LONG).unwrap().unwrap())
            .collect();
        assert_eq!(heard, expected);
        let quiet = subscription.recv_timeout(Duration::from_millis(1));
        assert_eq!(quiet.unwrap(), None);
        assert_eq!(client.stats().unwrap().subscribers, 1);
    }
    common::until("the last subscription's end", || {
        (client.stats().unwrap().subscribers == 0).then_some(())
    });
}

#[test]
fn the_content_hash_is_of_the_bytes_alone() {
    let scene = Scene::new(4 << 20);
    let client = scene.client();
    let bytes = vec![3; 100_000];
    client.put_bytes(id("a"), &bytes).unwrap();
    client.put_bytes(id("b"), &bytes).unwrap();
    client.put_bytes(id("c"), &bytes[1..]).unwrap();
    let hash = |name| client.hash(id(name)).unwrap();
    assert_eq!(hash("a"), hash("b"));
    assert_ne!(hash("a"), hash("c"));
    assert_eq!(hash("a"), content_hash(&bytes));
    // Pinned: programs keep such hashes.
    assert_eq!(content_hash(b""), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    let absent = client.hash(id("none")).unwrap_err();
    assert!(matches!(absent, StoreError::NotFound { .. }));
    assert_eq!(client.stats().unwrap().pinned, 0);
}

#[test]
fn threads_of_one_client_wait_without_keeping_each_other() {
    const THREADS: usize = 16;
    let scene = Scene::new(16 << 20);
    let client = scene.client();
    let name = |t: usize, n: usize| id(&format!("{t} {n}"));
    std::thread::scope(|scope| {
        for t in 0..THREADS {
            let client = client.clone();
            // Each waits for what another puts, on the one connection of all.
            scope.spawn(move || {
                for n in 0..50 {
                    let waited = (t + 1) % THREADS;
                    if t == 0 {
                        client.put_bytes(name(t, n), &[t as u8; 100]).unwrap();
                    }
                    let object = client.get(name(waited, n), Some(common::LONG)).unwrap();
                    assert_eq!(*object, [waited as u8; 100]);
                    if t != 0 {
                        client.put_bytes(name(t, n), &[t as u8; 100]).unwrap();
                    }
                }
            });
        }
        scope.spawn(|| {
            // A wait without end keeps nobody either.
            let late = client.get(id("late"), Some(common::LONG)).unwrap();
            assert_eq!(&*late, b"at last");
        });
        for t in (1..THREADS).rev() {
            for n in 0..50 {
                let id = name(t, n);
                let there = client.get(id, Some(common::LONG));
                assert!(there.is_ok());
            }
        }
        client.put_bytes(id("late"), b"at last").unwrap();
    });
    assert_eq!(client.stats().unwrap().waiting, 0);
}
