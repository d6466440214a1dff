"""Which inputs does a model accept, where nobody gives any?"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epkit._system.platform import free_memory
from epkit._system.units import size as size_text
from epkit.errors import InputError
from epkit.model.dimensions import bound, named
from epkit.model.dtypes import numpy_dtype
from epkit.model.file import TensorInfo


@dataclass(frozen=True, slots=True)
class Sized:
    """A shape for each input, and the dimensions whose size was guessed."""

    shapes: Mapping[str, tuple[int, ...]]
    guessed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StandIn:
    """Inputs that stand in for those that nobody gave, and the dimensions whose size was guessed."""

    feed: Mapping[str, object]
    guessed: tuple[str, ...] = ()


def sized(
    inputs: Sequence[TensorInfo],
    shapes: Mapping[str, Sequence[int]] | None = None,
    dimensions: Mapping[str, int] | None = None,
    *,
    optional: bool = False,
) -> Sized:
    """Choose a shape for each input: the one given, else the declared one, with 1 for dimensions that nobody says.

    A dimension that a given shape settles has that size in the other inputs too. Inputs that are optional are left out
    unless `optional`; for a sequence it is the shape of its one element. Raises InputError for an input that cannot be
    made up.
    """
    shapes = shapes or {}
    sizes = bound(inputs, shapes) | dict(dimensions or {})
    guessed: dict[str, None] = {}
    found: dict[str, tuple[int, ...]] = {}
    for wanted in inputs:
        plain = _required(wanted.dtype)
        inner = _inner(plain)
        if plain != wanted.dtype and ("(" in inner or not (optional or shapes.get(wanted.name))):
            continue
        if "(" in inner:
            hint = f"give it: --input {wanted.name}=FILE.json" if inner.startswith("map(") else "give it"
            raise InputError(f"input {wanted.name!r} is {wanted.dtype}, which cannot be made up", hint=hint)
        if shapes.get(wanted.name):
            found[wanted.name] = tuple(shapes[wanted.name])
            continue
        if wanted.shape is None and inner != plain:
            guessed[f"the rank of {wanted.name}"] = None
            found[wanted.name] = (1,)  # a sequence of scalars suits few operators
            continue
        guessed |= dict.fromkeys(size for size in named(wanted) if isinstance(size, str) and size not in sizes)
        found[wanted.name] = tuple(size if isinstance(size, int) else sizes.get(size, 1) for size in named(wanted))
    return Sized(found, tuple(guessed))


def filled(inputs: Sequence[TensorInfo], shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, object]:
    """Make inputs of these shapes: seeded numbers in [0, 1) for floats, 1 for integers, "a" for text.

    Integers are 1, since 0 may be divided by and anything larger may be past the end of a table. Raises InputError for
    inputs that would not fit into the memory.
    """
    check_room(inputs, shapes)
    random = np.random.default_rng(seed)
    feed: dict[str, object] = {}
    for wanted in inputs:
        if wanted.name in shapes:
            plain = _required(wanted.dtype)
            inner = _inner(plain)
            try:
                value = _array(inner, shapes[wanted.name], random)
            except MemoryError as error:
                told = f"input {wanted.name!r} of shape {list(shapes[wanted.name])} cannot be generated: {error}"
                raise InputError(told, hint="give it itself, or smaller sizes for its dynamic dimensions") from error
            feed[wanted.name] = value if inner == plain else [value]
    return feed


def check_room(inputs: Sequence[TensorInfo], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Hold the bytes of generated inputs to the free memory, before any is asked for; raises InputError.

    A model of a few bytes may declare any size. Half of the memory is left for what the model makes of them.
    """
    bytes_of = {
        one.name: math.prod(shapes[one.name]) * _itemsize(_inner(_required(one.dtype)))
        for one in inputs
        if one.name in shapes
    }
    free, wanted = free_memory(), sum(bytes_of.values())
    if wanted > (sys.maxsize if free is None else free // 2):
        largest = max(bytes_of, key=bytes_of.__getitem__)
        told = f"generated inputs would take {size_text(wanted)}, {largest!r} alone {size_text(bytes_of[largest])}"
        has = "" if free is None else f", and {size_text(free)} of memory are free"
        raise InputError(told + has, hint=f"give {largest!r} itself, or smaller sizes for its dynamic dimensions")


def stand_in(
    inputs: Sequence[TensorInfo],
    shapes: Mapping[str, Sequence[int]] | None = None,
    dimensions: Mapping[str, int] | None = None,
    seed: int = 0,
) -> StandIn:
    """Choose shapes and fill them; odd seeds leave optional inputs out. Raises InputError as `sized` does."""
    chosen = sized(inputs, shapes, dimensions, optional=seed % 2 == 0)
    return StandIn(filled(inputs, chosen.shapes, seed), chosen.guessed)


def _required(dtype: str) -> str:
    """Return what an optional type holds, any other type itself."""
    return dtype.removeprefix("optional(").removesuffix(")") if dtype.startswith("optional(") else dtype


def _inner(dtype: str) -> str:
    return dtype.removeprefix("sequence(").removesuffix(")")


def _itemsize(dtype: str) -> int:
    """Return what an element takes while it is made: a float is made as a float32 first, a text is a pointer."""
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
