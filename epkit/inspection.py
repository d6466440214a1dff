"""What is in this model, and what will it take?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from epkit import wheels
from epkit.model import BITS, Model, Source, TensorInfo, read

SCHEMA = "epkit.inspect/1"

_NEWEST = {"1.31": (13, 26)}
"""IR version and opset that a release of ONNX Runtime loads at most, found by trying."""


@dataclass(frozen=True, slots=True)
class Memory:
    """An estimate in bytes, of what can be known without running: each dynamic dimension counts as 1.

    All intermediate tensors are added up, though ONNX Runtime uses their memory again; its own needs are left out.
    """

    weights: int
    inputs: int
    outputs: int
    intermediates: int
    declared: int
    """Intermediate tensors whose type and shape the model declares: the only ones in `intermediates`."""
    computed: int
    """All intermediate tensors of the main graph."""
    unknown: tuple[str, ...] = ()
    """Inputs and outputs that are left out: their size cannot be known from type and shape."""

    @property
    def total(self) -> int:
        """The sum of the four."""
        return self.weights + self.inputs + self.outputs + self.intermediates

    @property
    def covers(self) -> str:
        """What the estimate is made of, in words."""
        without = f", without {', '.join(self.unknown)}" if self.unknown else ""
        tensors = f"{self.declared} of {self.computed} intermediate tensors with declared shapes"
        return f"weights + inputs + outputs{without} + {tensors}, dynamic dimensions as 1"

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values, all in bytes but the counts."""
        return {**asdict(self), "unknown": list(self.unknown), "total": self.total, "covers": self.covers}


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a model file says, and what follows from it."""

    model: Model
    dynamic: dict[str, tuple[str, ...]]
    """Dynamic dimensions of the inputs: the name, and the inputs that use it. One without a name is "image[0]"."""
    memory: Memory | None
    """None for the ORT format, of which nothing is known."""
    notes: tuple[str, ...]
    """What is worth knowing before running it."""

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        model = self.model
        return {
            "schema": SCHEMA,
            "path": str(model.source) if isinstance(model.source, Path) else None,
            "format": model.format,
            "file_bytes": model.size,
            "ir_version": model.ir_version,
            "opsets": model.opsets,
            "producer": model.producer,
            "inputs": [_tensor_json(one) for one in model.inputs],
            "outputs": [_tensor_json(one) for one in model.outputs],
            "dynamic_dimensions": {name: list(inputs) for name, inputs in self.dynamic.items()},
            "operators": model.operators,
            "nodes": sum(model.operators.values()),
            "parameters": model.parameters,
            "weight_bytes": model.weight_bytes,
            "external_data": [{"path": str(one.path), "bytes": one.bytes} for one in model.external],
            "memory_estimate": self.memory and self.memory.as_json(),
            "notes": list(self.notes),
        }


def inspect(model: Source | Model) -> Inspection:
    """Read a model and say what is in it. Raises ModelError when it cannot be read."""
    found = model if isinstance(model, Model) else read(model)
    if found.format == "ort":
        note = "a model in ORT format says nothing of itself: inspect the ONNX file that it was made from"
        return Inspection(found, {}, None, (note,))
    dynamic = _dynamic(found.inputs)
    return Inspection(found, dynamic, _memory(found), tuple(_notes(found, dynamic)))


def _dynamic(inputs: Iterable[TensorInfo]) -> dict[str, tuple[str, ...]]:
    users: dict[str, dict[str, None]] = {}
    for one in inputs:
        for axis, dimension in enumerate(one.shape or ()):
            if not isinstance(dimension, int):
                users.setdefault(dimension or f"{one.name}[{axis}]", {})[one.name] = None
    return {name: tuple(used) for name, used in users.items()}


def _memory(model: Model) -> Memory:
    sizes = [size for one in model.intermediates if (size := _size(one)) is not None]
    return Memory(
        weights=model.weight_bytes,
        inputs=sum(_size(one) or 0 for one in model.inputs),
        outputs=sum(_size(one) or 0 for one in model.outputs),
        intermediates=sum(sizes),
        declared=len(sizes),
        computed=len(model.intermediates),
        unknown=tuple(one.name for one in (*model.inputs, *model.outputs) if _size(one) is None),
    )


def _size(one: TensorInfo) -> int | None:
    """Return the bytes of one tensor; None for strings, sequences, maps, and where the rank is unknown."""
    bits = BITS.get(one.dtype)
    if one.shape is None or not bits:
        return None
    return (math.prod(size if isinstance(size, int) else 1 for size in one.shape) * bits + 7) // 8


def _notes(model: Model, dynamic: dict[str, tuple[str, ...]]) -> Iterator[str]:
    yield from _too_new(model)
    if dynamic:
        many = "s" if len(dynamic) > 1 else ""
        yield f"{len(dynamic)} dynamic dimension{many} ({', '.join(dynamic)}): give sizes with warmup.shapes"
    for one in model.inputs:
        if one.shape is None and one.dtype in BITS:
            yield f"the input '{one.name}' declares no rank: any shape is taken"
    if not model.operators:
        yield "it has no node: no provider will run anything"
    if model.has_control_flow:
        yield "it has If, Loop or Scan: what their bodies compute is not in the memory estimate"


def _too_new(model: Model) -> Iterator[str]:
    """Compare with the installed ONNX Runtime, without importing it; say nothing of a release that was not tried."""
    for name, version in wheels.runtimes().items():
        ir_version, opset = _NEWEST.get(".".join(version.split(".")[:2]), (None, None))
        if ir_version is not None and model.ir_version > ir_version:
            yield f"IR version {model.ir_version} is newer than {name} {version} loads ({ir_version})"
        if opset is not None and model.opsets.get("ai.onnx", 0) > opset:
            yield f"opset {model.opsets['ai.onnx']} is newer than {name} {version} loads ({opset})"


def _tensor_json(one: TensorInfo) -> dict[str, object]:
    return {"name": one.name, "dtype": one.dtype, "shape": None if one.shape is None else list(one.shape)}
