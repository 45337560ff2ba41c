//! The spiller with real folders and with stores that fail: what moves, what comes back, what is said.

use std::path::Path as FsPath;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::failing::Failing;
use super::super::{Kept, Store, StoreOptions};
use super::*;
use crate::base::Loss;
use crate::shm::{HugePages, Prefault};

const F: Origin = Origin::Result("f");
const MIB: usize = 1 << 20;

/// A folder of one test's own, removed at its end.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Temp {
        let path =
            std::env::temp_dir().join(format!("mobula-spilling-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Temp(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(capacity: usize, spill: SpillTo) -> Store {
    Store::open(StoreOptions {
        capacity: Some(capacity as u64),
        prefault: Prefault::Off,
        huge_pages: HugePages::Off,
        spill,
        patience: Duration::from_secs(20),
        watch: None,
    })
    .unwrap()
}

fn impatient(capacity: usize, spill: SpillTo, patience: Duration) -> Store {
    Store::open(StoreOptions {
        capacity: Some(capacity as u64),
        prefault: Prefault::Off,
        huge_pages: HugePages::Off,
        spill,
        patience,
        watch: None,
    })
    .unwrap()
}

/// Bytes that tell objects apart and notice a shift.
fn contents(seed: u64, len: usize) -> Vec<u8> {
    // A page that differs from seed to seed, repeated with its number in front: unoptimised code takes long over single words.
    const PAGE: usize = 4096;
    let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = (0..PAGE as u64 / 8).map(|i| i ^ seed);
    let page: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let mut bytes = page.repeat(len.div_ceil(PAGE));
    for (number, page) in bytes.chunks_exact_mut(PAGE).enumerate() {
        page[..8].copy_from_slice(&(number as u64 ^ seed).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn put(store: &Store, seed: u64, len: usize) -> Kept {
    let mut draft = store.create(len, F).unwrap();
    draft.write_at(0, &contents(seed, len));
    Kept::new(draft.seal())
}

fn until(so: impl FnMut() -> bool) {
    crate::base::wait::until("the store moves", Duration::from_secs(30), so);
}

fn files(folder: &FsPath) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => all.extend(files(&path)),
            path if path.extension().is_some_and(|e| e == "seg") => all.push(path),
            _ => {}
        }
    }
    all
}

#[test]
fn three_times_the_capacity_is_kept_and_read_back() {
    let temp = Temp::new("three");
    for (len, capacity) in [
        (MIB, 8 * MIB),
        (10_000, 2 * MIB),
        (700, MIB),
        (9 * MIB, 20 * MIB),
    ] {
        let store = open(capacity, SpillTo::To(temp.0.clone()));
        let count = 3 * capacity / len;
        let kept: Vec<Kept> = (0..count).map(|i| put(&store, i as u64, len)).collect();
        let stats = store.spill_stats();
        assert!(stats.bytes as usize > capacity, "{stats:?}");
        assert!(store.stats().used as usize <= capacity);
        assert_eq!(
            store.holders(1)[0].bytes,
            (count * len) as u64,
            "on disk or not"
        );
        for i in (0..count)
            .chain((0..count).rev())
            .chain((0..count).step_by(7))
        {
            let pin = kept[i].pin(&store.patience()).unwrap();
            assert!(*pin == *contents(i as u64, len), "{i} of {len}");
            assert!(pin.as_ptr().addr().is_multiple_of(64));
        }
        drop(kept);
        assert_eq!((store.stats().used, store.stats().objects), (0, 0));
        assert_eq!(store.spill_stats().bytes, 0);
        assert!(store.holders(1).is_empty());
        until(|| files(&temp.0).is_empty());
        drop(store);
        // Its folder too.
        until(|| std::fs::read_dir(&temp.0).unwrap().count() == 0);
    }
}

#[test]
fn what_is_read_stays_in_place() {
    let temp = Temp::new("place");
    let store = open(8 * MIB, SpillTo::To(temp.0.clone()));
    let first = put(&store, 0, MIB);
    let pin = first.pin(&store.patience()).unwrap();
    let (at, offset) = (pin.as_ptr(), pin.offset());
    let rest: Vec<Kept> = (1..20).map(|i| put(&store, i, MIB)).collect();
    assert_eq!(
        (pin.as_ptr(), first.hold(&store.patience()).unwrap()),
        (at, offset)
    );
    assert!(*pin == *contents(0, MIB));
    first.release();
    drop(pin);
    assert!(
        rest[0].try_hold().is_none(),
        "the oldest that nobody reads is away"
    );
    assert_eq!(rest[0].len(), MIB);
    let more: Vec<Kept> = (20..40).map(|i| put(&store, i, MIB)).collect();
    assert!(first.try_hold().is_none(), "nobody reads it any more");
    drop(more);
    assert!(*first.pin(&store.patience()).unwrap() == *contents(0, MIB));
    drop(rest);
}

#[test]
fn the_least_recently_used_go_first() {
    let temp = Temp::new("lru");
    let store = open(16 * MIB, SpillTo::To(temp.0.clone()));
    let kept: Vec<Kept> = (0..15).map(|i| put(&store, i, MIB)).collect();
    for used in [0, 3, 5] {
        drop(kept[used].pin(&store.patience()).unwrap());
    }
    let _more: Vec<Kept> = (15..18).map(|i| put(&store, i, MIB)).collect();
    let away: Vec<usize> = (0..15)
        .filter(|&i| match kept[i].try_hold() {
            Some(_) => {
                kept[i].release();
                false
            }
            None => true,
        })
        .collect();
    assert!(
        !away.is_empty() && !away.iter().any(|i| [0, 3, 5].contains(i)),
        "{away:?}"
    );
    assert_eq!(away[0], 1);
}

#[test]
fn a_damaged_file_costs_its_own_objects_only() {
    let temp = Temp::new("damage");
    let store = open(64 * MIB, SpillTo::To(temp.0.clone()));
    // Each is a segment of its own.
    let kept: Vec<Kept> = (0..12).map(|i| put(&store, i, 9 * MIB)).collect();
    until(|| !store.shared.spill.books().busy);
    let mut segments = files(&temp.0);
    segments.sort_by_key(|p| {
        p.file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    });
    assert!(segments.len() >= 4, "{segments:?}");
    let damage: [(&PathBuf, Loss); 3] = [
        (&segments[0], Loss::Truncated),
        (&segments[1], Loss::Corrupted),
        (&segments[2], Loss::Deleted),
    ];
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&segments[0])
        .unwrap();
    file.set_len(5 << 20).unwrap();
    let mut bytes = std::fs::read(&segments[1]).unwrap();
    bytes[4 << 20] ^= 1;
    std::fs::write(&segments[1], bytes).unwrap();
    std::fs::remove_file(&segments[2]).unwrap();
    let mut lost = Vec::new();
    for (i, one) in kept.iter().enumerate() {
        match one.pin(&store.patience()) {
            Ok(pin) => assert!(*pin == *contents(i as u64, 9 * MIB)),
            Err(Error::ObjectLost(e)) => {
                assert_eq!((e.origin, e.bytes), (F, 9 * MIB as u64));
                let text = e.to_string();
                assert!(
                    text.contains("mobula-spill-") && text.contains("result of f"),
                    "{text}"
                );
                lost.push(e.why.clone());
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(
        lost,
        damage.map(|(_, why)| why),
        "the three that were damaged"
    );
    let again = kept[0].pin(&store.patience()).map(|_| ()).unwrap_err();
    assert!(matches!(again, Error::ObjectLost(_)), "it stays lost");
    drop(kept);
    assert_eq!((store.stats().used, store.spill_stats().bytes), (0, 0));
}

#[test]
fn a_folder_that_cannot_be_made_turns_spilling_off_and_says_why() {
    let temp = Temp::new("bad");
    std::fs::write(temp.0.join("file"), b"").unwrap();
    let store = impatient(
        4 * MIB,
        SpillTo::To(temp.0.join("file/inside")),
        Duration::from_secs(1),
    );
    let kept: Vec<Kept> = (0..4).map(|i| put(&store, i, MIB - 4096)).collect();
    let refused = store.create(MIB, F).unwrap_err();
    let why = refused.not_spilling.clone().unwrap();
    assert!(why.contains("inside"), "{why}");
    assert!(refused.to_string().contains(&*why) && refused.waited >= Duration::from_secs(1));
    assert_eq!((refused.pinned, refused.spilled), (0, 0));
    for (i, one) in kept.iter().enumerate() {
        assert!(*one.pin(&store.patience()).unwrap() == *contents(i as u64, MIB - 4096));
    }
    // The cause goes away, and so does the effect.
    std::fs::remove_file(temp.0.join("file")).unwrap();
    until(|| store.create(MIB, F).is_ok());
}

#[test]
fn turned_off_means_kept_in_memory() {
    let store = impatient(4 * MIB, SpillTo::Off, Duration::ZERO);
    let _kept: Vec<Kept> = (0..4).map(|i| put(&store, i, MIB)).collect();
    let refused = store.create(MIB, F).unwrap_err();
    assert!(refused.not_spilling.unwrap().contains("no_spill"));
    assert_eq!(store.spill_stats().place, None);
}

#[test]
fn a_passing_failure_is_not_noticed() {
    let failing = Failing::new(std::io::ErrorKind::TimedOut);
    failing.fail_puts.store(2, Ordering::SeqCst);
    failing.fail_gets.store(2, Ordering::SeqCst);
    let store = open(8 * MIB, SpillTo::Given(failing.clone()));
    let kept: Vec<Kept> = (0..20).map(|i| put(&store, i, MIB)).collect();
    for (i, one) in kept.iter().enumerate() {
        assert!(*one.pin(&store.patience()).unwrap() == *contents(i as u64, MIB));
    }
    assert_eq!(failing.fail_puts.load(Ordering::SeqCst), 0);
    assert_eq!(failing.fail_gets.load(Ordering::SeqCst), 0);
    assert!(store.spill_stats().off.is_none());
}

#[test]
fn tries_are_bounded_and_nothing_is_lost() {
    for (kind, tries) in [
        (std::io::ErrorKind::TimedOut, 3),
        (std::io::ErrorKind::StorageFull, 1),
    ] {
        let failing = Failing::new(kind);
        failing.fail_puts.store(usize::MAX, Ordering::SeqCst);
        let to = SpillTo::Given(failing.clone());
        let store = impatient(4 * MIB, to, Duration::from_millis(300));
        let kept: Vec<Kept> = (0..4).map(|i| put(&store, i, MIB - 4096)).collect();
        let refused = store.create(MIB, F).unwrap_err();
        assert_eq!(failing.puts.load(Ordering::SeqCst), tries, "then a pause");
        assert!(refused.not_spilling.is_some() && store.spill_stats().off.is_some());
        for (i, one) in kept.iter().enumerate() {
            assert!(one.try_hold().is_some(), "it stayed in memory");
            one.release();
            assert!(*one.pin(&store.patience()).unwrap() == *contents(i as u64, MIB - 4096));
        }
        failing.fail_puts.store(0, Ordering::SeqCst);
        until(|| store.create(MIB, F).is_ok());
        until(|| store.spill_stats().off.is_none());
    }
}

#[test]
fn a_read_that_fails_leaves_the_object_where_it_is() {
    let failing = Failing::new(std::io::ErrorKind::ConnectionReset);
    let store = open(8 * MIB, SpillTo::Given(failing.clone()));
    let kept: Vec<Kept> = (0..16).map(|i| put(&store, i, MIB)).collect();
    assert!(kept[0].try_hold().is_none());
    failing.fail_gets.store(3, Ordering::SeqCst);
    match kept[0].pin(&store.patience()).map(|_| ()) {
        Err(Error::ObjectLost(e)) => assert!(matches!(e.why, Loss::Unreadable(_)), "{e}"),
        other => panic!("{other:?}"),
    }
    assert!(
        *kept[0].pin(&store.patience()).unwrap() == *contents(0, MIB),
        "it comes back later"
    );
}

#[test]
fn objects_are_dropped_and_read_while_they_move() {
    let failing = Failing::new(std::io::ErrorKind::TimedOut);
    let store = open(4 * MIB, SpillTo::Given(failing));
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for seed in 0..4u64 {
            let (store, count) = (&store, &count);
            scope.spawn(move || {
                let (mut kept, mut random) = (Vec::new(), seed + 1);
                for round in 0..300u64 {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
                    let len =
                        (random >> 33) as usize % [700, 5000, 70_000, 300_000][round as usize % 4];
                    kept.push((random, put(store, random, len)));
                    let pick = (random >> 20) as usize % kept.len();
                    let (seed, one) = &kept[pick];
                    assert!(*one.pin(&store.patience()).unwrap() == *contents(*seed, one.len()));
                    if random >> 63 == 0 {
                        kept.swap_remove(pick);
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                for (seed, one) in &kept {
                    assert!(*one.pin(&store.patience()).unwrap() == *contents(*seed, one.len()));
                }
            });
        }
    });
    assert_eq!(count.load(Ordering::Relaxed), 1200);
    assert!(store.spill_stats().moved > 0, "the test moved something");
    assert_eq!((store.stats().used, store.stats().objects), (0, 0));
    assert_eq!(store.spill_stats().bytes, 0);
}

#[test]
fn many_readers_of_one_object_bring_it_back_once() {
    let failing = Failing::new(std::io::ErrorKind::TimedOut);
    let store = open(8 * MIB, SpillTo::Given(failing.clone()));
    let kept: Vec<Kept> = (0..12).map(|i| put(&store, i, MIB)).collect();
    assert!(kept[0].try_hold().is_none());
    let before = failing.gets.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let pin = kept[0].pin(&store.patience()).unwrap();
                assert!(*pin == *contents(0, MIB));
            });
        }
    });
    let gets = failing.gets.load(Ordering::SeqCst) - before;
    assert_eq!(gets, 2, "its header and its bytes");
}

