"""Plan how a benchmark spends its time: rounds of fresh processes, passes over all of them, pairs of blocks.

In a pair, one process of each candidate runs a block, back to back on one case. A pass has a pair on each case for each
process. The partners of a process are drawn anew in each pass, so that it is not judged by one of them. Orders come in
twos, the second the reverse of the first: the last block of a pair is up to 0.6 % faster, which must favor none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

PROCESSES = 8
"""Processes of each candidate in a round. Four are too few to find 5 %; more cost more than they tell."""
LEAST_PROCESSES = 2
ROUNDS = 4
BLOCK_S = 0.02
LEAD_S = 0.02
"""The start of a block of several threads that is not counted: until the system has found a core for each of them."""
LONG_BLOCK_S = 0.04
"""The counted time of such a block."""
STEADY_S = 5.0
"""How long each candidate runs on each case in a round, in all its processes together, if there is time."""
PASSES = 8
"""The least passes of a round, however long a run takes; with fewer processes if there is no other way."""
LEAST_PASSES = 3
STARTING = 2
"""Processes that start at the same time."""
HINDERING = 1.3
"""How many times as long as alone each of them takes, about."""
MEMORY_SHARE = 0.6
SLOW_SHARE = 1.5
"""A candidate that has used this many times its fair share of the time skips a pass."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The time limit of a benchmark, on the monotonic clock."""

    started: float
    seconds: float
    reserved_s: float = 0.0
    """What is put aside of it, for what follows the measuring."""

    @property
    def end(self) -> float:
        """When measuring has to be over."""
        return self.started + self.seconds - self.reserved_s

    @property
    def left(self) -> float:
        """How many seconds are left for measuring."""
        return self.end - time.monotonic()

    @property
    def spent(self) -> float:
        """The share that is spent."""
        return min(1.0, (time.monotonic() - self.started) / self.seconds)


@dataclass(frozen=True, slots=True)
class Round:
    """How many processes of each candidate start, and for how many seconds their blocks alternate."""

    processes: int
    steady_s: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A case, and the candidates in the order of their blocks, each with the number of its process."""

    case: int
    turns: tuple[tuple[int, int], ...]


def plan_round(left: float, start_s: float, turns_s: Sequence[float], cases: int, most: int) -> Round | None:
    """Plan a round for the time that is left; None when there is too little for one.

    It runs for STEADY_S for each candidate and case, and longer where its passes or starting its processes take longer.
    `start_s` is what one more process of each candidate adds to the start of all, `turns_s` how long a block of each
    takes on every case. `most` is how many processes of each candidate fit into memory.
    """
    steady = STEADY_S * cases
    for passes in (PASSES, LEAST_PASSES):
        for processes in range(min(PROCESSES, most), LEAST_PROCESSES - 1, -1):
            rest = left - processes * start_s
            # The fewest processes run for whatever time is left.
            wanted = min(steady, left / 3 / len(turns_s)) if processes > LEAST_PROCESSES else 0.0
            passes_s = [passes * processes * turn for turn in turns_s]
            # What a slow candidate needs must not come out of the time of the fast ones.
            if rest >= sum(max(wanted, needed) for needed in passes_s):
                # Nor is it worth starting processes for less time than starting them takes.
                longest = max(sum(max(steady, needed) for needed in passes_s), processes * start_s)
                return Round(processes, min(longest, rest))
            if processes <= PROCESSES // 2 and passes == PASSES:
                break  # fewer passes are better than fewer processes than that
    return None


def seconds_for_cleanup(seconds: float) -> float:
    """Return what ending processes and writing the document take of a budget."""
    return min(2.0, seconds / 10)


def processes_that_fit(memory: int | None, needed: int | None) -> int:
    """Return how many processes of each candidate fit into the free memory, one at least.

    `needed` is what one process of each takes together; either is None when the system does not report it.
    """
    if memory is None or not needed:
        return PROCESSES
    return max(1, min(PROCESSES, math.floor(memory * MEMORY_SHARE / needed)))


def draw_pass(candidates: Sequence[int], processes: int, cases: int, random: Random) -> Iterator[Pair]:
    """Draw the pairs of one pass: every process of every candidate runs once on each case."""
    for case in random.sample(range(cases), cases):
        partners = [random.sample(range(processes), processes) for _ in candidates]
        orders = draw_orders(len(candidates), random)
        pairs = [
            Pair(case, tuple((candidates[at], partners[at][number]) for at in next(orders)))
            for number in range(processes)
        ]
        random.shuffle(pairs)
        yield from pairs


def draw_orders(count: int, random: Random) -> Iterator[tuple[int, ...]]:
    """Yield orders without end, in twos: a random one, and its reverse."""
    positions = list(range(count))
    while True:
        random.shuffle(positions)
        yield tuple(positions)
        yield tuple(reversed(positions))


def choose_for_pass(spent_s: Sequence[float], passes: Sequence[int], left_s: float, steady_s: float) -> list[int]:
    """Return the indices of the candidates that run in the next pass: a slow one leaves some passes to the fast ones.

    `spent_s` and `passes` say how long each has run so far, and in how many passes; of the `left_s` that are left, each
    should have run for `steady_s`. A slow candidate gets its least passes, unless the fast ones would lack time then.
    """
    fair = sum(spent_s) / len(spent_s)
    chosen = []
    for place, spent in enumerate(spent_s):
        needed_by_others = sum(max(0.0, steady_s - other) for at, other in enumerate(spent_s) if at != place)
        needs_it = passes[place] < LEAST_PASSES and left_s - spent / max(1, passes[place]) >= needed_by_others
        if needs_it or spent <= SLOW_SHARE * fair:
            chosen.append(place)
    return chosen if len(chosen) > 1 else list(range(len(spent_s)))
