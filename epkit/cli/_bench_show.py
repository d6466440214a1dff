"""`epkit bench show`: what a benchmark that was written says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from epkit.cli import _options
from epkit.cli import output as _show

if TYPE_CHECKING:
    from epkit.benchmark.document import Benchmark


@click.command(short_help="Show a benchmark that was written.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "wanted",
    type=click.Choice(("table", "markdown", "html", "json", "pytest-benchmark")),
    help="How it is shown; without it, a table, or what the suffix of --output says.",
)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it: .md, .html or .json.")
@_options.as_json
def show(file: Path | None, wanted: str | None, output: Path | None, as_json: bool) -> None:
    """Show the benchmark in FILE, or the one that was measured last; nothing is measured.

    The format pytest-benchmark is for `pytest-benchmark compare`.
    """
    from epkit.benchmark import storage
    from epkit.benchmark.report import formats
    from epkit.errors import ConfigError

    if as_json and wanted not in (None, "json"):
        raise ConfigError(f"--json and --format {wanted} ask for two formats", hint="leave one of them out")
    if wanted == "table" and output is not None:
        raise ConfigError("a table is printed, not written to a file", hint="--output FILE.md")
    if as_json:
        wanted = "json"
    if output is not None:
        kind = formats.ready(formats.named(wanted) if wanted else formats.of(output), output)
        formats.write(_usable(file or storage.latest()), kind, output)
        _show.line(str(output))
        return
    found_in = file or storage.latest()
    found = _usable(found_in)
    if wanted in (None, "table"):
        from epkit.cli._bench_table import show as print_tables

        print_tables(found)
        _show.line(str(found_in))
        return
    kind = formats.ready(formats.named(wanted or ""))
    sys.stdout.write(_encodable(formats.text(found, kind), kind))


def _usable(file: Path) -> Benchmark:
    from epkit.benchmark import storage
    from epkit.benchmark.audit.consistency import unusable
    from epkit.errors import ConfigError

    found = storage.read(file)
    wrong = unusable(found)
    if wrong:
        told = f"{wrong[0].path} is {wrong[0].said}, where there should be: {wrong[0].found}"
        raise ConfigError(f"{file} is damaged: {told}", hint=f"epkit bench verify {file}")
    return found


def _encodable(text: str, kind: str) -> str:
    """Write as references what the output's encoding may not have, where the format knows them."""
    return text.encode("ascii", "xmlcharrefreplace").decode() if kind == "html" and not _is_utf8() else text


def _is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
