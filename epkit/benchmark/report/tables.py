"""Which tables and sentences make up a benchmark, in which order?

The terminal, Markdown and the page draw the same ones, each in its own way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from epkit._system.text import format_bytes, format_percent, format_seconds, printable
from epkit.benchmark.document import Benchmark, Figures, Quantile
from epkit.benchmark.operators import tables as operator_tables
from epkit.benchmark.report import histogram, sentences
from epkit.benchmark.statistics.quantiles import pooled
from epkit.benchmark.statistics.verdicts import by_candidate

COLUMNS = 24
"""How wide a histogram is in a table."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a heading each; the columns named in `numbers` stand right, the one named `drawing` is a picture."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...] = ()
    drawing: str = ""

    def of(self, places: Sequence[int]) -> Table:
        """Return a table of some of its columns."""
        columns, *rows = (tuple(row[at] for at in places) for row in (self.columns, *self.rows))
        drawing = self.drawing if self.drawing in columns else ""
        return Table(columns, tuple(rows), tuple(one for one in self.numbers if one in columns), drawing)


Runs = Mapping[tuple[int, int], Sequence[float]]
"""The runs that count, the quickest first, by case and candidate."""


def runs(found: Benchmark) -> Runs:
    """Return the runs of every candidate that has figures."""
    blocks = by_candidate(found.measured.blocks, found.measured.processes)
    return {
        (one.case, one.candidate): pooled(blocks.get((one.case, one.candidate), ())) for one in found.findings.figures
    }


def figures(found: Benchmark, at: int, its: Runs) -> Table:
    """Return what a reader looks for first on one case: a row a candidate, with a histogram of its runs."""
    mine = _of_case(found, at)
    scale = histogram.scale([its[at, one.candidate] for one in mine])
    drawing = "" if scale is None else f"{format_seconds(scale.low_s)} to {format_seconds(scale.high_s)}"
    drawing += ", log" if scale is not None and scale.logarithmic else ""
    rows = [
        (
            sentences.label(found, one.candidate),
            format_seconds(one.median.value_s),
            between(one.median),
            *(
                format_seconds(one.p90.value_s if one.p90 else None),
                format_seconds(one.p99.value_s if one.p99 else None),
            ),
            *(per_second(one), format_seconds(one.cpu_s), format_seconds(one.first_run_s)),
            "" if scale is None else histogram.drawn(its[at, one.candidate], scale, COLUMNS),
        )
        for one in mine
    ]
    columns = ("candidate", "median", "interval", "p90", "p99", "runs/s", "CPU", "first run", drawing or "runs")
    return Table(columns, tuple(rows), columns[1:8], columns[8])


def all_figures(found: Benchmark, at: int) -> Table:
    """Return every figure of one case."""
    rows = []
    for one in _of_case(found, at):
        shown = [
            (format_seconds(each.value_s), between(each)) if each else ("", "")
            for each in (one.median, one.p90, one.p99)
        ]
        rows.append(
            (
                sentences.label(found, one.candidate),
                *(text for pair in shown for text in pair),
                *(per_second(one), format_seconds(one.cpu_s), format_seconds(one.first_run_s)),
                *(f"{one.runs:,}", str(one.processes), str(one.warmup_runs)),
            )
        )
    quantiles = [text for name in ("median", "p90", "p99") for text in (name, f"{name}, 95 %")]
    rest = ("runs/s", "CPU of a run", "first run", "runs", "processes", "warm-up runs")
    columns = ("candidate", *quantiles, *rest)
    return _filled(Table(columns, tuple(rows), columns[1:]))


def comparisons(found: Benchmark, at: int) -> Table:
    """Return every comparison of one case with its figures."""
    rows = [
        (
            f"{sentences.label(found, one.b)} beside {sentences.label(found, one.a)}",
            one.verdict,
            sentences.written(one.time),
            "" if one.p99 is None else sentences.written(one.p99),
            format_percent(one.floor),
            *(str(one.processes), str(one.meetings)),
        )
        for one in found.findings.comparisons
        if one.case == at
    ]
    columns = ("", "verdict", "times the time", "in slow runs (p99)", "floor", "processes", "meetings")
    return _filled(Table(columns, tuple(rows), columns[2:]))


def starts(found: Benchmark) -> Table:
    """Return what it takes each candidate to start and to stay; columns without a figure are left out."""
    rows = [
        (
            sentences.label(found, one.candidate),
            *(format_seconds(one.import_s), format_seconds(one.open_s), format_seconds(one.open_cold_s)),
            *(format_bytes(one.peak_rss_bytes), format_bytes(one.device_bytes)),
        )
        for one in found.findings.starts
        if found.candidates[one.candidate].status == "ok"
    ]
    columns = ("candidate", "import", "open", "open, cold cache", "memory", "GPU memory")
    return _filled(Table(columns, tuple(rows), columns[1:]))


