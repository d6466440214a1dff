"""`epkit cache`: list, verify and prune the compiled models in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from epkit._system.text import format_count
from epkit.cli import _options, output

if TYPE_CHECKING:
    from epkit.session.cache.manage import Kept, KeptRow

_folder = click.argument("folder", required=False)


@click.group()
def cache() -> None:
    """List, verify and prune compiled models.

    FOLDER is the cache folder of a target's options (OpenVINO's CACHE_DIR); the default is epkit's cache folder.
    """


@cache.command("list")
@_folder
@_options.as_json
def list_(folder: str | None, as_json: bool) -> None:
    """List the compiled models."""
    from epkit.session.cache import manage

    found = manage.look(folder)
    if as_json:
        output.document(found.as_json())
        return
    _rows(found.rows)
    used = f"{output.format_bytes(found.bytes)} of {output.format_bytes(found.limit_bytes)}"
    output.line(f"{format_count(len(found.rows), 'compiled model')} in {found.folder}, {used}")
    if found.answers:
        output.line(f"answers of probes beside it: {found.answers}; epkit providers --refresh asks anew")


@cache.command()
@_folder
@_options.as_json
@click.pass_context
def verify(context: click.Context, folder: str | None, as_json: bool) -> None:
    """Verify the digest of every file. Exit code 1: a file is damaged."""
    from epkit.session.cache import manage

    found = manage.look(folder, thorough=True)
    if as_json:
        output.document(found.as_json())
    else:
        _rows(found.rows)
        output.line(f"{format_count(len(found.rows), 'compiled model')} in {found.folder}")
        bad = [row for row in found.rows if row.state in ("damaged", "unfinished")]
        output.advice([("what to do", "epkit cache prune" if bad else "")])
    context.exit(found.exit_code)


@cache.command()
@_folder
@click.option("--all", "everything", is_flag=True, help="Remove everything.")
@click.option("--stale", is_flag=True, help="Remove only what other versions built, and ignore the limit.")
@_options.as_json
def prune(folder: str | None, everything: bool, stale: bool, as_json: bool) -> None:
    """Remove damaged and unfinished models, then the least recently used ones beyond the limit.

    The limit is EPKIT_CACHE_LIMIT (10GiB). Models that another process is building are kept.
    """
    from epkit.session.cache import manage

    done: Kept = manage.prune(folder, everything=everything, stale=stale)
    if as_json:
        output.document(done.as_json())
        return
    _rows(done.removed)
    freed = output.format_bytes(sum(row.bytes for row in done.removed))
    removed = format_count(len(done.removed), "compiled model")
    output.line(f"removed {removed} from {done.folder}, {freed}; {output.format_bytes(done.bytes)} are left")


def _rows(rows: tuple[KeptRow, ...]) -> None:
    if not rows:
        return
    cells = [
        (
            row.provider,
            row.state,
            row.model,
            output.format_bytes(row.bytes),
            _date(row.used),
            row.reason or row.built_with,
        )
        for row in rows
    ]
    output.table(("provider", "state", "model", "size", "last used", "built with"), cells, numbers=("size",))


def _date(when: float | None) -> str:
    from datetime import datetime

    return "" if when is None else datetime.fromtimestamp(when).astimezone().strftime("%Y-%m-%d %H:%M")
