"""The rows of mobula-peers on Ray: one JSON line each, with the same names and units.

pip install "ray[default]==2.60.0" numpy, then: python compare.py [--rounds N] [--filter PART]

Two CPUs. A value is the median over the rounds. What differs from the Rust side by nature: values are
pickled, tasks and actors are processes, and an actor costs about 90 MB, so that a few are created and
not 100,000. The first call of each actor is inside the clock, since a Ray handle comes back before
its process exists.
"""
import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

import numpy as np  # noqa: E402
import ray  # noqa: E402

INIT = dict(num_cpus=2, logging_level="ERROR", log_to_driver=False)
BIG = 1_000_000

CHILD = """
import sys, time
import ray
start = time.perf_counter()
ray.init(num_cpus=2, logging_level="ERROR", log_to_driver=False)
@ray.remote
def inc(x): return x + 1
assert ray.get(inc.remote(1)) == 2
print(time.perf_counter() - start, flush=True)
sys.stdin.readline()
"""


@ray.remote
def inc(x):
    return x + 1


@ray.remote
def small():
    return b"ok"


@ray.remote
def count(*xs):
    return len(xs)


@ray.remote
def make(x, n):
    v = np.full(n, x, dtype=np.float32)
    v[-1] += 1
    return v


@ray.remote
def add(a, b):
    return a + b


@ray.remote
def total(v):
    return float(v.sum(dtype=np.float64))


@ray.remote
def ends(v):
    return len(v), float(v[-1])


@ray.remote
def holder(n):
    return [ray.put(1) for _ in range(n)]


@ray.remote
class Counter:
    def __init__(self):
        self.n = 0

    def add(self, n):
        self.n += n
        return self.n


def seconds(fn):
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start


def tree(pid):
    """pid and all its living descendants."""
    parent = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            text = open(path).read()
        except OSError:
            continue
        parent[int(text.split(" ", 1)[0])] = int(text.rsplit(")", 1)[1].split()[1])
    found, todo = [], [pid]
    while todo:
        p = todo.pop()
        found.append(p)
        todo += [c for c, q in parent.items() if q == p]
    return found


def proportional_mib(pids):
    """Resident memory of processes together, shared pages counted once."""
    kib = 0
    for pid in pids:
        try:
            kib += sum(int(line.split()[1]) for line in open(f"/proc/{pid}/smaps_rollup") if line.startswith("Pss:"))
        except OSError:
            pass
    return kib / 1024


def task_round_trip():
    n = 300

    def go():
        for x in range(n):
            assert ray.get(inc.remote(x)) == x + 1
    return seconds(go) / n * 1e6


def tasks_async():
    n = 10_000

    def go():
        assert ray.get([inc.remote(x) for x in range(n)]) == list(range(1, n + 1))
    return n / seconds(go)


class OneActor:
    """An actor for as long as a row needs it."""

    def __enter__(self):
        self.actor = Counter.options(num_cpus=0).remote()
        ray.get(self.actor.add.remote(0))
        return self.actor

    def __exit__(self, *_):
        ray.kill(self.actor)
        time.sleep(0.5)


def actor_round_trip():
    n = 300
    with OneActor() as actor:
        def go():
            for x in range(n):
                assert ray.get(actor.add.remote(1)) == x + 1
        return seconds(go) / n * 1e6


def actor_async():
    n = 10_000
    with OneActor() as actor:
        def go():
            assert ray.get([actor.add.remote(1) for _ in range(n)]) == list(range(1, n + 1))
        return n / seconds(go)


def actor_tell():
    n = 10_000
    with OneActor() as actor:
        def go():
            for _ in range(n - 1):
                actor.add.remote(1)
            assert ray.get(actor.add.remote(1)) == n
        return n / seconds(go)


def actors_create():
    n, actors = 10, []

    def go():
        actors.extend(Counter.options(num_cpus=0).remote() for _ in range(n))
        assert ray.get([actor.add.remote(7) for actor in actors]) == [7] * n
    spent = seconds(go)
    for actor in actors:
        ray.kill(actor)
    time.sleep(4)
    return n / spent


def put(size, n):
    """Calls per second; each object is let go before the next, so that warm memory is there."""
    x = np.ones(size, dtype=np.uint8)
    spent = 0.0
    for _ in range(n):
        start = time.perf_counter()
        ref = ray.put(x)
        spent += time.perf_counter() - start
        del ref
        if size > 10**8:
            time.sleep(0.3)
    return n / spent


def put_1kb():
    return put(1000, 1000)


def put_1mb():
    return put(10**6, 500) * 1e6 / 1e9


def put_1gb_warm():
    return put(10**9, 3)


