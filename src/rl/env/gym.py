"""Plays Gymnasium environments for a program that asks through a pipe. Run by env/gym.rs: gym.py NAME COUNT MEMORY.

First a line of JSON tells the spaces, or an error. MEMORY is a file of shared memory that gets a row for each environment: what was
observed last. Each request is a letter and what belongs to it, in little-endian numbers:
"r", an environment's index (u32) and a seed (u64): begin an episode; the answer is a byte, when its row is written.
"s" and an action for each environment: take them; the answers are all rewards, and a byte for each, 1 for terminated and 2 for
truncated, when all rows are written.
"o", an index and one action: take it in that environment alone; the answer is a byte, when its row is written.
Observations and rewards are f32; an action is an i32, or as many f32 as its space has numbers.
"""

import json
import mmap
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

name, count, memory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
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
told = {"observations": describe(seen, "observations"), "actions": describe(done, "actions")}
width = int(numpy.prod(seen.shape))  # of a choice: 1
try:
    # In another space of processes the name may be another file's.
    if not os.readlink(memory).startswith("/memfd:mobula-gym"):
        refuse(f"{memory} is not the memory that was shared: the interpreter has to run where the program runs")
    with open(memory, "r+b") as file:
        file.truncate(4 * count * width)
        rows = numpy.frombuffer(mmap.mmap(file.fileno(), 4 * count * width), dtype="<f4").reshape(count, width)
except (OSError, ValueError) as error:
    refuse(f"the shared memory {memory} cannot be used: {error}")
tell(told)
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


def show(index, observation):
    if isinstance(seen, gymnasium.spaces.Discrete):
        observation = observation - int(seen.start)
    rows[index] = numpy.ravel(observation)


while True:
    kind = read(1)
    if kind == b"r":
        index, seed = struct.unpack("<IQ", read(12))
        observation, _ = envs[index].reset(seed=seed % 2**31)
        show(index, observation)
        out.write(b"\0")
    elif kind == b"o":
        index = struct.unpack("<I", read(4))[0]
        show(index, envs[index].step(action(read(size)))[0])
        out.write(b"\0")
    else:
        steps = [env.step(action(read(size))) for env in envs]
        for index, step in enumerate(steps):
            show(index, step[0])
        out.write(numpy.array([float(step[1]) for step in steps], dtype="<f4").tobytes())
        out.write(bytes(int(bool(step[2])) + 2 * int(bool(step[3])) for step in steps))
    out.flush()
