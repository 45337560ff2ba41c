//! Records by themselves: what they hold, who frees them, and what is left afterwards.
//!
//! Invariant: every reference, capability and object that a record took in is given up once. Left out: orders of events
//! between threads, which `loom_tests` tries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::entry::{FnEntry, Kind};
use super::super::pin::Pin;
use super::super::waiter::{Waiter, WaiterKind};
use super::*;
use crate::store::{Store, StoreOptions};

static ENTRY: FnEntry = FnEntry::inert("test", Kind::Task);

fn blank(phase: Phase) -> Blank {
    Blank {
        entry: &ENTRY,
        refs: 1,
        phase,
        caller: 3,
        id: 7,
        target: None,
        extra: None,
        caps: None,
    }
}

/// A call with these arguments, laid out as the writer of calls does.
fn call(blank: Blank, slots: &[Slot], inline: &[u8], result_size: usize) -> RawRef {
    let end = BODY + slots.len() * SLOT + inline.len();
    let mut arguments = vec![0; (end - BODY).next_multiple_of(32)];
    for (slot, place) in slots.iter().zip(arguments.chunks_mut(SLOT)) {
        slot.write_to(place);
    }
    arguments[slots.len() * SLOT..end - BODY].copy_from_slice(inline);
    // SAFETY: the slots stand first, and what they own is given up here.
    unsafe { with_args(blank, slots.len(), &arguments, end, result_size) }
}

fn value(bytes: &[u8]) -> RawRef {
    with_inline_value(blank(Phase::Done), bytes)
}

fn ref_slot(r: RawRef) -> Slot {
    Slot {
        tag: SlotTag::Ref,
        end: 0,
        ptr: r.into_raw().cast(),
    }
}

fn inline_slot(end: usize) -> Slot {
    Slot {
        tag: SlotTag::Inline,
        end: end as u32,
        ptr: std::ptr::null_mut(),
    }
}

fn refs(r: &RawRef) -> u32 {
    r.refs.load(Ordering::Relaxed)
}

/// A claimed call without arguments.
fn claimed(result_size: usize) -> RawRef {
    let r = call(blank(Phase::Queued), &[], &[], result_size);
    assert!(r.claim());
    r
}

/// Capabilities of this kind are counted by what they refer to.
static COUNTED: CapKind = CapKind {
    name: "a counter",
    acquire: |p| {
        // SAFETY: made by `counted`, whose counter the test keeps.
        unsafe { p.cast::<AtomicUsize>().as_ref() }.fetch_add(1, Ordering::Relaxed);
    },
    release: |p| {
        // SAFETY: as above.
        unsafe { p.cast::<AtomicUsize>().as_ref() }.fetch_sub(1, Ordering::Relaxed);
    },
};

/// A capability, and how many of it there are; to be kept until all of them are gone.
fn counted() -> (Cap, Arc<AtomicUsize>) {
    let n = Arc::new(AtomicUsize::new(1));
    // SAFETY: the count is the cap's.
    (
        unsafe { Cap::from_raw::<()>(NonNull::from(&*n).cast(), &COUNTED) },
        n,
    )
}

#[test]
fn a_header_is_what_it_should_be() {
    assert_eq!(size_of::<Record>(), BODY);
    assert_eq!(BODY % memory::ALIGN, PAD);
    assert_eq!((size_of::<Slot>(), SLOT), (16, 16));
    assert_eq!(size_of::<Option<RawRef>>(), 8);
}

