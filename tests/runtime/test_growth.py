"""Does memory grow with the number of runs? Measured in a process of its own, after a warm-up."""

from __future__ import annotations

import sys

import pytest
from capabilities import LIBRARY, needs
from growth import MOST_KB, grown
from tiers import slow_but

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
