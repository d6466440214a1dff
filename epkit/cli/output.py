"""Print results: tables in colour on a terminal, plain lines in a pipe, or a JSON document.

Tables fit the width of the terminal; in a pipe nothing is cut. Control characters are escaped in all of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from epkit._system.text import format_bytes as format_bytes
from epkit._system.text import format_seconds as format_seconds
from epkit._system.text import printable
from epkit.cli import _edge

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from epkit.errors import EpkitError
    from epkit.session.report import CacheRow

GOOD = frozenset({"usable", "active", "ok", "fine", "sound", "agree"})
BAD = frozenset(
    {
        "unusable",
        "broken",
        "failed",
        "failed to open",
        "failed to warm up",
        "problem",
        "disagrees",
        "damaged",
        "differ",
        "differs",
    }
)


def document(data: Mapping[str, object]) -> None:
    """Print the JSON document of a command."""
    _write(json.dumps(data, indent=2, default=str))


def lines(text: str) -> None:
    """Print several lines unchanged, such as a script."""
    for line in text.splitlines():
        _write(printable(line))


def fault(error: EpkitError) -> None:
    """Print an error on stderr beside a result on stdout."""
    _edge.complain(f"epkit: {error.message}", *([f"  hint: {error.hint}"] if error.hint else []))


def title(text: str) -> None:
    """Print the first sentence of a result."""
    if sys.stdout.isatty():
        _console().print(_text(text, "bold"))
    else:
        _write(printable(text))


def line(text: str) -> None:
    """Print one line of prose."""
    if sys.stdout.isatty():
        # Commands to copy must not be wrapped.
        _console().print(_text(text), soft_wrap=True)
    else:
        _write(printable(text))


def paragraph(text: str, style: str = "") -> None:
    """Print prose that a terminal may wrap."""
    if sys.stdout.isatty():
        _console().print(_text(text, style))
    else:
        _write(printable(text))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table; columns in `numbers` are right-aligned. A status word (`usable`, `broken`) is coloured."""
    cells = [["" if cell is None else printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich import box
        from rich.table import Table

        drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
        for column in columns:
            drawn.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
        for row in cells:
            drawn.add_row(*(_text(cell, _style(cell)) for cell in row))
        _console().print(drawn)
        return
    widths = [max(len(line) for line in (column, *(row[at] for row in cells))) for at, column in enumerate(columns)]
    for row in (list(columns), *cells):
        padded = [
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        _write("  ".join(padded).rstrip())


def width() -> int | None:
    """Return the width of the terminal; None in a pipe."""
    return _console().width if sys.stdout.isatty() else None


def advice(hints: Iterable[tuple[str, str]]) -> None:
    """Print the hint of each row of a table, on a line to copy; skip rows without a hint."""
    for about, hint in hints:
        if hint:
            line(f"{about}: {hint}")


def shapes(value: Mapping[str, Sequence[int]]) -> str:
    """Format shapes by name: "image [1, 3, 128, 128], mask [1, 128]"."""
    return ", ".join(f"{name} {list(shape)}" for name, shape in value.items())


def caches(rows: Iterable[CacheRow]) -> None:
    """Print the outcome of the cache, a line for each provider."""
    for row in rows:
        text = f"cache: {row.provider} {row.outcome}"
        if row.outcome in ("hit", "built"):
            text += f", {format_bytes(row.bytes)} in {row.folder}, built in {format_seconds(row.seconds)}"
        line(text + (f" ({row.reason})" if row.reason else ""))


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False)


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(printable(text), style=style)


def _style(cell: str) -> str:
    return "green" if cell in GOOD else "red" if cell in BAD else "yellow" if cell == "disabled" else ""
