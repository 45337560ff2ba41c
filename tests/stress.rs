//! A thousand rounds of everything at once, from random numbers.

mod common;

use std::collections::HashMap;

use common::{LIMIT, Rng, alone, until};
use mobula::prelude::*;
use mobula::{Config, Error};

#[remote]
fn add(a: u64, b: u64) -> u64 {
    a.wrapping_add(b)
}

#[remote]
fn fails(a: u64) -> Result<u64, String> {
    Err(format!("told to, with {a}"))
}

#[remote]
fn bursts(a: u64) -> u64 {
    panic!("burst with {a}")
}

#[remote]
async fn later(a: u64) -> u64 {
    tokio::task::yield_now().await;
    a
}

#[remote]
async fn awaits(a: u64, r: ObjectRef<u64>) -> Result<u64, Error> {
    Ok(a.wrapping_add(r.await?))
}

#[remote]
fn spread(a: u64, depth: u32) -> Result<u64, Error> {
    if depth == 0 {
        return Ok(a);
    }
    let children: Vec<_> = (0..3)
        .map(|i| spread::remote(a.wrapping_add(i), depth - 1))
        .collect();
    Ok(mobula::get(&children)?
        .into_iter()
        .fold(0, u64::wrapping_add))
}

#[remote]
fn total(v: Vec<u64>) -> u64 {
    v.into_iter().fold(0, u64::wrapping_add)
}

#[remote]
fn grow(a: u64, n: usize) -> Vec<u64> {
    vec![a; n]
}

#[remote]
fn first(v: &[u64]) -> u64 {
    v.first().copied().unwrap_or(0)
}

#[remote]
fn by_name(m: HashMap<String, ObjectRef<u64>>) -> Result<u64, Error> {
    m.into_values()
        .try_fold(0u64, |sum, r| Ok(sum.wrapping_add(mobula::get(r)?)))
}

/// What a call must come to; `None` where a cancellation may have come first.
type Expected = Option<Result<u64, ()>>;

fn sum(a: &Expected, b: &Expected) -> Expected {
    match (a, b) {
        (Some(Err(())), _) | (_, Some(Err(()))) => Some(Err(())),
        (Some(Ok(a)), Some(Ok(b))) => Some(Ok(a.wrapping_add(*b))),
        _ => None,
    }
}

struct Round {
    rng: Rng,
    known: Vec<(ObjectRef<u64>, Expected)>,
}

impl Round {
    fn any(&mut self) -> (ObjectRef<u64>, Expected) {
        let at = self.rng.below(self.known.len() as u64) as usize;
        self.known[at].clone()
    }

    fn step(&mut self) {
        let n = self.rng.below(1000);
        let (a, ea) = self.any();
        let (b, eb) = self.any();
        let new = match self.rng.below(17) {
            0 | 1 => (add::remote(&a, &b), sum(&ea, &eb)),
            2 => (
                add::options().num_cpus(0.5).remote(&a, n),
                sum(&ea, &Some(Ok(n))),
            ),
            3 => (
                add::options().priority(n as i32 % 5 - 2).remote(a, n),
                sum(&ea, &Some(Ok(n))),
            ),
            4 => (
                add::options()
                    .resource("slot", 1.0)
                    .num_cpus(0.0)
                    .remote(a, b),
                sum(&ea, &eb),
            ),
            5 => (later::remote(a), ea),
            6 => (
                awaits::remote(n, mobula::put(&a).unwrap()),
                sum(&ea, &Some(Ok(n))),
            ),
            7 => {
                let parts: Vec<_> = (0..n % 20).map(|_| self.any()).collect();
                let begin = Some(Ok(0));
                #[allow(clippy::manual_try_fold)]
                // an unknown sum stays unknown, but a failure does too
                let expected = parts.iter().fold(begin, |e, (_, p)| sum(&e, p));
                (
                    total::remote(parts.into_iter().map(|p| p.0).collect::<Vec<_>>()),
                    expected,
                )
            }
            8 => {
                let size = [1, 60, 70, 5000][n as usize % 4];
                (first::remote(grow::remote(a, size)), ea)
            }
            9 => {
                let map = [("a".to_owned(), a), ("b".to_owned(), b)];
                (by_name::remote(HashMap::from(map)), sum(&ea, &eb))
            }
            10 => (spread::remote(n, 2), Some(Ok(9 * n + 18))),
            11 if n < 300 => (fails::remote(a), Some(Err(()))),
            12 if n < 300 => (
                bursts::options()
                    .retry_panics(n.is_multiple_of(2))
                    .remote(n),
                Some(Err(())),
            ),
            13 => {
                let r = add::remote(&a, n);
                let _ = mobula::cancel(&r).unwrap();
                (
                    r,
                    if sum(&ea, &Some(Ok(n))) == Some(Err(())) {
                        Some(Err(()))
                    } else {
                        None
                    },
                )
            }
            14 => {
                drop(add::remote(&a, &b));
                let at = self.rng.below(self.known.len() as u64) as usize;
                if self.known.len() > 4 {
                    self.known.swap_remove(at);
                }
                return;
            }
            15 => {
                let refs = [a, b];
                let (ready, pending) = mobula::wait(&refs)
                    .timeout(std::time::Duration::from_micros(n))
                    .run()
                    .unwrap();
                assert_eq!(ready.len() + pending.len(), 2);
                return;
            }
            16 => return Self::check(&a, &ea, n),
            _ => (mobula::put(&n).unwrap(), Some(Ok(n))),
        };
        self.known.push(new);
    }

    fn check(r: &ObjectRef<u64>, expected: &Expected, how: u64) {
        let got = match how % 3 {
            0 => mobula::get(r),
            1 => mobula::get_timeout(r, LIMIT),
            _ => mobula::view(r).map(|v| v.to_native()),
        };
        match (got, expected) {
            (Ok(got), Some(Ok(e))) => assert_eq!(got, *e),
            (Err(e), Some(Ok(_))) => panic!("{e}"),
            (Err(e), Some(Err(()))) => {
                assert!(
                    e.failure().is_some() || e.is_cancelled() || e.to_string().contains("awaits"),
                    "{e}"
                );
            }
            (Ok(got), Some(Err(()))) => panic!("{got}, although an argument failed"),
            (_, None) => {}
        }
    }
}

fn rounds(seed: u64, count: u64) {
    for i in 0..count {
        let rng = Rng::new(seed * 1000 + i);
        let start = (0..3)
            .map(|n| (mobula::put(&n).unwrap(), Some(Ok(n))))
            .collect();
        let mut round = Round { rng, known: start };
        (0..60).for_each(|_| round.step());
        for (i, (r, expected)) in round.known.iter().enumerate() {
            Round::check(r, expected, i as u64);
        }
    }
}

#[test]
fn a_thousand_rounds_of_everything() {
    let config = Config::new()
        .num_cpus(2.0)
        .resource("slot", 1.0)
        .on_unobserved_failure(|_| {});
    alone(config, |mobula| {
        std::thread::scope(|s| {
            for t in 0..4 {
                s.spawn(move || rounds(t, 250));
            }
        });
        until(|| mobula.store().used == 0);
        until(|| mobula.executors() == 2);
    });
}
