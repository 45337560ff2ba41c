//! Calls to functions: what goes in, what comes out, how deep, how wide, from where.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Gate, arrive, pass, shared, until};
use mobula::prelude::*;
use mobula::{Error, value};

#[remote]
fn square(x: u64) -> u64 {
    x * x
}

#[remote]
fn nothing() {}

#[remote]
fn both(x: u8, s: String) -> (String, u8) {
    (s, x)
}

#[remote]
fn half(x: u32) -> Result<u32, String> {
    if x.is_multiple_of(2) {
        Ok(x / 2)
    } else {
        Err(format!("{x} is odd"))
    }
}

#[remote]
fn maybe(x: Option<u32>) -> Option<u32> {
    x.map(|x| x + 1)
}

#[remote]
fn stand(gate: u64) -> u64 {
    pass(gate)
}

#[remote]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[test]
fn one_many_and_tuples_come_back_in_order() {
    shared(|_| {
        assert_eq!(mobula::get(square::remote(7)).unwrap(), 49);
        let squares: Vec<_> = (0..100).map(square::remote).collect();
        let expected: Vec<u64> = (0..100).map(|x| x * x).collect();
        assert_eq!(mobula::get(&squares).unwrap(), expected);
        assert_eq!(mobula::get(&squares[10..20]).unwrap(), expected[10..20]);
        assert_eq!(
            mobula::get([square::remote(1), square::remote(2)]).unwrap(),
            [1, 4]
        );
        let pair = both::remote(3, "three");
        let (a, (b, c), d) =
            mobula::get((&squares[9], (&pair, &squares), nothing::remote())).unwrap();
        assert_eq!((a, b, c, d), (81, ("three".to_owned(), 3), expected, ()));
        // Taking a value does not use it up.
        assert_eq!(mobula::get(&pair).unwrap(), mobula::get(&pair).unwrap());
        assert!(
            mobula::get(&Vec::<ObjectRef<u64>>::new())
                .unwrap()
                .is_empty()
        );
    });
}

#[test]
fn results_of_every_kind() {
    shared(|_| {
        mobula::get(nothing::remote()).unwrap();
        assert_eq!(mobula::get(half::remote(8)).unwrap(), 4);
        let odd = mobula::get(half::remote(9)).unwrap_err();
        assert_eq!(odd.failure().unwrap().message, "9 is odd");
        assert_eq!(mobula::get(maybe::remote(None)).unwrap(), None);
        assert_eq!(mobula::get(maybe::remote(Some(1))).unwrap(), Some(2));
    });
}

#[remote]
fn bytes(n: usize) -> Vec<u8> {
    vec![0xa5; n]
}

#[remote]
fn digest(v: Vec<u8>) -> (usize, u64) {
    (v.len(), v.iter().take(1000).map(|b| u64::from(*b)).sum())
}

#[remote]
fn digest_in_place(v: &[u8]) -> (usize, u64) {
    (v.len(), v.iter().take(1000).map(|b| u64::from(*b)).sum())
}

#[remote]
fn exactly_512() -> [u8; 512] {
    [1; 512]
}

#[remote]
fn exactly_513() -> [u8; 513] {
    [2; 513]
}

#[test]
fn results_and_arguments_of_every_size() {
    shared(|mobula| {
        let sizes = [
            0,
            1,
            7,
            8,
            9,
            15,
            16,
            17,
            31,
            32,
            33,
            400,
            503,
            504,
            505,
            511,
            512,
            513,
            1000,
            16 << 10,
            1 << 20,
        ];
        for n in sizes.into_iter().chain([100_000_000]) {
            let r = bytes::remote(n);
            let seen = mobula::view(&r).unwrap();
            assert!(seen.as_slice() == vec![0xa5; n], "{n} bytes");
            let few = n.min(1000) as u64;
            assert_eq!(
                mobula::get(digest_in_place::remote(&r)).unwrap(),
                (n, few * 0xa5),
                "{n} bytes"
            );
            if n <= 1 << 20 {
                assert_eq!(mobula::get(&r).unwrap(), vec![0xa5; n]);
                let copied = mobula::get(digest::remote(&r)).unwrap();
                assert_eq!(copied, (n, few * 0xa5), "{n} bytes by reference");
                let v = vec![0xa5u8; n];
                assert_eq!(
                    mobula::get(digest::remote(&v)).unwrap(),
                    (n, few * 0xa5),
                    "{n} bytes by value"
                );
            }
        }
        let inside = mobula::view(&exactly_512::remote()).unwrap();
        let outside = mobula::view(&exactly_513::remote()).unwrap();
        assert_eq!((*inside, *outside), ([1; 512], [2; 513]));
        assert!(!inside.is_shared(), "512 bytes live in the record");
        assert!(outside.is_shared(), "513 bytes live in the store");
        drop((inside, outside));
        until(|| mobula.store().used == 0);
    });
}

