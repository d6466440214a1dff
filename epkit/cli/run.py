"""`epkit run`: run a model once, and print its outputs and the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from epkit.cli import _options, output

if TYPE_CHECKING:
    from epkit.session.report import Report


@click.command()
@click.argument("model")
@_options.target
@click.option(
    "--input",
    "given",
    multiple=True,
    metavar="NAME=FILE.npy",
    help="Load an input from a file; the others are generated.",
)
@_options.one_size
@click.option("--output-dir", metavar="DIR", help="Write each output to DIR/<name>.npy.")
@_options.timeout
@_options.config
@_options.as_json
def run(
    model: str,
    target: str | None,
    given: tuple[str, ...],
    dimensions: dict[str, int],
    output_dir: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Run MODEL once, with given or generated inputs, and report what ran where."""
    from epkit.model import assumed_sizes
    from epkit.model.array_files import load_inputs, save_outputs
    from epkit.model.file import read_model
    from epkit.model.shapes import check_sizes
    from epkit.runtime.size_search import KnownInputs, first_run
    from epkit.session import open as session

    with session.open(model, target, config=config) as opened:
        check_sizes(opened.inputs, dimensions)
        known = KnownInputs(load_inputs(given, opened.inputs), dimensions=dimensions)
        ran = first_run(opened.run, opened.inputs, known, assumed_sizes.read_image_hints(read_model(model)))
        outputs, made = ran.result, ran.made
        files = save_outputs(outputs, Path(output_dir)) if output_dir is not None else {}
        report = opened.report
    shapes = {name: describe(value) for name, value in outputs.items()}
    if as_json:
        document: dict[str, object] = {"schema": "epkit.run/1", "report": report.as_json() | {"run_s": ran.seconds}}
        document |= {"outputs": shapes, "files": {name: str(file) for name, file in files.items()}}
        output.document(document | {"made_up": list(made.made_up), "assumed": made.assumed})
        return
    _report(report)
    rows = [(name, value["dtype"], _shape(value["shape"]), files.get(name)) for name, value in shapes.items()]
    output.table(("output", "dtype", "shape", "file"), rows)
    if made.made_up:
        output.line(f"generated: {', '.join(made.made_up)}; set them with --input NAME=FILE.npy")
    if made.assumed:
        output.line(assumed_sizes.describe_assumed(made.assumed, opened.inputs))
    output.line(f"run: {output.format_seconds(ran.seconds)}")


def describe(value: Any) -> dict[str, Any]:
    """Return shape and dtype of an output; length and type of a sequence or map."""
    if hasattr(value, "dtype"):
        dtype = "string" if value.dtype.kind in "OU" else str(value.dtype)
        return {"shape": list(value.shape), "dtype": dtype}
    if value is None:
        return {"shape": None, "dtype": "none"}
    inner = type(value[0]).__name__ if isinstance(value, list) and value else ""
    return {"shape": [len(value)], "dtype": f"{type(value).__name__}({inner})" if inner else type(value).__name__}


def _shape(shape: list[int] | None) -> str:
    return "" if shape is None else "[" + ", ".join(str(size) for size in shape) + "]"


def _report(report: Report) -> None:
    output.title(report.summary())
    output.line(f"{report.target}: {report.why}")
    output.table(
        ("provider", "outcome", "share", "why"),
        [(row.provider, row.outcome, report.share(row.provider), row.reason) for row in report.tried],
    )
    output.advice((row.provider, row.hint) for row in report.tried)
    spent = ", ".join(f"{part} {output.format_seconds(value)}" for part, value in report.seconds.items())
    output.line(f"times: {spent}")
    if report.graph is not None:
        output.line(report.graph.summary())
    if report.warmup_why:
        output.line(f"warm-up: {report.warmup_why}")
    if report.warmup:
        output.table(
            ("shapes", "runs", "first run", "last run", "", "peak memory", "grew by"),
            [
                (
                    *(
                        output.shapes(one.shapes),
                        one.runs,
                        output.format_seconds(one.first_s),
                        output.format_seconds(one.steady_s),
                    ),
                    "" if one.steady is None else "steady" if one.steady else "not steady yet",
                    *(output.format_bytes(one.peak_bytes), output.format_bytes(one.grew_bytes)),
                )
                for one in report.warmup
            ],
            numbers=("runs", "first run", "last run", "peak memory", "grew by"),
        )
    output.caches(report.cache)
    for note in report.notes:
        output.line(f"note: {note}")
