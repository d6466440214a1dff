"""`epkit bench verify` and `epkit bench diff`: what do documents that lie there say?"""

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
    """Work out every number in FILE again from its samples: exit 0 if all hold, 1 if not.

    Agreements of outputs are judged again from their figures, and what was measured is searched for contradictions.
    """
    from epkit.benchmark import storage
    from epkit.benchmark.audit.verify import verify as verified

    found = verified(storage.read(file))
    if as_json:
        output.document({**found.as_json(), "file": file})
    elif found.holds:
        output.line(f"{file} holds: {found.values} values were worked out again, and all are what it says")
    else:
        output.title(f"{file} does not hold")
        output.table(("where", "the document says", "found"), [_row(one) for one in found.faults])
    if not as_json and not found.complete:
        output.line("note: the benchmark did not come to its end; this is what had been measured when it was written")
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
    """Say what changed from document A to document B: exit 1 if a candidate became slower, 2 if nothing compares.

    Compared is how candidates stand beside each other, since a machine's own drift between two days is in no interval.
    The first candidate in B is the one that the others are held against.
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
    from epkit.benchmark.audit.diff_sentences import summary

    output.title(f"{before} and {now}")
    for told in summary(found):
        output.line(told)
    if found.times:
        rows = [(one.case, one.target, *_typical(one.before), *_typical(one.now)) for one in found.times]
        output.table(("case", "candidate", "before", "between", "now", "between"), rows)
        output.line("times are not judged: how the machine itself drifts from one day to another is in no interval")
    listed = [(one.what, one.before, one.now) for one in found.differs if one.forbids == "nothing"]
    if listed:
        output.table(("what else is not the same", "before", "now"), listed)


def _typical(one: Typical) -> tuple[str, str]:
    between = "" if one.low_s is None else f"{output.format_seconds(one.low_s)} to {output.format_seconds(one.high_s)}"
    return (output.format_seconds(one.value_s), between)