#[test]
fn a_new_call_holds_its_arguments() {
    let object = value(&[1; 8]);
    let inline = [5_u8; 40];
    let begin = BODY + 2 * SLOT;
    let slots = [inline_slot(begin + 24), ref_slot(object.clone())];
    let r = call(blank(Phase::Waiting), &slots, &inline, 8);
    assert_eq!(
        (phase(r.state()), r.name(), r.id, r.caller),
        (Phase::Waiting, "test", 7, 3)
    );
    assert!(r.target().is_none() && r.extra().is_none() && r.stored().is_none());
    assert_eq!((r.base().addr() % memory::ALIGN, refs(&object)), (0, 2));
    assert!(BODY + r.room() >= begin + inline.len());
    // SAFETY: this thread made it, and it is waiting.
    unsafe {
        assert_eq!(r.slots().len(), 2);
        let arg = r.inline_arg(r.slots()[0].end);
        assert_eq!(&arg[arg.len() - 24..], [5; 24]);
        assert!(r.slots()[1].tag == SlotTag::Ref && object.same(&*r.slots()[1].ptr.cast()));
    }
    assert!(!r.claim() && r.make_ready() && !r.claim_waiting() && r.claim());
    // SAFETY: claimed, and the borrows above have ended.
    unsafe { r.drop_args() };
    assert_eq!(refs(&object), 1);
    // SAFETY: claimed.
    unsafe {
        assert!(r.slots().is_empty());
        r.drop_args(); // there are none any more
        r.set_inline(&[9; 8], None);
    }
    assert!(r.finish(Phase::Done).is_none());
    assert_eq!(bytes(&r), [9; 8]);
}

#[test]
fn arguments_of_a_call_that_never_ran_are_given_up() {
    let object = value(&[1; 8]);
    let (cap, caps) = counted();
    let blank = Blank {
        caps: Some(Box::from([cap])),
        ..blank(Phase::Queued)
    };
    let r = call(
        blank,
        &[ref_slot(object.clone()), ref_slot(object.clone())],
        &[],
        0,
    );
    assert_eq!((refs(&object), caps.load(Ordering::Relaxed)), (3, 1));
    drop(r.clone());
    assert_eq!(refs(&object), 3);
    drop(r);
    assert_eq!((refs(&object), caps.load(Ordering::Relaxed)), (1, 0));
}

