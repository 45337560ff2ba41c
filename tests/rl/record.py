"""Records trajectories of Gymnasium's classic environments for tests/rl.rs.

    python3 -m pip install gymnasium==1.2.2
    python3 tests/rl/record.py > tests/rl/golden.json
    python3 tests/rl/record.py wrappers > tests/rl/wrappers.json

Each recording of a wrapper has what went into it and what came out, a row for each reset or step: observation, reward, terminated,
truncated. Each other recording has the state it begins in, and of each step the action, the observation, the reward, and whether it
was terminated or truncated.
"""

import json
import sys

import gymnasium
import numpy

STEPS = {"CartPole-v1": 120, "MountainCar-v0": 200, "MountainCarContinuous-v0": 250,
         "Acrobot-v1": 200, "Pendulum-v1": 200}


def short(x):
    """Nine digits, which tell any two 32-bit numbers apart."""
    return float(f"{x:.9g}")


def record(name, seed):
    env = gymnasium.make(name)
    observation, _ = env.reset(seed=seed)
    random = numpy.random.default_rng(seed)
    state = [float(x) for x in env.unwrapped.state]
    steps = []
    for t in range(STEPS[name]):
        if hasattr(env.action_space, "n"):
            # Swings with the movement, so that episodes come to their end, with some noise.
            action = int(random.integers(env.action_space.n))
            if name.startswith("MountainCar") and random.random() < 0.9:
                action = 2 if observation[1] > 0 else 0
            if name.startswith("Acrobot") and random.random() < 0.9:
                action = 0 if observation[4] > 0 else 2
            given = action
        else:
            high = float(env.action_space.high[0])
            action = numpy.array([random.uniform(-1.5 * high, 1.5 * high)], dtype=numpy.float32)
            if name.startswith("MountainCar"):
                action = numpy.array([1.0 if observation[1] > 0 else -1.0], dtype=numpy.float32) * action.__abs__()
            given = float(action[0])
        observation, reward, terminated, truncated, _ = env.step(action)
        steps.append([given, [short(x) for x in observation], short(reward),
                      bool(terminated), bool(truncated)])
        if terminated or truncated:
            break
    return {"env": name, "state": state, "steps": steps}


class Tap(gymnasium.Wrapper):
    """Writes down what passes."""

    def __init__(self, env):
        super().__init__(env)
        self.rows = []

    def reset(self, **options):
        observation, info = self.env.reset(**options)
        self.rows.append([numbers(observation), None, False, False])
        return observation, info

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.rows.append([numbers(observation), short(reward), bool(terminated), bool(truncated)])
        return observation, reward, terminated, truncated, info


def numbers(observation):
    return [short(x) for x in numpy.asarray(observation).ravel()]


WRAPPERS = {
    "time_limit": lambda env: gymnasium.wrappers.TimeLimit(env, 25),
    "frame_stack": lambda env: gymnasium.wrappers.FrameStackObservation(env, 3),
    "clip_reward": lambda env: gymnasium.wrappers.ClipReward(env, -1.5, 0.75),
    "normalize_observation": gymnasium.wrappers.NormalizeObservation,
    "normalize_reward": lambda env: gymnasium.wrappers.NormalizeReward(env, gamma=0.9),
}


def record_wrapper(kind, name):
    within = gymnasium.make(name).unwrapped
    if kind != "time_limit":
        within = gymnasium.wrappers.TimeLimit(within, 30)
    within = Tap(within)
    env = Tap(WRAPPERS[kind](within))
    env.action_space.seed(3)
    env.reset(seed=3)
    for _ in range(70):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    return {"wrapper": kind, "env": name, "within": within.rows, "around": env.rows}


if sys.argv[1:] == ["wrappers"]:
    recordings = [record_wrapper(kind, name) for kind in WRAPPERS for name in ("CartPole-v1", "Pendulum-v1")]
else:
    recordings = [record(name, seed) for name in STEPS for seed in (1, 2)]
print("[" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in recordings) + "]")
