"""Print a benchmark on a terminal."""

from __future__ import annotations

import sys

from epkit.benchmark.document import Benchmark
from epkit.benchmark.report import sentences, tables
from epkit.benchmark.report.histogram import BLOCKS
from epkit.benchmark.report.table import Table
from epkit.cli import output


def show(found: Benchmark) -> None:
    """Print the tables and sentences of a benchmark."""
    output.paragraph(sentences.title(found), "dim")
    if sentences.only_settings(found):
        output.paragraph(sentences.only_settings(found))
    if sentences.unfinished(found):
        output.title(sentences.unfinished(found))
    for sentence in sentences.overview(found):
        output.title(sentence)
    runs = tables.runs(found)
    for at in range(len(found.measured.cases)):
        _case(found, at, runs)
    _table(tables.starts(found))
    for place, candidate in enumerate(found.candidates):
        if candidate.status == "ok":
            output.paragraph(f"{sentences.label(found, place)}: {sentences.placement(found, place)}")
    for table, remarks in tables.operators(found):
        output.title(table.title)
        _table(table)
        for remark in remarks:
            output.paragraph(remark)
    _table(tables.failures(found))
    output.advice(tables.hints(found))
    output.paragraph(sentences.timing(found.measured.request), "dim")
    for note in (*sentences.warning_lines(found), *sentences.notes(found)):
        output.paragraph(note)


def _case(found: Benchmark, at: int, runs: tables.Runs) -> None:
    name = sentences.case(found, at)
    output.line("")
    for sentence in sentences.verdicts(found, at):
        output.title(f"{name}: {sentence}" if name else sentence)
    table = tables.main_figures(found, at, runs)
    if name and not sentences.verdicts(found, at):
        output.title(name)
    if not _can_draw():
        table = table.select([place for place, column in enumerate(table.columns) if column != table.drawing])
    _table(table)
    if sentences.minimum_detectable(found, at):
        output.paragraph(sentences.minimum_detectable(found, at), "dim")


def _table(table: Table) -> None:
    """Print a table; columns that do not fit on the terminal follow in another one below it."""
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
    return [table.select(places) for places in found]


def _can_draw() -> bool:
    """Whether the encoding of the output has block characters."""
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
