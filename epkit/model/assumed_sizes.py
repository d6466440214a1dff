"""Which size has a dynamic dimension that nobody gave, judged by what the model tells of it?"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from epkit.model.dimensions import dynamic, named
from epkit.model.file import Model, TensorInfo

Role: TypeAlias = Literal["batch", "height", "width", "channels", "length"]

IMAGE = 64
"""The side of an image of which nothing is known: large enough for most networks, and quick."""
LARGEST = 8192
CHANNELS = 3
RANK = "the rank of "
"""Before the name of an input, in place of a dimension: what was assumed where no rank is declared."""
_NONE: Mapping[str, int] = MappingProxyType({})

_ROLES: tuple[tuple[Role, str], ...] = (
    ("batch", r"batch|^[bn]$|^bs$|batch_?size"),
    ("height", r"height|^h$|^rows$"),
    ("width", r"width|^w$|^cols$"),
    ("channels", r"channel|^c$"),
)
_SEQUENCE = re.compile(r"seq|len|time|frame|token|past", re.IGNORECASE)
_FACTOR = re.compile(r"[^\W\d]\w*|\d{1,9}")


@dataclass(frozen=True, slots=True)
class Clues:
    """What a model tells of the images that it takes: the side it was trained with, and by how much it shrinks them."""

    image: tuple[int, int] | None = None
    """Height and width."""
    stride: int = 1


def clues(model: Model) -> Clues:
    """Read the metadata that exporters write (Ultralytics' `imgsz` and `stride`), and the strides of the graph."""
    told = _numbers(model.metadata.get("imgsz", "")) or _numbers(model.metadata.get("image_size", ""))
    image = (told[0], told[-1]) if len(told) in (1, 2) and all(0 < side <= LARGEST for side in told) else None
    stride = max(model.stride, *(_numbers(model.metadata.get("stride", "")) or [1]))
    return Clues(image, stride if stride <= LARGEST // IMAGE else 1)


def roles(inputs: Sequence[TensorInfo]) -> dict[str, Role]:
    """Return what each dynamic dimension of the inputs measures, by its name, else by its place."""
    found: dict[str, Role] = {}
    for wanted in inputs:
        for axis, name in enumerate(named(wanted)):
            if isinstance(name, str):
                role = _by_name(name, wanted) or _by_place(wanted, axis)
                found[name] = _both(found.get(name, role), role)
    return found


def assumed(
    inputs: Sequence[TensorInfo], said: Mapping[str, int], known: Clues | None = None, others: Mapping[str, int] = _NONE
) -> dict[str, int]:
    """Return a size for each dynamic dimension that is not `said`: that of `others` if it has one.

    A name that is a sum or a product of others ("past + 1") has the size that follows.
    """
    meaning = {name: role for name, role in roles(inputs).items() if name not in said}
    sizes = {name: others.get(name) or _first(role, known or Clues()) for name, role in meaning.items()}
    return {**sizes, **_derived(meaning, {**sizes, **said})}


def free(inputs: Sequence[TensorInfo], said: Collection[str]) -> dict[str, Role]:
    """Return the dimensions whose size is open: not said, and none that follows from others."""
    meaning = {name: role for name, role in roles(inputs).items() if name not in said}
    return {name: role for name, role in meaning.items() if name not in _derived(meaning, dict.fromkeys(meaning, 1))}


def told(sizes: Mapping[str, int], inputs: Sequence[TensorInfo] = (), *, files: bool = True) -> str:
    """Say which sizes were assumed, and how to set them: by name, or with `files` for whole inputs."""
    if not sizes:
        return ""
    users = dynamic(inputs)
    sized = [name for name in sizes if not name.startswith(RANK)]
    unranked = [name.removeprefix(RANK) for name in sizes if name.startswith(RANK)]
    ways = [f"--dim {sized[0]}=..."] if sized else []
    if files:
        user = next((users[name][0] for name in sized if name in users), "")
        ways.append(f"--input {user or next(iter(unranked), 'NAME')}=FILE.npy")
    listed = ", ".join(f"{name} = {size}" for name, size in sizes.items())
    return f"assumed {listed}; set {'them' if len(sizes) > 1 else 'it'} with {' or '.join(ways)}"


def _both(one: Role, other: Role) -> Role:
    """Return what a dimension measures that measures `one` here and the `other` there."""
    if one == other or {one, other} == {"height", "width"}:
        return one
    return "length"


def _by_name(name: str, wanted: TensorInfo) -> Role | None:
    if name.startswith(f"{wanted.name}["):
        return None
    if _SEQUENCE.search(name):
        return "length"
    role = next((role for role, pattern in _ROLES if re.search(pattern, name, re.IGNORECASE)), None)
    return role if role in (None, "batch") or len(wanted.shape or ()) > 2 else "length"


def _by_place(wanted: TensorInfo, axis: int) -> Role:
    shape = wanted.shape or ()
    sides = _sides(shape) if wanted.dtype.startswith(("float", "uint8", "bfloat")) else ()
    if axis in sides:
        return "height" if axis == sides[0] else "width"
    state = len(shape) == 3 and axis == 1 and isinstance(shape[0], int) and isinstance(shape[2], int)
    return "batch" if (axis == 0 and len(shape) > 1) or state else "length"


def _sides(shape: Sequence[int | str | None]) -> tuple[int, ...]:
    """Return which axes are height and width: beside one of a few channels, the last but one or the last."""
    rank = len(shape)
    if rank not in (3, 4):
        return ()
    if shape[rank - 3] in (1, 3, 4) and (rank == 4 or shape[0] == 3):
        return (rank - 2, rank - 1)
    return (rank - 3, rank - 2) if shape[rank - 1] in (3, 4) else ()


def _first(role: Role, known: Clues) -> int:
    match role:
        case "height" | "width" if known.image is not None:
            return known.image[role == "width"]
        case "height" | "width":
            return max(1, -(-IMAGE // known.stride)) * known.stride
        case "channels":
            return CHANNELS
    return 1


def _derived(meaning: Collection[str], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes of dimensions whose names say how they follow from others."""
    found: dict[str, int] = {}
    for name in meaning:
        others = {other: size for other, size in sizes.items() if other != name}
        size = _sum(name, others) if re.search(r"[+*]", name) else _total(name, others)
        if size is not None:
            found[name] = size
    return found


def _sum(text: str, sizes: Mapping[str, int]) -> int | None:
    total = 0
    for term in text.split("+"):
        product = 1
        for factor in term.split("*"):
            word = factor.strip()
            if not _FACTOR.fullmatch(word) or not (word.isdecimal() or word in sizes):
                return None
            product *= int(word) if word.isdecimal() else sizes[word]
        total += product
    return total if 0 < total <= 2**31 else None


def _total(name: str, sizes: Mapping[str, int]) -> int | None:
    """Return what "total_sequence_length" is: that of the past and that of now."""
    if "total" not in name.lower():
        return None
    past = next((size for other, size in sizes.items() if "past" in other.lower()), None)
    now = next((size for other, size in sizes.items() if _is_now(other)), None)
    return None if past is None or now is None else past + now


def _is_now(name: str) -> bool:
    return "seq" in name.lower() and not re.search(r"past|total|[+*]", name, re.IGNORECASE)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,6}", text)] if len(text) < 100 else []
