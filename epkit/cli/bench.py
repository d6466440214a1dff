"""`epkit bench`: targets side by side on one model."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from epkit.cli import _options, _show

if TYPE_CHECKING:
    from epkit.benchmark.result import Benchmark


@click.command()
@click.argument("model", required=False)
@click.option("-t", "--target", "targets", multiple=True, metavar="NAME", help="A candidate; name several.")
@click.option(
    "--budget", type=click.FloatRange(min=0, min_open=True), default=90.0, show_default=True, metavar="SECONDS"
)
@click.option("--input", "given", multiple=True, metavar="NAME=FILE.npy", help="An input; the others are made up.")
@click.option("--seed", type=int, help="The seed of the random order, to repeat it.")
@_options.config
@_options.refresh
@_options.as_json
@click.pass_context
def bench(
    context: click.Context,
    model: str | None,
    targets: tuple[str, ...],
    budget: float,
    given: tuple[str, ...],
    seed: int | None,
    config: str | None,
    refresh: bool,
    as_json: bool,
) -> None:
    """Measure targets side by side on MODEL, or on a sample network that epkit brings.

    Each candidate runs in a process of its own, strictly on its first provider, in short blocks that alternate in
    random order. Without -t, the candidates are all providers that are installed; what this machine cannot have is a
    row with its reason.
    """
    from epkit.benchmark.measure import bench as measure
    from epkit.cli._inputs import named_files

    with _progress() as progress:
        found = measure(
            model,
            targets or None,
            config=config,
            budget=budget,
            inputs=named_files(given),
            seed=seed,
            progress=progress,
            refresh=refresh,
        )
    if as_json:
        _show.document(found.as_json())
    else:
        _print(found, model)
    context.exit(found.exit_code)


def _print(found: Benchmark, model: str | None) -> None:
    measured = [row for row in found.candidates if row.status == "ok"]
    others = [row for row in found.candidates if row.status != "ok"]
    _show.title(f"{model or 'the sample network'} on {found.environment.cpu}, {found.environment.cores} cores")
    if measured:
        rows = [
            (
                row.target,
                _show.seconds(row.median_s),
                _show.seconds(row.p90_s),
                _show.seconds(row.p99_s),
                f"{row.throughput_per_s:.4g}" if row.throughput_per_s else "",
                _show.seconds(row.open_s),
                _show.seconds(row.first_run_s),
                _show.size(row.peak_rss_bytes),
            )
            for row in measured
        ]
        columns = ("candidate", "median", "p90", "p99", "runs/s", "open", "first run", "memory")
        _show.table(columns, rows, numbers=columns[1:])
    for row in measured:
        _show.line(f"{row.target}: {row.summary}")
    for one in found.comparisons:
        agreement = found.candidates[one.b_row].agreement
        told = f"; outputs: {agreement.told}" if agreement is not None else ""
        _show.line(f"{one.b} takes {one.ratio:.3g} times the time of {one.a}: {one.verdict}{told}")
    if others:
        _show.table(("candidate", "status", "why"), [(row.target, row.status, row.reason) for row in others])
        _show.advice((row.target, row.hint) for row in others)
    for note in (*found.notes, *(f"{row.target}: {note}" for row in measured for note in row.notes)):
        _show.line(f"note: {note}")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, float], None] | None]:
    """Show a progress bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda doing, share: bar.update(task, description=doing, completed=share)
