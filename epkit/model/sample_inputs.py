"""Generate inputs for a model: choose shapes, and fill them with numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epkit._system.platform import free_memory
from epkit._system.text import format_bytes
from epkit.errors import InputError
from epkit.model.dtypes import numpy_dtype
from epkit.model.shapes import infer_sizes, name_dimensions
from epkit.model.types import TensorInfo


@dataclass(frozen=True, slots=True)
class SampleShapes:
    """A shape for each input, and the dimensions whose size was assumed."""

    shapes: Mapping[str, tuple[int, ...]]
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SampleInputs:
    """Generated inputs, and the dimensions whose size was assumed."""

    feed: Mapping[str, object]
    assumed: tuple[str, ...] = ()


def choose_shapes(
    inputs: Sequence[TensorInfo],
    shapes: Mapping[str, Sequence[int]] | None = None,
    dimensions: Mapping[str, int] | None = None,
    *,
    optional: bool = False,
) -> SampleShapes:
    """Choose a shape for each input: from `shapes`, or the declared one, with `dimensions` or 1 for dynamic sizes.

    A dimension that one of `shapes` determines has that size in all inputs. Optional inputs are left out unless
    `optional`; a sequence gets the shape of its one element. Raises InputError for an input that cannot be generated.
    """
    shapes = shapes or {}
    sizes = infer_sizes(inputs, shapes) | dict(dimensions or {})
    assumed: dict[str, None] = {}
    found: dict[str, tuple[int, ...]] = {}
    for tensor in inputs:
        required = _required(tensor.dtype)
        inner = _inner(required)
        if required != tensor.dtype and ("(" in inner or not (optional or shapes.get(tensor.name))):
            continue
        if "(" in inner:
            hint = f"give it: --input {tensor.name}=FILE.json" if inner.startswith("map(") else "give it"
            raise InputError(f"input {tensor.name!r} is {tensor.dtype}, which cannot be generated", hint=hint)
        if shapes.get(tensor.name):
            found[tensor.name] = tuple(shapes[tensor.name])
            continue
        if tensor.shape is None and inner != required:
            assumed[f"the rank of {tensor.name}"] = None
            found[tensor.name] = (1,)  # few operators take a sequence of scalars
            continue
        assumed |= dict.fromkeys(
            size for size in name_dimensions(tensor) if isinstance(size, str) and size not in sizes
        )
        found[tensor.name] = tuple(
            size if isinstance(size, int) else sizes.get(size, 1) for size in name_dimensions(tensor)
        )
    return SampleShapes(found, tuple(assumed))


def generate_inputs(
    inputs: Sequence[TensorInfo], shapes: Mapping[str, tuple[int, ...]], seed: int = 0
) -> dict[str, object]:
    """Generate inputs of these shapes: random numbers in [0, 1) for floats, 1 for integers, "a" for strings.

    Integers are 1, since 0 may be a divisor and a larger one may be out of a table's range. Raises InputError if the
    inputs do not fit into memory.
    """
    check_memory(inputs, shapes)
    random = np.random.default_rng(seed)
    feed: dict[str, object] = {}
    for tensor in inputs:
        if tensor.name in shapes:
            required = _required(tensor.dtype)
            inner = _inner(required)
            try:
                value = _array(inner, shapes[tensor.name], random)
            except MemoryError as error:
                problem = f"input {tensor.name!r} of shape {list(shapes[tensor.name])} cannot be generated: {error}"
                raise InputError(problem, hint="give it itself, or smaller sizes for its dynamic dimensions") from error
            feed[tensor.name] = value if inner == required else [value]
    return feed


def check_memory(inputs: Sequence[TensorInfo], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check the size of generated inputs against the free memory, before any is allocated; raises InputError.

    A model of a few bytes may declare any size. Half of the memory is left for running the model.
    """
    sizes = {
        tensor.name: math.prod(shapes[tensor.name]) * _itemsize(_inner(_required(tensor.dtype)))
        for tensor in inputs
        if tensor.name in shapes
    }
    free, total = free_memory(), sum(sizes.values())
    if total > (sys.maxsize if free is None else free // 2):
        largest = max(sizes, key=sizes.__getitem__)
        problem = f"generated inputs would take {format_bytes(total)}, {largest!r} alone {format_bytes(sizes[largest])}"
        available = "" if free is None else f", and {format_bytes(free)} of memory are free"
        raise InputError(
            problem + available, hint=f"give {largest!r} itself, or smaller sizes for its dynamic dimensions"
        )


def make_sample_inputs(
    inputs: Sequence[TensorInfo],
    shapes: Mapping[str, Sequence[int]] | None = None,
    dimensions: Mapping[str, int] | None = None,
    seed: int = 0,
) -> SampleInputs:
    """Choose shapes and generate inputs; an odd seed leaves optional inputs out. Raises InputError."""
    chosen = choose_shapes(inputs, shapes, dimensions, optional=seed % 2 == 0)
    return SampleInputs(generate_inputs(inputs, chosen.shapes, seed), chosen.assumed)


def _required(dtype: str) -> str:
    """Return the element type of an optional, or any other type itself."""
    return dtype.removeprefix("optional(").removesuffix(")") if dtype.startswith("optional(") else dtype


def _inner(dtype: str) -> str:
    """Return the element type of a sequence, or any other type itself."""
    return dtype.removeprefix("sequence(").removesuffix(")")


def _itemsize(dtype: str) -> int:
    """Return the bytes of an element during generation: floats are generated as float32, a string is a pointer."""
    if dtype == "string":
        return 8
    kind = numpy_dtype(dtype)
    return kind.itemsize if kind.kind in "biu" else kind.itemsize + 4


def _array(dtype: str, shape: tuple[int, ...], random: np.random.Generator) -> object:
    if dtype == "string":
        return np.full(shape, "a", dtype=object)
    kind = numpy_dtype(dtype)
    if kind.kind in "biu":
        return np.ones(shape, dtype=kind)
    return random.random(shape, dtype=np.float32).astype(kind)
