"""What do the runs of one candidate on one case say of a typical and of a slow run?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from epkit.benchmark.document import Block, Quantile

LONG_BLOCK = 20
"""Runs in a block from which on its first tenth is left out: they pay for the cold caches that others left behind."""
SETTLING_SWEEPS = 1
"""Sweeps at the beginning of a round that count for nothing: everyone has been idle while the others got ready."""


def counts(block: Block) -> bool:
    """Whether a block counts at all."""
    return block.sweep >= SETTLING_SWEEPS


def counted(block: Block) -> Sequence[float]:
    """Return the runs of a block that count, without the cold ones."""
    samples = block.samples_s
    if block.lead:
        return samples[block.lead :] or samples[-1:]
    return samples[len(samples) // 10 :] if len(samples) >= LONG_BLOCK else samples


def settled(blocks: Sequence[Block]) -> Sequence[Block]:
    """Return the blocks that count; of those that never got beyond settling, all."""
    return [one for one in blocks if counts(one)] or blocks


def pooled(blocks: Sequence[Block]) -> list[float]:
    """Return all runs that count, the quickest first."""
    return sorted(run for one in settled(blocks) for run in counted(one))


def quantile(ordered: Sequence[float], share: float) -> Quantile | None:
    """Return the run that `share` of the runs do not exceed (nearest rank), between those that bound it in 95 %.

    The interval is that of order statistics, which assumes nothing of how runs are distributed, but that one is
    independent of the next. Without enough runs for it there is no quantile, but for the median, which comes alone.
    """
    runs = len(ordered)
    if not runs:
        return None
    value = ordered[math.ceil(runs * share) - 1]
    ranks = bounds(runs, share)
    if ranks is None:
        return Quantile(value, None, None) if share == 0.5 else None
    return Quantile(value, ordered[ranks[0] - 1], ordered[ranks[1] - 1])


@lru_cache(maxsize=64)
def bounds(runs: int, share: float, confidence: float = 0.95) -> tuple[int, int] | None:
    """Return the ranks, from 1, of the two runs that enclose the quantile; None where there are too few runs.

    How many of the runs lie below the quantile is binomial (David and Nagaraja, Order Statistics, 7.1).
    """
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, runs + 1)))])
    below = np.arange(runs + 1)
    ways = logs[runs] - logs - logs[::-1]
    cumulative = np.cumsum(np.exp(ways + below * math.log(share) + (runs - below) * math.log1p(-share)))
    tail = (1.0 - confidence) / 2
    low = int(np.searchsorted(cumulative, tail, side="right"))
    high = int(np.searchsorted(cumulative, 1.0 - tail)) + 1
    return (low, high) if low >= 1 and high <= runs else None
