"""How does a benchmark look in Markdown, as in a comment on a pull request?"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from epkit._system.text import printable
from epkit.benchmark.document import Benchmark
from epkit.benchmark.report import sentences, tables
from epkit.benchmark.report.tables import Table


def markdown(found: Benchmark) -> str:
    """Return the benchmark in GitHub-flavoured Markdown."""
    return "\n".join(_lines(found)).rstrip() + "\n"


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(printable(text), quote=False))


def code(text: str) -> str:
    """Return text as code, whatever it holds."""
    text = printable(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def _lines(found: Benchmark) -> Iterator[str]:
    yield f"### {escaped(sentences.title(found))}"
    yield ""
    if sentences.alone(found):
        yield from _paragraph(escaped(sentences.alone(found)))
    if sentences.ended_early(found):
        yield from _paragraph(f"**{escaped(sentences.ended_early(found))}**")
    yield from _list(found_in for found_in in sentences.overview(found))
    runs = tables.runs(found)
    for at in range(len(found.measured.cases)):
        name = sentences.case(found, at)
        if name:
            yield from _paragraph(f"#### {escaped(name)}")
        for said in sentences.verdicts(found, at):
            yield from _paragraph(f"**{escaped(said)}**")
        yield from _table(tables.figures(found, at, runs))
        if sentences.floor(found, at):
            yield from _paragraph(escaped(sentences.floor(found, at)))
    yield from _table(tables.starts(found))
    yield from _list(
        f"{sentences.label(found, place)}: {sentences.ran(found, place)}"
        for place, one in enumerate(found.candidates)
        if one.status == "ok"
    )
    yield from _table(tables.failures(found))
    for who, hint in tables.hints(found):
        yield f"- {escaped(who)}: {code(hint)}"
    yield ""
    yield from _list([sentences.timed(found.measured.request), *sentences.doubtful(found), *sentences.notes(found)])
    for title, table, remarks in tables.operators(found):
        yield from _folded(escaped(title), table, remarks)
    yield from _folded("Settings that differ", tables.settings(found))
    yield from _folded("Machine, versions and request", tables.environment(found), sentences.method(found))


def _paragraph(text: str) -> Iterator[str]:
    yield text
    yield ""


def _list(texts: Iterator[str] | Sequence[str]) -> Iterator[str]:
    yield from (f"- {escaped(text)}" for text in texts)
    yield ""


def _table(table: Table) -> Iterator[str]:
    if not table.rows:
        return
    yield _row(escaped(name) for name in table.columns)
    yield _row("---:" if name in table.numbers else "---" for name in table.columns)
    for row in table.rows:
        yield _row(
            _drawing(cell) if table.drawing and name == table.drawing else escaped(cell)
            for name, cell in zip(table.columns, row, strict=True)
        )
    yield ""


def _drawing(text: str) -> str:
    # Spaces at the ends of code are taken away, others are kept.
    return code(text.replace(" ", "\N{NO-BREAK SPACE}"))


def _row(cells: Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _folded(summary: str, table: Table, texts: Sequence[str] = ()) -> Iterator[str]:
    if not table.rows:
        return
    yield from _paragraph(f"<details><summary>{summary}</summary>")
    yield from _list(texts)
    yield from _table(table)
    yield from _paragraph("</details>")
