"""Draw the distribution of runs in one line of text."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

BLOCKS = "▁▂▃▄▅▆▇█"
LOGARITHMIC_FROM = 4.0
"""The ratio of a scale's ends from which on the scale is logarithmic."""
SHOWN = 0.98
"""The share of each candidate's runs that a scale covers; slower ones are in its last column."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The range of a histogram, in seconds."""

    low_s: float
    high_s: float

    @property
    def logarithmic(self) -> bool:
        """Whether it is logarithmic."""
        return self.low_s > 0 and self.high_s / self.low_s > LOGARITHMIC_FROM

    def edges(self, columns: int) -> list[float]:
        """Return where the columns end, without the outer two ends."""
        inner = [at / columns for at in range(1, columns)]
        if self.logarithmic:
            return [self.low_s * math.exp(math.log(self.high_s / self.low_s) * at) for at in inner]
        return [self.low_s + (self.high_s - self.low_s) * at for at in inner]


def scale(everyone: Sequence[Sequence[float]], shown: float = SHOWN) -> Scale | None:
    """Return one scale for the runs of several candidates, each sorted; None where there are none."""
    some = [runs for runs in everyone if runs]
    if not some:
        return None
    return Scale(min(runs[0] for runs in some), max(runs[math.ceil(len(runs) * shown) - 1] for runs in some))


def counts(runs: Sequence[float], on: Scale, columns: int) -> list[int]:
    """Count the runs of each column; what lies beyond an end counts in the column at that end."""
    edges, found = on.edges(columns), [0] * columns
    for run in runs:
        found[bisect_right(edges, run)] += 1
    return found


def draw(runs: Sequence[float], on: Scale, columns: int) -> str:
    """Draw the runs; the tallest column is a full block, and any that is not empty is visible."""
    found = counts(runs, on, columns)
    most = max(found)
    if not most:
        return " " * columns
    return "".join(BLOCKS[round((len(BLOCKS) - 1) * count / most)] if count else " " for count in found)
