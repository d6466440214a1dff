"""`epkit compare`: compare the outputs of targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from epkit.cli import _options
from epkit.cli import output as show

if TYPE_CHECKING:
    from epkit.parity.result import Comparison, Row
    from epkit.parity.tolerance import Judged


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="MODEL | DIR_A DIR_B")
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="Compare this target; give two or more, the reference first.",
)
@click.option(
    "--input",
    "given",
    multiple=True,
    metavar="NAME=FILE.npy",
    help="Load an input from a file; the others are generated.",
)
@_options.one_size
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Compare on this many sets of generated inputs.",
)
@click.option(
    "--tolerance",
    default="auto",
    show_default=True,
    metavar="NAME|SHARE",
    help="Allow this difference: auto, images, exact, or a share of an output's largest magnitude such as 0.001.",
)
@_options.timeout
@_options.config
@_options.refresh
@_options.as_json
@click.pass_context
def compare(
    context: click.Context,
    what: tuple[str, ...],
    targets: tuple[str, ...],
    given: tuple[str, ...],
    dimensions: dict[str, int],
    seeds: int,
    tolerance: str,
    config: str | None,
    refresh: bool,
    as_json: bool,
) -> None:
    """Compare the outputs of targets on MODEL: exit code 0 if they agree, 1 if not.

    Each target runs in its own process, strictly on its first provider. If outputs differ, the command names the first
    tensor of the graph that differs, and measures how far rounding alone moves the outputs. With DIR_A and DIR_B,
    written by `epkit run --output-dir`, nothing runs.
    """
    from epkit.cli._inputs import named_files
    from epkit.cli._termination import ended_cleanly
    from epkit.errors import ConfigError

    if len(what) == 2 and not targets:
        from epkit.parity.saved import compare_saved

        found = compare_saved(*what, tolerance=tolerance)
    elif len(what) == 1:
        from epkit.parity.compare import compare as compare_targets

        with ended_cleanly():
            found = compare_targets(
                what[0],
                targets,
                config=config,
                inputs=named_files(given),
                dimensions=dimensions,
                seeds=seeds,
                tolerance=tolerance,
                refresh=refresh,
            )
    else:
        hint = "epkit compare MODEL -t A -t B, or epkit compare DIR_A DIR_B"
        raise ConfigError(f"a comparison is of one model or of two folders, not of {len(what)} of them", hint=hint)
    if as_json:
        show.document(found.as_json())
    else:
        _print(found)
    context.exit(found.exit_code)


def _print(found: Comparison) -> None:
    others = [row for row in found.rows if row.verdict is not None]
    show.title(found.model or f"outputs saved in {found.reference}")
    if others:
        columns = ("candidate", "output", "off by", "share", "allowed", "ULP", "cosine", "argmax flips", "verdict")
        show.table(columns, [line for row in others for line in _lines(row)], numbers=columns[2:8])
    for row in others:
        show.line(f"{row.target}: {row.told}")
        if row.divergence is not None:
            show.line(f"{row.target}: {row.divergence.told}")
        if row.conditioning is not None:
            show.line(f"{row.target}: {row.conditioning.told}")
        if row.verdict == "ill-conditioned":
            show.line(f"{row.target}: the model is ill-conditioned: no two providers can agree on it")
    faults = [(row.target, row.fault) for row in found.rows if row.fault is not None]
    if faults:
        show.table(("candidate", "status", "why"), [(name, fault.status, fault.reason) for name, fault in faults])
        show.advice((name, fault.hint) for name, fault in faults)
    for row in found.rows:
        if row.summary:
            show.line(f"{row.target}: {row.summary}")
    for note in (*found.notes, *(f"{row.target}: {note}" for row in found.rows for note in row.notes)):
        show.line(f"note: {note}")


def _lines(row: Row) -> list[tuple[object, ...]]:
    """Return a line for each output, with the inputs on which it differs most."""
    worst: dict[str, Judged] = {}
    for run in row.runs:
        for one in run.agreement.outputs:
            name = one.metrics.output
            if name not in worst or _badness(one) > _badness(worst[name]):
                worst[name] = one
    return [
        (
            *(row.target, name, _figure(one.metrics.max_abs), _figure(one.metrics.share), _figure(one.allowed)),
            *(one.metrics.max_ulp, _cosine(one.metrics.cosine), _flips(one), "agree" if one.agree else "differ"),
        )
        for name, one in worst.items()
    ]


def _badness(one: Judged) -> tuple[bool, float]:
    return not one.agree, one.metrics.share or 0.0


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _cosine(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _flips(one: Judged) -> str:
    return "" if one.metrics.argmax_of is None else f"{one.metrics.argmax_flips} of {one.metrics.argmax_of}"
