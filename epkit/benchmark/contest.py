"""Who takes part in a benchmark that is under way, who keeps its record, and when is it over?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from epkit.benchmark.budget import Budget
from epkit.benchmark.candidate_run import Contender
from epkit.benchmark.record import Record


@dataclass(frozen=True, slots=True)
class Contest:
    """What everything that is done in a benchmark needs to know of it."""

    contenders: list[Contender]
    record: Record
    budget: Budget
    random: Random
    """It draws every order."""
    tell: Callable[[str], None]
    """It hears what is being done."""

    @property
    def taking_part(self) -> list[Contender]:
        """Who is measured: of whom nothing is known to be wrong."""
        return [one for one in self.contenders if one.takes_part]