def view_1kb():
    n, ref = 1000, ray.put(np.full(1000, 7, dtype=np.uint8))

    def go():
        for _ in range(n):
            assert ray.get(ref)[999] == 7
    return seconds(go) / n * 1e9


def task_big_arg():
    n, ref = 100, ray.put(np.append(np.ones(BIG - 1, dtype=np.float32), np.float32(2)))

    def go():
        for _ in range(n):
            assert ray.get(ends.remote(ref)) == (BIG, 2.0)
    return seconds(go) / n * 1e6


def pass_vec_1m():
    n = 30

    def go():
        for x in range(n):
            assert ray.get(total.remote(make.remote(x % 10, BIG))) == (x % 10) * BIG + 1
    return seconds(go) / n * 1e6


def wait_1k():
    """One call on 1,000 results that are there."""
    refs = [small.remote() for _ in range(1000)]
    ray.get(refs)

    def go():
        ready, pending = ray.wait(refs, num_returns=1000)
        assert len(ready) == 1000 and not pending
    return 1 / seconds(go)


def wait_1k_drain():
    """Ray's microbenchmark: 1,000 tasks submitted and waited for one at a time."""
    def go():
        pending = [small.remote() for _ in range(1000)]
        for i in range(1000):
            ready, pending = ray.wait(pending, fetch_local=i == 0)
            assert len(ready) == 1
        assert not pending
    return 1 / seconds(go)


def get_object_with_10k_refs():
    n, ref = 10, holder.remote(10_000)
    ray.wait([ref])

    def go():
        for _ in range(n):
            assert len(ray.get(ref)) == 10_000
    return n / seconds(go)


def fan_out_10k_in():
    def go():
        assert ray.get(count.remote(*[inc.remote(i) for i in range(10_000)])) == 10_000
    return seconds(go) * 1e3


def tree_reduce_1024x1mb():
    def go():
        level = [make.remote(1, 250_000) for _ in range(1024)]
        while len(level) > 1:
            level = [add.remote(level[i], level[i + 1]) for i in range(0, len(level), 2)]
        v = ray.get(level[0])
        assert len(v) == 250_000 and v[0] == 1024 and v[-1] == 2048
    spent = seconds(go)
    time.sleep(1)
    return spent


def in_fresh_process(idle):
    child = subprocess.Popen([sys.executable, "-c", CHILD], text=True, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    spent = float(child.stdout.readline())
    if idle:
        time.sleep(8)
        memory = proportional_mib(tree(child.pid))
    child.communicate("\n")
    return memory if idle else spent * 1e3


def init_to_first_result():
    return in_fresh_process(idle=False)


def idle_rss():
    return in_fresh_process(idle=True)


# name: (unit, needs a cluster of this process, most rounds)
ROWS = {
    init_to_first_result: ("ms", False, 3), idle_rss: ("MiB", False, 2),
    task_round_trip: ("us", True, 9), tasks_async: ("1/s", True, 9),
    actor_round_trip: ("us", True, 9), actor_async: ("1/s", True, 9), actor_tell: ("1/s", True, 9),
    put_1kb: ("1/s", True, 9), view_1kb: ("ns", True, 9), put_1mb: ("GB/s", True, 9), put_1gb_warm: ("GB/s", True, 5),
    task_big_arg: ("us", True, 9), pass_vec_1m: ("us", True, 9),
    wait_1k: ("1/s", True, 9), wait_1k_drain: ("1/s", True, 5), get_object_with_10k_refs: ("1/s", True, 5),
    fan_out_10k_in: ("ms", True, 3), tree_reduce_1024x1mb: ("s", True, 3), actors_create: ("1/s", True, 2),
}


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--filter", default="", help="rows whose name has this in it")
    args = args.parse_args()
    lines = os.fdopen(os.dup(1), "w")  # the JSON lines alone; what Ray prints goes to stderr
    os.dup2(2, 1)
    for row, (unit, cluster, most) in ROWS.items():
        name = f"{row.__name__}.ray"
        if args.filter not in name:
            continue
        if cluster and not ray.is_initialized():
            ray.init(object_store_memory=6 * 2**30, **INIT)
            assert ray.get([inc.remote(i) for i in range(500)])[-1] == 500
            time.sleep(3)
        try:
            if cluster and row is not actors_create:
                row()  # warm
            values = [row() for _ in range(min(args.rounds, most))]
        except Exception as error:  # the error is the result
            text = f"{type(error).__name__}: {str(error)[:300]}"
            print(json.dumps({"bench": name, "error": text}), file=lines, flush=True)
            continue
        print(json.dumps({"bench": name, "value": round(statistics.median(values), 6), "unit": unit,
                          "min": round(min(values), 6), "max": round(max(values), 6), "n": len(values)},
                         separators=(",", ":")), file=lines, flush=True)


if __name__ == "__main__":
    main()
