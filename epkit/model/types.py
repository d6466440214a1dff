"""Read the types of tensors and other values from an ONNX model, and name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from epkit.model.protobuf import Message, WireError, signed

Shape: TypeAlias = tuple[int | str | None, ...]
"""Dimensions: each a size, a symbolic name, or None."""

ELEMENT_TYPES = {
    1: ("float32", 32), 2: ("uint8", 8), 3: ("int8", 8), 4: ("uint16", 16), 5: ("int16", 16), 6: ("int32", 32),
    7: ("int64", 64), 8: ("string", 0), 9: ("bool", 8), 10: ("float16", 16), 11: ("float64", 64), 12: ("uint32", 32),
    13: ("uint64", 64), 14: ("complex64", 64), 15: ("complex128", 128), 16: ("bfloat16", 16), 17: ("float8e4m3fn", 8),
    18: ("float8e4m3fnuz", 8), 19: ("float8e5m2", 8), 20: ("float8e5m2fnuz", 8), 21: ("uint4", 4), 22: ("int4", 4),
    23: ("float4e2m1", 4), 24: ("float8e8m0", 8), 25: ("uint2", 2), 26: ("int2", 2),
}  # fmt: skip
"""Element types by ONNX's number (onnx.TensorProto.DataType): name, and bits; 0 for a string."""

BITS = dict(ELEMENT_TYPES.values())

_MAX_TYPE_DEPTH = 32
MAX_RANK = 64


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, type and shape of a value of the graph.

    `dtype` is "float32", "bfloat16", "float8e4m3fn", "int4", "string", or "sequence(float32)", "map(int64, float32)",
    "optional(float32)". A dimension is a size, a symbolic name or None; the shape is None if the rank is unknown.
    """

    name: str
    dtype: str
    shape: Shape | None


def read_value_info(message: Message) -> TensorInfo:
    """Read a ValueInfoProto."""
    name, dtype, shape = "", "undefined", None
    for field in message:
        match field:
            case 1, Message() as text:
                name = text.text()
            case 2, Message() as kind:
                dtype, shape = _type(kind)
    return TensorInfo(name, dtype, shape)


def _type(message: Message, depth: int = 0) -> tuple[str, Shape | None]:
    """Read a TypeProto. An optional tensor has a shape; sequences and maps have none."""
    if depth > _MAX_TYPE_DEPTH:
        raise WireError(f"types are nested deeper than {_MAX_TYPE_DEPTH}")
    dtype, shape = "undefined", None
    for field in message:
        match field:
            case 1, Message() as tensor:
                dtype, shape = _tensor_type(tensor)
            case 8, Message() as tensor:
                element, shape = _tensor_type(tensor)
                dtype = f"sparse_tensor({element})"
            case 4, Message() as sequence:
                _, (inner, _) = _container(sequence, depth)
                dtype, shape = f"sequence({inner})", None
            case 5, Message() as mapping:
                key, (inner, _) = _container(mapping, depth)
                dtype, shape = f"map({key}, {inner})", None
            case 9, Message() as optional:
                _, (inner, shape) = _container(optional, depth)
                dtype = f"optional({inner})"
    return dtype, shape


def _container(message: Message, depth: int) -> tuple[str, tuple[str, Shape | None]]:
    """Read the element type of a sequence or optional (in field 1), or the key and value type of a map (1 and 2)."""
    key: str = "undefined"
    held: tuple[str, Shape | None] = ("undefined", None)
    for field in message:
        match field:
            case 1, int(number):
                key = _element_name(number)
            case ((1 | 2), Message() as kind):
                held = _type(kind, depth + 1)
    return key, held


def _tensor_type(message: Message) -> tuple[str, Shape | None]:
    dtype, shape = "undefined", None
    for field in message:
        match field:
            case 1, int(number):
                dtype = _element_name(number)
            case 2, Message() as dimensions:
                shape = tuple(_dimension(value) for number, value in dimensions if number == 1)
                if len(shape) > MAX_RANK:
                    raise WireError(f"a tensor cannot have {len(shape)} dimensions")
    return dtype, shape


def _dimension(message: Message | int) -> int | str | None:
    found: int | str | None = None
    for field in message if isinstance(message, Message) else ():
        match field:
            case 1, int(size):
                # ONNX Runtime treats a negative size as unknown
                found = signed(size) if signed(size) >= 0 else None
            case 2, Message() as text:
                found = text.text() or None
    return found


def _element_name(number: int) -> str:
    return ELEMENT_TYPES[number][0] if number in ELEMENT_TYPES else "undefined" if number == 0 else f"type {number}"


def parse_ort_type(text: str) -> str:
    """Translate a type name of ONNX Runtime: "seq(tensor(float))" is "sequence(float32)"."""
    kind, _, inside = text.removesuffix(")").partition("(")
    match kind:
        case "tensor":
            return {"float": "float32", "double": "float64"}.get(inside, inside)
        case "seq":
            return f"sequence({parse_ort_type(inside)})"
        case "optional":
            return f"optional({parse_ort_type(inside)})"
        case "sparse_tensor":
            return f"sparse_tensor({parse_ort_type(f'tensor({inside})')})"
        case "map":
            key, _, value = inside.partition(",")
            return f"map({key}, {parse_ort_type(value.strip())})"
    return text
