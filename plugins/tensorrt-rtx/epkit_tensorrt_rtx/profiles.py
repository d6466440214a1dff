"""Which input shapes must an engine take, and do they fit the model?

A profile is spelt `images:1x3x224x224,mask:1x16`; a name that comes twice gives two profiles. The library says nothing
of one that it cannot read: it takes every size from 0 to 32767 instead. (Its header separates with semicolons; what
follows one is not read.)
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
        match = re.fullmatch(r"([^:;\s]+):(\d+(?:x\d+)*)", part)
        if match is None:
            raise ValueError(f"{part!r} is not a name and a shape: write `images:1x3x224x224,mask:1x16`")
        found.setdefault(match[1], []).append(tuple(int(size) for size in match[2].split("x")))
    return found


def check_order(smallest: Profiles, best: Profiles, largest: Profiles) -> None:
    """Refuse, by a ValueError, profiles in which min, opt and max do not name the same inputs in growing shapes."""
    for name in {**smallest, **best, **largest}:
        shapes = [profiles.get(name, ()) for profiles in (smallest, best, largest)]
        if len({len(one) for one in shapes}) > 1:
            raise ValueError(f"{name!r} needs as many shapes in min, opt and max, not {[len(one) for one in shapes]}")
        for low, middle, high in zip(*shapes, strict=True):
            ordered = len(low) == len(middle) == len(high) and all(
                a <= b <= c for a, b, c in zip(low, middle, high, strict=True)
            )
            if not ordered:
                raise ValueError(f"{name!r} needs min <= opt <= max: {_show(low)}, {_show(middle)}, {_show(high)}")


def misfit(profiles: Profiles, inputs: Inputs) -> str:
    """Say in a sentence why profiles do not fit a model's inputs; empty when they do.

    A name that is no input is a fault only where an input has to do without: a model that is split has parts with
    inputs of their own.
    """
    unknown = [name for name in profiles if name not in inputs]
    for name, shape in inputs.items():
        dynamic = shape is None or not all(isinstance(size, int) for size in shape)
        if dynamic and unknown and name not in profiles:
            return f"the profiles name {unknown[0]!r}, which is no input, and leave out the dynamic input {name!r}"
        # A profile of a tensor of one dimension may hold its values, not its shape: then its length says nothing.
        if shape is None or len(shape) < 2:
            continue
        for profile in profiles.get(name, ()):
            fits = len(profile) == len(shape) and all(
                not isinstance(wanted, int) or wanted == size for wanted, size in zip(shape, profile, strict=True)
            )
            if not fits:
                sizes = "x".join("?" if size is None else str(size) for size in shape)
                return f"input {name!r} is {sizes}, its profile {_show(profile)} is not"
    return ""


def _show(shape: Shape) -> str:
    return "x".join(map(str, shape))
