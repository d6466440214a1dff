"""How is the time of a benchmark spent?"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

PROCESSES = 8
"""Processes of each candidate in a round. Four are too few to find 5 %; more cost more than they tell."""
LEAST_PROCESSES = 2
ROUNDS = 4
BLOCK_S = 0.02
LEAD_S = 0.02
"""How long runs of several threads are not counted in a block: until the system has found a core for each of them."""
LONG_BLOCK_S = 0.04
"""How long they are counted after that."""
STEADY_S = 5.0
"""How long each candidate runs on each case in a round, all its processes together, at least if there is time."""
SWEEPS = 8
"""Sweeps that a round should have at least, however long a run takes; with fewer processes if there is no other way."""
LEAST_SWEEPS = 3
STARTING = 2
"""Processes that start at the same time."""
HINDERING = 1.3
"""How much longer each of them takes than alone, about."""
MEMORY_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Round:
    """How many processes of each candidate start, and for how long blocks alternate."""

    processes: int
    steady_s: float


@dataclass(frozen=True, slots=True)
class Budget:
    """When all has to be over, on the monotonic clock."""

    started: float
    seconds: float

    @property
    def over(self) -> float:
        """When the benchmark has to be over."""
        return self.started + self.seconds

    @property
    def left(self) -> float:
        """How many seconds are left."""
        return self.over - time.monotonic()

    @property
    def spent(self) -> float:
        """Which share is spent."""
        return min(1.0, 1 - self.left / self.seconds)


def round_of(left: float, adding_s: float, turns_s: Sequence[float], cases: int, most: int) -> Round | None:
    """Plan a round for the time that is left; None when there is too little for one.

    It runs for STEADY_S a candidate and case, and longer where its sweeps or starting its processes take longer.
    `adding_s` is what one more process of each candidate adds to starting them all, and `turns_s` what the turn of each
    takes in a meeting on each case. `most` is how many processes of each candidate fit into memory.
    """
    steady = STEADY_S * cases
    for sweeps in (SWEEPS, LEAST_SWEEPS):
        for processes in range(min(PROCESSES, most), LEAST_PROCESSES - 1, -1):
            rest = left - processes * adding_s
            # The fewest processes run for whatever time is left.
            wanted = min(steady, left / 3 / len(turns_s)) if processes > LEAST_PROCESSES else 0.0
            for_sweeps = [sweeps * processes * turn for turn in turns_s]
            # What a slow one needs must not come out of the time of the quick ones.
            if rest >= sum(max(wanted, its) for its in for_sweeps):
                # Nor is it worth starting processes for less time than starting them takes.
                most_s = max(sum(max(steady, its) for its in for_sweeps), processes * adding_s)
                return Round(processes, min(most_s, rest))
            if processes <= PROCESSES // 2 and sweeps == SWEEPS:
                break  # rather fewer sweeps than fewer processes than that
    return None


def ending_s(seconds: float) -> float:
    """Return what is left of a budget for ending processes and writing everything down."""
    return min(2.0, seconds / 10)


def fitting(memory: int | None, needed: int | None) -> int:
    """Return how many processes of each candidate fit into the memory that is free, one at least.

    `needed` is what one process of each needs; None for either when the system does not tell.
    """
    if memory is None or not needed:
        return PROCESSES
    return max(1, min(PROCESSES, math.floor(memory * MEMORY_SHARE / needed)))
