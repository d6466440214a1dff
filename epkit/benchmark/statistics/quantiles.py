"""Compute typical and slow runs of one candidate on one case, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from epkit.benchmark.document import Block, Quantile

LONG_BLOCK = 20
"""In blocks of so many runs and more the first tenth is not counted: its caches are cold from other processes."""
DISCARDED_PASSES = 1
"""The passes at the beginning of a round that are not counted: all processes were idle while others started."""


def is_counted(block: Block) -> bool:
    """Whether a block is not one of a discarded pass."""
    return block.pass_number >= DISCARDED_PASSES


def counted_runs(block: Block) -> Sequence[float]:
    """Return the runs of a block that are counted, without its lead or the cold ones."""
    samples = block.samples_s
    if block.lead:
        return samples[block.lead :] or samples[-1:]
    return samples[len(samples) // 10 :] if len(samples) >= LONG_BLOCK else samples


def counted_blocks(blocks: Sequence[Block]) -> Sequence[Block]:
    """Return the blocks that are counted; where all are of discarded passes, all."""
    return [block for block in blocks if is_counted(block)] or blocks


def pooled_runs(blocks: Sequence[Block]) -> list[float]:
    """Return all counted runs, the fastest first."""
    return sorted(run for block in counted_blocks(blocks) for run in counted_runs(block))


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
