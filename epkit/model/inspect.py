"""What is in this model, and what will it take?"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

from epkit import wheels
from epkit._system.arguments import items, whole
from epkit.errors import ConfigError
from epkit.model.dimensions import batch_dimensions, check_sizes, dynamic, named
from epkit.model.file import BITS, Model, Source, TensorInfo, read

SCHEMA = "epkit.inspect/1"

_NEWEST = {"1.31": (13, 26)}
"""IR version and opset that a release of ONNX Runtime loads at most, found by trying."""


@dataclass(frozen=True, slots=True)
class Memory:
    """An estimate in bytes, of what can be known without running: each dynamic dimension counts as 1 unless said.

    A tensor lives from the node that computes it to the last one that reads it, in the order of the file. What ONNX
    Runtime needs for itself is left out.
    """

    weights: int
    inputs: int
    outputs: int
    intermediates: int
    """All intermediate tensors that are known, one beside the other."""
    at_once: int
    """The most of them that live at once: memory is used again."""
    declared: int
    """Intermediate tensors whose type and shape the model declares: the only ones in `intermediates`."""
    computed: int
    """All intermediate tensors of the main graph."""
    unknown: tuple[str, ...] = ()
    """Inputs and outputs that are left out: their size cannot be known from type and shape."""
    batch: int | None = None
    """The size that the batch dimension counts as."""
    dimensions: Mapping[str, int] = field(default_factory=dict)
    """The sizes that other dimensions count as."""

    @property
    def total(self) -> int:
        """Weights, inputs, outputs, and the intermediate tensors that live at once."""
        return self.weights + self.inputs + self.outputs + self.at_once

    @property
    def covers(self) -> str:
        """What the estimate is made of, in words."""
        without = f", without {', '.join(self.unknown)}" if self.unknown else ""
        tensors = f"those alive at once of {self.declared} of {self.computed} intermediate tensors with declared shapes"
        said = [] if self.batch is None else [f"batch as {self.batch}"]
        said += [f"{name} as {size}" for name, size in self.dimensions.items()]
        sizes = ", ".join([*said, "other dynamic sizes as 1"] if said else ["dynamic dimensions as 1"])
        return f"weights + inputs + outputs{without} + {tensors}, {sizes}"

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values, all in bytes but the counts."""
        return {**asdict(self), "unknown": list(self.unknown), "total": self.total, "covers": self.covers}


