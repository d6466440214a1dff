"""Write a benchmark in Markdown, as for a comment on a pull request."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from epkit._system.text import printable
from epkit.benchmark.document import Benchmark
from epkit.benchmark.report import sentences, tables
from epkit.benchmark.report.table import Table


def markdown(found: Benchmark) -> str:
    """Return the benchmark in GitHub-flavoured Markdown."""
    return "\n".join(_lines(found)).rstrip() + "\n"


def escape(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(printable(text), quote=False))


def code(text: str) -> str:
    """Return text as code, whatever it holds."""
    text = printable(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def _lines(found: Benchmark) -> Iterator[str]:
    yield from _paragraph(f"### {escape(sentences.title(found))}")
    yield from _paragraph(escape(sentences.only_settings(found)))
    yield from _paragraph(_bold(sentences.unfinished(found)))
    yield from _list(sentences.overview(found))
    runs = tables.runs(found)
    for at in range(len(found.measured.cases)):
        name = sentences.case(found, at)
        yield from _paragraph(f"#### {escape(name)}" if name else "")
        for sentence in sentences.verdicts(found, at):
            yield from _paragraph(_bold(sentence))
        yield from _table(tables.main_figures(found, at, runs))
        yield from _paragraph(escape(sentences.minimum_detectable(found, at)))
    yield from _table(tables.starts(found))
    measured = [place for place, candidate in enumerate(found.candidates) if candidate.status == "ok"]
    yield from _list([f"{sentences.label(found, place)}: {sentences.placement(found, place)}" for place in measured])
    yield from _table(tables.failures(found))
    for name, hint in tables.hints(found):
        yield f"- {escape(name)}: {code(hint)}"
    yield ""
    request = found.measured.request
    yield from _list([sentences.timing(request), *sentences.warning_lines(found), *sentences.notes(found)])
    for table, remarks in tables.operators(found):
        yield from _folded(escape(table.title), table, remarks)
    yield from _folded("Settings that differ", tables.settings(found))
    yield from _folded("Machine, versions and request", tables.environment(found), sentences.method(found))


def _bold(text: str) -> str:
    return f"**{escape(text)}**" if text else ""


def _paragraph(text: str) -> Iterator[str]:
    if text:
        yield text
        yield ""


def _list(texts: Sequence[str]) -> Iterator[str]:
    yield from (f"- {escape(text)}" for text in texts)
    yield ""


def _table(table: Table) -> Iterator[str]:
    if not table.rows:
        return
    yield _row(escape(name) for name in table.columns)
    yield _row("---:" if name in table.numbers else "---" for name in table.columns)
    for row in table.rows:
        yield _row(
            _drawing(cell) if table.drawing and name == table.drawing else escape(cell)
            for name, cell in zip(table.columns, row, strict=True)
        )
    yield ""


def _drawing(text: str) -> str:
    # Markdown strips plain spaces at the ends of code.
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