#[test]
fn a_result_lies_in_the_record_or_in_a_block_of_its_own() {
    for len in [0, 1, 8, 32, 33, 100, 512] {
        let archive: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let r = claimed(if len % 2 == 0 { len } else { 0 });
        let (cap, caps) = counted();
        // SAFETY: claimed, without arguments.
        unsafe {
            if len <= r.room() {
                r.set_inline(&archive, Some(Box::from([cap])));
            } else {
                r.set_boxed(&archive, Some(Box::from([cap])));
            }
        }
        assert!(r.finish(Phase::Done).is_none());
        assert!(bytes(&r).ends_with(&archive));
        assert_eq!(
            bytes(&r).as_ptr().addr() % memory::ALIGN,
            if len <= r.room() { PAD } else { 0 }
        );
        assert!(r.peek_error().is_none() && r.stored().is_none());
        // SAFETY: `Done`.
        assert_eq!(unsafe { r.caps() }.len(), 1);
        drop(r);
        assert_eq!(caps.load(Ordering::Relaxed), 0, "{len}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps shared memory")]
fn a_stored_object_is_freed_with_its_record() {
    let options = StoreOptions {
        capacity: Some(1 << 20),
        ..StoreOptions::default()
    };
    let store = Store::open(options).unwrap();
    let seal = || {
        let mut draft = store
            .create(1000, crate::base::Origin::Result("test"))
            .unwrap();
        draft.write_at(0, &[4; 1000]);
        draft.seal()
    };
    let used = store.stats().used;
    let put = with_stored_value(blank(Phase::Done), seal());
    let result = claimed(0);
    // SAFETY: claimed, without arguments.
    unsafe { result.set_stored(seal(), None) };
    result.finish(Phase::Done);
    for r in [put, result] {
        assert_eq!(Pin::new(&r).unwrap().bytes(), [4; 1000]);
        assert_eq!(r.stored().map(|s| s.len()), Some(1000));
    }
    assert_eq!(store.stats().used, used);
}

#[test]
fn errors_are_shared_and_seen() {
    let early = failed(blank(Phase::Queued), Error::ShutDown);
    assert_eq!(phase(early.state()), Phase::Failed);
    assert!(matches!(early.error(), Error::ShutDown));

    let error = Arc::new(Error::Cancelled { function: "f" });
    let late = claimed(0);
    // SAFETY: claimed.
    unsafe { late.set_error(Arc::clone(&error)) };
    late.finish(Phase::Failed);
    assert_eq!(Arc::strong_count(&error), 2);
    assert!(late.peek_error().is_some_and(|e| Arc::ptr_eq(&e, &error)));
    assert!(matches!(late.error(), Error::Cancelled { .. }));
    drop(late);
    assert_eq!(Arc::strong_count(&error), 1);

    let object = value(&[]);
    let cancelled = call(blank(Phase::Waiting), &[ref_slot(object.clone())], &[], 0);
    assert!(cancelled.claim_waiting());
    // SAFETY: claimed.
    unsafe { cancelled.set_error_keeping_args(Arc::clone(&error)) };
    cancelled.finish(Phase::Failed);
    assert_eq!((refs(&object), Arc::strong_count(&error)), (2, 2));
    assert!(cancelled.bytes_if_done().is_none());
    drop(cancelled);
    assert_eq!((refs(&object), Arc::strong_count(&error)), (1, 1));
}

/// The value of a record that keeps it itself.
fn bytes(r: &RawRef) -> &[u8] {
    assert!(r.stored().is_none());
    // SAFETY: not in the store.
    unsafe { r.bytes() }
}

impl RawRef {
    fn bytes_if_done(&self) -> Option<&[u8]> {
        (phase(self.state()) == Phase::Done).then(|| bytes(self))
    }
}

#[test]
fn waiters_come_newest_first_and_by_key() {
    let r = claimed(0);
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let waiter = |key| {
        let order = Arc::clone(&order);
        Waiter::new(
            key,
            WaiterKind::Call(Box::new(move || order.lock().push(key))),
        )
    };
    for key in 1..=4 {
        assert!(r.add_waiter(waiter(key)).is_ok());
    }
    assert!(
        r.remove_waiter(3)
            .is_some_and(|w| w.key == 3 && w.next.is_null())
    );
    assert!(r.remove_waiter(3).is_none());
    // SAFETY: claimed, without arguments.
    unsafe { r.set_inline(&[], None) };
    let mut list = r.finish(Phase::Done);
    while let Some(waiter) = list {
        let WaiterKind::Call(f) = waiter.kind else {
            unreachable!()
        };
        f();
        // SAFETY: the list is ours; its links are leaked boxes.
        list = (!waiter.next.is_null()).then(|| unsafe { Box::from_raw(waiter.next) });
    }
    assert_eq!(*order.lock(), [4, 2, 1]);
    assert!(r.add_waiter(waiter(5)).is_err_and(|w| w.key == 5));
}

#[test]
fn references_travel_as_capabilities() {
    let r = value(&[1]);
    let cap = r.clone().into_cap::<u64>();
    assert_eq!(refs(&r), 2);
    assert!(
        RawRef::from_cap::<String>(&cap).is_none(),
        "of another type"
    );
    let back = RawRef::from_cap::<u64>(&cap).unwrap();
    assert!(back.same(&r));
    drop((cap.clone(), cap));
    assert_eq!((refs(&r), r.is_unique()), (2, false));
    drop(back);
    assert!(r.is_unique());
    let (cap, _count) = counted();
    assert!(RawRef::from_cap::<u64>(&cap).is_none());
    drop(cap);
}

/// Runs on a stack that a recursion over the chains below would not fit on.
fn on_a_small_stack(f: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .stack_size(128 << 10)
        .spawn(f)
        .unwrap()
        .join()
        .unwrap();
}

const DEEP: usize = if cfg!(miri) { 500 } else { 1_000_000 };

#[test]
fn a_deep_chain_of_arguments_is_freed_without_recursion() {
    let first = value(&[1]);
    let mut last = first.clone();
    for _ in 0..DEEP {
        last = call(blank(Phase::Queued), &[ref_slot(last)], &[], 0);
    }
    on_a_small_stack(move || drop(last));
    assert!(first.is_unique());
}

#[test]
fn a_deep_chain_of_objects_inside_objects_is_freed_without_recursion() {
    let first = value(&[1]);
    let mut last = first.clone();
    for i in 0..DEEP {
        let caps: Option<Box<[Cap]>> = Some(Box::from([
            last.into_cap::<u64>(),
            first.clone().into_cap::<u64>(),
        ]));
        last = if i % 2 == 0 {
            with_inline_value(
                Blank {
                    caps,
                    ..blank(Phase::Done)
                },
                &[2],
            )
        } else {
            let r = claimed(0);
            // SAFETY: claimed, without arguments.
            unsafe { r.set_boxed(&[2; 200], caps) };
            r.finish(Phase::Done);
            r
        };
    }
    assert_eq!(refs(&first) as usize, DEEP + 2);
    on_a_small_stack(move || drop(last));
    assert!(first.is_unique());
}

#[test]
fn a_chain_is_freed_while_its_thread_ends() {
    struct Late(Option<RawRef>);
    impl Drop for Late {
        fn drop(&mut self) {
            self.0 = None;
        }
    }
    thread_local! {
        static LATE: std::cell::RefCell<Late> = const { std::cell::RefCell::new(Late(None)) };
    }
    let first = value(&[1]);
    let chain = first.clone();
    on_a_small_stack(move || {
        LATE.with(|_| {});
        let mut last = chain;
        for _ in 0..DEEP / 10 {
            last = call(blank(Phase::Queued), &[ref_slot(last)], &[], 0);
        }
        LATE.with(|l| l.borrow_mut().0 = Some(last));
    });
    assert!(first.is_unique());
}

#[test]
fn counts_hold_when_threads_share_and_let_go() {
    let object = value(&[1; 8]);
    let rounds = if cfg!(miri) { 20 } else { 10_000 };
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..rounds {
                    let record = call(blank(Phase::Queued), &[ref_slot(object.clone())], &[], 8);
                    let other = record.clone();
                    let freed = std::thread::Builder::new();
                    if rounds < 100 {
                        freed.spawn(move || drop(other)).unwrap().join().unwrap();
                    } else {
                        drop(other);
                    }
                }
            });
        }
    });
    assert!(object.is_unique());
}

