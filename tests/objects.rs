//! The store: what fills it, what is said when it is full, and that everything comes back.

mod common;

use common::{Gate, alone, pass, until};
use mobula::prelude::*;
use mobula::{Config, Error, Origin, StoreFull};

const MIB: usize = 1 << 20;

fn small() -> Config {
    Config::new()
        .num_cpus(2.0)
        .object_store_memory(16 << 20)
        .no_spill()
        .store_patience(std::time::Duration::ZERO)
}

#[remote]
fn fill(n: usize) -> Vec<u8> {
    vec![1; n]
}

#[remote]
fn len(v: &[u8]) -> usize {
    v.len()
}

#[remote]
fn len_and_stand(v: &[u8], gate: u64) -> usize {
    pass(gate);
    v.len()
}

#[remote]
fn gather(v: Vec<Vec<u8>>) -> usize {
    v.len()
}

fn full(e: &Error) -> &StoreFull {
    match e {
        Error::StoreFull(full) => full,
        e => panic!("{e}"),
    }
}

#[test]
fn a_full_store_names_who_fills_it() {
    alone(small(), |mobula| {
        let put_line = line!() + 2; // as the formatter breaks the lines
        let puts: Vec<_> = (0..6)
            .map(|_| mobula::put(&vec![0u8; MIB]).unwrap())
            .collect();
        let create_line = line!() + 1;
        let made = mobula::create::<u64>(MIB / 2).unwrap().seal();
        let results: Vec<_> = (0..2).map(|_| fill::remote(MIB)).collect();
        mobula::wait(&results).num_returns(2).run().unwrap();
        let e = mobula::put(&vec![0u8; 8 * MIB]).unwrap_err();
        let said = full(&e);
        assert!(said.requested >= 8 << 20 && said.requested < (8 << 20) + 4096);
        assert_eq!(said.capacity, 16 << 20);
        assert!(said.used >= 12 << 20 && said.largest_free < 8 << 20);
        let at = |origin: &Origin, line: u32| match origin {
            Origin::Put(l) | Origin::Create(l) => {
                l.file().ends_with("tests/objects.rs") && l.line() == line
            }
            _ => false,
        };
        let h = &said.holders;
        assert!(
            at(&h[0].origin, put_line) && h[0].objects == 6 && h[0].bytes >= 6 << 20,
            "{h:?}"
        );
        assert!(at(&h[1].origin, create_line) && h[1].objects == 1, "{h:?}");
        assert!(
            h[2].origin == Origin::Result("objects::fill") && h[2].objects == 2,
            "{h:?}"
        );
        let text = e.to_string();
        for part in [
            "8388",
            "16777216",
            "objects.rs",
            "objects::fill",
            "object_store_memory",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(mobula.holders(1).len(), 1);
        assert_eq!(mobula.holders(9), *h);
        // Nothing of it harms what is there, or comes to stay.
        drop((puts, made));
        assert_eq!(mobula::get(len::remote(&results[1])).unwrap(), MIB);
        drop(mobula::put(&vec![0u8; 8 * MIB]).unwrap());
        drop(results);
        until(|| mobula.store().used == 0);
        assert!(mobula.holders(9).is_empty());
    });
}

#[test]
fn every_way_into_a_full_store_fails_with_a_type() {
    alone(small(), |mobula| {
        let big = mobula::create::<u8>(12 * MIB).unwrap().seal();
        let too_big = vec![0u8; 6 * MIB];
        full(&mobula::put(&too_big).unwrap_err());
        full(&mobula::put_slice(&too_big).unwrap_err());
        full(&mobula::create::<u8>(6 * MIB).unwrap_err());
        full(&mobula::put_archived::<Vec<u8>>(&too_big).unwrap_err());
        // A result, and those who depend on it.
        let r = fill::remote(6 * MIB);
        assert_eq!(
            full(&mobula::get(&r).unwrap_err()).origin,
            Origin::Result("objects::fill")
        );
        match mobula::get(len::remote(&r)).unwrap_err() {
            Error::DependencyFailed { cause, .. } => drop(full(&cause).requested),
            e => panic!("{e}"),
        }
        // An argument: the call fails, not the caller.
        for r in [
            len::remote(&too_big),
            len::remote(&too_big[..]),
            len::options().priority(1).remote(&too_big),
        ] {
            let e = mobula::get(r).unwrap_err();
            assert_eq!(full(&e).origin, Origin::Argument("objects::len"));
        }
        // Many references that together do not fit.
        let part = mobula::put(&vec![0u8; MIB]).unwrap();
        let e = mobula::get(gather::remote(vec![part; 9])).unwrap_err();
        full(&e);
        // The rest goes on.
        assert_eq!(mobula::get(len::remote(&big)).unwrap(), 12 * MIB);
        assert_eq!(mobula::get(fill::remote(MIB)).unwrap().len(), MIB);
        drop(big);
        assert_eq!(mobula::get(len::remote(&too_big)).unwrap(), 6 * MIB);
        until(|| mobula.store().used == 0);
    });
}

#[test]
fn a_store_that_runs_full_under_many_tasks_loses_nothing() {
    alone(small(), |mobula| {
        for _ in 0..20 {
            let results: Vec<_> = (0..32).map(|_| fill::remote(MIB)).collect();
            let lens: Vec<_> = results.iter().map(len::remote).collect();
            drop(results);
            let (mut good, mut bad) = (0, 0);
            for r in &lens {
                match mobula::get(r) {
                    Ok(n) => {
                        assert_eq!(n, MIB);
                        good += 1;
                    }
                    Err(Error::DependencyFailed { cause, .. }) => {
                        full(&cause);
                        bad += 1;
                    }
                    Err(e) => panic!("{e}"),
                }
            }
            assert!(good > 0 && good + bad == 32);
            drop(lens);
            until(|| mobula.store().used == 0);
        }
    });
}

#[test]
fn an_object_lives_as_long_as_someone_needs_it() {
    alone(small(), |mobula| {
        let used = || mobula.store().used;
        let r = mobula::put(&vec![0u8; MIB]).unwrap();
        let one = used();
        assert!(one >= MIB as u64 && mobula.store().objects == 1);
        let clones: Vec<_> = (0..100).map(|_| r.clone()).collect();
        assert_eq!(used(), one, "clones share");
        let gate = Gate::new();
        let call = len_and_stand::remote(&r, gate.id());
        gate.await_arrivals(1);
        drop((r, clones));
        assert_eq!(used(), one, "the call reads it");
        gate.open();
        assert_eq!(mobula::get(&call).unwrap(), MIB);
        until(|| used() == 0);
        // An argument too large for its call is the call's own.
        let call = len::remote(vec![0u8; MIB]);
        assert_eq!(mobula::get(&call).unwrap(), MIB);
        until(|| used() == 0);
        drop(mobula::put(&vec![0u8; 100]).unwrap());
        assert_eq!(
            mobula.store().objects,
            0,
            "small ones never were in the store"
        );
    });
}

#[test]
fn put_from_many_threads_and_free_on_others() {
    alone(small(), |mobula| {
        std::thread::scope(|s| {
            for t in 0..4u8 {
                s.spawn(move || {
                    for i in 0..200usize {
                        let n = 600 + (i * 997) % 200_000;
                        let r = mobula::put(&vec![t; n]).unwrap();
                        let check = len::remote(&r);
                        let view = mobula::view(&r).unwrap();
                        drop(r);
                        std::thread::scope(|s| {
                            s.spawn(move || {
                                assert!(view.as_slice().iter().step_by(500).all(|b| *b == t))
                            });
                        });
                        assert_eq!(mobula::get(check).unwrap(), n);
                    }
                });
            }
        });
        until(|| mobula.store().used == 0);
        // No fragments: all of it can be had at once.
        let all = mobula::create::<u8>(15 * MIB).unwrap();
        assert_eq!(all.len(), 15 * MIB);
    });
}