@dataclass(frozen=True, slots=True)
class Measured:
    """What a process of its own held in bytes on the host, opening the model and running one batch size twice.

    `opened` is what it held more with the session open, `run` what it held more than that at most while it ran, inputs
    included. None where the system does not tell, or `fault` says what went wrong.
    """

    provider: str | None
    """The provider that took nodes."""
    summary: str
    """Who runs the nodes, in words."""
    opened: int | None = None
    run: int | None = None
    kept: int | None = None
    """What it still held more after the runs, inputs and outputs dropped: the arena, mostly."""
    fault: str = ""
    hint: str = ""
    assumed: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the dynamic dimensions that nobody gave."""

    @property
    def total(self) -> int | None:
        """The most that the model took: `opened` and `run`."""
        return None if self.opened is None or self.run is None else self.opened + self.run

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True, slots=True)
class BatchSize:
    """What one batch size takes: estimated, and where a target was named, measured."""

    batch: int
    estimate: Memory
    measured: Measured | None = None

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        measured = None if self.measured is None else self.measured.as_json()
        return {"batch": self.batch, "estimate": self.estimate.as_json(), "measured": measured}


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
    batches: tuple[BatchSize, ...] = ()
    """What each batch size takes that was asked for."""

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        model = self.model
        contents = self._contents()
        return {
            "schema": SCHEMA,
            "path": str(model.source) if isinstance(model.source, Path) else None,
            "format": model.format,
            "file_bytes": model.size,
            # In ORT format all of it is unknown, not none.
            **(contents if model.tells else dict.fromkeys(contents)),
            "notes": list(self.notes),
            "batches": [one.as_json() for one in self.batches],
        }

    def _contents(self) -> dict[str, object]:
        model = self.model
        return {
            "ir_version": model.ir_version,
            "opsets": model.opsets,
            "producer": model.producer,
            "metadata": model.metadata,
            "inputs": [_tensor_json(one) for one in model.inputs],
            "outputs": [_tensor_json(one) for one in model.outputs],
            "dynamic_dimensions": {name: list(inputs) for name, inputs in self.dynamic.items()},
            "operators": model.operators,
            "nodes": sum(model.operators.values()),
            "parameters": model.parameters,
            "weight_bytes": model.weight_bytes,
            "external_data": [{"path": str(one.path), "bytes": one.bytes} for one in model.external],
            "memory_estimate": self.memory and self.memory.as_json(),
        }


def inspect(
    model: Source | Model, batches: Sequence[int] = (), dimensions: Mapping[str, int] = MappingProxyType({})
) -> Inspection:
    """Read a model and say what is in it, and what each of the batch sizes would take by estimate.

    `dimensions` are sizes of dynamic dimensions; the others count as 1. Raises ModelError when it cannot be read,
    ConfigError when it has no batch dimension to vary, or no dimension of such a name.
    """
    for size in items(batches, "batches", "--batch 1,4,16"):
        whole(size, "a batch size", "--batch 1,4,16")
    found = model if isinstance(model, Model) else read(model)
    if not found.tells:
        if batches:
            raise ConfigError("a model in ORT format says nothing of its memory", hint="inspect the ONNX file")
        note = "a model in ORT format says nothing of itself: inspect the ONNX file that it was made from"
        return Inspection(found, {}, None, (note,))
    check_sizes(found.inputs, dimensions)
    by_name = dynamic(found.inputs)
    sizes = tuple(BatchSize(batch, of_batch(found, batch, dimensions)) for batch in batches)
    return Inspection(found, by_name, _memory(found, dimensions, {}), tuple(_notes(found, by_name)), sizes)


def of_batch(model: Model, batch: int, dimensions: Mapping[str, int] = MappingProxyType({})) -> Memory:
    """Estimate the memory for one batch size. Raises ConfigError when the model has no batch dimension to vary."""
    batches = dict.fromkeys(batch_dimensions(model.inputs, dimensions), batch)
    return _memory(model, dimensions, batches, batch)


def _memory(
    model: Model, dimensions: Mapping[str, int], batches: Mapping[str, int], batch: int | None = None
) -> Memory:
    sizes = {**dimensions, **batches}
    inner = {one.name: _size(one, sizes, batch) for one in model.intermediates}
    known = {name: size for name, size in inner.items() if size is not None}
    outer = {one.name: _size(one, sizes, batch) for one in (*model.inputs, *model.outputs)}
    return Memory(
        weights=model.weight_bytes,
        inputs=sum(outer[one.name] or 0 for one in model.inputs),
        outputs=sum(outer[one.name] or 0 for one in model.outputs),
        intermediates=sum(known.values()),
        at_once=_at_once(known, model.lifetimes),
        declared=len(known),
        computed=len(inner),
        unknown=tuple(name for name, size in outer.items() if size is None),
        batch=batch,
        dimensions=dict(dimensions),
    )


def _at_once(sizes: Mapping[str, int], lifetimes: Mapping[str, tuple[int, int]]) -> int:
    """Return the most bytes that live at one node."""
    changes: Counter[int] = Counter()
    for name, size in sizes.items():
        made, read = lifetimes[name]
        changes[made] += size
        changes[read + 1] -= size
    return max(itertools.accumulate(changes[place] for place in sorted(changes)), default=0)


def _size(one: TensorInfo, sizes: Mapping[str, int], batch: int | None) -> int | None:
    """Return the bytes of one tensor; None for strings, sequences, maps, and where the rank is unknown.

    A first dimension without a name is taken for the batch.
    """
    bits = BITS.get(one.dtype)
    if one.shape is None or not bits:
        return None
    shape = [size if isinstance(size, int) else sizes.get(size, 1) for size in named(one)]
    if batch is not None and one.shape[:1] == (None,):
        shape[0] = batch
    return (math.prod(shape) * bits + 7) // 8


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