#[test]
fn producers_are_served_in_order() {
    let store = impatient(4 * MIB, SpillTo::Off, Duration::from_secs(20));
    let full: Vec<Kept> = (0..4).map(|i| put(&store, i, MIB)).collect();
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for turn in 0..4 {
            let (store, order) = (&store, &order);
            scope.spawn(move || {
                let draft = store.create(MIB, F).unwrap();
                // It keeps its room: given back, that would serve another out of turn.
                order.lock().push((turn, draft));
            });
            until(|| store.spill_stats().waiting == turn + 1);
        }
        // One after the other: each is served before there is room for the next.
        for (served, one) in full.into_iter().enumerate() {
            drop(one);
            until(|| order.lock().len() > served);
        }
    });
    let order: Vec<usize> = order.into_inner().iter().map(|(turn, _)| *turn).collect();
    assert_eq!(order, [0, 1, 2, 3]);
}

#[test]
fn what_the_machine_lacks_is_not_promised() {
    let left = Arc::new(AtomicU64::new(400 << 20));
    let meter = Arc::clone(&left);
    let headroom = super::super::headroom::Headroom::with(Box::new(move || {
        Some(crate::shm::MemoryLeft {
            left: meter.load(Relaxed),
            total: 1 << 30,
        })
    }));
    let temp = Temp::new("machine");
    let options = StoreOptions {
        capacity: Some(1 << 30),
        prefault: Prefault::Off,
        huge_pages: HugePages::Off,
        spill: SpillTo::To(temp.0.clone()),
        patience: Duration::from_secs(3),
        watch: None,
    };
    let store = Store::open_with(options, headroom).unwrap();
    let first = put(&store, 1, 40 * MIB);
    let pin = first.pin(&store.patience()).unwrap();
    left.store(30 << 20, Relaxed);
    let refused = store.create(100 * MIB, F).unwrap_err();
    assert_eq!(refused.machine_left, Some((30 << 20) - (1 << 30) / 50));
    assert!(refused.to_string().contains("only"), "{refused}");
    drop(pin);
    // What was written once can be used again, by moving what is there.
    let second = put(&store, 2, 40 * MIB);
    assert!(store.spill_stats().bytes > 0);
    left.store(400 << 20, Relaxed);
    let third = put(&store, 3, 100 * MIB);
    for (seed, one) in [(1, &first), (2, &second), (3, &third)] {
        assert!(*one.pin(&store.patience()).unwrap() == *contents(seed, one.len()));
    }
}