/// One thread runs calls and two others wait for them, over and over: whoever waits is let go and finds the value.
#[test]
fn calls_end_under_those_who_wait() {
    let rounds = if cfg!(miri) { 20 } else { 2_000 };
    for i in 0..rounds {
        let r = call(blank(Phase::Queued), &[], &[], 8);
        let waiting = |r: RawRef| {
            move || {
                let thread = WaiterKind::Thread(std::thread::current());
                let key = std::ptr::from_ref(&r).addr();
                if r.add_waiter(Waiter::new(key, thread)).is_ok() {
                    while !finished(r.state()) {
                        std::thread::park();
                    }
                }
                assert_eq!(bytes(&r), [i as u8; 8]);
            }
        };
        let threads = [
            std::thread::spawn(waiting(r.clone())),
            std::thread::spawn(waiting(r.clone())),
        ];
        assert!(r.claim());
        // SAFETY: claimed, without arguments.
        unsafe { r.set_inline(&[i as u8; 8], None) };
        let mut list = r.finish(Phase::Done);
        while let Some(waiter) = list {
            let WaiterKind::Thread(thread) = waiter.kind else {
                unreachable!()
            };
            // SAFETY: the list is ours; its links are leaked boxes.
            list = (!waiter.next.is_null()).then(|| unsafe { Box::from_raw(waiter.next) });
            thread.unpark();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
