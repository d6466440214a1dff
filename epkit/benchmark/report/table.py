"""Define the one kind of table that the terminal, Markdown and the page draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; the columns named in `numbers` are aligned right, the one named `drawing` is a histogram."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: tuple[str, ...] = ()
    drawing: str = ""
    title: str = ""

    def select(self, places: Sequence[int]) -> Table:
        """Return a table of some of its columns."""
        columns, *rows = (tuple(row[at] for at in places) for row in (self.columns, *self.rows))
        drawing = self.drawing if self.drawing in columns else ""
        numbers = tuple(name for name in self.numbers if name in columns)
        return Table(columns, tuple(rows), numbers, drawing, self.title)

    def without_empty_columns(self) -> Table:
        """Return the table without the columns in which every cell is empty."""
        return self.select([at for at in range(len(self.columns)) if any(row[at] for row in self.rows)])
