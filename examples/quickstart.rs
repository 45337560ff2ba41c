//! The README's first screen: tasks, an actor and a shared object, with their results printed.
//!
//! `cargo run --release --example quickstart`

use mobula::prelude::*;

#[remote]
fn square(x: u64) -> u64 {
    x * x
}

#[remote]
fn norm(v: &[f32]) -> f32 {
    v.iter().map(|x| x * x).sum::<f32>().sqrt()
}

#[remote]
struct Counter {
    total: u64,
}

#[remote]
impl Counter {
    pub fn new(start: u64) -> Self {
        Counter { total: start }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}

fn main() -> mobula::Result<()> {
    let _mobula = mobula::init()?;

    let squares: Vec<_> = (0..4).map(square::remote).collect();
    println!("squares: {:?}", mobula::get(&squares)?);

    let weights = mobula::put(&vec![0.5f32; 1 << 20])?;
    println!(
        "norm of a million weights: {}",
        mobula::get(norm::remote(&weights))?
    );

    let counter = Counter::remote(10);
    counter.add(5);
    println!("counter: {}", mobula::get(counter.add(1))?);

    let (ready, pending) = mobula::wait(&squares)
        .num_returns(2)
        .timeout(secs(1))
        .run()?;
    println!(
        "wait: {} ready, {} not asked for",
        ready.len(),
        pending.len()
    );
    Ok(())
}
