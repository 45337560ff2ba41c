//! Many classic control problems in one loop that the compiler turns into vector instructions.
//!
//! Invariant: environment `i` goes through the very numbers that a [`Classic`](super::Classic) with the same seed goes
//! through. Memory is in blocks of 16 environments, each number of the state a row of 16. Lanes beyond the last
//! environment are computed and never looked at. Left out: the laws, which are `physics.rs`.

use super::Words;
use super::classic::{highest, number};
use super::physics::Dynamics;
use super::vector::{Steps, VecEnv, seed_of};
use crate::rl::rng::Rng;
use crate::rl::simd;
use crate::rl::space::{Actions, Space};

const LANES: usize = 16;

/// Sixteen environments.
#[derive(Clone)]
struct Block<const S: usize> {
    state: [[f64; LANES]; S],
    steps: [u32; LANES],
}

/// `n` environments of one kind.
pub(crate) struct Batch<D, const S: usize, const O: usize> {
    laws: std::marker::PhantomData<D>,
    blocks: Vec<Block<S>>,
    rngs: Vec<Rng>,
    limit: u32,
    highest: f64,
}

impl<D: Dynamics<S, O>, const S: usize, const O: usize> Batch<D, S, O> {
    /// Environments whose episodes are cut off after `limit` steps.
    pub fn new(n: usize, limit: u32) -> Self {
        let block = Block {
            state: [[0.0; LANES]; S],
            steps: [0; LANES],
        };
        Batch {
            laws: std::marker::PhantomData,
            blocks: vec![block; n.div_ceil(LANES)],
            rngs: vec![Rng::new(0); n],
            limit,
            highest: highest(&D::action_space()),
        }
    }

    fn begin(&mut self, i: usize) -> [f64; S] {
        let state = D::initial(&mut self.rngs[i]);
        let block = &mut self.blocks[i / LANES];
        for (row, x) in block.state.iter_mut().zip(state) {
            row[i % LANES] = x;
        }
        block.steps[i % LANES] = 0;
        state
    }
}

/// What one step of a block gave.
struct Outcome<const O: usize> {
    rewards: [f32; LANES],
    observations: [[f32; O]; LANES],
    terminated: [bool; LANES],
}

/// One step of all 16.
#[inline(always)]
fn advance<D: Dynamics<S, O>, const S: usize, const O: usize>(
    block: &mut Block<S>,
    actions: &[f64; LANES],
) -> Outcome<O> {
    let state = block.state;
    let mut next = [[0.0; LANES]; S];
    let mut seen = [[0.0; LANES]; O];
    let mut rewards = [0.0; LANES];
    let mut over = [0.0f64; LANES];
    for lane in 0..LANES {
        let now: [f64; S] = std::array::from_fn(|j| state[j][lane]);
        let (then, reward, terminated) = D::advance(now, actions[lane]);
        for j in 0..S {
            next[j][lane] = then[j];
        }
        let observed = D::observe(&then);
        for j in 0..O {
            seen[j][lane] = observed[j];
        }
        rewards[lane] = reward as f32;
        over[lane] = if terminated { 1.0 } else { 0.0 };
    }
    block.state = next;
    Outcome {
        rewards,
        observations: std::array::from_fn(|lane| std::array::from_fn(|j| seen[j][lane])),
        terminated: over.map(|x| x != 0.0),
    }
}

/// The step of a [`Batch`], for [`simd::run`].
struct Advance<'a, D, const S: usize, const O: usize> {
    batch: &'a mut Batch<D, S, O>,
    actions: &'a Actions,
    out: &'a mut Steps,
}

impl<D: Dynamics<S, O>, const S: usize, const O: usize> simd::Kernel for Advance<'_, D, S, O> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Advance {
            batch,
            actions,
            out,
        } = self;
        let n = batch.rngs.len();
        for b in 0..batch.blocks.len() {
            let (start, used) = (b * LANES, LANES.min(n - b * LANES));
            let mut given = [0.0; LANES];
            match actions {
                Actions::Discrete(choices) => {
                    for (x, choice) in given.iter_mut().zip(&choices[start..start + used]) {
                        *x = f64::from(*choice).min(batch.highest);
                    }
                }
                Actions::Continuous { .. } => {
                    for (i, x) in given.iter_mut().enumerate().take(used) {
                        *x = number(actions.row(start + i), batch.highest);
                    }
                }
            }
            let block = &mut batch.blocks[b];
            let outcome = advance::<D, S, O>(block, &given);
            let mut truncated = [false; LANES];
            for (steps, cut) in block.steps.iter_mut().zip(&mut truncated) {
                *steps += 1;
                *cut = *steps >= batch.limit;
            }
            let end = start + used;
            out.rewards[start..end].copy_from_slice(&outcome.rewards[..used]);
            out.terminated[start..end].copy_from_slice(&outcome.terminated[..used]);
            out.truncated[start..end].copy_from_slice(&truncated[..used]);
            out.observations[start * O..end * O]
                .copy_from_slice(outcome.observations[..used].as_flattened());
            let mut over = outcome.terminated;
            let mut any = false;
            for (over, cut) in over.iter_mut().zip(&truncated) {
                *over |= cut;
                any |= *over;
            }
            if !any {
                continue;
            }
            for (lane, over) in over.iter().enumerate().take(used) {
                if *over {
                    let i = start + lane;
                    out.last[i * O..(i + 1) * O].copy_from_slice(&outcome.observations[lane]);
                    let state = batch.begin(i);
                    out.observations[i * O..(i + 1) * O].copy_from_slice(&D::observe(&state));
                }
            }
        }
    }
}

impl<D: Dynamics<S, O>, const S: usize, const O: usize> VecEnv for Batch<D, S, O> {
    fn count(&self) -> usize {
        self.rngs.len()
    }

    fn observation_space(&self) -> Space {
        D::observation_space()
    }

    fn action_space(&self) -> Space {
        D::action_space()
    }

    fn reset(&mut self, seed: u64, observations: &mut [f32]) {
        for (i, row) in observations.chunks_exact_mut(O).enumerate() {
            self.rngs[i] = Rng::new(seed_of(seed, i));
            let state = self.begin(i);
            row.copy_from_slice(&D::observe(&state));
        }
    }

    fn step(&mut self, actions: &Actions, out: &mut Steps) {
        simd::run(Advance {
            batch: self,
            actions,
            out,
        });
    }

    fn save(&self, words: &mut Vec<u64>) {
        for (i, rng) in self.rngs.iter().enumerate() {
            let block = &self.blocks[i / LANES];
            words.extend(block.state.iter().map(|row| row[i % LANES].to_bits()));
            words.push(block.steps[i % LANES].into());
            words.extend(rng.words());
        }
    }

    fn load(&mut self, words: &mut Words<'_>) {
        for (i, rng) in self.rngs.iter_mut().enumerate() {
            let block = &mut self.blocks[i / LANES];
            for row in &mut block.state {
                row[i % LANES] = words.number();
            }
            block.steps[i % LANES] = words.word() as u32;
            *rng = words.rng();
        }
    }
}
