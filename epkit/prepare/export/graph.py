"""Finish the graph that PyTorch wrote: names that a person chose, open dimensions by name, nothing of this machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from epkit.errors import ModelError
from epkit.prepare.export.example_inputs import DynamicAxes

if TYPE_CHECKING:
    import onnx_ir as ir

NEWEST_IR = 13
"""The newest IR version that ONNX Runtime 1.31 reads."""


def finish(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str], axes: DynamicAxes) -> None:
    """Name inputs, outputs and open dimensions, and remove what tells of the machine. Raises ModelError.

    The graph must have every input and every output of the module, and every axis in `axes` must be open.
    """
    _rename(model, inputs, outputs)
    _rename_dimensions(model, axes)
    _strip(model)
    model.ir_version = min(model.ir_version or NEWEST_IR, NEWEST_IR)


def opset_of(model: ir.Model) -> int:
    """Return the version of ONNX's own operators that the file asks for."""
    return model.opset_imports.get("", 0)


def _rename(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    graph = model.graph
    if len(graph.inputs) > len(inputs):
        stray = [value.name or "" for value in graph.inputs if value.name not in inputs]
        raise ModelError(
            f"the graph has inputs that are no tensors of the example: {', '.join(stray)}",
            hint="leave out --legacy, or make those arguments part of the module",
        )
    if len(graph.inputs) < len(inputs):
        lost = [name for name in inputs if name not in {value.name for value in graph.inputs}]
        raise ModelError(
            f"the module has {len(inputs)} inputs, and the graph {len(graph.inputs)}: {', '.join(lost)} went missing",
            hint="part of the module runs outside of PyTorch (NumPy, Python); write it with operators of PyTorch",
        )
    if len(graph.outputs) != len(outputs):
        raise ModelError(
            f"the module returns {len(outputs)} tensors, and the graph {len(graph.outputs)}",
            hint="return each tensor once, and nothing but tensors",
        )
    wanted = {*inputs, *outputs}
    for value in _values(model):
        if value.name in wanted:
            value.name = f"{value.name}_inside"
    for value, name in zip(graph.inputs, inputs, strict=True):
        value.name = name
    seen: dict[int, str] = {id(value): name for value, name in zip(graph.inputs, inputs, strict=True)}
    for position, (value, name) in enumerate(zip(list(graph.outputs), outputs, strict=True)):
        if id(value) in seen:
            graph.outputs[position] = _copy(model, value, name)  # an input, or one tensor under two names
        else:
            value.name = name
            seen[id(value)] = name


def _copy(model: ir.Model, value: ir.Value, name: str) -> ir.Value:
    import onnx_ir as ir

    node = ir.node("Identity", [value])
    copied = node.outputs[0]
    copied.name, copied.type, copied.shape = name, value.type, value.shape
    model.graph.append(node)
    return copied


def _rename_dimensions(model: ir.Model, axes: DynamicAxes) -> None:
    import onnx_ir as ir

    names: dict[str, str] = {}
    for value in model.graph.inputs:
        for axis, name in axes.get(value.name or "", {}).items():
            size = value.shape[axis] if value.shape is not None else None
            if isinstance(size, int):
                raise ModelError(
                    f"axis {axis} of input {value.name!r} came out fixed at {size}, and {name!r} was to stay open",
                    hint="replace what depends on that size in the module, or: --dynamic none",
                )
            if (
                isinstance(size, ir.SymbolicDim)
                and size.value is not None
                and names.setdefault(size.value, name) != name
            ):
                raise ModelError(
                    f"{names[size.value]!r} and {name!r} are one size for the module", hint="give them one name"
                )
    for value in (*model.graph.inputs, *_values(model)):
        if value.shape is not None and any(isinstance(size, ir.SymbolicDim) for size in value.shape):
            value.shape = ir.Shape([_renamed(size, names) for size in value.shape])


def _renamed(size: ir.SymbolicDim | int, names: Mapping[str, str]) -> ir.SymbolicDim | int:
    import onnx_ir as ir

    if isinstance(size, int) or size.value is None:
        return size
    return ir.SymbolicDim(re.sub(r"[A-Za-z_]\w*", lambda word: names.get(word[0], word[0]), size.value))


def _values(model: ir.Model) -> Iterable[ir.Value]:
    for node in model.graph.all_nodes():
        yield from node.outputs
    yield from model.graph.initializers.values()


def _strip(model: ir.Model) -> None:
    """Remove stack traces, local paths and what else the exporter notes down."""
    model.doc_string = None
    model.graph.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *_values(model)):
        value.doc_string = None
        value.metadata_props.clear()
    for nodes in (model.graph.all_nodes(), *(function.all_nodes() for function in model.functions.values())):
        for node in nodes:
            node.doc_string = None
            node.metadata_props.clear()
    for function in model.functions.values():
        function.doc_string = None
        function.metadata_props.clear()
