//! Observations and rewards brought to a common size, by what all collectors of a run have seen.
//!
//! Invariant: the learner has what was seen so far and gives it to every collector with the weights. A collector counts what it sees at once,
//! for itself, and tells what was new; the learner joins what was new in the order of the collectors, so a run follows from its seed.
//! Left out: environments that do so for themselves, which are in `env/normalize.rs`.

use super::checkpoint::Checkpoint;
use super::error::Result;
use crate::value::Native;
use mobula_macros::value;

/// Numbers that were brought to size lie within this bound and its negative.
const BOUND: f64 = 10.0;
/// Added to a variance before it divides.
const EPSILON: f64 = 1e-8;

/// Means and variances of rows of numbers (Chan, Golub and LeVeque, 1979): how many rows there were, the means, then the sums of squared
/// differences from them. Nothing at all if nothing is to be counted.
#[value]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    row: Vec<f64>,
}

impl Seen {
    /// Nothing yet, of rows of `width` numbers.
    pub fn new(width: usize) -> Seen {
        Seen {
            row: vec![0.0; 1 + 2 * width],
        }
    }

    /// Whether anything is counted.
    fn counts(&self) -> bool {
        !self.row.is_empty()
    }

    fn width(&self) -> usize {
        self.row.len() / 2
    }

    /// Counts some rows. One with a number that is none would spoil the means for good, and is left out.
    fn of(rows: &[f64], width: usize) -> Seen {
        let mut seen = Seen::new(width);
        let rows = rows.chunks_exact(width);
        let rows = rows.filter(|row| row.iter().all(|x| x.is_finite()));
        let n = rows.clone().count() as f64;
        if n == 0.0 {
            return seen;
        }
        seen.row[0] = n;
        let (means, squares) = seen.row[1..].split_at_mut(width);
        for row in rows.clone() {
            means.iter_mut().zip(row).for_each(|(mean, x)| *mean += x);
        }
        means.iter_mut().for_each(|mean| *mean /= n);
        for row in rows {
            for ((square, mean), x) in squares.iter_mut().zip(&*means).zip(row) {
                *square += (x - mean) * (x - mean);
            }
        }
        seen
    }

    /// Counts what another one counted.
    fn join(&mut self, other: &[f64]) {
        let (width, ours) = (self.width(), self.row[0]);
        let Some(theirs) = other.first().copied().filter(|n| *n > 0.0) else {
            return;
        };
        let all = ours + theirs;
        self.row[0] = all;
        let (means, squares) = self.row[1..].split_at_mut(width);
        for i in 0..width {
            let difference = other[1 + i] - means[i];
            means[i] += difference * theirs / all;
            squares[i] += other[1 + width + i] + difference * difference * ours * theirs / all;
        }
    }

    /// The mean of number `i`, and what a difference from it is multiplied by. One row has no variance: it counts as 1.
    fn scale(&self, i: usize) -> (f64, f64) {
        let (count, width) = (self.row[0], self.width());
        if count < 2.0 {
            return (0.0, 1.0);
        }
        let variance = self.row[1 + width + i] / count;
        (self.row[1 + i], 1.0 / (variance + EPSILON).sqrt())
    }

    fn load(&mut self, words: &[u64]) {
        self.row = words.iter().map(|word| f64::from_bits(*word)).collect();
    }
}

/// What was seen of observations and of discounted sums of rewards.
#[value]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Norms {
    /// Of each number of an observation.
    observations: Seen,
    /// Of the sums.
    sums: Seen,
}

impl Norms {
    /// Nothing yet. Observations have `width` numbers; what is not asked for is never counted, and stays as it is.
    pub fn new(width: usize, observations: bool, rewards: bool) -> Norms {
        let of = |counts: bool, width| match counts {
            true => Seen::new(width),
            false => Seen::default(),
        };
        Norms {
            observations: of(observations, width),
            sums: of(rewards, 1),
        }
    }