def failures(found: Benchmark) -> Table:
    """Return the candidates that have no figures, each with its reason."""
    rows = [
        (sentences.label(found, place), one.status, printable(one.reason or "; ".join(sentences.parity(found, place))))
        for place, one in enumerate(found.candidates)
        if one.status != "ok"
    ]
    return Table(("candidate", "status", "why"), tuple(rows))


def hints(found: Benchmark) -> tuple[tuple[str, str], ...]:
    """Return what to type about candidates that have no figures."""
    rows = [(sentences.label(found, at), printable(one.hint)) for at, one in enumerate(found.candidates)]
    return tuple((who, hint) for who, hint in rows if hint)


def settings(found: Benchmark) -> Table:
    """Return the settings that are not the same for all candidates that were opened."""
    opened = [place for place, one in enumerate(found.candidates) if one.effective and one.status != "unusable"]
    by_key: dict[str, dict[int, str]] = {}
    for place in opened:
        for one in found.candidates[place].effective:
            by_key.setdefault(printable(one.get("key", "")), {})[place] = _value(one.get("value"))
    rows = [
        (key, *(values.get(place, "") for place in opened))
        for key, values in by_key.items()
        if len({values.get(place) for place in opened}) > 1
    ]
    return Table(("setting", *(sentences.label(found, place) for place in opened)), tuple(rows))


def operators(found: Benchmark) -> list[tuple[str, Table, tuple[str, ...]]]:
    """Return what the operators of each candidate take, where that was asked for: heading, table, remarks."""
    drawn = []
    for place, one in enumerate(found.candidates):
        if one.operators is None:
            continue
        tables = operator_tables.tables(one.operators)
        for table in tables:
            rows = tuple(tuple(map(printable, row)) for row in table.rows)
            remarks = tuple(map(printable, operator_tables.remarks(one.operators))) if table is tables[-1] else ()
            heading = f"{sentences.label(found, place)}: {printable(table.title).lower()}"
            drawn.append((heading, Table(table.columns, rows, table.numbers), remarks))
    return drawn


def inputs(found: Benchmark) -> Table:
    """Return the inputs of each case."""
    rows = [
        (sentences.case(found, at), *(_value(each.get(key)) for key in ("name", "dtype", "shape", "origin")))
        for at, one in enumerate(found.measured.cases)
        for each in one.inputs
    ]
    return _filled(Table(("case", "input", "dtype", "shape", "from"), tuple(rows)))


def environment(found: Benchmark) -> Table:
    """Return the machine, what is installed, and what was asked for."""
    rows = [*_facts(found.measured.request), *_facts(found.measured.environment), *_rules(found.measured.rules)]
    return Table(("", ""), tuple(rows))


def between(one: Quantile) -> str:
    """Write the interval of a quantile: "3.87 to 3.95 ms"."""
    if one.low_s is None or one.high_s is None:
        return ""
    low, high = format_seconds(one.low_s), format_seconds(one.high_s)
    return f"{low.split()[0]} to {high}" if low.split()[-1] == high.split()[-1] else f"{low} to {high}"


def per_second(one: Figures) -> str:
    """Write the throughput."""
    value = one.throughput_per_s
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def _of_case(found: Benchmark, at: int) -> list[Figures]:
    return sorted((one for one in found.findings.figures if one.case == at), key=lambda one: one.candidate)


def _facts(of: object) -> Iterator[tuple[str, str]]:
    """Yield the fields of a dataclass that hold something, in words."""
    for field in fields(of):  # type: ignore[arg-type]
        value, name = getattr(of, field.name), field.name
        if value is None or value == "" or value == () or value == {}:
            continue
        if name.endswith("_bytes"):
            yield name.replace("_", " "), format_bytes(value)
        elif name.endswith("_s"):
            yield name.removesuffix("_s").replace("_", " "), format_seconds(value)
        else:
            yield name.replace("_", " "), _value(value)


def _rules(rules: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in rules.items():
        yield f"rule: {printable(name).replace('_', ' ')}", _value(value)


def _value(value: object) -> str:
    """Write any value of the document on one line."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case str() | int():
            return printable(value)
        case Mapping():
            return ", ".join(f"{printable(name)} {_value(each)}" for name, each in value.items())
        case list() if all(isinstance(one, int) for one in value):
            return json.dumps(value)
        case Sequence():
            return ", ".join(map(_value, value))
        case _ if hasattr(value, "__dataclass_fields__"):
            return ", ".join(f"{name} {each}" for name, each in _facts(value))
        case _:
            return printable(value)


def _filled(one: Table) -> Table:
    """Leave out the columns in which no row has anything."""
    kept = [at for at in range(len(one.columns)) if any(row[at] for row in one.rows)]
    return one.of(kept)
