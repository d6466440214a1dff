"""Make tables and remarks of the time of each operator, from the profile of a candidate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from epkit.benchmark.operators.profile import Node, Operators
from epkit.benchmark.report.table import Table

MOST = 10
"""The rows of a table; the rest is one more row."""
OF_NODE = ("node", "operator", "on", "ms a run", "share")
OF_OPERATOR = ("operator", "on", "ms a run", "share", "calls")
NOTICEABLE = 1.05
"""A slowdown by the profiler from which on it is mentioned."""


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """Operators of one type on one provider."""

    operator: str
    provider: str
    seconds: float
    """In a run."""
    share: float
    """Of the time of all nodes; inside of compiled parts, of the time that the provider reports."""
    calls: float
    """In a run."""


def by_operator(found: Operators) -> tuple[OperatorTime, ...]:
    """Add up the nodes by operator and provider, the slowest first; copies between providers are operators too."""
    return _add_up((node.operator, node.provider, node.seconds, node.calls) for node in found.nodes)


def inside_parts(found: Operators) -> tuple[OperatorTime, ...]:
    """List the operators inside of compiled parts, the slowest first."""
    return _add_up((part.operator, part.provider, part.seconds, part.calls) for part in found.inside)


def _add_up(parts: Iterable[tuple[str, str, float, float]]) -> tuple[OperatorTime, ...]:
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for operator, provider, seconds, calls in parts:
        groups.setdefault((operator, provider), []).append((seconds, calls))
    sums = {key: [sum(column) for column in zip(*each, strict=True)] for key, each in groups.items()}
    total = sum(seconds for seconds, _ in sums.values()) or 1.0
    found = (OperatorTime(*key, seconds, seconds / total, calls) for key, (seconds, calls) in sums.items())
    return tuple(sorted(found, key=lambda each: (-each.seconds, each.operator, each.provider)))


def copies(found: Operators) -> tuple[Node, ...]:
    """List the copies between the memories of two providers, the slowest first."""
    return _slowest_first(node for node in found.nodes if node.is_copy)


def fallback_nodes(found: Operators) -> tuple[Node, ...]:
    """List the nodes that run on another provider than the first of the target, the slowest first."""
    return _slowest_first(node for node in found.nodes if node.provider != found.first and not node.is_copy)


def node_seconds(found: Operators) -> float:
    """Return the time of all nodes in a run; more than the run where nodes run side by side."""
    return sum(node.seconds for node in found.nodes)


def operator_tables(found: Operators, most: int = MOST) -> tuple[Table, ...]:
    """Return the tables that are not empty: operators, copies, fallback nodes, what is inside of compiled parts."""
    total = node_seconds(found) or 1.0
    copied = [(*_node_cells(node, total), _kib(node.moved_bytes)) for node in copies(found)]
    fallback = [_node_cells(node, total) for node in fallback_nodes(found)]
    drawn = (
        _operator_table("Operators", by_operator(found), most),
        _node_table("Copies between providers", (*OF_NODE, "KiB a run"), copied, most),
        _node_table(f"Fell back from {found.first}", OF_NODE, fallback, most),
        _operator_table("Inside the compiled parts, as the provider reports it", inside_parts(found), most),
    )
    return tuple(table for at, table in enumerate(drawn) if table.rows or not at)


def remarks(found: Operators) -> tuple[str, ...]:
    """Return the cost of fallback, of copies and of the profiler, and what the times do not include."""
    taken = node_seconds(found)
    fallback = fallback_nodes(found)
    lines = []
    if fallback:
        share = _share(sum(node.seconds for node in fallback) / (taken or 1.0))
        lines.append(f"{_count(len(fallback), 'node')} fell back from {found.first} and took {share} of the time")
    if found.crossings:
        lines.append(f"a run crosses between providers {_count(found.crossings, 'time')}; {_cost_of_copies(found)}")
    if taken > found.run_s:
        lines.append("nodes ran side by side: together they take longer than the run")
    if found.launched:
        lines.append(
            f"on {' and '.join(found.launched)} the time of a node is that of its launch on the device; "
            f"all nodes together are {_share(taken / found.run_s)} of a run"
        )
    advice = "read the shares here, and take times from the benchmark"
    if found.slowdown is not None and found.slowdown >= NOTICEABLE:
        advice = f"with the profiler the fastest run took {found.slowdown:.1f} times as long as without: {advice}"
    return (*lines, advice, *found.notes)


def _cost_of_copies(found: Operators) -> str:
    copied = copies(found)
    if not copied:
        return "without a copy: both work in the CPU's memory"
    spent, moved = sum(node.seconds for node in copied), sum(node.moved_bytes for node in copied)
    calls = _count(sum(node.calls for node in copied), "copy", "copies")
    cost = (
        f"{calls} of {_kib(moved)} KiB take {_ms(spent)} ms, {_share(spent / (node_seconds(found) or 1.0))} of the time"
    )
    return cost + (", waiting for the device included" if found.launched else "")


def _operator_table(title: str, found: tuple[OperatorTime, ...], most: int) -> Table:
    shown, rest = found[:most], found[most:]
    if rest:
        sums = (sum(getattr(each, name) for each in rest) for name in ("seconds", "share", "calls"))
        shown = (*shown, OperatorTime(f"{len(rest)} more", "", *sums))
    cells = [
        (each.operator, each.provider, _ms(each.seconds), _share(each.share), f"{each.calls:.3g}") for each in shown
    ]
    return Table(OF_OPERATOR, cells, OF_OPERATOR[2:], title=title)


def _node_table(title: str, columns: tuple[str, ...], cells: Sequence[tuple[str, ...]], most: int) -> Table:
    if len(cells) > most:
        cells = (*cells[:most], (f"{len(cells) - most} more", *("" for _ in columns[1:])))
    return Table(columns, tuple(cells), columns[3:], title=title)


def _node_cells(node: Node, total: float) -> tuple[str, ...]:
    return node.name, node.operator, node.provider, _ms(node.seconds), _share(node.seconds / total)


def _slowest_first(nodes: Iterable[Node]) -> tuple[Node, ...]:
    return tuple(sorted(nodes, key=lambda node: -node.seconds))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"


def _share(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")


def _kib(size: int) -> str:
    return f"{size / 1024:.1f}"


def _count(number: float, noun: str, plural: str = "") -> str:
    return f"{number:.3g} {noun if number == 1 else plural or noun + 's'}"
