"""`epkit inspect`: what is in a model file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from epkit.cli import _options, _show

if TYPE_CHECKING:
    from epkit.model import TensorInfo


@click.command()
@click.argument("model")
@_options.as_json
def inspect(model: str, as_json: bool) -> None:
    """Say what MODEL holds: inputs, outputs, opset and IR version, operators, weights, a memory estimate."""
    from epkit import inspection

    found = inspection.inspect(model)
    if as_json:
        _show.document(found.as_json())
        return
    told = found.model
    opsets = ", ".join(f"{domain} {version}" for domain, version in told.opsets.items())
    producer = f", by {told.producer}" if told.producer else ""
    _show.title(f"{model}: {_show.size(told.size)}, IR version {told.ir_version}, opset {opsets}{producer}")
    rows = [("input", one.name, one.dtype, shape(one)) for one in told.inputs]
    rows += [("output", one.name, one.dtype, shape(one)) for one in told.outputs]
    _show.table(("", "name", "dtype", "shape"), rows)
    operators = [(name, count) for name, count in told.operators.items()]
    _show.table(("operator", "nodes"), [*operators, ("in all", sum(told.operators.values()))], numbers=("nodes",))
    _show.line(f"weights: {told.parameters:,} parameters, {_show.size(told.weight_bytes)}")
    for one in told.external:
        _show.line(f"external data: {one.path} ({_show.size(one.bytes)})")
    if found.memory is not None:
        _show.line(f"memory, estimated: {_show.size(found.memory.total)} ({found.memory.covers})")
    for note in found.notes:
        _show.line(f"note: {note}")


def shape(one: TensorInfo) -> str:
    """Write a shape: "[batch, 3, ?]", or nothing where the rank is unknown."""
    if one.shape is None:
        return "any"
    return "[" + ", ".join("?" if size is None else str(size) for size in one.shape) + "]"
