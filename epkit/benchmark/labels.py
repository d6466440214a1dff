"""Name the candidates of a benchmark, so that no two have the same name."""

from __future__ import annotations

from collections.abc import Sequence

from epkit.benchmark.document import Candidate


def labels(candidates: Sequence[Candidate]) -> Sequence[str]:
    """Name each candidate once: the second one of the same target is "cpu (2)"."""
    names: list[str] = []
    count: dict[str, int] = {}
    for candidate in candidates:
        count[candidate.target] = number = count.get(candidate.target, 0) + 1
        names.append(candidate.target if number == 1 else f"{candidate.target} ({number})")
    return names
