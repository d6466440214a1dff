"""`epkit compile`: compile a model ahead of time."""

from __future__ import annotations

import click

from epkit.cli import _options
from epkit.cli import output as show


@click.command()
@click.argument("model")
@_options.target
@click.option("--output", metavar="FILE", help="Write the compiled model to FILE instead of the cache.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@_options.config
@_options.as_json
@click.pass_context
def compile(
    context: click.Context,
    model: str,
    target: str | None,
    output: str | None,
    force: bool,
    config: str | None,
    as_json: bool,
) -> None:
    """Compile MODEL as a session would, and cache the result for later sessions.

    With --output, write a separate model in ONNX Runtime's EP-context format, for the provider that compiled it.
    Exit code 1: nothing could be cached or written.
    """
    from epkit.session import compile as compilation

    done = compilation.compile(model, target, config=config, output=output, force=force)
    if as_json:
        show.document(done.as_json())
    else:
        show.caches(done.cache)
        for file, size in done.files.items():
            show.line(f"wrote {file}, {show.format_bytes(size)}")
        for note in done.notes:
            show.line(f"note: {note}")
        show.line(f"it took {show.format_seconds(done.seconds)}")
    context.exit(done.exit_code)
