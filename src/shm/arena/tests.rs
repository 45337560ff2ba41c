//! The arena over real memory: counts, hints, misuse, threads.

use super::*;

const F: Origin = Origin::Result("f");
const MIB: u64 = 1 << 20;

fn arena(capacity: u64) -> Arena {
    Arena::create(ArenaOptions {
        capacity,
        huge_pages: HugePages::Off,
        prefault: Prefault::Off,
    })
    .unwrap()
}

#[test]
fn counts_are_exact_and_return_to_zero() {
    let arena = arena(4 * MIB);
    let lens = [0, 1, 64, 1000, SMALL_MAX, SMALL_MAX + 1, 300_000];
    let live: Vec<Extent> = lens
        .iter()
        .map(|&len| arena.alloc(len, F).unwrap())
        .collect();
    let stats = arena.stats();
    assert_eq!(
        (stats.used, stats.objects),
        (lens.iter().sum::<usize>() as u64, 7)
    );
    assert!(stats.reserved >= stats.used && stats.frontier >= stats.reserved);
    assert_eq!(
        arena.holders(3),
        [Holder {
            origin: F,
            bytes: stats.used,
            objects: 7,
            spilled: 0
        }]
    );
    for extent in live {
        assert_eq!(extent.offset % 64, 0);
        // SAFETY: each extent is freed once and never read.
        unsafe { arena.free(extent) };
    }
    assert_eq!((arena.stats().used, arena.stats().objects), (0, 0));
    assert!(arena.holders(3).is_empty());
}

#[test]
fn hints_what_was_never_touched() {
    let arena = arena(4 * MIB);
    let first = arena.alloc_hinted(MIB as usize, F).unwrap();
    assert_eq!(first.cold_from, 0);
    // SAFETY: allocated above, freed once, never read.
    unsafe { arena.free(first.extent) };
    let cold_from = |len| arena.alloc_hinted(len, F).unwrap().cold_from;
    assert_eq!(cold_from(2 * MIB as usize), MIB as usize);
    assert_eq!(cold_from(100), 0, "a new chunk");
    assert_eq!(cold_from(100), 100);
}

#[test]
fn bogus_frees_panic_naming_the_offset() {
    let arena = arena(MIB);
    let small = arena.alloc(100, F).unwrap();
    let long = arena.alloc(100_000, F).unwrap();
    // SAFETY: freed once here; nobody reads it.
    unsafe { arena.free(small) };
    let cases = [
        small,
        Extent {
            offset: long.offset + PAGE,
            len: 100_000,
        },
        Extent {
            offset: long.offset,
            len: 99_999,
        },
        Extent {
            offset: 1 << 40,
            len: 1,
        },
    ];
    for extent in cases {
        // SAFETY: deliberately not live: the arena finds out and changes nothing.
        let free = std::panic::AssertUnwindSafe(|| unsafe { arena.free(extent) });
        let panic = std::panic::catch_unwind(free).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(
            message.contains(&format!("offset {:#x}", extent.offset)),
            "{message}"
        );
    }
    assert_eq!(arena.stats().objects, 1);
}

#[test]
fn capacity_is_checked_and_rounded() {
    let prefault = Prefault::Off;
    assert!(
        Arena::create(ArenaOptions {
            capacity: 0,
            huge_pages: HugePages::Off,
            prefault
        })
        .is_err()
    );
    assert!(
        Arena::create(ArenaOptions {
            capacity: u64::MAX,
            huge_pages: HugePages::Off,
            prefault
        })
        .is_err()
    );
    assert_eq!(arena(5000).capacity(), 8192);
    let tiny = arena(1);
    assert!(tiny.alloc(100, F).is_some(), "no chunk fits, a page does");
    assert!(tiny.alloc(1, F).is_none());
    assert_eq!(tiny.largest_free(), 0);
}

