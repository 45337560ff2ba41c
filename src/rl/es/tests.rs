//! Ranks and the climb on a known hill, the tree against one sum, the same seed twice, restoring, what is refused; and
//! that it learns.

use super::*;
use crate::api::init;
use crate::rl::error::Error;

fn small() -> Config {
    Config {
        pairs: 4,
        noise_size: 4_096,
        ..Config::default()
    }
}

#[test]
fn ranks_go_from_the_worst_to_the_best_and_equal_ones_share() {
    assert_eq!(centered_ranks(&[3.0, -1.0, 2.0]), [0.5, -0.5, 0.0]);
    assert_eq!(centered_ranks(&[7.0; 4]), [0.0; 4]);
    assert_eq!(centered_ranks(&[1.0, 1.0, 5.0]), [-0.25, -0.25, 0.5]);
    assert_eq!(centered_ranks(&[1.0]), [-0.5]);
}

#[test]
fn finds_the_top_of_a_hill_by_heights_alone() {
    let top = [1.0f32, -2.0, 0.5];
    let height =
        |w: &[f32]| -> f32 { -w.iter().zip(top).map(|(w, t)| (w - t).powi(2)).sum::<f32>() };
    let mut rng = Rng::new(1);
    let noise: Vec<f32> = (0..5_000).map(|_| rng.normal() as f32).collect();
    let mut weights = vec![0.0f32; 3];
    let mut adam = Adam::new(&[3], 1e-8);
    for _ in 0..300 {
        let begins: Vec<u64> = (0..8).map(|_| rng.below(4_998) as u64).collect();
        let tried = begins.iter().flat_map(|b| {
            [0.1, -0.1].map(|sigma| {
                let piece = &noise[*b as usize..][..3];
                let w: Vec<f32> = weights
                    .iter()
                    .zip(piece)
                    .map(|(w, x)| w + sigma * x)
                    .collect();
                height(&w)
            })
        });
        let ranks = centered_ranks(&tried.collect::<Vec<_>>());
        let counts: Vec<f32> = ranks.chunks_exact(2).map(|r| r[1] - r[0]).collect();
        let slope = sum_pieces(&noise, begins, counts, 3);
        adam.step_row(&mut weights, &slope, 0.03, f32::INFINITY);
    }
    assert!(height(&weights) > -0.02, "{weights:?}");
}

#[test]
fn a_tree_of_tasks_adds_up_to_the_same() -> Result<()> {
    let _turn = crate::rl::turn();
    let _node = init()?;
    let mut rng = Rng::new(2);
    let (length, pieces) = (ALONE / 32, 70);
    let noise: Vec<f32> = (0..2 * length).map(|_| rng.normal() as f32).collect();
    let begins: Vec<u64> = (0..pieces).map(|_| rng.below(length) as u64).collect();
    let counts: Vec<f32> = (0..pieces).map(|_| rng.normal() as f32).collect();
    let table = put_slice(&noise)?;
    let tree = aggregate(&table, &begins, &counts, length)?;
    let plain = sum_pieces(&noise, begins, counts, length as u64);
    assert_eq!(tree.len(), plain.len());
    for (a, b) in tree.iter().zip(&plain) {
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_run_and_restoring_goes_on_with_it() -> Result<()> {
    let _turn = crate::rl::turn();
    let _node = init()?;
    for env in ["CartPole-v1", "Pendulum-v1"] {
        let mut one = Es::new(env, small(), 5)?;
        // The number of tasks changes nothing.
        let other = Config {
            num_workers: 3,
            ..small()
        };
        let mut two = Es::new(env, other, 5)?;
        for _ in 0..3 {
            assert_eq!(one.train()?, two.train()?);
        }
        let mut restored = Es::restore(&one.checkpoint()?)?;
        for _ in 0..3 {
            assert_eq!(one.train()?, restored.train()?);
        }
        assert_eq!(one.checkpoint()?, restored.checkpoint()?);
        assert_ne!(one.weights, two.weights);
    }
    Ok(())
}

#[test]
fn what_cannot_work_is_refused() -> Result<()> {
    let _turn = crate::rl::turn();
    let _node = init()?;
    let table = Config {
        noise_size: 19,
        ..small()
    };
    let error = Es::new("CartPole-v1", table, 1).err().expect("refused");
    assert!(
        matches!(&error, Error::BadValue { key, why, .. } if key == "noise_size" && why.contains("10 weights")),
        "{error}"
    );
    Ok(())
}
