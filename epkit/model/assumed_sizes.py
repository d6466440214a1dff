"""Assume sizes for dynamic dimensions that are not set, from their names, their axes and the model's metadata."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from epkit.model.file import Model
from epkit.model.shapes import dynamic_dimensions, name_dimensions
from epkit.model.types import TensorInfo

Role: TypeAlias = Literal["batch", "height", "width", "channels", "length"]

IMAGE = 64
"""The side of an image without hints: large enough for most networks, and fast."""
MAX_SIDE = 8192
CHANNELS = 3
RANK_PREFIX = "the rank of "
"""With the name of an input, the key for an assumed rank."""
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
class ImageHints:
    """The image size that a model was trained with, and the factor by which it shrinks images."""

    image: tuple[int, int] | None = None
    """Height and width."""
    stride: int = 1


def read_image_hints(model: Model) -> ImageHints:
    """Read the metadata of exporters (Ultralytics' `imgsz` and `stride`), and the strides of the graph."""
    sides = _parse_integers(model.metadata.get("imgsz", "")) or _parse_integers(model.metadata.get("image_size", ""))
    image = (sides[0], sides[-1]) if len(sides) in (1, 2) and all(0 < side <= MAX_SIDE for side in sides) else None
    stride = max(model.stride, *(_parse_integers(model.metadata.get("stride", "")) or [1]))
    return ImageHints(image, stride if stride <= MAX_SIDE // IMAGE else 1)


def find_roles(inputs: Sequence[TensorInfo]) -> dict[str, Role]:
    """Return the role of each dynamic dimension of the inputs, from its name or its axis."""
    found: dict[str, Role] = {}
    for tensor in inputs:
        for axis, name in enumerate(name_dimensions(tensor)):
            if isinstance(name, str):
                role = _role_by_name(name, tensor) or _role_by_axis(tensor, axis)
                found[name] = _merge_roles(found.get(name, role), role)
    return found


def assume_sizes(
    inputs: Sequence[TensorInfo],
    given: Mapping[str, int],
    hints: ImageHints | None = None,
    others: Mapping[str, int] = _NONE,
) -> dict[str, int]:
    """Assume a size for each dynamic dimension that is not `given`; a size in `others` comes first.

    A name that is a sum or product of other dimensions ("past + 1") gets the computed size.
    """
    roles = {name: role for name, role in find_roles(inputs).items() if name not in given}
    sizes = {name: others.get(name) or _assume_size(role, hints or ImageHints()) for name, role in roles.items()}
    return {**sizes, **_compute_sizes(roles, {**sizes, **given})}


def find_open_dimensions(inputs: Sequence[TensorInfo], given: Collection[str]) -> dict[str, Role]:
    """Return the dimensions whose size can be chosen: not given, and not computed from others."""
    roles = {name: role for name, role in find_roles(inputs).items() if name not in given}
    return {name: role for name, role in roles.items() if name not in _compute_sizes(roles, dict.fromkeys(roles, 1))}


def describe_assumed(sizes: Mapping[str, int], inputs: Sequence[TensorInfo] = (), *, files: bool = True) -> str:
    """Return which sizes were assumed, and the options that set them; with `files`, `--input` too."""
    if not sizes:
        return ""
    users = dynamic_dimensions(inputs)
    dimensions = [name for name in sizes if not name.startswith(RANK_PREFIX)]
    unranked = [name.removeprefix(RANK_PREFIX) for name in sizes if name.startswith(RANK_PREFIX)]
    options = [f"--dim {dimensions[0]}=..."] if dimensions else []
    if files:
        user = next((users[name][0] for name in dimensions if name in users), "")
        options.append(f"--input {user or next(iter(unranked), 'NAME')}=FILE.npy")
    listed = ", ".join(f"{name} = {size}" for name, size in sizes.items())
    return f"assumed {listed}; set {'them' if len(sizes) > 1 else 'it'} with {' or '.join(options)}"


def _merge_roles(first: Role, second: Role) -> Role:
    """Return the role of a dimension that has these roles in two inputs."""
    if first == second or {first, second} == {"height", "width"}:
        return first
    return "length"


def _role_by_name(name: str, tensor: TensorInfo) -> Role | None:
    if name.startswith(f"{tensor.name}["):
        return None
    if _SEQUENCE.search(name):
        return "length"
    role = next((role for role, pattern in _ROLES if re.search(pattern, name, re.IGNORECASE)), None)
    return role if role in (None, "batch") or len(tensor.shape or ()) > 2 else "length"


def _role_by_axis(tensor: TensorInfo, axis: int) -> Role:
    shape = tensor.shape or ()
    sides = _image_axes(shape) if tensor.dtype.startswith(("float", "uint8", "bfloat")) else ()
    if axis in sides:
        return "height" if axis == sides[0] else "width"
    is_state = len(shape) == 3 and axis == 1 and isinstance(shape[0], int) and isinstance(shape[2], int)
    return "batch" if (axis == 0 and len(shape) > 1) or is_state else "length"


def _image_axes(shape: Sequence[int | str | None]) -> tuple[int, ...]:
    """Return the axes of height and width: next to an axis of 1, 3 or 4 channels."""
    rank = len(shape)
    if rank not in (3, 4):
        return ()
    if shape[rank - 3] in (1, 3, 4) and (rank == 4 or shape[0] == 3):
        return (rank - 2, rank - 1)
    return (rank - 3, rank - 2) if shape[rank - 1] in (3, 4) else ()


def _assume_size(role: Role, hints: ImageHints) -> int:
    match role:
        case "height" | "width" if hints.image is not None:
            return hints.image[role == "width"]
        case "height" | "width":
            return max(1, -(-IMAGE // hints.stride)) * hints.stride
        case "channels":
            return CHANNELS
    return 1


def _compute_sizes(roles: Collection[str], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes of dimensions whose names define them by other dimensions."""
    found: dict[str, int] = {}
    for name in roles:
        others = {other: size for other, size in sizes.items() if other != name}
        size = _evaluate(name, others) if re.search(r"[+*]", name) else _total_length(name, others)
        if size is not None:
            found[name] = size
    return found


def _evaluate(text: str, sizes: Mapping[str, int]) -> int | None:
    """Evaluate a sum of products of dimensions and numbers; None if it is not one."""
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


def _total_length(name: str, sizes: Mapping[str, int]) -> int | None:
    """Return the size of "total_sequence_length": the past length plus the current one."""
    if "total" not in name.lower():
        return None
    past = next((size for other, size in sizes.items() if "past" in other.lower()), None)
    current = next((size for other, size in sizes.items() if _is_current_length(other)), None)
    return None if past is None or current is None else past + current


def _is_current_length(name: str) -> bool:
    return "seq" in name.lower() and not re.search(r"past|total|[+*]", name, re.IGNORECASE)


def _parse_integers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,6}", text)] if len(text) < 100 else []
