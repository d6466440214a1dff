"""Count the nodes that each provider runs.

Read from ONNX Runtime's own record of the partitioning, never assumed from the list of providers that it registered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

UNRECORDED = "ONNX Runtime does not record where the nodes of a model in ORT format run"


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a model that one provider runs: nodes, share of all nodes (0 to 1), and counts by operator."""

    nodes: int
    share: float
    operators: Mapping[str, int] = field(default_factory=dict)


def count_nodes(assigned: Iterable[tuple[str, Sequence[str]]], names: Mapping[str, str]) -> dict[str, Share]:
    """Count the nodes by provider.

    `assigned` holds pairs of ONNX Runtime's provider name and the operators of one subgraph; `names` maps those
    provider names to epkit's. A model that folds to constants has no node and an empty placement.
    """
    counts: dict[str, Counter[str]] = {}
    for ort_name, operators in assigned:
        counts.setdefault(names.get(ort_name, ort_name), Counter()).update(operators)
    total = sum(count.total() for count in counts.values())
    ordered = sorted(
        counts, key=lambda name: list(names.values()).index(name) if name in names.values() else len(names)
    )
    return {
        name: Share(counts[name].total(), counts[name].total() / total, dict(counts[name].most_common()))
        for name in ordered
        if counts[name]
    }


def describe_others(placed: Mapping[str, Share], name: str) -> str:
    """List the operators that run on providers other than `name`: "Gelu (2) on cpu, TopK on cuda"."""
    parts = []
    for other, share in placed.items():
        if other != name:
            operators = [f"{op} ({count})" if count > 1 else op for op, count in share.operators.items()]
            message = ", ".join(operators[:8]) + (f" and {len(operators) - 8} more" if len(operators) > 8 else "")
            parts.append(f"{message} on {other}")
    return "; ".join(parts)
