"""`epkit doctor`: find problems of this installation, and how to fix them."""

from __future__ import annotations

import click

from epkit.cli import _options, output


@click.command()
@_options.refresh
@_options.as_json
def doctor(refresh: bool, as_json: bool) -> None:
    """Find conflicting wheels, missing libraries, drivers and versions, each with the command that fixes it.

    Exit code 1: there is a problem to fix.
    """
    from epkit.session import doctor as checkup

    found = checkup.doctor(refresh=refresh)
    if as_json:
        output.document(found.as_json())
    else:
        output.table(
            ("topic", "state", "found"), [(finding.topic, finding.state, finding.found) for finding in found.findings]
        )
        output.advice((finding.topic, finding.hint) for finding in found.findings)
        count = len(found.problems)
        output.title("nothing to mend" if not count else f"{count} problem{'s' if count > 1 else ''} to mend")
    if found.problems:
        raise click.exceptions.Exit(1)
