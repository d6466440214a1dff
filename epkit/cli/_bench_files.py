"""`epkit bench verify` and `epkit bench diff`: what do documents that lie there say?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from epkit.cli import _options, _show

if TYPE_CHECKING:
    from epkit.benchmark.soundness import Fault


@click.command()
@click.argument("file", metavar="FILE")
@_options.as_json
@click.pass_context
def verify(context: click.Context, file: str, as_json: bool) -> None:
    """Work out every number in FILE again from its samples: exit 0 if all hold, 1 if not.

    Agreements of outputs are judged again from their figures, and what was measured is searched for contradictions.
    """
    from epkit.benchmark import stored
    from epkit.benchmark.verification import verify as verified

    found = verified(stored.read(file))
    if as_json:
        _show.document({**found.as_json(), "file": file})
    elif found.holds:
        _show.line(f"{file} holds: {found.values} values were worked out again, and all are what it says")
    else:
        _show.title(f"{file} does not hold")
        _show.table(("where", "the document says", "found"), [_row(one) for one in found.faults])
    if not as_json and not found.complete:
        _show.line("note: the benchmark did not come to its end; this is what had been measured when it was written")
    context.exit(found.exit_code)


def _row(fault: Fault) -> tuple[str, str, str]:
    return (fault.path, _value(fault.said), _value(fault.found))


def _value(value: str | float | bool | None) -> str:
    return value if isinstance(value, str) else "nothing" if value is None else f"{value!r}"
