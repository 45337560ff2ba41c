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