#[test]
fn threads_free_what_others_allocated() {
    // Room for all of it at once: nothing bounds how far the producers run ahead.
    let arena = arena(64 * MIB);
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (arena, send) = (&arena, send.clone());
            scope.spawn(move || {
                for i in 0..3000 {
                    send.send(arena.alloc(i % 2000, F).unwrap()).unwrap();
                }
            });
        }
        drop(send);
        for extent in receive {
            // SAFETY: sent once by whoever allocated it, freed once here.
            unsafe { arena.free(extent) };
        }
    });
    assert_eq!((arena.stats().used, arena.stats().objects), (0, 0));
    assert!(
        arena.alloc(8 * MIB as usize, F).is_some(),
        "everything coalesced"
    );
}

#[test]
fn the_limit_is_told_and_kept() {
    let arena = arena(4 * MIB);
    arena.set_limit(MIB);
    assert!(arena.alloc(2 * MIB as usize, F).is_none());
    assert_eq!(arena.limit_for(2 * MIB as usize, false), Some(2 * MIB));
    assert_eq!(
        arena.limit_for(5 * MIB as usize, false),
        None,
        "no limit would do"
    );
    assert_eq!(
        arena.limit_for(MIB as usize, false),
        None,
        "it fits as it is"
    );
    let first = arena.alloc(MIB as usize, F).unwrap();
    assert_eq!(arena.limit_for(100, false), Some(MIB + CHUNK));
    arena.set_limit(2 * MIB);
    assert!(arena.alloc(100, F).is_some());
    assert_eq!((arena.limit(), arena.touched()), (2 * MIB, MIB + CHUNK));
    // SAFETY: allocated above, freed once, never read.
    unsafe { arena.free(first) };
}

#[test]
fn owners_are_found_by_walking_and_by_offset() {
    let arena = arena(4 * MIB);
    let small = arena.alloc_hinted(100, F).unwrap();
    let long = arena.alloc_hinted(MIB as usize, F).unwrap();
    let owner = std::ptr::without_provenance::<()>(64);
    // SAFETY: live and ours.
    unsafe { long.tag.set(owner) };
    let mut seen = Vec::new();
    arena.each_live(|live| seen.push((live.offset, live.len, live.owner().addr())));
    seen.sort_unstable();
    let mut expected = [
        (small.extent.offset, 100, 0),
        (long.extent.offset, MIB, owner.addr()),
    ];
    expected.sort_unstable();
    assert_eq!(seen, expected);
    let at = |offset| arena.with_live(offset, |live| live.owner());
    assert_eq!(at(long.extent.offset), Some(owner));
    assert_eq!(at(small.extent.offset), Some(std::ptr::null()));
    assert_eq!(at(small.extent.offset + 64), None);
    assert_eq!(at(long.extent.offset + PAGE), None);
    // SAFETY: freed once; nobody reads it.
    unsafe { arena.free(long.extent) };
    assert_eq!(at(long.extent.offset), None);
}

#[test]
fn what_is_lent_owns_whole_pages() {
    for wanted in [HugePages::Off, HugePages::On] {
        let options = ArenaOptions {
            capacity: 7 * MIB,
            huge_pages: wanted,
            prefault: Prefault::Off,
        };
        let arena = Arena::create(options).unwrap();
        eprintln!("{wanted:?} gave {}", arena.pages());
        let grain = arena.grain();
        assert_eq!(arena.capacity(), (7 * MIB).next_multiple_of(grain));
        let small = arena.alloc(10, F).unwrap();
        let lent = arena.alloc_pages(100, F).unwrap().extent;
        let beside = arena.alloc(100_000, F).unwrap();
        assert!(lent.offset.is_multiple_of(grain));
        for other in [small, beside] {
            let end = other.offset + other.len;
            assert!(end <= lent.offset || other.offset >= lent.offset + grain);
        }
        for extent in [small, lent, beside] {
            // SAFETY: each extent is freed once and never read.
            unsafe { arena.free(extent) };
        }
        assert_eq!(arena.stats().objects, 0);
        assert!(arena.alloc_pages(arena.capacity() as usize, F).is_some());
    }
}
