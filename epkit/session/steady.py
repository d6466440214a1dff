"""Decide whether the times of repeated runs are steady."""

from __future__ import annotations

from collections.abc import Sequence

WITHIN = 0.1


def is_steady(seconds: Sequence[float]) -> bool:
    """Whether the last three lie within 10 % of each other."""
    last = seconds[-3:]
    return len(last) == 3 and max(last) <= min(last) * (1 + WITHIN)


def no_longer_falls(seconds: Sequence[float]) -> bool:
    """Whether three runs in a row were no faster than the fastest before them: on a noisy machine, all one can ask."""
    earlier = seconds[:-3]
    return bool(earlier) and min(seconds[-3:]) >= min(earlier)
