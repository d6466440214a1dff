"""`epkit inspect`: describe a model file, and estimate its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from epkit.cli import _options, output

if TYPE_CHECKING:
    from epkit.model.file import TensorInfo
    from epkit.model.inspect import Inspection

LONGEST = 100
"""The most characters of a metadata value that are shown."""


@click.command()
@click.argument("model")
@click.option("--batch", callback=_options.sizes, metavar="1,4,16", help="Estimate the memory at these batch sizes.")
@click.option("-t", "--target", metavar="NAME", help="Measure the memory too, on this target or provider.")
@_options.one_size
@_options.config
@_options.as_json
def inspect(
    model: str,
    batch: tuple[int, ...],
    target: str | None,
    dimensions: dict[str, int],
    config: str | None,
    as_json: bool,
) -> None:
    """Describe MODEL: inputs, outputs, opset and IR version, operators, weights, estimated memory.

    With --batch, estimate the memory at each batch size; with -t also, measure it in a process for each size.
    """
    from epkit.session import memory as footprint

    found = footprint.inspect(model, batch, target, config, dimensions=dimensions)
    if as_json:
        output.document(found.as_json())
        return
    told = found.model
    if told.is_parsed:
        _contents(model, found)
    else:
        output.title(f"{model}: {output.format_bytes(told.size)}, ORT format")
    if found.batches:
        _batches(found)
    for note in found.notes:
        output.line(f"note: {note}")


def _contents(model: str, found: Inspection) -> None:
    told = found.model
    opsets = ", ".join(f"{domain} {version}" for domain, version in told.opsets.items())
    producer = f", by {told.producer}" if told.producer else ""
    output.title(f"{model}: {output.format_bytes(told.size)}, IR version {told.ir_version}, opset {opsets}{producer}")
    rows = [("input", one.name, one.dtype, shape(one)) for one in told.inputs]
    rows += [("output", one.name, one.dtype, shape(one)) for one in told.outputs]
    output.table(("", "name", "dtype", "shape"), rows)
    operators = [(name, count) for name, count in told.operators.items()]
    output.table(("operator", "nodes"), [*operators, ("in all", sum(told.operators.values()))], numbers=("nodes",))
    output.line(f"weights: {told.parameters:,} parameters, {output.format_bytes(told.weight_bytes)}")
    for key, text in told.metadata.items():
        output.line(f"metadata: {key} = {_cut(text)}")
    for one in told.external:
        output.line(f"external data: {one.path} ({output.format_bytes(one.bytes)})")
    if found.memory is not None:
        output.line(f"memory, estimated: {output.format_bytes(found.memory.total)} ({found.memory.covers})")


def _cut(text: str) -> str:
    """Return a text on one line, cut to `LONGEST`; --json has all of it."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}... ({len(text):,} characters; whole with --json)"


def _batches(found: Inspection) -> None:
    from epkit.model.assumed_sizes import describe_assumed

    rows = []
    for row in found.batches:
        held = row.estimate
        parts = (held.weights, held.inputs, held.outputs, held.at_once, held.total, held.intermediates)
        rows.append((row.batch, *map(output.format_bytes, parts)))
    columns = ("batch", "weights", "inputs", "outputs", "in between", "together", "all in between")
    output.title("estimated, by batch size:")
    output.table(columns, rows, numbers=columns)
    estimate = found.batches[0].estimate
    output.line(
        f"in between: those alive at once of {estimate.declared} of {estimate.computed} intermediate tensors with "
        "declared shapes; left out: ONNX Runtime's own needs, scratch memory of operators, what its arena rounds up"
    )
    measured = [(one.batch, one.measured) for one in found.batches if one.measured is not None]
    if not measured:
        return
    rows = [
        (
            batch,
            output.format_bytes(one.opened),
            output.format_bytes(one.run),
            output.format_bytes(one.total),
            output.format_bytes(one.kept),
            one.provider,
        )
        for batch, one in measured
    ]
    output.title("measured, in a process each:")
    figures = ("opened", "run, at most", "together", "kept after")
    output.table(("batch", *figures, "provider"), rows, numbers=("batch", *figures))
    output.line("measured is what the process holds on the host, not what a GPU holds")
    for batch, one in measured:
        if one.fault:
            output.line(f"batch {batch}: {one.fault}")
    output.advice((f"batch {batch}", one.hint) for batch, one in measured)
    for summary in dict.fromkeys(one.summary for _, one in measured if one.summary):
        output.line(summary)
    for note in dict.fromkeys(describe_assumed(one.assumed, files=False) for _, one in measured if one.assumed):
        output.line(f"note: {note}")


def shape(tensor: TensorInfo) -> str:
    """Format a shape: "[batch, 3, ?]", or "any" if the rank is unknown."""
    if tensor.shape is None:
        return "any"
    return "[" + ", ".join("?" if size is None else str(size) for size in tensor.shape) + "]"