#[test]
fn too_large_fails_at_once() {
    let store = impatient(MIB, SpillTo::Off, Duration::from_secs(3600));
    let refused = store.create(MIB + 1, F).unwrap_err();
    assert_eq!(
        (refused.requested, refused.waited),
        (MIB as u64 + 1, Duration::ZERO)
    );
    assert!(refused.to_string().contains("never"), "{refused}");
}

#[test]
fn a_url_spills_to_the_folder_that_it_names() {
    let temp = Temp::new("url");
    let folder = temp.0.join("run~1 #2");
    std::fs::create_dir(&folder).unwrap();
    let url = url::Url::from_directory_path(&folder).unwrap();
    let store = open(8 * MIB, SpillTo::To(url.as_str().into()));
    let kept: Vec<Kept> = (0..12).map(|i| put(&store, i, MIB)).collect();
    let spilled = std::fs::read_dir(&folder).unwrap().flatten();
    let segments: usize = spilled.map(|e| files(&e.path()).len()).sum();
    assert!(segments > 0, "{:?}", store.spill_stats());
    assert_eq!(std::fs::read_dir(&temp.0).unwrap().count(), 1);
    for (i, kept) in kept.iter().enumerate() {
        let pin = kept.pin(&store.patience()).unwrap();
        assert!(*pin == *contents(i as u64, MIB), "{i}");
    }
}
