//! Random numbers of our own: the same seed gives the same numbers on every machine.
//!
//! Invariant: the whole state is four words, which [`Rng::words`] shows and [`Rng::from_words`] takes back, so a
//! restored run goes on exactly. The generator is xoshiro256++ of Blackman and Vigna, seeded through
//! SplitMix64. Left out: cryptography.

/// A seeded generator.
///
/// ```
/// use mobula::rl::Rng;
/// let (mut a, mut b) = (Rng::new(1), Rng::new(1));
/// assert_eq!(a.uniform(), b.uniform());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    words: [u64; 4],
}

impl Rng {
    /// Seeds a generator; near seeds give unrelated streams.
    pub fn new(seed: u64) -> Rng {
        let mut state = seed;
        Rng {
            words: std::array::from_fn(|_| split_mix(&mut state)),
        }
    }

    /// A generator for part `index` of what `seed` stands for: a collector, an environment.
    pub fn stream(seed: u64, index: u64) -> Rng {
        let mut state = seed;
        let base = split_mix(&mut state);
        Rng::new(base ^ index.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// The state.
    pub fn words(&self) -> [u64; 4] {
        self.words
    }

    /// The generator whose state was `words`.
    pub fn from_words(words: [u64; 4]) -> Rng {
        Rng { words }
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.words;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number in `[0, 1)`.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A number in `[low, high)`.
    #[inline]
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// A number below `n`, which is at least 1. The bias is below `n / 2^64`.
    #[inline]
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// A number from the standard normal distribution (Box and Muller; the second one is not kept, so that the
    /// state stays four words).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut rng = Rng::new(3);
        let n = 40_000;
        let (mut mean, mut square, mut uniform) = (0.0, 0.0, 0.0);
        let mut counts = [0usize; 3];
        for _ in 0..n {
            let x = rng.normal();
            mean += x / n as f64;
            square += x * x / n as f64;
            uniform += rng.uniform() / n as f64;
            counts[rng.below(3)] += 1;
        }
        assert!(
            mean.abs() < 0.02 && (square - 1.0).abs() < 0.03,
            "{mean} {square}"
        );
        assert!((uniform - 0.5).abs() < 0.01, "{uniform}");
        assert!(
            counts.iter().all(|c| c.abs_diff(n / 3) < n / 60),
            "{counts:?}"
        );
    }

    #[test]
    fn the_state_can_be_kept_and_streams_differ() {
        let mut rng = Rng::new(9);
        rng.bits();
        let mut again = Rng::from_words(rng.words());
        assert_eq!(rng.bits(), again.bits());
        assert_ne!(Rng::stream(1, 0).bits(), Rng::stream(1, 1).bits());
        let mut items: Vec<usize> = (0..50).collect();
        rng.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
