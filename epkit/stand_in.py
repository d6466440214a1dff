"""Which inputs does a model accept, where nobody gives any?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epkit.dimensions import bound, named
from epkit.errors import InputError
from epkit.model import TensorInfo
from epkit.run.dtypes import numpy_dtype


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
) -> Sized:
    """Choose a shape for each input: the one given, else the declared one, with 1 for dimensions that nobody says.

    A dimension that a given shape settles has that size in the other inputs too. Optional inputs are left out; for a
    sequence it is the shape of its one element. Raises InputError for an input that cannot be made up.
    """
    shapes = shapes or {}
    sizes = bound(inputs, shapes) | dict(dimensions or {})
    guessed: dict[str, None] = {}
    found: dict[str, tuple[int, ...]] = {}
    for wanted in inputs:
        if wanted.dtype.startswith("optional("):
            continue
        inner = _inner(wanted.dtype)
        if "(" in inner:
            hint = f"give it: --input {wanted.name}=FILE.json" if inner.startswith("map(") else "give it"
            raise InputError(f"input {wanted.name!r} is {wanted.dtype}, which cannot be made up", hint=hint)
        if shapes.get(wanted.name):
            found[wanted.name] = tuple(shapes[wanted.name])
            continue
        if wanted.shape is None and inner != wanted.dtype:
            guessed[f"the rank of {wanted.name}"] = None
            found[wanted.name] = (1,)  # a sequence of scalars suits few operators
            continue
        guessed |= dict.fromkeys(size for size in named(wanted) if isinstance(size, str) and size not in sizes)
        found[wanted.name] = tuple(size if isinstance(size, int) else sizes.get(size, 1) for size in named(wanted))
    return Sized(found, tuple(guessed))


def filled(inputs: Sequence[TensorInfo], shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, object]:
    """Make inputs of these shapes: seeded numbers in [0, 1) for floats, 1 for integers, "a" for text.

    Integers are 1, since 0 may be divided by and anything larger may be past the end of a table.
    """
    random = np.random.default_rng(seed)
    feed: dict[str, object] = {}
    for wanted in inputs:
        if wanted.name in shapes:
            inner = _inner(wanted.dtype)
            value = _array(inner, shapes[wanted.name], random)
            feed[wanted.name] = value if inner == wanted.dtype else [value]
    return feed


def stand_in(
    inputs: Sequence[TensorInfo],
    shapes: Mapping[str, Sequence[int]] | None = None,
    dimensions: Mapping[str, int] | None = None,
    seed: int = 0,
) -> StandIn:
    """Choose shapes and fill them. Raises InputError for an input that cannot be made up."""
    chosen = sized(inputs, shapes, dimensions)
    return StandIn(filled(inputs, chosen.shapes, seed), chosen.guessed)


def _inner(dtype: str) -> str:
    return dtype.removeprefix("sequence(").removesuffix(")")


def _array(dtype: str, shape: tuple[int, ...], random: np.random.Generator) -> object:
    if dtype == "string":
        return np.full(shape, "a", dtype=object)
    kind = numpy_dtype(dtype)
    if kind.kind in "biu":
        return np.ones(shape, dtype=kind)
    return random.random(shape, dtype=np.float32).astype(kind)
