"""`epkit providers`: every plugin and provider, or one provider with its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from epkit.cli import _options, _show

if TYPE_CHECKING:
    from epkit.catalogue import Catalogue


@click.command()
@click.argument("name", required=False)
@_options.refresh
@_options.as_json
def providers(name: str | None, refresh: bool, as_json: bool) -> None:
    """List every plugin and provider: usable or not, why, and what to do.

    With NAME: that provider and its options.
    """
    from epkit import catalogue

    if name is not None:
        _one(name, refresh=refresh, as_json=as_json)
        return
    found = catalogue.providers(refresh=refresh)
    if as_json:
        _show.document(found.as_json())
        return
    rows = [(row.name, row.status, row.distribution, row.detail or row.reason) for row in found.rows]
    _show.table(("provider", "status", "from", "found"), rows)
    _show.advice((row.name, row.hint) for row in found.rows)
    if found.only_cpu:
        _show.paragraph(_only_cpu(found))
        _show.advice((f"{one.provider}, {one.needs}", one.hint) for one in found.second_engine)


def _only_cpu(found: Catalogue) -> str:
    """Say what it means that cpu is the only usable provider."""
    alone = "only cpu is usable here, so epkit bench compares it with itself under other settings"
    if found.second_engine:
        return f"{alone}; what would bring a second engine:"
    return f"{alone}; no other provider that epkit knows has a wheel for this machine"


def _one(name: str, *, refresh: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from epkit import catalogue
    from epkit.explanation import first_line

    entry, registry = catalogue.find(name)
    row = catalogue.row(entry, registry, refresh=refresh)
    options = catalogue.options(entry.provider.options) if entry.provider is not None else []
    if as_json:
        listed = [asdict(option) for option in options]
        _show.document({"schema": catalogue.SCHEMA, "providers": [asdict(row) | {"options": listed}]})
        return
    _show.title(f"{row.name} is {row.status}: {row.detail or row.reason or row.ort_name}")
    _show.advice([("what to do", row.hint)])
    if entry.provider is not None:
        _show.line(f"{row.ort_name}, from {row.distribution}: {first_line(type(entry.provider).__doc__)}")
    if options:
        _show.table(("option", "values", "meaning"), [(one.name, one.type, one.meaning) for one in options])
