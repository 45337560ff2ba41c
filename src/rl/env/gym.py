"""Plays Gymnasium environments for a program that asks through a pipe. Run by env/gym.rs: gym.py NAME COUNT.

First a line of JSON tells the spaces, or an error. Then each request is a letter and what belongs to it, in little-endian numbers:
"r", an environment's index (u32) and a seed (u64): begin an episode; the answer is its observation.
"s" and an action for each environment: take them; the answers are all observations, all rewards, and a byte for each, 1 for
terminated and 2 for truncated.
"o", an index and one action: take it in that environment alone; the answer is its observation.
Observations and rewards are f32; an action is an i32, or as many f32 as its space has numbers.
"""

import json
import os
import struct
import sys

# What environments print is not to come between the answers.
out = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
inp = sys.stdin.buffer


def tell(what):
    out.write(json.dumps(what).encode() + b"\n")
    out.flush()


def refuse(why):
    tell({"error": why})
    sys.exit(1)


try:
    import gymnasium
    import numpy
except ImportError as error:
    refuse(f"{sys.executable} has no package {error.name}: run {sys.executable} -m pip install gymnasium")

try:
    import ale_py
    gymnasium.register_envs(ale_py)
except ImportError:
    pass

name, count = sys.argv[1], int(sys.argv[2])
try:
    envs = [gymnasium.make(name) for _ in range(count)]
except Exception as error:
    refuse(f"Gymnasium cannot make it: {type(error).__name__}: {error}")


def describe(space, what):
    if isinstance(space, gymnasium.spaces.Discrete):
        return {"n": int(space.n)}
    if isinstance(space, gymnasium.spaces.Box):
        bound = lambda row: [float(x) if numpy.isfinite(x) else None for x in row.ravel()]
        return {"shape": list(space.shape), "low": bound(space.low), "high": bound(space.high)}
    refuse(f"its {what} are {space}; only boxes and numbers of choices can be used")


seen, done = envs[0].observation_space, envs[0].action_space
tell({"observations": describe(seen, "observations"), "actions": describe(done, "actions")})
discrete = isinstance(done, gymnasium.spaces.Discrete)
size = 4 if discrete else 4 * int(numpy.prod(done.shape))


def read(n):
    data = inp.read(n)
    if len(data) < n:
        sys.exit(0)  # The program is gone.
    return data


def action(data):
    if discrete:
        choice = struct.unpack("<i", data)[0]
        return int(done.start) + min(choice, int(done.n) - 1)
    numbers = numpy.frombuffer(data, dtype="<f4").reshape(done.shape)
    return numpy.clip(numbers, done.low, done.high).astype(done.dtype)


def row(observation):
    if isinstance(seen, gymnasium.spaces.Discrete):
        observation = observation - int(seen.start)
    return numpy.asarray(observation, dtype="<f4").ravel()


while True:
    kind = read(1)
    if kind == b"r":
        index, seed = struct.unpack("<IQ", read(12))
        observation, _ = envs[index].reset(seed=seed % 2**31)
        out.write(row(observation).tobytes())
    elif kind == b"o":
        index = struct.unpack("<I", read(4))[0]
        observation = envs[index].step(action(read(size)))[0]
        out.write(row(observation).tobytes())
    else:
        steps = [env.step(action(read(size))) for env in envs]
        out.write(numpy.concatenate([row(step[0]) for step in steps]).tobytes())
        out.write(numpy.array([float(step[1]) for step in steps], dtype="<f4").tobytes())
        out.write(bytes(int(bool(step[2])) + 2 * int(bool(step[3])) for step in steps))
    out.flush()
