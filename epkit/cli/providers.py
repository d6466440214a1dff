"""`epkit providers`: list every plugin and provider, or one provider with its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from epkit.cli import _options, output

if TYPE_CHECKING:
    from epkit.discovery.listing import Catalogue


@click.command()
@click.argument("name", required=False)
@_options.refresh
@_options.as_json
def providers(name: str | None, refresh: bool, as_json: bool) -> None:
    """List every plugin and provider: usable or not, why, and what to do.

    With NAME, show that provider and its options.
    """
    from epkit.discovery import listing

    if name is not None:
        _one(name, refresh=refresh, as_json=as_json)
        return
    found = listing.providers(refresh=refresh)
    if as_json:
        output.document(found.as_json())
        return
    rows = [(row.name, row.status, row.distribution, row.detail or row.reason) for row in found.rows]
    output.table(("provider", "status", "from", "found"), rows)
    output.advice((row.name, row.hint) for row in found.rows)
    if found.only_cpu:
        output.paragraph(_only_cpu(found))
        output.advice((f"{engine.provider}, {engine.needs}", engine.hint) for engine in found.second_engine)


def _only_cpu(found: Catalogue) -> str:
    """Describe the consequence of cpu as the only usable provider."""
    alone = "only cpu is usable here, so epkit bench compares it with itself under other settings"
    if found.second_engine:
        return f"{alone}; what would bring a second engine:"
    return f"{alone}; no other provider that epkit knows has a wheel for this machine"


def _one(name: str, *, refresh: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from epkit.discovery import listing
    from epkit.session.explain import first_line

    entry, registry = listing.find(name)
    row = listing.row(entry, registry, refresh=refresh)
    options = listing.options(entry.provider.options) if entry.provider is not None else []
    if as_json:
        listed = [asdict(option) for option in options]
        output.document({"schema": listing.SCHEMA, "providers": [asdict(row) | {"options": listed}]})
        return
    output.title(f"{row.name} is {row.status}: {row.detail or row.reason or row.ort_name}")
    output.advice([("what to do", row.hint)])
    if entry.provider is not None:
        output.line(f"{row.ort_name}, from {row.distribution}: {first_line(type(entry.provider).__doc__)}")
    if options:
        output.table(
            ("option", "values", "meaning"), [(option.name, option.type, option.meaning) for option in options]
        )
