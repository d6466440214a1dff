"""How does a benchmark look on a terminal?"""

from __future__ import annotations

import sys

from epkit.benchmark.document import Benchmark
from epkit.benchmark.report import sentences, tables
from epkit.benchmark.report.histogram import BLOCKS
from epkit.benchmark.report.tables import Table
from epkit.cli import output


def show(found: Benchmark) -> None:
    """Print the tables and sentences of a benchmark."""
    output.paragraph(sentences.title(found), "dim")
    if sentences.alone(found):
        output.paragraph(sentences.alone(found))
    if sentences.ended_early(found):
        output.title(sentences.ended_early(found))
    for said in sentences.overview(found):
        output.title(said)
    runs = tables.runs(found)
    for at in range(len(found.measured.cases)):
        _case(found, at, runs)
    _table(tables.starts(found))
    for place, one in enumerate(found.candidates):
        if one.status == "ok":
            output.paragraph(f"{sentences.label(found, place)}: {sentences.ran(found, place)}")
    for heading, table, remarks in tables.operators(found):
        output.title(heading)
        _table(table)
        for said in remarks:
            output.paragraph(said)
    _table(tables.failures(found))
    output.advice(tables.hints(found))
    output.paragraph(sentences.timed(found.measured.request), "dim")
    for note in (*sentences.doubtful(found), *sentences.notes(found)):
        output.paragraph(note)


def _case(found: Benchmark, at: int, runs: tables.Runs) -> None:
    name = sentences.case(found, at)
    output.line("")
    for said in sentences.verdicts(found, at):
        output.title(f"{name}: {said}" if name else said)
    table = tables.figures(found, at, runs)
    if name and not sentences.verdicts(found, at):
        output.title(name)
    if not _can_draw():
        table = table.of([place for place, column in enumerate(table.columns) if column != table.drawing])
    _table(table)
    if sentences.floor(found, at):
        output.paragraph(sentences.floor(found, at), "dim")


def _table(table: Table) -> None:
    """Print a table; what a terminal has no room for stands in another one below it."""
    if table.rows:
        for part in parts(table, output.width()):
            output.table(part.columns, part.rows, numbers=part.numbers)


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