#[value]
#[derive(Debug, PartialEq)]
struct Named {
    name: String,
    weights: Vec<f64>,
}

#[remote]
fn sum(v: &[f32]) -> f32 {
    v.iter().sum()
}

#[remote]
fn shout(s: &str) -> String {
    s.to_uppercase()
}

#[remote]
fn look(n: &Archived<Named>, scale: f64, suffix: &str) -> String {
    let total: f64 = n.weights.iter().map(|w| w.to_native()).sum();
    format!("{}{suffix} {}", n.name, total * scale)
}

#[test]
fn parameters_may_borrow() {
    shared(|_| {
        assert_eq!(mobula::get(sum::remote(vec![1.0, 2.0])).unwrap(), 3.0);
        assert_eq!(mobula::get(sum::remote(&[0.5f32; 4])).unwrap(), 2.0);
        let many = vec![1.0f32; 100_000];
        assert_eq!(mobula::get(sum::remote(&many[..])).unwrap(), 100_000.0);
        assert_eq!(mobula::get(sum::remote(Vec::<f32>::new())).unwrap(), 0.0);
        assert_eq!(mobula::get(shout::remote("quiet")).unwrap(), "QUIET");
        assert_eq!(
            mobula::get(shout::remote("q".repeat(3000))).unwrap(),
            "Q".repeat(3000)
        );
        assert_eq!(
            mobula::get(shout::remote(shout::remote("twice"))).unwrap(),
            "TWICE"
        );
        let named = Named {
            name: "net".into(),
            weights: vec![1.5, 2.0],
        };
        assert_eq!(
            mobula::get(look::remote(&named, 2.0, "!")).unwrap(),
            "net! 7"
        );
        let put = mobula::put(&named).unwrap();
        assert_eq!(
            mobula::get(look::remote(&put, 1.0, shout::remote("x"))).unwrap(),
            "netX 3.5"
        );
    });
}

#[remote]
fn address_of(v: &[f32]) -> usize {
    v.as_ptr().addr()
}

#[remote]
fn address_of_archive(v: &Archived<Vec<f32>>) -> usize {
    v.as_ptr().addr()
}

#[remote]
fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32).collect()
}

#[test]
fn a_value_is_read_where_it_lies() {
    shared(|_| {
        for r in [
            ramp::remote(10),
            ramp::remote(5000),
            mobula::put(&vec![1f32; 300]).unwrap(),
        ] {
            let view = mobula::view(&r).unwrap();
            let at = view.as_slice().as_ptr().addr();
            assert_eq!(mobula::get(address_of::remote(&r)).unwrap(), at);
            assert_eq!(mobula::get(address_of_archive::remote(&r)).unwrap(), at);
            assert_eq!(
                mobula::view(&r.clone()).unwrap().as_slice().as_ptr().addr(),
                at
            );
            // Two tasks at once see the same memory.
            let both = [address_of::remote(&r), address_of::remote(r)];
            assert_eq!(mobula::get(both).unwrap(), [at, at]);
        }
    });
}

#[remote]
fn total(parts: Vec<u64>) -> u64 {
    parts.iter().sum()
}

#[remote]
fn total_in_place(parts: &[u64]) -> u64 {
    parts.iter().sum()
}

#[remote]
fn join_words(words: Vec<String>) -> String {
    words.join(" ")
}

