"""Who meets whom, when, and in which order?

In a meeting, one process of each candidate runs a block, back to back on one case. A sweep has a meeting on each case
for each process; who meets whom is drawn anew, so that no process is judged by its partner. Orders come in pairs, the
second that of the first backwards: the last one in a meeting is up to 0.6 % faster, and that must favour nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from epkit.benchmark.budget import LEAST_SWEEPS

SLOW_SHARE = 1.5
"""A candidate that has had this many times its fair share of the time stands back for a sweep."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """A case, and the candidates in their order, each with the number of its process."""

    case: int
    turns: tuple[tuple[int, int], ...]


def sweep(candidates: Sequence[int], processes: int, cases: int, random: Random) -> Iterator[Meeting]:
    """Draw the meetings of one sweep: every process of every candidate takes part once on each case."""
    for case in random.sample(range(cases), cases):
        partners = [random.sample(range(processes), processes) for _ in candidates]
        drawn = orders(len(candidates), random)
        meetings = [
            Meeting(case, tuple((candidates[at], partners[at][number]) for at in next(drawn)))
            for number in range(processes)
        ]
        random.shuffle(meetings)
        yield from meetings


def orders(count: int, random: Random) -> Iterator[tuple[int, ...]]:
    """Yield orders for ever, in pairs: a random one, and the same backwards."""
    positions = list(range(count))
    while True:
        random.shuffle(positions)
        yield tuple(positions)
        yield tuple(reversed(positions))


def joining(spent_s: Sequence[float], sweeps: Sequence[int], left_s: float, steady_s: float) -> list[int]:
    """Return the places of those that take part in the next sweep: a slow one leaves some of them to the quick ones.

    `spent_s` and `sweeps` say how long each has run so far, and in how many sweeps it has taken part; `left_s` is what
    is left, of which each wants to have run for `steady_s`. A slow one has its least sweeps, unless the quick ones
    would not have their time then.
    """
    fair = sum(spent_s) / len(spent_s)
    found = []
    for place, spent in enumerate(spent_s):
        others_want = sum(max(0.0, steady_s - its) for at, its in enumerate(spent_s) if at != place)
        needs_it = sweeps[place] < LEAST_SWEEPS and left_s - spent / max(1, sweeps[place]) >= others_want
        if needs_it or spent <= SLOW_SHARE * fair:
            found.append(place)
    return found if len(found) > 1 else list(range(len(spent_s)))
