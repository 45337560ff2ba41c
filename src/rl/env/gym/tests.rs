//! Gymnasium's CartPole against our own, many against one, saving, and every way in which Python is not there. What
//! needs the package says so and does nothing where it is missing.

use rustix::process::kill_process_group;

use super::*;
use crate::rl::env::{make, make_vec};

fn gym(name: &str, n: usize) -> Option<Gym> {
    match Gym::new(name, n) {
        Ok(gym) => Some(gym),
        Err(error) => {
            let missing = error.to_string();
            assert!(
                missing.contains("is needed") || missing.contains("has no package"),
                "{missing}"
            );
            println!("skipped: {missing}");
            None
        }
    }
}

#[test]
fn plays_as_our_own_does() -> Result<()> {
    let Some(mut theirs) = gym("CartPole-v1", 1) else {
        return Ok(());
    };
    let mut ours = make("CartPole-v1")?;
    let (mut a, mut b) = ([0.0; 4], [0.0; 4]);
    Env::reset(&mut theirs, Some(5), &mut a);
    ours.reset(Some(0), &mut b);
    let mut words = Vec::new();
    ours.save(&mut words);
    for (word, x) in words.iter_mut().zip(a) {
        *word = f64::from(x).to_bits();
    }
    ours.load(&mut Words::new(&words));
    for t in 0..60 {
        let action = Action::Discrete(t % 2);
        let (x, y) = (
            Env::step(&mut theirs, action, &mut a),
            ours.step(action, &mut b),
        );
        assert_eq!(x, y, "{t}");
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 1e-4, "{t}: {a} {b}");
        }
        if x.over() {
            return Ok(());
        }
    }
    Ok(())
}

#[test]
fn many_play_as_each_alone_and_go_on_from_what_was_saved() -> Result<()> {
    let Some(mut one) = gym("Pendulum-v1", 3) else {
        return Ok(());
    };
    let mut steps = Steps::new(3, 3);
    VecEnv::reset(&mut one, 7, &mut steps.observations);
    let actions = |t: usize| Actions::Continuous {
        numbers: (0..3).map(|i| ((t + i) % 5) as f32 - 2.0).collect(),
        width: 1,
    };
    for t in 0..30 {
        VecEnv::step(&mut one, &actions(t), &mut steps);
    }
    let mut words = Vec::new();
    VecEnv::save(&one, &mut words);
    let mut two = Gym::new("Pendulum-v1", 3)?;
    let mut reader = Words::new(&words);
    VecEnv::load(&mut two, &mut reader);
    assert!(reader.complete());
    let mut again = steps.clone();
    // Past the end of the episodes, after 200 steps.
    for t in 30..230 {
        VecEnv::step(&mut one, &actions(t), &mut steps);
        VecEnv::step(&mut two, &actions(t), &mut again);
        assert_eq!(steps, again, "{t}");
    }
    Ok(())
}

#[test]
fn a_process_that_ends_is_a_failure_with_its_last_words() -> Result<()> {
    if gym("CartPole-v1", 1).is_none() {
        return Ok(());
    }
    // Where `python3` is a script that starts the interpreter, the process that plays is not the one that was started.
    let script = std::env::temp_dir().join(format!("mobula-python-{}", std::process::id()));
    // Written by another process: a child forked meanwhile would have it open for writing, and then nothing could start it.
    let written = Command::new("sh")
        .args([
            "-c",
            r#"printf '#!/bin/sh\npython3 "$@"\nexit $?\n' >"$0" && chmod +x "$0""#,
        ])
        .arg(&script)
        .status();
    assert!(written.expect("there is a shell").success());
    let mut gym = Gym::start(script.to_str().expect("UTF-8"), "CartPole-v1", 2)?;
    let _ = std::fs::remove_file(&script);
    let mut steps = Steps::new(2, 4);
    VecEnv::reset(&mut gym, 1, &mut steps.observations);
    assert!(VecEnv::failure(&gym).is_none());
    kill_process_group(Pid::from_child(&gym.child), Signal::KILL).expect("it runs");
    VecEnv::step(&mut gym, &Actions::Discrete(vec![0, 1]), &mut steps);
    let failure = VecEnv::failure(&gym).expect("it ended").to_string();
    assert!(
        failure.contains("gym:CartPole-v1") && failure.contains("signal: 9"),
        "{failure}"
    );
    assert!(steps.over(0) && steps.over(1));
    Ok(())
}

#[test]
fn memory_that_is_not_ours_is_left_alone() -> Result<()> {
    if gym("CartPole-v1", 1).is_none() {
        return Ok(());
    }
    let link = std::env::temp_dir().join(format!("mobula-no-memory-{}", std::process::id()));
    std::os::unix::fs::symlink("/dev/null", &link).expect("a link");
    let path = link.to_str().expect("UTF-8");
    let run = |path: &str| {
        let played = Command::new("python3")
            .args(["-c", SCRIPT, "CartPole-v1", "1", path])
            .output();
        String::from_utf8_lossy(&played.expect("it runs").stdout).into_owned()
    };
    let (other, none) = (run(path), run("/proc/0/fd/0"));
    std::fs::remove_file(&link).expect("removed");
    assert!(
        other.contains("is not the memory that was shared"),
        "{other}"
    );
    assert!(none.contains("cannot be used"), "{none}");
    Ok(())
}

#[test]
fn what_is_missing_is_named() -> Result<()> {
    let refused = |python: &str, name: &str| {
        let error = Gym::start(python, name, 1).err().expect("refused");
        error.to_string()
    };
    let error = refused("no-such-python", "CartPole-v1");
    assert!(
        error.contains("no-such-python is needed") && error.contains("MOBULA_PYTHON"),
        "{error}"
    );
    // An interpreter that ends at once.
    let error = refused("false", "CartPole-v1");
    assert!(
        error.contains("its Python process ended (exit status: 1)"),
        "{error}"
    );
    if gym("CartPole-v1", 1).is_some() {
        let error = make_vec("gym:NoSuch-v1", 1)
            .err()
            .expect("refused")
            .to_string();
        assert!(
            error.contains("gym:NoSuch-v1") && error.contains("NoSuch"),
            "{error}"
        );
        let stacked = make("gym:CartPole-v1+frame_stack=2")?;
        assert_eq!(stacked.observation_space().len(), 8);
    }
    Ok(())
}
