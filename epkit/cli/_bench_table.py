"""How does a benchmark look on a terminal?"""

from __future__ import annotations

import sys

from epkit.benchmark import sections, wording
from epkit.benchmark.document import Benchmark
from epkit.benchmark.histogram import BLOCKS
from epkit.benchmark.sections import Table
from epkit.cli import _show


def show(found: Benchmark) -> None:
    """Print the tables and sentences of a benchmark."""
    _show.paragraph(wording.title(found), "dim")
    if wording.alone(found):
        _show.paragraph(wording.alone(found))
    if wording.ended_early(found):
        _show.title(wording.ended_early(found))
    for said in wording.overview(found):
        _show.title(said)
    runs = sections.runs(found)
    for at in range(len(found.measured.cases)):
        _case(found, at, runs)
    _table(sections.starts(found))
    for place, one in enumerate(found.candidates):
        if one.status == "ok":
            _show.paragraph(f"{wording.label(found, place)}: {wording.ran(found, place)}")
    for heading, table, remarks in sections.operators(found):
        _show.title(heading)
        _table(table)
        for said in remarks:
            _show.paragraph(said)
    _table(sections.failures(found))
    _show.advice(sections.hints(found))
    _show.paragraph(wording.timed(found.measured.request), "dim")
    for note in (*wording.doubtful(found), *wording.notes(found)):
        _show.paragraph(note)


def _case(found: Benchmark, at: int, runs: sections.Runs) -> None:
    name = wording.case(found, at)
    _show.line("")
    for said in wording.verdicts(found, at):
        _show.title(f"{name}: {said}" if name else said)
    table = sections.figures(found, at, runs)
    if name and not wording.verdicts(found, at):
        _show.title(name)
    if not _can_draw():
        table = table.of([place for place, column in enumerate(table.columns) if column != table.drawing])
    _table(table)
    if wording.floor(found, at):
        _show.paragraph(wording.floor(found, at), "dim")


def _table(table: Table) -> None:
    """Print a table; what a terminal has no room for stands in another one below it."""
    if table.rows:
        for part in parts(table, _show.width()):
            _show.table(part.columns, part.rows, numbers=part.numbers)


def parts(table: Table, width: int | None) -> list[Table]:
    """Cut a table of figures into tables that are no wider than that, each with the first column."""
    if width is None or not table.numbers:
        return [table]
    between = 3
    first, *widths = (max(map(len, column)) + between for column in zip(table.columns, *table.rows, strict=True))
    found, room = [[0]], width - first
    for place, its in enumerate(widths, start=1):
        if its > room and len(found[-1]) > 1:
            found.append([0])
            room = width - first
        found[-1].append(place)
        room -= its
    return [table.of(places) for places in found]


def _can_draw() -> bool:
    """Whether the encoding of the output has block characters."""
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