#[test]
fn ten_thousand_tasks_into_one() {
    shared(|mobula| {
        let parts: Vec<_> = (0..10_000).map(square::remote).collect();
        let expected: u64 = (0..10_000).map(|x| x * x).sum();
        assert_eq!(mobula::get(total::remote(&parts)).unwrap(), expected);
        assert_eq!(
            mobula::get(total_in_place::remote(&parts[..])).unwrap(),
            expected
        );
        assert_eq!(mobula::get(total::remote(parts)).unwrap(), expected);
        let words: Vec<_> = ["a", "b"].iter().map(|w| shout::remote(*w)).collect();
        assert_eq!(mobula::get(join_words::remote(words)).unwrap(), "A B");
        assert_eq!(
            mobula::get(total::remote(Vec::<ObjectRef<u64>>::new())).unwrap(),
            0
        );
        let twice = square::remote(3);
        assert_eq!(
            mobula::get(total::remote(vec![twice.clone(), twice])).unwrap(),
            18
        );
        until(|| mobula.store().used == 0);
    });
}

#[value]
struct Bundle {
    parts: Vec<ObjectRef<u64>>,
    named: HashMap<String, ObjectRef<String>>,
    maybe: Option<ObjectRef<()>>,
    padding: String,
}

#[remote]
fn open_bundle(b: Bundle) -> Result<(u64, String, bool), Error> {
    let total = mobula::get(&b.parts)?.iter().sum();
    let mut names: Vec<_> = b.named.into_iter().collect();
    names.sort_by(|a, b| a.0.cmp(&b.0));
    let mut text = String::new();
    for (name, r) in names {
        text += &format!("{name}={} ", mobula::get(r)?);
    }
    Ok((total, text, b.maybe.is_some()))
}

#[remote]
fn tells_ready(r: Vec<ObjectRef<u64>>) -> Vec<bool> {
    r.iter().map(ObjectRef::is_ready).collect()
}

#[remote]
fn hand_on(b: Bundle) -> Vec<ObjectRef<u64>> {
    b.parts
}

#[test]
fn references_inside_values_travel_as_references() {
    shared(|mobula| {
        // Small enough for the call, large enough for the store.
        for padding in [0, 300, 3000, 400_000] {
            let bundle = |maybe| Bundle {
                parts: (1..=3).map(square::remote).collect(),
                named: [("a", "x"), ("b", "y")]
                    .map(|(k, v)| (k.to_owned(), shout::remote(v)))
                    .into(),
                maybe,
                padding: " ".repeat(padding),
            };
            let done = mobula::get(open_bundle::remote(bundle(None))).unwrap();
            assert_eq!(done, (14, "a=X b=Y ".to_owned(), false), "{padding}");
            let put = mobula::put(&bundle(Some(nothing::remote()))).unwrap();
            assert_eq!(
                mobula::get(open_bundle::remote(&put)).unwrap(),
                (14, "a=X b=Y ".to_owned(), true)
            );
            // The references come back out, through a second value that outlives the first.
            let parts = mobula::get(hand_on::remote(put)).unwrap();
            assert_eq!(mobula::get(&parts).unwrap(), [1, 4, 9]);
        }
        // Nobody waits for what is inside a value.
        let gate = Gate::new();
        let pending = stand::remote(gate.id());
        let refs = vec![pending.clone(), mobula::put(&1u64).unwrap()];
        assert_eq!(
            mobula::get(tells_ready::remote(refs)).unwrap(),
            [false, true]
        );
        gate.open();
        mobula::get(pending).unwrap();
        until(|| mobula.store().used == 0);
    });
}

#[remote]
fn follow(r: ObjectRef<u64>) -> u64 {
    mobula::get(r).unwrap() + 1
}

#[test]
fn a_reference_parameter_gets_the_reference_and_one_around_it_is_awaited() {
    shared(|_| {
        let r = square::remote(5);
        assert_eq!(mobula::get(follow::remote(&r)).unwrap(), 26);
        let around = mobula::put(&r).unwrap();
        assert_eq!(mobula::get(follow::remote(around)).unwrap(), 26);
    });
}

#[remote]
fn deep(n: u64) -> u64 {
    if n == 0 {
        0
    } else {
        1 + mobula::get(deep::remote(n - 1)).unwrap()
    }
}

