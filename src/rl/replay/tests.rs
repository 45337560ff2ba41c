//! Which transitions are kept, how often each is drawn, and what it counts then.

use super::*;

fn filled(capacity: usize, prioritized: bool, n: usize) -> Memory {
    let mut memory = Memory::new(capacity, 2, prioritized);
    for i in 0..n {
        let x = i as f32;
        memory.push(&[x, -x], i as u32, x, 0.5, &[x + 1.0, -x - 1.0]);
    }
    memory
}

#[test]
fn a_tree_finds_what_adding_up_finds() {
    let mut rng = Rng::new(1);
    let mut tree = SumTree::new(13);
    let mut numbers = [0.0f64; 13];
    for _ in 0..200 {
        let i = rng.below(13);
        numbers[i] = if rng.below(3) == 0 {
            0.0
        } else {
            rng.uniform()
        };
        tree.set(i, numbers[i]);
        let sum: f64 = numbers.iter().sum();
        assert!((tree.sum() - sum).abs() < 1e-12);
        if sum == 0.0 {
            continue;
        }
        let mass = rng.uniform() * sum;
        let mut left = mass;
        let plain = numbers.iter().position(|x| {
            left -= x;
            left < 0.0
        });
        assert_eq!(Some(tree.find(mass)), plain, "{mass} of {numbers:?}");
        // What rounding could ask for: no leaf that is empty.
        assert!(numbers[tree.find(sum * 1.000_001)] > 0.0);
    }
}

#[test]
fn the_oldest_makes_room() {
    let memory = filled(5, false, 13);
    assert_eq!(memory.len(), 5);
    let mut rows = memory.rows(&[0, 1, 2, 3, 4]).actions;
    rows.sort_unstable();
    assert_eq!(rows, [8, 9, 10, 11, 12]);
    let row = memory.rows(&[2]);
    let x = row.rewards[0];
    assert_eq!(row.observations, [x, -x]);
    assert_eq!(row.next, [x + 1.0, -x - 1.0]);
}

#[test]
fn without_priorities_all_are_drawn_alike() {
    let memory = filled(4, false, 4);
    let drawn = memory.draw(8_000, 1.0, &mut Rng::new(2));
    let mut counts = [0usize; 4];
    drawn.indices.iter().for_each(|i| counts[*i] += 1);
    assert!(counts.iter().all(|c| c.abs_diff(2_000) < 200), "{counts:?}");
    assert!(drawn.weights.iter().all(|w| *w == 1.0));
}

#[test]
fn priorities_say_how_often_and_weights_undo_it() {
    let mut memory = filled(4, true, 4);
    let alpha = 0.5;
    memory.judge(&[0, 1, 2, 3], &[1.0, -4.0, 9.0, 16.0], alpha);
    // Roots: 1, 2, 3, 4 of 10.
    let n = 10_000;
    let drawn = memory.draw(n, 1.0, &mut Rng::new(3));
    let mut counts = [0usize; 4];
    drawn.indices.iter().for_each(|i| counts[*i] += 1);
    for (i, count) in counts.iter().enumerate() {
        // Equal parts of the sum: hardly any chance is left.
        assert!(count.abs_diff(n * (i + 1) / 10) <= 2, "{counts:?}");
    }
    for (i, weight) in drawn.indices.iter().zip(&drawn.weights) {
        assert!((weight - 1.0 / (*i as f32 + 1.0)).abs() < 1e-4);
    }
    let plain = memory.draw(10, 0.0, &mut Rng::new(3));
    assert!(plain.weights.iter().all(|w| *w == 1.0));
    // A new one comes with the highest priority there was.
    memory.push(&[0.0; 2], 9, 0.0, 0.0, &[0.0; 2]);
    let drawn = memory.draw(n, 1.0, &mut Rng::new(3));
    let new = drawn.indices.iter().filter(|i| **i == 0).count();
    assert!(new.abs_diff(n * 4 / 13) <= 2, "{new}");
}

#[test]
fn goes_on_from_a_checkpoint() -> Result<()> {
    for prioritized in [false, true] {
        let mut memory = filled(5, prioritized, 7);
        memory.judge(&[1, 3], &[0.3, 5.0], 0.6);
        let mut checkpoint = Checkpoint::new("DQN", "none", String::new(), 0);
        memory.save(&mut checkpoint);
        let mut again = Memory::new(5, 2, prioritized);
        again.load(&checkpoint)?;
        memory.push(&[0.0; 2], 9, 0.0, 0.0, &[0.0; 2]);
        again.push(&[0.0; 2], 9, 0.0, 0.0, &[0.0; 2]);
        let draw = |memory: &Memory| memory.draw(32, 0.4, &mut Rng::new(1));
        assert_eq!(draw(&memory), draw(&again));
        assert_eq!(memory.kept, again.kept);
        assert!(Memory::new(4, 2, prioritized).load(&checkpoint).is_err());
    }
    Ok(())
}