    /// The same with nothing seen.
    fn blank(&self) -> Norms {
        Norms::new(
            self.observations.width(),
            self.observations.counts(),
            self.sums.counts(),
        )
    }

    /// Brings rows of observations to size.
    pub fn observe(&self, rows: &mut [f32]) {
        let seen = &self.observations;
        if !seen.counts() {
            return;
        }
        let scales: Vec<(f64, f64)> = (0..seen.width()).map(|i| seen.scale(i)).collect();
        for row in rows.chunks_exact_mut(seen.width()) {
            for (x, (mean, scale)) in row.iter_mut().zip(&scales) {
                *x = ((f64::from(*x) - mean) * scale).clamp(-BOUND, BOUND) as f32;
            }
        }
    }

    /// Counts what another one counted.
    pub fn join(&mut self, new: &ArchivedNorms) {
        for (ours, theirs) in [
            (&mut self.observations, &new.observations),
            (&mut self.sums, &new.sums),
        ] {
            if ours.counts() {
                ours.join(f64::slice(&theirs.row));
            }
        }
    }

    /// Into a checkpoint.
    pub fn save(&self, checkpoint: &mut Checkpoint) {
        for (name, seen) in [
            ("seen.observations", &self.observations),
            ("seen.sums", &self.sums),
        ] {
            if seen.counts() {
                checkpoint.put_words(name, seen.row.iter().map(|x| x.to_bits()).collect());
            }
        }
    }

    /// Out of a checkpoint.
    ///
    /// # Errors
    /// Which row is missing.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        for (name, seen) in [
            ("seen.observations", &mut self.observations),
            ("seen.sums", &mut self.sums),
        ] {
            if seen.counts() {
                seen.load(checkpoint.counters(name, seen.row.len())?);
            }
        }
        Ok(())
    }
}

/// A collector's side: what all have seen, with what it sees itself.
pub(super) struct Counting {
    all: Norms,
    /// What the learner does not know yet.
    pub new: Norms,
}

impl Counting {
    /// Begins from what all have seen.
    pub fn new(all: Norms) -> Counting {
        Counting {
            new: all.blank(),
            all,
        }
    }

    /// Brings rows of observations to size.
    pub fn observe(&self, rows: &mut [f32]) {
        self.all.observe(rows);
    }

    /// Counts rows of observations.
    pub fn count(&mut self, rows: &[f32]) {
        if self.new.observations.counts() {
            let rows: Vec<f64> = rows.iter().map(|x| f64::from(*x)).collect();
            let seen = Seen::of(&rows, self.new.observations.width());
            self.new.observations.join(&seen.row);
            self.all.observations.join(&seen.row);
        }
    }

