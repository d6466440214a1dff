"""Does memory grow with the number of runs? Measured in a process of its own, after a warm-up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from capabilities import LIBRARY, needs
from tiers import slow_but

MOST_KB = 4 * 1024
"""A leak of a hundred bytes in each of so many runs is far more than this; the allocator's own noise is less."""

WATCH = """
import gc, os
import numpy as np
import epkit
from models import identity, mlp

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

def watched(work, before, count):
    work(before)
    start = resident()
    work(count)
    print(resident() - start)

def times(work):
    def repeat(count):
        for _ in range(count):
            work()
    return repeat

small = np.ones(8, np.float32)
"""

RUN = """
session = epkit.open(identity(), "cpu")
watched(times(lambda: session.run(small)), 50_000, 500_000)
"""
BIND = """
session = epkit.open(identity(), "cpu")
binding = session.bind(small)
watched(times(lambda: binding.run(small)), 50_000, 500_000)
"""
ON_A_LIBRARY = "runs on a plugin library"
LIBRARY_RUNS = f"""
session = epkit.open(identity(), "{LIBRARY}")
binding = session.bind(small)
def both():
    session.run(small)
    binding.run(small)
watched(times(both), 5_000, 20_000)
"""
REBIND = """
session = epkit.open(mlp(), "cpu")
arrays = [np.ones((1 + 97 * number % 1999, 16), np.float32) for number in range(2000)]
binding = session.bind(arrays[0])
def rebind(count):
    for number in range(count):
        binding.run(arrays[number])
    for array in arrays[:count]:
        session.run(array)
watched(rebind, 2000, 2000)
"""
DROPPED = """
session = epkit.open(mlp(), "cpu")
arrays = [np.ones((rows, 16), np.float32) for rows in (1, 5000)]
def bound():
    for array in arrays:
        session.bind(array).run()
        with session.bind(array) as binding:
            binding.run()
watched(times(bound), 150, 300)
"""
TIMED = """
session = epkit.open(identity(), "cpu")
watched(times(lambda: session.run(small, timeout=60)), 1000, 10_000)
"""

CASES = {
    "a million small runs, plain": RUN,
    "a million small runs, bound": BIND,
    ON_A_LIBRARY: LIBRARY_RUNS,
    "shapes that change": REBIND,
    "bindings that are dropped": DROPPED,
    "runs with a time limit": TIMED,
}


def grown(code: str) -> int:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    }
    done = subprocess.run(
        [warm.PYTHON, "-c", WATCH + code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc/self/statm")
@pytest.mark.parametrize(
    "name",
    [
        *slow_but([name for name in CASES if name != ON_A_LIBRARY], "shapes that change"),
        pytest.param(ON_A_LIBRARY, marks=[pytest.mark.slow, needs(LIBRARY)]),
    ],
)
def test_memory_does_not_grow_with_the_number_of_runs(name):
    assert grown(CASES[name]) < MOST_KB
