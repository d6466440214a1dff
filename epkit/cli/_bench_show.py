"""`epkit bench show`: show the document of a benchmark."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from epkit.cli import _options
from epkit.cli import output as _show

if TYPE_CHECKING:
    from epkit.benchmark.document import Benchmark


@click.command(short_help="Show the document of a benchmark.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "wanted",
    type=click.Choice(("table", "markdown", "html", "json", "pytest-benchmark")),
    help="The format; without it, a table, or by the suffix of --output.",
)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it: .md, .html or .json.")
@_options.as_json
def show(file: Path | None, wanted: str | None, output: Path | None, as_json: bool) -> None:
    """Show the benchmark in FILE, or the latest one; nothing is measured.

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
    from epkit.benchmark.audit.consistency import check_usable

    found = storage.read(file)
    check_usable(found, str(file), file)
    return found


def _encodable(text: str, kind: str) -> str:
    """Write characters that the encoding of the output may lack as references, where the format has them."""
    return text.encode("ascii", "xmlcharrefreplace").decode() if kind == "html" and not _is_utf8() else text


def _is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