#[remote]
fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = (fib::remote(n - 1), fib::remote(n - 2));
    mobula::get(&a).unwrap() + mobula::get(&b).unwrap()
}

#[test]
fn ten_thousand_calls_deep() {
    shared(|mobula| {
        assert_eq!(mobula::get(deep::remote(10_000)).unwrap(), 10_000);
        assert_eq!(mobula::get(fib::remote(16)).unwrap(), 987);
        until(|| mobula.executors() == 2);
    });
}

#[test]
fn deep_calls_from_a_thread_with_a_small_stack() {
    shared(|_| {
        for kib in [64, 256, 1024] {
            let thread = std::thread::Builder::new().stack_size(kib << 10);
            let done = thread.spawn(|| {
                let d = mobula::get(deep::remote(2000)).unwrap();
                (
                    d,
                    mobula::get(&(0..50).map(deep::remote).collect::<Vec<_>>()).unwrap(),
                )
            });
            let (d, many) = done.unwrap().join().unwrap();
            assert_eq!((d, many), (2000, (0..50).collect()));
        }
    });
}

#[test]
fn a_hundred_thousand_calls_wide() {
    shared(|_| {
        let refs: Vec<_> = (0..100_000).map(square::remote).collect();
        let expected: Vec<u64> = (0..100_000).map(|x| x * x).collect();
        assert_eq!(mobula::get(&refs).unwrap(), expected);
    });
}

#[test]
fn a_chain_of_ten_thousand_arguments() {
    shared(|_| {
        let mut r = add::remote(0, 0);
        for _ in 0..10_000 {
            r = add::remote(r, 1);
        }
        assert_eq!(mobula::get(r).unwrap(), 10_000);
    });
}

#[remote]
fn fan_out(width: u64, depth: u32) -> u64 {
    if depth == 0 {
        return 1;
    }
    let children: Vec<_> = (0..width)
        .map(|_| fan_out::remote(width, depth - 1))
        .collect();
    if depth.is_multiple_of(2) {
        // Here the sum is a task of its own, and this call ends before its children have.
        return mobula::get(total::remote(children)).unwrap();
    }
    mobula::get(&children).unwrap().iter().sum()
}

#[test]
fn tasks_that_make_tasks() {
    shared(|_| {
        assert_eq!(mobula::get(fan_out::remote(4, 6)).unwrap(), 4096);
        assert_eq!(mobula::get(fan_out::remote(200, 2)).unwrap(), 40_000);
    });
}

#[test]
fn many_threads_at_once() {
    shared(|_| {
        let shared_input = square::remote(2);
        std::thread::scope(|s| {
            for t in 0..16u64 {
                let input = &shared_input;
                s.spawn(move || {
                    for i in 0..100 {
                        let (x, y) = (square::remote(i), add::remote(input, t));
                        let z = add::remote(&x, &y);
                        assert_eq!(
                            mobula::get((z, fib::remote(5), x, y)).unwrap(),
                            (i * i + 4 + t, 5, i * i, 4 + t)
                        );
                    }
                });
            }
        });
    });
}

#[test]
fn one_result_for_many_waiting_threads() {
    shared(|_| {
        let gate = Gate::new();
        let r = stand::remote(gate.id());
        std::thread::scope(|s| {
            let waiting: Vec<_> = (0..8)
                .map(|_| s.spawn(|| mobula::get(&r).unwrap()))
                .collect();
            gate.await_arrivals(1);
            gate.open();
            for w in waiting {
                assert_eq!(w.join().unwrap(), 0);
            }
        });
        assert_eq!(gate.arrived(), 1, "it ran once");
    });
}

#[test]
fn what_a_thread_leaves_in_its_queue_is_run() {
    shared(|_| {
        let gate = Gate::new();
        let busy: Vec<_> = (0..2).map(|_| stand::remote(gate.id())).collect();
        gate.await_arrivals(2);
        let left: Vec<_> = std::thread::spawn(|| (0..1000).map(square::remote).collect())
            .join()
            .unwrap();
        assert!(left.iter().all(|r| !r.is_ready()), "both CPUs are taken");
        gate.open();
        assert_eq!(mobula::get(&left).unwrap().len(), 1000);
        mobula::get(busy).unwrap();
    });
}

