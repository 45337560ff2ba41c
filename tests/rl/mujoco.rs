//! Bodies on the physics of MuJoCo, against Gymnasium's.

use super::{Action, Words, follow, make};
use mobula::rl::{Env, Rng};

#[test]
fn bodies_move_as_gymnasiums_do() {
    assert_eq!(follow(include_str!("mujoco.json")), (10, 6));
}

/// Some steps with actions that follow from a seed: all rewards.
fn play(env: &mut dyn Env, seed: u64, steps: usize) -> Vec<f32> {
    let mut observation = vec![0.0; env.observation_space().len()];
    let mut random = Rng::new(seed);
    let mut action = vec![0.0; env.action_space().len()];
    let mut rewards = Vec::new();
    for _ in 0..steps {
        action.fill_with(|| random.between(-0.3, 0.3) as f32);
        let step = env.step(Action::Continuous(&action), &mut observation);
        rewards.push(step.reward);
        rewards.extend_from_slice(&observation);
        if step.over() {
            env.reset(None, &mut observation);
        }
    }
    rewards
}

#[test]
fn bodies_go_on_from_what_was_saved_bit_by_bit() {
    for name in [
        "Hopper-v5",
        "Walker2d-v5",
        "HalfCheetah-v5",
        "Ant-v5",
        "Humanoid-v5",
    ] {
        let mut env = make(name).expect("the feature is there");
        let mut observation = vec![0.0; env.observation_space().len()];
        env.reset(Some(4), &mut observation);
        play(&mut *env, 1, 17);
        let mut words = Vec::new();
        env.save(&mut words);
        let mut other = make(name).expect("the feature is there");
        let mut reader = Words::new(&words);
        other.load(&mut reader);
        assert!(reader.complete());
        assert_eq!(play(&mut *env, 2, 90), play(&mut *other, 2, 90), "{name}");
    }
}

#[test]
fn episodes_begin_near_the_models_first_position() {
    // Heights of the first position; how far from it, and whether velocities are from a normal distribution.
    for (name, heights, noise, normal) in [
        ("Hopper-v5", 1.25, 5e-3, false),
        ("Walker2d-v5", 1.25, 5e-3, false),
        ("HalfCheetah-v5", 0.0, 0.1, true),
        ("Ant-v5", 0.75, 0.1, true),
        ("Humanoid-v5", 1.4, 1e-2, false),
    ] {
        let mut env = make(name).expect("the feature is there");
        let mut seen = vec![0.0; env.observation_space().len()];
        let positions = match name {
            "Hopper-v5" => 5,
            "Walker2d-v5" | "HalfCheetah-v5" => 8,
            "Ant-v5" => 13,
            _ => 22,
        };
        // One position along the way is not observed, of those that are free two; a turn is four numbers and three velocities.
        let velocities = positions + 1;
        let (mut widest, mut fastest, mut squares) = (0.0f32, 0.0f32, 0.0f32);
        for seed in 0..200 {
            env.reset(Some(seed), &mut seen);
            widest = widest.max((seen[0] - heights).abs());
            let moving = &seen[positions..positions + velocities];
            fastest = moving.iter().fold(fastest, |most, v| most.max(v.abs()));
            squares += moving.iter().map(|v| v * v).sum::<f32>();
        }
        let deviation = (squares / (200 * velocities) as f32).sqrt() / noise;
        assert!(
            widest <= 1.001 * noise && widest > 0.9 * noise,
            "{name} {widest}"
        );
        match normal {
            true => assert!(
                fastest > 3.0 * noise && (deviation - 1.0).abs() < 0.1,
                "{name}"
            ),
            false => assert!(
                fastest <= 1.001 * noise && (deviation - 0.577).abs() < 0.1,
                "{name}"
            ),
        }
    }
}

#[test]
fn a_body_that_does_not_stand_ends_its_episode() {
    for (name, place, falls) in [
        ("Hopper-v5", 1, 0.5),
        ("Walker2d-v5", 1, 2.5),
        ("Ant-v5", 2, 1.5),
        ("Humanoid-v5", 2, 2.5),
    ] {
        let mut env = make(name).expect("the feature is there");
        let mut seen = vec![0.0; env.observation_space().len()];
        env.reset(Some(2), &mut seen);
        let mut words = Vec::new();
        env.save(&mut words);
        let still = vec![0.0; env.action_space().len()];
        assert!(
            !env.step(Action::Continuous(&still), &mut seen).over(),
            "{name}"
        );
        words[place] = f64::to_bits(falls);
        env.load(&mut Words::new(&words));
        assert!(
            env.step(Action::Continuous(&still), &mut seen).terminated,
            "{name}"
        );
    }
}

#[test]
fn episodes_are_cut_off_after_a_thousand_steps() {
    let mut env = make("HalfCheetah-v5").expect("the feature is there");
    let mut observation = vec![0.0; env.observation_space().len()];
    env.reset(Some(1), &mut observation);
    let mut lengths = (1..).map(|t| (t, env.step(Action::Continuous(&[0.0; 6]), &mut observation)));
    let (length, step) = lengths.find(|(_, step)| step.over()).expect("it ends");
    assert_eq!(
        (length, step.terminated, step.truncated),
        (1000, false, true)
    );
}