    /// Counts the rewards of one step of all environments, and divides them by the deviation of their discounted sums. `sums` has these of
    /// each environment; it begins anew where an episode ended by its own rules, whose last reward counts alone, as Gymnasium has it, and after a
    /// reward that is no number.
    pub fn reward(
        &mut self,
        rewards: &mut [f32],
        terminated: &[bool],
        gamma: f32,
        sums: &mut Vec<f64>,
    ) {
        if !self.new.sums.counts() {
            return;
        }
        sums.resize(rewards.len(), 0.0);
        for ((sum, reward), over) in sums.iter_mut().zip(&*rewards).zip(terminated) {
            let before = if *over { 0.0 } else { *sum };
            *sum = before * f64::from(gamma) + f64::from(*reward);
        }
        let seen = Seen::of(sums, 1);
        for sum in sums.iter_mut().filter(|sum| !sum.is_finite()) {
            *sum = 0.0;
        }
        self.new.sums.join(&seen.row);
        self.all.sums.join(&seen.row);
        let (_, scale) = self.all.sums.scale(0);
        for reward in rewards {
            *reward = (f64::from(*reward) * scale).clamp(-BOUND, BOUND) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::rng::Rng;

    /// Rows whose columns have other means and deviations.
    fn rows(n: usize) -> Vec<f32> {
        let mut rng = Rng::new(5);
        let row = |_| [3.0 + 0.5 * rng.normal(), -100.0 + 20.0 * rng.normal()];
        (0..n).flat_map(row).map(|x| x as f32).collect()
    }

    #[test]
    fn what_was_counted_in_parts_is_what_was_counted_at_once() {
        let rows = rows(3000);
        let mut parts = Counting::new(Norms::new(2, true, false));
        rows.chunks(2 * 7).for_each(|part| parts.count(part));
        let mut whole = Counting::new(Norms::new(2, true, false));
        whole.count(&rows);
        for (a, b) in parts
            .all
            .observations
            .row
            .iter()
            .zip(&whole.new.observations.row)
        {
            assert!((a - b).abs() < 1e-9 * b.abs(), "{a} {b}");
        }
        assert_eq!(parts.all, parts.new, "it began with nothing");
        let [a, b] = [0, 1].map(|i| parts.all.observations.scale(i));
        assert!((a.0 - 3.0).abs() < 0.05 && (a.1 - 2.0).abs() < 0.1, "{a:?}");
        assert!(
            (b.0 + 100.0).abs() < 2.0 && (b.1 - 0.05).abs() < 0.003,
            "{b:?}"
        );
        let mut sized = vec![3.5, -80.0, 3.0, 1e9];
        parts.observe(&mut sized);
        let wanted = [1.0, 1.0, 0.0, 10.0];
        assert!(
            sized.iter().zip(wanted).all(|(x, y)| (x - y).abs() < 0.1),
            "{sized:?}"
        );
    }

    #[test]
    fn rewards_are_divided_by_the_deviation_of_their_discounted_sums() {
        let mut counting = Counting::new(Norms::new(1, false, true));
        let (mut rng, mut sums) = (Rng::new(2), Vec::new());
        let mut last = (0.0, 0.0);
        for _ in 0..4000 {
            let given: Vec<f32> = (0..4).map(|_| 7.0 * rng.normal() as f32).collect();
            let mut rewards = given.clone();
            counting.reward(&mut rewards, &[false, false, true, false], 0.6, &mut sums);
            last = (given[0], rewards[0]);
        }
        // The deviation of a sum that goes on is 7 / sqrt(1 - 0.6^2) = 8.75; that of one in four is 7.
        let deviation = (0.75f32 * 8.75 * 8.75 + 0.25 * 49.0).sqrt();
        assert!(
            (last.0 / last.1 / deviation - 1.0).abs() < 0.03,
            "{last:?} {deviation}"
        );
    }

    #[test]
    fn what_is_no_number_spoils_nothing() {
        let mut counting = Counting::new(Norms::new(1, true, true));
        let mut sums = Vec::new();
        for bad in [f32::NAN, f32::INFINITY, 0.0] {
            counting.count(&[1.0, bad, 3.0]);
            let mut rewards = [1.0, bad];
            counting.reward(&mut rewards, &[false, false], 0.9, &mut sums);
            assert!(rewards[0].is_finite() && sums.iter().all(|sum| sum.is_finite()));
        }
        assert_eq!(
            counting.new.observations.row[0], 7.0,
            "two of nine are left out"
        );
        let mut sized = [2.0];
        counting.observe(&mut sized);
        assert!(sized[0].is_finite());
        let row = &counting.new.sums.row;
        assert!(
            row[0] == 4.0 && row.iter().all(|x| x.is_finite()),
            "{row:?}"
        );
    }

    #[test]
    fn what_is_not_asked_for_stays_as_it_is() {
        let mut counting = Counting::new(Norms::default());
        let (mut rows, mut sums) = (vec![5.0, 6.0], Vec::new());
        counting.count(&rows);
        counting.observe(&mut rows);
        counting.reward(&mut rows, &[false, true], 0.9, &mut sums);
        assert_eq!((rows, counting.new), (vec![5.0, 6.0], Norms::default()));
        assert!(sums.is_empty());
    }
}
