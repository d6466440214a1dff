"""`epkit bench verify` and `epkit bench diff`: recompute a document, or compare two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from epkit.cli import _options, output

if TYPE_CHECKING:
    from epkit.benchmark.audit.consistency import Fault
    from epkit.benchmark.audit.diff import Changes, Typical


@click.command()
@click.argument("file", metavar="FILE")
@_options.as_json
@click.pass_context
def verify(context: click.Context, file: str, as_json: bool) -> None:
    """Recompute every number in FILE from its samples: exit 0 if all hold, 1 if not.

    Agreements of outputs are judged again from their figures, and measurements are checked for contradictions.
    """
    from epkit.benchmark import storage
    from epkit.benchmark.audit.verify import verify as verified

    found = verified(storage.read(file))
    if as_json:
        output.document({**found.as_json(), "file": file})
    elif found.holds:
        output.line(f"{file} holds: {found.values} values were recomputed, and all are the same")
    else:
        output.title(f"{file} does not hold")
        output.table(("where", "the document says", "found"), [_row(fault) for fault in found.faults])
    if not as_json and not found.complete:
        output.line("note: the benchmark was interrupted; this is what had been measured by then")
    context.exit(found.exit_code)


def _row(fault: Fault) -> tuple[str, str, str]:
    return (fault.path, _value(fault.said), _value(fault.found))


def _value(value: str | float | bool | None) -> str:
    return value if isinstance(value, str) else "nothing" if value is None else f"{value!r}"


@click.command()
@click.argument("before", metavar="A")
@click.argument("now", metavar="B")
@_options.as_json
@click.pass_context
def diff(context: click.Context, before: str, now: str, as_json: bool) -> None:
    """Compare document A with document B: exit 1 if a candidate became slower, 2 if nothing can be compared.

    Ratios of candidates are compared, since the drift of a machine between two days is in no interval. The others are
    compared with the first candidate in B.
    """
    from epkit.benchmark import storage
    from epkit.benchmark.audit.diff import changes

    found = changes(storage.read(before), storage.read(now))
    if as_json:
        output.document({**found.as_json(), "before": before, "now": now})
    else:
        _print(found, before, now)
    context.exit(found.exit_code)


def _print(found: Changes, before: str, now: str) -> None:
    from epkit.benchmark.audit.diff_sentences import summarize

    output.title(f"{before} and {now}")
    for sentence in summarize(found):
        output.line(sentence)
    if found.times:
        rows = [(each.case, each.target, *_typical(each.before), *_typical(each.now)) for each in found.times]
        output.table(("case", "candidate", "before", "between", "now", "between"), rows)
        output.line("times are not judged: the drift of the machine from one day to another is in no interval")
    listed = [(each.what, each.before, each.now) for each in found.differs if each.forbids == "nothing"]
    if listed:
        output.table(("what else is not the same", "before", "now"), listed)


def _typical(time: Typical) -> tuple[str, str]:
    between = (
        "" if time.low_s is None else f"{output.format_seconds(time.low_s)} to {output.format_seconds(time.high_s)}"
    )
    return (output.format_seconds(time.value_s), between)
