"""Define the types of numbers in a document, with the values that are possible, and its size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeAlias


@dataclass(frozen=True, slots=True)
class Limits:
    """The values that a number can have."""

    text: str
    include: Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class IndexOf:
    """The list of `measured` that a number is an index of."""

    name: str


POSITIVE = Limits("more than 0", lambda value: value > 0)
NOT_NEGATIVE = Limits("0 or more", lambda value: value >= 0)
Positive: TypeAlias = Annotated[float, POSITIVE]
Seconds: TypeAlias = Annotated[float, NOT_NEGATIVE]
Count: TypeAlias = Annotated[int, NOT_NEGATIVE]
Sample: TypeAlias = Annotated[
    float, POSITIVE, Limits("below 1e12 s, and above 1e-12 s", lambda value: 1e-12 < value < 1e12)
]
CaseIndex: TypeAlias = Annotated[int, IndexOf("cases")]
CandidateIndex: TypeAlias = Annotated[int, IndexOf("candidates")]
ProcessIndex: TypeAlias = Annotated[int, IndexOf("processes")]
Level: TypeAlias = Annotated[float, Limits("between 0 and 1", lambda value: 0 < value < 1)]

MOST_COMPARISONS = 5000
"""The most pairs of candidates, over all cases: 100 candidates on one. Everything grows with them."""


def too_many(candidates: int, cases: int) -> str:
    """Return why so many candidates on so many cases are too many; empty when they are not."""
    pairs = candidates * (candidates - 1) // 2 * cases
    if pairs <= MOST_COMPARISONS:
        return ""
    return f"{candidates} candidates on {cases} cases are {pairs:,} comparisons, and {MOST_COMPARISONS:,} are the most"
