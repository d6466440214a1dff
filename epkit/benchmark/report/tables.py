"""Make the tables of a benchmark, from its document alone; the terminal, Markdown and the page draw the same ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace

from epkit._system.text import format_bytes, format_percent, format_seconds, printable
from epkit.benchmark.document import Benchmark, Figures, Quantile
from epkit.benchmark.report import histogram, sentences
from epkit.benchmark.report.operators import operator_tables, remarks
from epkit.benchmark.report.table import Table
from epkit.benchmark.statistics.quantiles import pooled_runs
from epkit.benchmark.statistics.verdicts import blocks_by_candidate

COLUMNS = 24
"""The width of a histogram in a table."""

Runs = Mapping[tuple[int, int], Sequence[float]]
"""The counted runs, the fastest first, by case and candidate."""


def runs(found: Benchmark) -> Runs:
    """Return the counted runs of every candidate that has figures."""
    blocks = blocks_by_candidate(found.measured.blocks, found.measured.processes)
    keys = [(figures.case, figures.candidate) for figures in found.findings.figures]
    return {key: pooled_runs(blocks.get(key, ())) for key in keys}


def figures_of(found: Benchmark, at: int) -> list[Figures]:
    """Return the figures of one case, in the order of the candidates."""
    return sorted((each for each in found.findings.figures if each.case == at), key=lambda each: each.candidate)


def main_figures(found: Benchmark, at: int, all_runs: Runs) -> Table:
    """Return the figures of one case that matter first: a row a candidate, with a histogram of its runs."""
    rows = figures_of(found, at)
    scale = histogram.scale([all_runs[at, each.candidate] for each in rows])
    drawing = "" if scale is None else f"{format_seconds(scale.low_s)} to {format_seconds(scale.high_s)}"
    drawing += ", log" if scale is not None and scale.logarithmic else ""
    cells = [
        (
            *(sentences.label(found, each.candidate), format_seconds(each.median.value_s), interval(each.median)),
            *(
                format_seconds(each.p90.value_s if each.p90 else None),
                format_seconds(each.p99.value_s if each.p99 else None),
            ),
            *(per_second(each), format_seconds(each.cpu_s), format_seconds(each.first_run_s)),
            "" if scale is None else histogram.draw(all_runs[at, each.candidate], scale, COLUMNS),
        )
        for each in rows
    ]
    columns = ("candidate", "median", "interval", "p90", "p99", "runs/s", "CPU", "first run", drawing or "runs")
    return Table(columns, cells, columns[1:8], columns[8])


def all_figures(found: Benchmark, at: int) -> Table:
    """Return every figure of one case."""
    rows = []
    for each in figures_of(found, at):
        quantiles = [
            (format_seconds(q.value_s), interval(q)) if q else ("", "") for q in (each.median, each.p90, each.p99)
        ]
        cells = *(text for pair in quantiles for text in pair), per_second(each), format_seconds(each.cpu_s)
        counts = f"{each.runs:,}", str(each.processes), str(each.warmup_runs)
        rows.append((sentences.label(found, each.candidate), *cells, format_seconds(each.first_run_s), *counts))
    names = [text for name in ("median", "p90", "p99") for text in (name, f"{name}, 95 %")]
    columns = ("candidate", *names, "runs/s", "CPU of a run", "first run", "runs", "processes", "warm-up runs")
    return Table(columns, rows, columns[1:]).without_empty_columns()


def comparisons(found: Benchmark, at: int) -> Table:
    """Return every comparison of one case with its figures."""
    rows = [
        (
            f"{sentences.label(found, each.b)} relative to {sentences.label(found, each.a)}",
            *(each.verdict, sentences.ratio(each.time), "" if each.p99 is None else sentences.ratio(each.p99)),
            *(format_percent(each.floor), str(each.processes), str(each.pairs)),
        )
        for each in found.findings.comparisons
        if each.case == at
    ]
    columns = ("", "verdict", "ratio of times", "of slow runs (p99)", "minimum detectable", "processes", "pairs")
    return Table(columns, rows, columns[2:]).without_empty_columns()


def starts(found: Benchmark) -> Table:
    """Return the start-up cost and memory of each candidate; columns without a figure are left out."""
    rows = [
        (
            *(sentences.label(found, each.candidate), format_seconds(each.import_s), format_seconds(each.open_s)),
            *(format_seconds(each.open_cold_s), format_bytes(each.peak_rss_bytes), format_bytes(each.device_bytes)),
        )
        for each in found.findings.starts
        if found.candidates[each.candidate].status == "ok"
    ]
    columns = ("candidate", "import", "open", "open, cold cache", "memory", "GPU memory")
    return Table(columns, rows, columns[1:]).without_empty_columns()


def failures(found: Benchmark) -> Table:
    """Return the candidates that have no figures, each with its reason."""
    rows = [
        (
            sentences.label(found, place),
            each.status,
            printable(each.reason or "; ".join(sentences.parity(found, place))),
        )
        for place, each in enumerate(found.candidates)
        if each.status != "ok"
    ]
    return Table(("candidate", "status", "why"), rows)


def hints(found: Benchmark) -> tuple[tuple[str, str], ...]:
    """Return what to type about candidates that have no figures."""
    rows = [(sentences.label(found, at), printable(each.hint)) for at, each in enumerate(found.candidates)]
    return tuple((name, hint) for name, hint in rows if hint)


def settings(found: Benchmark) -> Table:
    """Return the settings that are not the same for all candidates that were opened."""
    opened = [place for place, each in enumerate(found.candidates) if each.effective and each.status != "unusable"]
    by_key: dict[str, dict[int, str]] = {}
    for place in opened:
        for setting in found.candidates[place].effective:
            by_key.setdefault(printable(setting.get("key", "")), {})[place] = _text(setting.get("value"))
    rows = [
        (key, *(values.get(place, "") for place in opened))
        for key, values in by_key.items()
        if len({values.get(place) for place in opened}) > 1
    ]
    return Table(("setting", *(sentences.label(found, place) for place in opened)), rows)


def operators(found: Benchmark) -> list[tuple[Table, tuple[str, ...]]]:
    """Return the time of the operators of each candidate that was profiled: tables, each with remarks."""
    drawn = []
    for place, candidate in enumerate(found.candidates):
        if candidate.operators is None:
            continue
        tables = operator_tables(candidate.operators)
        for table in tables:
            rows = [tuple(map(printable, row)) for row in table.rows]
            notes = tuple(map(printable, remarks(candidate.operators))) if table is tables[-1] else ()
            title = f"{sentences.label(found, place)}: {printable(table.title).lower()}"
            drawn.append((replace(table, rows=rows, title=title), notes))
    return drawn


def inputs(found: Benchmark) -> Table:
    """Return the inputs of each case."""
    rows = [
        (sentences.case(found, at), *(_text(each.get(key)) for key in ("name", "dtype", "shape", "origin")))
        for at, case in enumerate(found.measured.cases)
        for each in case.inputs
    ]
    return Table(("case", "input", "dtype", "shape", "from"), rows).without_empty_columns()


def environment(found: Benchmark) -> Table:
    """Return the machine, what is installed, and what was requested."""
    rules = ((f"rule: {printable(name).replace('_', ' ')}", _text(rule)) for name, rule in found.measured.rules.items())
    return Table(("", ""), [*_facts(found.measured.request), *_facts(found.measured.environment), *rules])


def interval(quantile: Quantile) -> str:
    """Write the interval of a quantile: "3.87 to 3.95 ms"."""
    if quantile.low_s is None or quantile.high_s is None:
        return ""
    low, high = format_seconds(quantile.low_s), format_seconds(quantile.high_s)
    return f"{low.split()[0]} to {high}" if low.split()[-1] == high.split()[-1] else f"{low} to {high}"


def per_second(figures: Figures) -> str:
    """Write the throughput."""
    value = figures.throughput_per_s
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


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
            yield name.replace("_", " "), _text(value)


def _text(value: object) -> str:
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
            return ", ".join(f"{printable(name)} {_text(each)}" for name, each in value.items())
        case list() if all(isinstance(each, int) for each in value):
            return json.dumps(value)
        case Sequence():
            return ", ".join(map(_text, value))
        case _ if hasattr(value, "__dataclass_fields__"):
            return ", ".join(f"{name} {each}" for name, each in _facts(value))
        case _:
            return printable(value)
