"""How is it shown what the operators of a candidate take?

Plain tables and sentences, made from the document alone: the terminal, Markdown and the page draw the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from epkit.benchmark.operators.profile import Node, Operators

MOST = 10
"""How many rows a table has; the rest is one row more."""
OF_NODE = ("node", "operator", "on", "ms a run", "share")
NOTICEABLE = 1.05
"""How much longer the runs with the profiler have to take before that is told."""


@dataclass(frozen=True, slots=True)
class Row:
    """Operators of one type on one provider."""

    operator: str
    provider: str
    seconds: float
    """Of a run."""
    share: float
    """Of the time of all nodes; inside of compiled parts, of the time that the provider tells of."""
    calls: float
    """In a run."""
    nodes: int
    """0 where that is not known."""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells that are ready to be drawn."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...]
    """The columns that stand right."""


def rows(found: Operators) -> tuple[Row, ...]:
    """Add up the nodes by operator and provider, the slowest first; copies between providers are operators too."""
    total = node_seconds(found) or 1.0
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in found.nodes:
        groups.setdefault((node.operator, node.provider), []).append(node)
    return _slowest_first(
        Row(*key, taken, taken / total, sum(one.calls for one in nodes), len(nodes))
        for key, nodes in groups.items()
        for taken in [sum(one.seconds for one in nodes)]
    )


def inside(found: Operators) -> tuple[Row, ...]:
    """List the operators inside of compiled parts, the slowest first."""
    total = sum(one.seconds for one in found.inside) or 1.0
    return _slowest_first(
        Row(one.operator, one.provider, one.seconds, one.seconds / total, one.calls, 0) for one in found.inside
    )


def copies(found: Operators) -> tuple[Node, ...]:
    """List the copies between the memories of two providers, the slowest first."""
    return tuple(sorted((one for one in found.nodes if one.is_copy), key=lambda one: -one.seconds))


def fell_back(found: Operators) -> tuple[Node, ...]:
    """List the nodes that run elsewhere than on the provider that the candidate is about, the slowest first."""
    elsewhere = (one for one in found.nodes if one.provider != found.first and not one.is_copy)
    return tuple(sorted(elsewhere, key=lambda one: -one.seconds))


def node_seconds(found: Operators) -> float:
    """Return what all nodes of a run take; more than the run where nodes run side by side."""
    return sum(one.seconds for one in found.nodes)


def tables(found: Operators, most: int = MOST) -> tuple[Table, ...]:
    """Return the tables that have something to show: operators, copies, what fell back, what is inside."""
    total = node_seconds(found) or 1.0
    drawn = [_by_operator("Operators", rows(found), most)]
    if copied := copies(found):
        cells = [(*_of_node(one, total), _kib(one.moved_bytes)) for one in copied]
        titles = (*OF_NODE, "KiB a run")
        drawn.append(Table("Copies between providers", titles, _cut(cells, most), titles[3:]))
    if elsewhere := fell_back(found):
        left = [_of_node(one, total) for one in elsewhere]
        drawn.append(Table(f"Fell back from {found.first}", OF_NODE, _cut(left, most), OF_NODE[3:]))
    if within := inside(found):
        drawn.append(_by_operator("Inside the compiled parts, as the provider tells it", within, most))
    return tuple(drawn)


def remarks(found: Operators) -> tuple[str, ...]:
    """Say what the tables do not: what crossing costs, what the profiler costs, and what the times are not."""
    said = []
    taken = node_seconds(found)
    elsewhere = fell_back(found)
    if elsewhere:
        share = sum(one.seconds for one in elsewhere) / (taken or 1.0)
        said.append(
            f"{_count(len(elsewhere), 'node')} fell back from {found.first} and took {_share(share)} of the time"
        )
    if found.crossings:
        copied = copies(found)
        if copied:
            spent, moved = sum(one.seconds for one in copied), sum(one.moved_bytes for one in copied)
            calls = _count(sum(one.calls for one in copied), "copy", "copies")
            cost = f"{calls} of {_kib(moved)} KiB take {_ms(spent)} ms, {_share(spent / (taken or 1.0))} of the time"
            if found.launched:
                cost += ", waiting for the device included"
        else:
            cost = "without a copy: both work in the CPU's memory"
        said.append(f"a run crosses between providers {_count(found.crossings, 'time')}; {cost}")
    if taken > found.run_s:
        said.append("nodes ran side by side: together they take longer than the run")
    if found.launched:
        said.append(
            f"on {' and '.join(found.launched)} the time of a node is that of its launch on the device; "
            f"all nodes together are {_share(taken / found.run_s)} of a run"
        )
    told = "read the shares here, and take times from the benchmark"
    if found.slowdown is not None and found.slowdown >= NOTICEABLE:
        told = f"with the profiler the quickest run took {found.slowdown:.1f} times as long as without: {told}"
    said.append(told)
    return (*said, *found.notes)


def _by_operator(title: str, found: tuple[Row, ...], most: int) -> Table:
    shown, rest = found[:most], found[most:]
    cells = [(one.operator, one.provider, _ms(one.seconds), _share(one.share), f"{one.calls:.3g}") for one in shown]
    if rest:
        spent, share = sum(one.seconds for one in rest), sum(one.share for one in rest)
        cells.append((f"{len(rest)} more", "", _ms(spent), _share(share), f"{sum(one.calls for one in rest):.3g}"))
    columns = ("operator", "on", "ms a run", "share", "calls")
    return Table(title, columns, tuple(cells), columns[2:])


def _of_node(one: Node, total: float) -> tuple[str, ...]:
    return one.name, one.operator, one.provider, _ms(one.seconds), _share(one.seconds / total)


def _cut(cells: Sequence[tuple[str, ...]], most: int) -> tuple[tuple[str, ...], ...]:
    if len(cells) <= most:
        return tuple(cells)
    return (*cells[:most], (f"{len(cells) - most} more", *("" for _ in cells[0][1:])))


def _slowest_first(found: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(sorted(found, key=lambda one: (-one.seconds, one.operator, one.provider)))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"


def _share(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")


def _kib(size: int) -> str:
    return f"{size / 1024:.1f}"


def _count(number: float, one: str, many: str = "") -> str:
    return f"{number:.3g} {one if number == 1 else many or one + 's'}"
