"""Write a benchmark as a page: one file with text, tables and plots, without network access."""

from __future__ import annotations

from pathlib import Path

from epkit.benchmark.document import Benchmark
from epkit.benchmark.report import sentences, tables
from epkit.benchmark.report.html import plots


def page(found: Benchmark) -> str:
    """Return the page. It needs the extra `report`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals.update(w=sentences, s=tables, p=plots, drawn=Markup)
    return templates.get_template("page.html").render(
        found=found,
        runs=tables.runs(found),
        cases=range(len(found.measured.cases)),
        measured=[place for place, candidate in enumerate(found.candidates) if candidate.status == "ok"],
    )
