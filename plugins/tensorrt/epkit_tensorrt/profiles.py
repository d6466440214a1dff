"""Which input shapes must an engine take, and do they fit the model?

A profile is spelt as ONNX Runtime spells it: `images:1x3x224x224,mask:1x16`. A name that comes twice gives two
profiles. ONNX Runtime cuts a name at its first colon, so an input called `images:0` cannot have one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]
Profiles: TypeAlias = Mapping[str, Sequence[Shape]]
Inputs: TypeAlias = Mapping[str, Sequence[int | str | None] | None]
"""A model's inputs: name to shape, in which a dynamic dimension is its name or None; None for an unknown rank."""


def parse(text: str) -> Profiles:
    """Read `name:1x3,other:2` into each name's shapes; ValueError says which part is not such a thing."""
    found: dict[str, list[Shape]] = {}
    for part in text.split(","):
        match = re.fullmatch(r"([^:]+):(\d+(?:x\d+)*)", part)
        if match is None:
            wanted = "a name without a colon, then a shape: `images:1x3x224x224`"
            raise ValueError(f"{part!r} is not {wanted}")
        found.setdefault(match[1], []).append(tuple(int(size) for size in match[2].split("x")))
    return found


def check_order(smallest: Profiles, best: Profiles, largest: Profiles) -> None:
    """Refuse, by a ValueError, profiles in which min, opt and max do not name the same inputs in growing shapes."""
    for name in {**smallest, **best, **largest}:
        shapes = [profiles.get(name, ()) for profiles in (smallest, best, largest)]
        if len({len(one) for one in shapes}) > 1:
            counts = "min {}, opt {}, max {}".format(*map(len, shapes))
            raise ValueError(f"{name!r} needs as many shapes in min, opt and max ({counts})")
        for low, middle, high in zip(*shapes, strict=True):
            if not len(low) == len(middle) == len(high):
                raise ValueError(f"{name!r} has shapes of different rank: {show(low)}, {show(middle)}, {show(high)}")
            if not all(a <= b <= c for a, b, c in zip(low, middle, high, strict=True)):
                raise ValueError(f"{name!r} needs min <= opt <= max: {show(low)}, {show(middle)}, {show(high)}")


def misfit(profiles: Profiles, inputs: Inputs) -> str:
    """Say in a sentence why profiles do not fit a model's inputs; empty when they do.

    A name that is no input is no fault: where a model is split, the parts that TensorRT takes have inputs of their own.
    """
    dynamic = [
        name for name, shape in inputs.items() if shape is None or not all(isinstance(size, int) for size in shape)
    ]
    missing = [name for name in dynamic if name not in profiles]
    if missing:
        sentence = f"the profiles leave out the dynamic input {missing[0]!r}: TensorRT wants all of {dynamic} or none"
        unknown = [name for name in profiles if name not in inputs]
        return f"{sentence}; {unknown[0]!r} is no input" if unknown else sentence
    for name, shape in inputs.items():
        # A profile of a tensor of one dimension may hold its values, not its shape: then its length says nothing.
        if shape is None or len(shape) < 2:
            continue
        for profile in profiles.get(name, ()):
            if len(profile) != len(shape):
                return f"input {name!r} has {len(shape)} dimensions, its profile {show(profile)} has {len(profile)}"
            if any(isinstance(wanted, int) and wanted != size for wanted, size in zip(shape, profile, strict=True)):
                sizes = "x".join("?" if size is None else str(size) for size in shape)
                return f"input {name!r} is {sizes}, its profile {show(profile)} is not"
    return ""


def show(shape: Shape) -> str:
    """Write a shape as ONNX Runtime does: `1x3`."""
    return "x".join(map(str, shape))