#[remote]
fn blocked_on(inner: ObjectRef<u64>, gate: u64) -> u64 {
    arrive(gate);
    mobula::get(inner).unwrap()
}

#[test]
fn blocked_parents_lend_their_cpus() {
    shared(|mobula| {
        let (hold, came) = (Gate::new(), Gate::new());
        let child = later::remote(hold.id());
        let parents: Vec<_> = (0..16)
            .map(|_| blocked_on::remote(&child, came.id()))
            .collect();
        // All sixteen can only begin if those before them have lent their two CPUs.
        came.await_arrivals(16);
        hold.open();
        assert_eq!(mobula::get(&parents).unwrap(), [5; 16]);
        until(|| mobula.executors() == 2);
    });
}

/// Takes no thread while it waits.
#[remote]
async fn later(gate: u64) -> u64 {
    while !common::is_open(gate) {
        tokio::task::yield_now().await;
    }
    5
}

#[remote]
fn parent_of(x: u64) -> u64 {
    mobula::get(square::remote(x)).unwrap()
}

#[test]
fn nested_calls_when_every_cpu_is_busy_with_a_parent() {
    shared(|_| {
        let parents: Vec<_> = (0..2000).map(parent_of::remote).collect();
        assert_eq!(mobula::get(&parents).unwrap()[1999], 1999 * 1999);
    });
}

static RUNS: AtomicU64 = AtomicU64::new(0);

#[remote]
fn count_and_fill(gate: u64) -> Vec<u8> {
    pass(gate);
    RUNS.fetch_add(1, Ordering::SeqCst);
    vec![1; 100_000]
}

#[test]
fn a_dropped_reference_neither_cancels_nor_leaks() {
    shared(|mobula| {
        RUNS.store(0, Ordering::SeqCst);
        let gate = Gate::new();
        let running = count_and_fill::remote(gate.id());
        gate.await_arrivals(1);
        let second = count_and_fill::remote(gate.id());
        gate.await_arrivals(2);
        drop(count_and_fill::remote(gate.id())); // before it began
        drop(running); // while it runs
        drop(digest::remote(&second)); // waiting for an argument
        gate.open();
        mobula::get(&second).unwrap();
        until(|| RUNS.load(Ordering::SeqCst) == 3);
        drop(second); // after it ended
        until(|| mobula.store().objects == 0);
        assert_eq!(mobula.store().used, 0);
    });
}

#[test]
fn wait_returns_the_first_that_ended_and_the_rest() {
    shared(|_| {
        let gate = Gate::new();
        let slow = stand::remote(gate.id());
        let quick = square::remote(1);
        let failing = half::remote(3);
        mobula::get(&quick).unwrap();
        let _ = mobula::get(&failing);
        gate.await_arrivals(1);
        let refs = vec![slow.clone(), quick.clone(), slow.clone()];
        assert_eq!(
            mobula::wait(&refs).run().unwrap(),
            (vec![quick.clone()], vec![slow.clone(), slow.clone()])
        );
        // A failure has ended too.
        let (ready, pending) = mobula::wait(&[failing]).run().unwrap();
        assert_eq!((ready.len(), pending.len()), (1, 0));
        // None, too many, and no time at all.
        assert_eq!(mobula::wait(&refs).num_returns(0).run().unwrap().1, refs);
        let (ready, pending) = mobula::wait(&refs)
            .num_returns(9)
            .timeout(Duration::ZERO)
            .run()
            .unwrap();
        assert_eq!((ready.len(), pending.len()), (1, 2));
        let (ready, _) = mobula::wait(&refs)
            .num_returns(2)
            .timeout(Duration::from_millis(5))
            .run()
            .unwrap();
        assert_eq!(ready, [quick]);
        assert_eq!(mobula::wait::<u64>(&[]).run().unwrap(), (vec![], vec![]));
        gate.open();
        let (ready, pending) = mobula::wait(&refs).num_returns(9).run().unwrap();
        assert_eq!((ready, pending.len()), (refs, 0));
    });
}

