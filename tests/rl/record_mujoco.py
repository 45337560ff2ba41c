"""Records trajectories of Gymnasium's bodies for tests/rl/mujoco.rs.

    python3 -m pip install gymnasium==1.2.2 mujoco==3.17.0 imageio packaging
    python3 tests/rl/record_mujoco.py > tests/rl/mujoco.json

Each recording has the state it begins in (positions, velocities, the acceleration that the solver begins from, where the body is), and of
each step the action, the observation (of every tenth step and of the last), the reward, and whether it was terminated or truncated.
"""

import json

import gymnasium
import numpy

NAMES = ["Hopper-v5", "Walker2d-v5", "HalfCheetah-v5", "Ant-v5", "Humanoid-v5"]


def place(name, env):
    if name.startswith("Humanoid"):
        return float(numpy.sum(env.model.body_mass * env.data.xipos[:, 0]) / numpy.sum(env.model.body_mass))
    return float(env.data.body(1).xpos[0] if name.startswith("Ant") else env.data.qpos[0])


def record(name, seed):
    env = gymnasium.make(name)
    env.reset(seed=seed)
    random = numpy.random.default_rng(seed)
    data, high = env.unwrapped.data, float(env.action_space.high[0])
    state = [float(x) for row in (data.qpos, data.qvel, data.qacc_warmstart) for x in row]
    state.append(place(name, env.unwrapped))
    steps = []
    # Weak and slow at first, so that it does not fall at once.
    swing = random.uniform(-1, 1, env.action_space.shape)
    for t in range(60):
        swing = 0.8 * swing + 0.2 * random.uniform(-1, 1, env.action_space.shape) * min(1, t / 20)
        action = numpy.clip(swing * high, -high, high).astype(numpy.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        over = bool(terminated or truncated)
        seen = [float(f"{x:.9g}") for x in observation] if t % 10 == 0 or t == 59 or over else None
        steps.append([[float(x) for x in action], seen, float(reward), bool(terminated), bool(truncated)])
        if over:
            break
    return {"env": name, "state": state, "steps": steps}


recordings = [record(name, seed) for name in NAMES for seed in (1, 2)]
print("[" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in recordings) + "]")
