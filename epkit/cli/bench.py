"""`epkit bench`: benchmark targets on one model, and show, verify or compare the documents."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from epkit._system.text import printable
from epkit.cli import _options
from epkit.cli import output as _show
from epkit.cli._bench_files import diff, verify
from epkit.cli._bench_show import show

if TYPE_CHECKING:
    from epkit.benchmark.document import Benchmark

_MEASURE = ""
"""The name of the command that measures, for the group; no argument has it by accident."""


class _SamePath(click.Context):
    @property
    def command_path(self) -> str:
        return self.parent.command_path if self.parent else ""


class _Measure(click.Command):
    """The command that runs when the first word is no subcommand."""

    context_class = _SamePath

    def get_help(self, ctx: click.Context) -> str:
        return (ctx.parent or ctx).get_help()


class _Bench(click.Group):
    """A first word that is no subcommand is the model, or an option of measuring."""

    measure: click.Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = (*self.commands, *self.get_help_option_names(ctx))
        return super().parse_args(ctx, args if args and args[0] in known else [_MEASURE, *args])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] == _MEASURE:
            return _MEASURE, self.measure, args[1:]
        return super().resolve_command(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[MODEL] [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [FILE] ...", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.measure.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@click.group(cls=_Bench)
def bench() -> None:
    """Benchmark targets side by side on MODEL, or on a sample network that comes with epkit.

    Each candidate runs in fresh processes, strictly on its first provider, one at a time, in short blocks that
    alternate in random order. Without -t, the candidates are all installed providers; one that is unavailable on this
    machine is a row with its reason. Where only cpu can be measured, it is compared with itself under other settings.
    A winner is named only when there is one.

    For a model file whose name is a command, type ./show.
    """


@click.command("bench", cls=_Measure)
@click.argument("model", required=False)
@click.option("-t", "--target", "targets", multiple=True, metavar="NAME", help="A candidate; name several.")
@click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    default=90.0,
    show_default=True,
    metavar="SECONDS",
    help="The time limit of the whole.",
)
@click.option("--batch", "batches", callback=_options.sizes, metavar="1,4,16", help="Batch sizes, a case each.")
@click.option(
    "--dim",
    "dimensions",
    callback=_options.dimensions,
    multiple=True,
    metavar="NAME=1,2",
    help="Sizes of another dynamic dimension.",
)
@click.option("--input", "given", multiple=True, metavar="NAME=FILE.npy", help="An input; the others are generated.")
@click.option("--bind", "bound", is_flag=True, help="Time bound buffers, instead of arrays on the host.")
@click.option(
    "--callers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Threads that call at once.",
)
@click.option(
    "--smallest-effect",
    type=click.FloatRange(min=0, min_open=True, max=100),
    default=2.0,
    show_default=True,
    metavar="PERCENT",
    help="The smallest difference that matters.",
)
@click.option(
    "--tolerance",
    default="auto",
    show_default=True,
    metavar="NAME|SHARE",
    help="How far outputs may be apart, as in epkit compare.",
)
@click.option("--operators", is_flag=True, help="Also profile the operators.")
@click.option(
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write it as .json, .html or .md, by its suffix; name several.",
)
@click.option("--require-verdict", is_flag=True, help="Exit with 1 when any comparison is undecided.")
@click.option("--seed", type=int, help="The seed of the random order, to repeat it.")
@_options.config
@_options.refresh
@_options.as_json
@click.pass_context
def _measure(
    context: click.Context,
    model: str | None,
    targets: tuple[str, ...],
    budget: float,
    batches: tuple[int, ...],
    dimensions: dict[str, tuple[int, ...]],
    given: tuple[str, ...],
    bound: bool,
    callers: int,
    smallest_effect: float,
    tolerance: str,
    operators: bool,
    outputs: tuple[Path, ...],
    require_verdict: bool,
    seed: int | None,
    config: str | None,
    refresh: bool,
    as_json: bool,
) -> None:
    from epkit.benchmark import storage
    from epkit.benchmark.report import formats
    from epkit.cli._bench_table import show as print_tables
    from epkit.cli._inputs import named_files
    from epkit.cli._termination import ended_cleanly
    from epkit.errors import ConfigError

    others = [(file, formats.ready(formats.of(file), file)) for file in outputs]
    named = [file for file, its in others if its == "json"]
    document, unsaved = (named[0], "") if named else _new_document(model or "sample")
    from epkit.benchmark.bench import bench as measure

    unwritten: dict[Path, ConfigError] = {}
    try:
        with ended_cleanly(), _progress() as progress:
            found = measure(
                model,
                targets or None,
                config=config,
                budget=budget,
                batches=batches,
                dimensions=dimensions,
                inputs=named_files(given),
                bound=bound,
                callers=callers,
                smallest_effect=smallest_effect / 100,
                tolerance=tolerance,
                operators=operators,
                output=document,
                seed=seed,
                progress=progress,
                refresh=refresh,
            )
    except storage.Unwritten as error:
        found = error.benchmark
        if document is not None:
            unwritten[document] = error
    for file, its in others:
        if file != document:
            try:
                formats.write(found, its, file)
            except ConfigError as error:
                unwritten[file] = error
    if as_json:
        _show.document(found.as_json())
    else:
        print_tables(found)
        for file in dict.fromkeys((*outputs, *([document] if document else ()))):
            if file not in unwritten:
                _show.line(str(file))
        if unsaved:
            _show.line(f"note: {unsaved}")
    for fault in unwritten.values():
        _show.fault(fault)
    context.exit(
        next((fault.exit_code for fault in unwritten.values()), 0)
        or found.exit_code
        or (1 if require_verdict and not _decided(found) else 0)
    )


bench.measure = _measure
for _command in (show, verify, diff):
    bench.add_command(_command)


def _new_document(model: str) -> tuple[Path | None, str]:
    """Return a file for an unnamed document; None and the reason, where the user's folder is read-only."""
    from epkit.benchmark import storage
    from epkit.errors import ConfigError

    try:
        return storage.new_file(model), ""
    except ConfigError as error:
        if os.environ.get(storage.VARIABLE):
            raise
        return None, f"{error.message}; {error.hint}"


def _decided(found: Benchmark) -> bool:
    """Whether every two candidates have a verdict; one alone has none."""
    from epkit.benchmark.statistics.verdicts import comparable

    verdicts = [compared.verdict for compared in found.findings.comparisons]
    return bool(verdicts) and len(verdicts) == len(comparable(found.measured)) and "undecided" not in verdicts


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, float], None] | None]:
    """Show a progress bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda doing, share: bar.update(task, description=escape(printable(doing)), completed=share)