#[test]
fn wait_for_each_of_a_thousand_in_turn() {
    shared(|_| {
        let mut pending: Vec<_> = (0..1000).map(square::remote).collect();
        let mut sum = 0;
        while !pending.is_empty() {
            let (ready, rest) = mobula::wait(&pending).num_returns(7).run().unwrap();
            assert!(!ready.is_empty() && ready.len() <= 7);
            sum += mobula::get(&ready).unwrap().iter().sum::<u64>();
            pending = rest;
        }
        assert_eq!(sum, (0..1000).map(|x| x * x).sum::<u64>());
    });
}

#[test]
fn a_timeout_says_what_was_awaited() {
    shared(|_| {
        let gate = Gate::new();
        let busy: Vec<_> = (0..2).map(|_| stand::remote(gate.id())).collect();
        gate.await_arrivals(2);
        let soon = Duration::from_millis(5);
        let said = |r: &ObjectRef<u64>| match mobula::get_timeout(r, soon).unwrap_err() {
            Error::Timeout { waited, awaited } => {
                assert!(waited >= soon && waited < soon * 1000);
                awaited
            }
            e => panic!("{e}"),
        };
        let running = said(&busy[0]);
        assert!(
            running.contains("stand") && running.contains("running"),
            "{running}"
        );
        let queued = square::remote(1);
        let text = said(&queued);
        assert!(text.contains("square") && text.contains("queued"), "{text}");
        let waiting = add::remote(&busy[0], &busy[1]);
        let text = said(&waiting);
        assert!(
            text.contains("add") && text.contains("2 of its arguments"),
            "{text}"
        );
        let several = [queued.clone(), waiting.clone(), busy[0].clone()];
        let e = mobula::get_timeout(&several, soon).unwrap_err().to_string();
        assert!(e.contains("3 of 3") && e.contains("square"), "{e}");
        // Having timed out, each can be awaited again.
        gate.open();
        mobula::get((several, waiting, busy)).unwrap();
    });
}

#[test]
fn a_timeout_ends_the_wait_although_the_call_could_run_here() {
    shared(|_| {
        let gate = Gate::new();
        // If the caller ran it itself, it would stand at the gate for good.
        let r = stand::remote(gate.id());
        let e = mobula::get_timeout(&r, Duration::ZERO).unwrap_err();
        assert!(matches!(e, Error::Timeout { .. }), "{e}");
        let many: Vec<_> = (0..5).map(|_| stand::remote(gate.id())).collect();
        let e = mobula::get_timeout(&many, Duration::from_millis(3)).unwrap_err();
        assert!(matches!(e, Error::Timeout { .. }), "{e}");
        gate.open();
        mobula::get((many, r)).unwrap();
    });
}

#[remote]
fn impatient(gate: u64) -> bool {
    let inner = stand::remote(gate);
    let timed_out = mobula::get_timeout(&inner, Duration::from_millis(3)).is_err();
    arrive(gate);
    mobula::get(inner).unwrap();
    timed_out
}

#[test]
fn a_timeout_inside_a_task() {
    shared(|_| {
        let gate = Gate::new();
        let r = impatient::remote(gate.id());
        gate.await_arrivals(2);
        gate.open();
        assert!(mobula::get(r).unwrap());
    });
}

#[remote]
fn patient(x: u64) -> u64 {
    mobula::get_timeout(square::remote(x), common::LIMIT).unwrap()
}

#[remote]
fn attentive(x: u64) -> u64 {
    let inner = square::remote(x);
    mobula::wait(std::slice::from_ref(&inner)).run().unwrap();
    mobula::get(inner).unwrap()
}

#[test]
fn parents_that_cannot_help_do_not_pile_up() {
    shared(|mobula| {
        let parent = |x| {
            if x % 2 == 0 {
                patient::remote(x)
            } else {
                attentive::remote(x)
            }
        };
        let refs: Vec<_> = (0..5000).map(parent).collect();
        let mut most = 0;
        until(|| {
            most = most.max(mobula.executors());
            refs.iter().all(ObjectRef::is_ready)
        });
        // What the blocked wait for goes before parents that would block as well.
        assert!(most < 300, "{most} threads");
        assert_eq!(mobula::get(&refs).unwrap()[4999], 4999 * 4999);
        until(|| mobula.executors() == 2);
    });
}
