"""`epkit doctor`: what is wrong with this installation, and what mends it."""

from __future__ import annotations

import click

from epkit.cli import _options, output


@click.command()
@_options.refresh
@_options.as_json
def doctor(refresh: bool, as_json: bool) -> None:
    """Find wheels that clash, missing libraries, drivers and versions, each with the command that mends it.

    Exit code 1 when there is something to mend.
    """
    from epkit.session import doctor as checkup

    found = checkup.doctor(refresh=refresh)
    if as_json:
        output.document(found.as_json())
    else:
        output.table(("topic", "state", "found"), [(one.topic, one.state, one.found) for one in found.findings])
        output.advice((one.topic, one.hint) for one in found.findings)
        count = len(found.problems)
        output.title("nothing to mend" if not count else f"{count} problem{'s' if count > 1 else ''} to mend")
    if found.problems:
        raise click.exceptions.Exit(1)
