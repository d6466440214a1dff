"""Compute the quantiles of Student's t distribution.

For so few processes, the intervals of the normal distribution would be too narrow. SciPy, which has this function, is
larger than all of epkit.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(80)


WIDEST = 460.0
"""The largest logarithm of a ratio; e to the power of it is 1e200: the interval of two processes may be as wide."""


def ratio(logarithm: float) -> float:
    """Return the ratio of a logarithm, without an overflow."""
    return math.exp(min(max(logarithm, -WIDEST), WIDEST))


@lru_cache(maxsize=256)
def quantile(probability: float, freedom: float) -> float:
    """Return the t below which the share `probability` lies, above 0 and below 1, for 1 degree of freedom or more."""
    if probability < 0.5:
        return -quantile(1.0 - probability, freedom)
    low, high = 0.0, 1.0
    while cumulative(high, freedom) < probability:
        low, high = high, high * 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if cumulative(middle, freedom) < probability else (low, middle)
    return high


def cumulative(t: float, freedom: float) -> float:
    """Return the share of the distribution that lies below t.

    With t = sqrt(freedom) * tan(angle), the density becomes a power of the cosine, which is smooth.
    """
    angle = math.atan(t / math.sqrt(freedom))
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    powers = np.cos(angle / 2 * (_NODES + 1)) ** (freedom - 1)
    return 0.5 + scale * angle / 2 * float(_WEIGHTS @ powers)
