//! A parameter server: workers compute gradients of a logistic regression on their own data, a
//! server applies them. The weights are one object that all workers read in place.
//!
//! `cargo run --release --example parameter_server`

use mobula::prelude::*;

const FEATURES: usize = 256;
const SAMPLES: usize = 2000;
const WORKERS: u64 = 4;
const STEPS: usize = 60;
const RATE: f32 = 2.0;

/// What a worker says of its data under some weights.
#[mobula::value]
struct Gradient {
    loss: f32,
    slope: Vec<f32>,
}

/// Holds the weights and changes them.
#[remote]
struct Server {
    weights: Vec<f32>,
}

#[remote]
impl Server {
    pub fn new() -> Self {
        Server {
            weights: vec![0.0; FEATURES],
        }
    }

    pub fn weights(&self) -> Vec<f32> {
        self.weights.clone()
    }

    /// Steps against the mean gradient and gives the new weights.
    pub fn step(&mut self, gradients: Vec<Gradient>) -> Vec<f32> {
        let rate = RATE / gradients.len() as f32;
        for gradient in &gradients {
            for (weight, slope) in self.weights.iter_mut().zip(&gradient.slope) {
                *weight -= rate * slope;
            }
        }
        self.weights.clone()
    }
}

/// Holds samples and their labels.
#[remote]
struct Worker {
    samples: Vec<Vec<f32>>,
    labels: Vec<f32>,
}

#[remote]
impl Worker {
    /// Samples from a fixed seed; a label says on which side of a hidden plane a sample lies.
    pub fn new(seed: u64) -> Self {
        let mut hidden = numbers(0);
        let plane: Vec<f32> = hidden.by_ref().take(FEATURES).collect();
        let mut random = numbers(seed + 1);
        let samples: Vec<Vec<f32>> = (0..SAMPLES)
            .map(|_| random.by_ref().take(FEATURES).collect())
            .collect();
        let labels = samples
            .iter()
            .map(|x| f32::from(dot(&plane, x) > 0.0))
            .collect();
        Worker { samples, labels }
    }

    /// The weights are borrowed from the store: every worker reads the same memory.
    pub fn gradient(&self, weights: &[f32]) -> Gradient {
        let mut loss = 0.0;
        let mut slope = vec![0.0; FEATURES];
        for (x, label) in self.samples.iter().zip(&self.labels) {
            let p = 1.0 / (1.0 + (-dot(weights, x)).exp());
            let likelihood = if *label == 1.0 { p } else { 1.0 - p };
            loss -= likelihood.max(1e-7).ln() / SAMPLES as f32;
            for (s, x) in slope.iter_mut().zip(x) {
                *s += (p - label) * x / SAMPLES as f32;
            }
        }
        Gradient { loss, slope }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Numbers between -1 and 1 that look random: xorshift.
fn numbers(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
    })
}

fn main() -> mobula::Result<()> {
    if let Some(argument) = std::env::args().nth(1) {
        eprintln!("parameter_server takes no arguments, but was given {argument:?}");
        std::process::exit(2);
    }
    let _mobula = mobula::init()?;
    let server = Server::remote();
    let workers: Vec<_> = (0..WORKERS).map(Worker::remote).collect();

    // References go from actor to actor; the values never come here.
    let mut weights = server.weights();
    let mut losses = Vec::new();
    for step in 0..=STEPS {
        let gradients: Vec<_> = workers.iter().map(|w| w.gradient(&weights)).collect();
        weights = server.step(&gradients);
        if step % 10 == 0 {
            let mut loss = 0.0;
            for gradient in &gradients {
                loss += mobula::view(gradient)?.loss.to_native() / WORKERS as f32;
            }
            println!("step {step:3}: loss {loss:.4}");
            losses.push(loss);
        }
    }
    assert!(
        losses.windows(2).all(|pair| pair[1] < pair[0]),
        "the loss falls: {losses:?}"
    );
    assert!(
        losses[losses.len() - 1] < 0.7 * losses[0],
        "and by a good part: {losses:?}"
    );
    println!(
        "weights: {} of them, {} workers",
        mobula::view(&weights)?.len(),
        workers.len()
    );
    Ok(())
}
