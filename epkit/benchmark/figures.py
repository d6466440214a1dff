"""What do the samples of one candidate say?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

SETTLING_ROUNDS = 1
"""Blocks at the beginning that count for nothing: every candidate has been idle while the others got ready."""
P90_RUNS = 20
P99_RUNS = 100
LONG_BLOCK = 20
"""Runs in a block from which on its first tenth is left out: they pay for the cold caches that others left behind."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds of one run. A percentile is a run that was measured (nearest rank), None when there were too few."""

    runs: int
    median_s: float
    p90_s: float | None
    p99_s: float | None
    throughput_per_s: float
    """Runs a second by one caller that starts the next run when the last is done (a closed loop)."""
    notes: tuple[str, ...] = ()


def figures(blocks: Sequence[Sequence[float]]) -> Figures | None:
    """Work out the figures from the seconds of each run, block by block; None without a run."""
    samples = sorted(counted(blocks))
    if not samples:
        return None
    runs = len(samples)
    notes = [
        f"{name} needs {needed} runs, there were {runs}"
        for name, needed in (("p90", P90_RUNS), ("p99", P99_RUNS))
        if runs < needed
    ]
    return Figures(
        runs,
        statistics.median(samples),
        percentile(samples, 90) if runs >= P90_RUNS else None,
        percentile(samples, 99) if runs >= P99_RUNS else None,
        runs / math.fsum(samples),
        tuple(notes),
    )


def counted(blocks: Sequence[Sequence[float]]) -> list[float]:
    """Return the runs that count: without the settling rounds, if any other was measured, and the cold tenths."""
    kept = blocks[SETTLING_ROUNDS:] or blocks
    return [run for block in kept for run in block[len(block) // 10 if len(block) >= LONG_BLOCK else 0 :]]


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the smallest value that at least `percent` % of the values do not exceed."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]
