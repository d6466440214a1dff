"""Inspect a model: its contents, and an estimate of its memory."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

from epkit import wheels
from epkit._system.arguments import check_integer, check_items
from epkit._system.text import format_count
from epkit.errors import ConfigError
from epkit.model.file import Model, Source, read_model
from epkit.model.shapes import batch_dimensions, check_sizes, dynamic_dimensions, name_dimensions
from epkit.model.types import BITS, TensorInfo

SCHEMA = "epkit.inspect/1"

_NEWEST = {"1.31": (13, 26)}
"""The newest IR version and opset that a release of ONNX Runtime loads, found by testing."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """An estimate of the memory in bytes, without running the model. A dynamic dimension that is not set counts as 1.

    A tensor is alive from the node that computes it to the last node that reads it, in the order of the file. ONNX
    Runtime's own memory is left out.
    """

    weights: int
    inputs: int
    outputs: int
    intermediates: int
    """The sum of all intermediate tensors of known size."""
    at_once: int
    """The largest sum of intermediate tensors that are alive at once, since memory is reused."""
    declared: int
    """The number of intermediate tensors with declared type and shape: only these are in `intermediates`."""
    computed: int
    """The number of all intermediate tensors of the main graph."""
    unknown: tuple[str, ...] = ()
    """Inputs and outputs that are left out, since type and shape do not determine their size."""
    batch: int | None = None
    """The size assumed for the batch dimension."""
    dimensions: Mapping[str, int] = field(default_factory=dict)
    """The sizes assumed for other dimensions."""

    @property
    def total(self) -> int:
        """Weights, inputs, outputs, and the intermediate tensors that are alive at once."""
        return self.weights + self.inputs + self.outputs + self.at_once

    @property
    def covers(self) -> str:
        """A description of what the estimate includes."""
        without = f", without {', '.join(self.unknown)}" if self.unknown else ""
        tensors = f"those alive at once of {self.declared} of {self.computed} intermediate tensors with declared shapes"
        sizes = [] if self.batch is None else [f"batch as {self.batch}"]
        sizes += [f"{name} as {size}" for name, size in self.dimensions.items()]
        listed = ", ".join([*sizes, "other dynamic sizes as 1"] if sizes else ["dynamic dimensions as 1"])
        return f"weights + inputs + outputs{without} + {tensors}, {listed}"

    def as_json(self) -> dict[str, object]:
        """Return the estimate as JSON values, in bytes except for the counts."""
        return {**asdict(self), "unknown": list(self.unknown), "total": self.total, "covers": self.covers}


@dataclass(frozen=True, slots=True)
class MeasuredMemory:
    """The host memory of a worker process in bytes, which opens the model and runs one batch size twice.

    `opened` is the increase by opening the session, `run` the peak increase after that by the runs, inputs included.
    They are None if the system does not report memory, or after a `fault`.
    """

    provider: str | None
    """The provider that ran nodes."""
    summary: str
    """A sentence about which providers ran how many nodes."""
    opened: int | None = None
    run: int | None = None
    kept: int | None = None
    """The increase that remains after the runs, without inputs and outputs: mostly the arena."""
    fault: str = ""
    hint: str = ""
    assumed: Mapping[str, int] = field(default_factory=dict)
    """Assumed sizes of dynamic dimensions."""

    @property
    def total(self) -> int | None:
        """The peak increase: `opened` and `run`."""
        return None if self.opened is None or self.run is None else self.opened + self.run

    def as_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True, slots=True)
class BatchSize:
    """The memory of one batch size: estimated, and measured if a target was given."""

    batch: int
    estimate: MemoryEstimate
    measured: MeasuredMemory | None = None

    def as_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        measured = None if self.measured is None else self.measured.as_json()
        return {"batch": self.batch, "estimate": self.estimate.as_json(), "measured": measured}


@dataclass(frozen=True, slots=True)
class Inspection:
    """The contents of a model file, and an estimate of its memory."""

    model: Model
    dynamic: dict[str, tuple[str, ...]]
    """Dynamic dimensions by name, with the inputs that have each. One without a name is "image[0]"."""
    memory: MemoryEstimate | None
    """None for the ORT format, which is not parsed."""
    notes: tuple[str, ...]
    """Notes for someone who is about to run it."""
    batches: tuple[BatchSize, ...] = ()
    """The memory of each requested batch size."""

    def as_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        model = self.model
        contents = self._contents()
        return {
            "schema": SCHEMA,
            "path": str(model.source) if isinstance(model.source, Path) else None,
            "format": model.format,
            "file_bytes": model.size,
            # In ORT format everything is unknown, not empty.
            **(contents if model.is_parsed else dict.fromkeys(contents)),
            "notes": list(self.notes),
            "batches": [batch.as_json() for batch in self.batches],
        }

    def _contents(self) -> dict[str, object]:
        model = self.model
        return {
            "ir_version": model.ir_version,
            "opsets": model.opsets,
            "producer": model.producer,
            "metadata": model.metadata,
            "inputs": [_tensor_json(tensor) for tensor in model.inputs],
            "outputs": [_tensor_json(tensor) for tensor in model.outputs],
            "dynamic_dimensions": {name: list(inputs) for name, inputs in self.dynamic.items()},
            "operators": model.operators,
            "nodes": sum(model.operators.values()),
            "parameters": model.parameters,
            "weight_bytes": model.weight_bytes,
            "external_data": [{"path": str(file.path), "bytes": file.bytes} for file in model.external],
            "memory_estimate": self.memory and self.memory.as_json(),
        }


def inspect(
    model: Source | Model, batches: Sequence[int] = (), dimensions: Mapping[str, int] = MappingProxyType({})
) -> Inspection:
    """Read a model, and estimate its memory for each batch size.

    `dimensions` are sizes of dynamic dimensions; the others count as 1. Raises ModelError if the model cannot be read,
    ConfigError if it has no batch dimension, or no dimension of such a name.
    """
    for size in check_items(batches, "batches", "--batch 1,4,16"):
        check_integer(size, "a batch size", "--batch 1,4,16")
    found = model if isinstance(model, Model) else read_model(model)
    if not found.is_parsed:
        if batches:
            raise ConfigError("the memory of a model in ORT format cannot be estimated", hint="inspect the ONNX file")
        note = "a model in ORT format is not parsed: inspect the ONNX file that it was made from"
        return Inspection(found, {}, None, (note,))
    check_sizes(found.inputs, dimensions)
    dynamic = dynamic_dimensions(found.inputs)
    sizes = tuple(BatchSize(batch, estimate_batch(found, batch, dimensions)) for batch in batches)
    return Inspection(found, dynamic, _estimate(found, dimensions, {}), tuple(_notes(found, dynamic)), sizes)


def estimate_batch(model: Model, batch: int, dimensions: Mapping[str, int] = MappingProxyType({})) -> MemoryEstimate:
    """Estimate the memory for one batch size. Raises ConfigError if the model has no batch dimension."""
    batches = dict.fromkeys(batch_dimensions(model.inputs, dimensions), batch)
    return _estimate(model, dimensions, batches, batch)


def _estimate(
    model: Model, dimensions: Mapping[str, int], batches: Mapping[str, int], batch: int | None = None
) -> MemoryEstimate:
    sizes = {**dimensions, **batches}
    intermediates = {tensor.name: _size(tensor, sizes, batch) for tensor in model.intermediates}
    known = {name: size for name, size in intermediates.items() if size is not None}
    external = {tensor.name: _size(tensor, sizes, batch) for tensor in (*model.inputs, *model.outputs)}
    return MemoryEstimate(
        weights=model.weight_bytes,
        inputs=sum(external[tensor.name] or 0 for tensor in model.inputs),
        outputs=sum(external[tensor.name] or 0 for tensor in model.outputs),
        intermediates=sum(known.values()),
        at_once=_at_once(known, model.lifetimes),
        declared=len(known),
        computed=len(intermediates),
        unknown=tuple(name for name, size in external.items() if size is None),
        batch=batch,
        dimensions=dict(dimensions),
    )


def _at_once(sizes: Mapping[str, int], lifetimes: Mapping[str, tuple[int, int]]) -> int:
    """Return the most bytes that are alive at one node."""
    changes: Counter[int] = Counter()
    for name, size in sizes.items():
        computed, last_read = lifetimes[name]
        changes[computed] += size
        changes[last_read + 1] -= size
    return max(itertools.accumulate(changes[place] for place in sorted(changes)), default=0)


def _size(tensor: TensorInfo, sizes: Mapping[str, int], batch: int | None) -> int | None:
    """Return the bytes of a tensor; None for strings, sequences, maps, and an unknown rank.

    A dynamic first dimension without a name counts as the batch.
    """
    bits = BITS.get(tensor.dtype)
    if tensor.shape is None or not bits:
        return None
    shape = [size if isinstance(size, int) else sizes.get(size, 1) for size in name_dimensions(tensor)]
    if batch is not None and tensor.shape[:1] == (None,):
        shape[0] = batch
    return (math.prod(shape) * bits + 7) // 8


def _notes(model: Model, dynamic: dict[str, tuple[str, ...]]) -> Iterator[str]:
    yield from _too_new(model)
    if dynamic:
        yield f"{format_count(len(dynamic), 'dynamic dimension')} ({', '.join(dynamic)}): give sizes with warmup.shapes"
    for tensor in model.inputs:
        if tensor.shape is None and tensor.dtype in BITS:
            yield f"the input '{tensor.name}' declares no rank: any shape is accepted"
    if not model.operators:
        yield "it has no node: no provider will run anything"
    if model.has_control_flow:
        yield "it has If, Loop or Scan: tensors in their bodies are not in the memory estimate"


def _too_new(model: Model) -> Iterator[str]:
    """Compare the versions with those of the installed ONNX Runtime; nothing for a release that is not in `_NEWEST`."""
    for name, version in wheels.runtimes().items():
        ir_version, opset = _NEWEST.get(".".join(version.split(".")[:2]), (None, None))
        if ir_version is not None and model.ir_version > ir_version:
            yield f"IR version {model.ir_version} is newer than {name} {version} loads ({ir_version})"
        if opset is not None and model.opsets.get("ai.onnx", 0) > opset:
            yield f"opset {model.opsets['ai.onnx']} is newer than {name} {version} loads ({opset})"


def _tensor_json(tensor: TensorInfo) -> dict[str, object]:
    shape = None if tensor.shape is None else list(tensor.shape)
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": shape}
