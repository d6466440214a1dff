"""What does an ONNX ModelProto hold?

ONNX's field and type numbers live here and nowhere else: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

from epkit.model.protobuf import Message, WireError, signed
from epkit.model.strides import shrinking

Shape: TypeAlias = tuple[int | str | None, ...]
"""A dimension is its size, its symbolic name, or None."""

ELEMENTS = {
    1: ("float32", 32), 2: ("uint8", 8), 3: ("int8", 8), 4: ("uint16", 16), 5: ("int16", 16), 6: ("int32", 32),
    7: ("int64", 64), 8: ("string", 0), 9: ("bool", 8), 10: ("float16", 16), 11: ("float64", 64), 12: ("uint32", 32),
    13: ("uint64", 64), 14: ("complex64", 64), 15: ("complex128", 128), 16: ("bfloat16", 16), 17: ("float8e4m3fn", 8),
    18: ("float8e4m3fnuz", 8), 19: ("float8e5m2", 8), 20: ("float8e5m2fnuz", 8), 21: ("uint4", 4), 22: ("int4", 4),
    23: ("float4e2m1", 4), 24: ("float8e8m0", 8), 25: ("uint2", 2), 26: ("int2", 2),
}  # fmt: skip
"""ONNX's number of an element type, its name and its bits. A string has no fixed size."""

BITS = dict(ELEMENTS.values())

CONTEXT = "com.microsoft.EPContext"
"""The operator that holds what a provider compiled."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})

_DEEPEST_TYPE = 32
_HIGHEST_RANK = 64
_MOST_SHRUNK = 2**20


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A value of the graph: its name, type and shape.

    `dtype` is "float32", "bfloat16", "float8e4m3fn", "int4", "string", or "sequence(float32)", "map(int64, float32)",
    "optional(float32)". A dimension is a size, a symbolic name or None; the shape is None where the rank is unknown.
    """

    name: str
    dtype: str
    shape: Shape | None


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that the model brings: how many elements and bytes it has, and where they lie if outside the file."""

    name: str
    elements: int
    bytes: int
    external: dict[str, str] | None
    """ONNX's keys `location`, `offset` and `length`."""


@dataclass(slots=True)
class Graph:
    """One graph: what goes in, what comes out, what lies between."""

    inputs: list[TensorInfo] = field(default_factory=list)
    outputs: list[TensorInfo] = field(default_factory=list)
    declared: dict[str, TensorInfo] = field(default_factory=dict)
    """Types of values that are neither, by name."""
    initializers: set[str] = field(default_factory=set)
    computed: dict[str, int] = field(default_factory=dict)
    """What the nodes compute, with the position of the node. What Constant nodes give is stored, not computed."""
    last_read: dict[str, int] = field(default_factory=dict)
    """The position of the last node that reads a value; subgraphs are not looked into."""
    nodes: int = 0
    shrunk: dict[str, int] = field(default_factory=dict)
    """By how much the height of an image has shrunk where a value is computed; what is not here, not at all."""


@dataclass(slots=True)
class Contents:
    """What was read of a model so far."""

    foreign: bool = False
    """Whether there was a field that no ModelProto has."""
    ir_version: int = 0
    producer: list[str] = field(default_factory=list)
    opsets: dict[str, int] = field(default_factory=dict)
    graph: Graph | None = None
    operators: Counter[str] = field(default_factory=Counter)
    stored: list[Stored] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    """What the exporter wrote: class names, image sizes, alphabets."""
    compiled_for: dict[str, None] = field(default_factory=dict)
    """What ONNX Runtime calls the providers for which parts of the model were compiled."""
    bodies: list[Message] = field(default_factory=list)
    """Subgraphs still to be read. A list, since hostile bytes can nest deeper than Python recurses."""


def read_into(contents: Contents, model: Message) -> None:
    """Read a ModelProto. Raise WireError where it is none; what was read until then stays in `contents`."""
    for one in model:
        match one:
            case 1, int(version):
                contents.ir_version = signed(version)
            case ((2 | 3), Message() as text):
                contents.producer.append(text.text())
            case 7, Message() as graph:
                contents.graph = contents.graph or Graph()
                _graph(graph, contents.graph, contents)
            case 8, Message() as opset:
                _opset(opset, contents)
            case 25, Message() as function:
                _function(function, contents)
            case 14, Message() as entry:
                contents.metadata.update(_entry(entry))
            case ((4 | 6 | 20 | 26), Message()) | (5, int()):
                pass
            case _:
                contents.foreign = True
    while contents.bodies:
        _graph(contents.bodies.pop(), Graph(), contents)


def _opset(message: Message, contents: Contents) -> None:
    domain, version = "", 0
    for one in message:
        match one:
            case 1, Message() as text:
                domain = text.text()
            case 2, int(number):
                version = signed(number)
    contents.opsets[domain or "ai.onnx"] = version


def _function(message: Message, contents: Contents) -> None:
    for one in message:
        match one:
            case 7, Message() as node:
                _node(node, contents)
            case 11, Message() as default:
                _attribute(default, contents)


def _graph(message: Message, graph: Graph, contents: Contents) -> None:
    for one in message:
        match one:
            case 1, Message() as node:
                read, made, shrinks = _node(node, contents)
                shrunk = max((graph.shrunk.get(name, 1) for name in read), default=1) * shrinks
                if shrunk > 1:
                    graph.shrunk.update(dict.fromkeys(made, min(int(shrunk), _MOST_SHRUNK)))
                graph.last_read.update(dict.fromkeys(read, graph.nodes))
                graph.computed.update(dict.fromkeys(made, graph.nodes))
                graph.nodes += 1
            case 5, Message() as tensor:
                graph.initializers.add(_tensor(tensor, contents))
            case 15, Message() as sparse:
                graph.initializers.add(_sparse(sparse, contents))
            case 11, Message() as value:
                graph.inputs.append(_value(value))
            case 12, Message() as value:
                graph.outputs.append(_value(value))
            case 13, Message() as value:
                info = _value(value)
                graph.declared[info.name] = info


def _node(message: Message, contents: Contents) -> tuple[list[str], list[str], float]:
    """Count the node; return the names of what it reads and of what it computes, and by how much it shrinks images."""
    inputs, outputs, operator, domain = [], [], "", ""
    attributes: list[Message] = []
    for one in message:
        match one:
            case 1, Message() as text:
                inputs.append(text.text())
            case 2, Message() as text:
                outputs.append(text.text())
            case 4, Message() as text:
                operator = text.text()
            case 7, Message() as text:
                domain = text.text()
            case 5, Message() as attribute:
                _attribute(attribute, contents)
                attributes.append(attribute)
    plain = domain in ("", "ai.onnx")
    full = operator if plain else f"{domain}.{operator}"
    contents.operators[full] += 1
    if full == CONTEXT:
        _context(attributes, contents)
    made = [] if plain and operator == "Constant" else [name for name in outputs if name]
    return inputs, made, shrinking(operator, attributes) if plain else 1


def _context(attributes: list[Message], contents: Contents) -> None:
    """Note for whom a node was compiled, and the file that holds what was, unless the node does itself."""
    values = {}
    for attribute in attributes:
        found = dict(attribute)
        name = found.get(1)
        values[name.text() if isinstance(name, Message) else ""] = found
    source = values.get("source", {}).get(4)
    contents.compiled_for[source.text() if isinstance(source, Message) else ""] = None
    place = values.get("ep_cache_context", {}).get(4)
    if values.get("embed_mode", {}).get(3, 1) == 0 and isinstance(place, Message) and len(place):
        contents.stored.append(Stored("what was compiled", 0, 0, {"location": place.text()}))


def _attribute(message: Message, contents: Contents) -> None:
    for one in message:
        match one:
            case ((5 | 10), Message() as tensor):
                _tensor(tensor, contents)
            case ((22 | 23), Message() as sparse):
                _sparse(sparse, contents)
            case ((6 | 11), Message() as graph):
                contents.bodies.append(graph)


def _sparse(message: Message, contents: Contents) -> str:
    name = ""
    for one in message:
        match one:
            case 1, Message() as values:
                name = _tensor(values, contents)
            case 2, Message() as indices:
                _tensor(indices, contents)
    return name


def _tensor(message: Message, contents: Contents) -> str:
    """Note a stored tensor, and return its name. Its data is stepped over."""
    name, dimensions, number, text_bytes, outside = "", list[int](), 0, 0, False
    place: dict[str, str] = {}
    for one in message:
        match one:
            case 1, int(dimension):
                dimensions.append(dimension)
            case 1, Message() as packed:
                dimensions.extend(packed.integers())
            case 2, int(element):
                number = element
            case 6, Message() as text:
                text_bytes += len(text)
            case 8, Message() as text:
                name = text.text()
            case 13, Message() as entry:
                place.update(_entry(entry))
            case 14, int(location):
                outside = location == 1
    if len(dimensions) > _HIGHEST_RANK or any(signed(one) < 0 for one in dimensions):
        raise WireError(f"the tensor {name!r} cannot have {len(dimensions)} dimensions, or a negative one")
    elements = math.prod(dimensions)
    size = text_bytes + (elements * ELEMENTS.get(number, ("", 0))[1] + 7) // 8
    contents.stored.append(Stored(name, elements, size, place if outside else None))
    return name


def _entry(message: Message) -> dict[str, str]:
    texts = {number: value.text() for number, value in message if isinstance(value, Message)}
    return {texts.get(1, ""): texts.get(2, "")}


def _value(message: Message) -> TensorInfo:
    name, dtype, shape = "", "undefined", None
    for one in message:
        match one:
            case 1, Message() as text:
                name = text.text()
            case 2, Message() as kind:
                dtype, shape = _type(kind)
    return TensorInfo(name, dtype, shape)


def _type(message: Message, depth: int = 0) -> tuple[str, Shape | None]:
    """Read a TypeProto. An optional tensor keeps its shape; what holds several values has none."""
    if depth > _DEEPEST_TYPE:
        raise WireError(f"types are nested deeper than {_DEEPEST_TYPE}")
    dtype, shape = "undefined", None
    for one in message:
        match one:
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
    """Read what a sequence, optional (type in field 1) or map (key in field 1, type in field 2) holds."""
    key: str = "undefined"
    held: tuple[str, Shape | None] = ("undefined", None)
    for one in message:
        match one:
            case 1, int(number):
                key = _element(number)
            case ((1 | 2), Message() as kind):
                held = _type(kind, depth + 1)
    return key, held


def _tensor_type(message: Message) -> tuple[str, Shape | None]:
    dtype, shape = "undefined", None
    for one in message:
        match one:
            case 1, int(number):
                dtype = _element(number)
            case 2, Message() as dimensions:
                shape = tuple(_dimension(value) for number, value in dimensions if number == 1)
                if len(shape) > _HIGHEST_RANK:
                    raise WireError(f"a tensor cannot have {len(shape)} dimensions")
    return dtype, shape


def _dimension(message: Message | int) -> int | str | None:
    found: int | str | None = None
    for one in message if isinstance(message, Message) else ():
        match one:
            case 1, int(size):
                # ONNX Runtime takes a negative size as an unknown one
                found = signed(size) if signed(size) >= 0 else None
            case 2, Message() as text:
                found = text.text() or None
    return found


def _element(number: int) -> str:
    return ELEMENTS[number][0] if number in ELEMENTS else "undefined" if number == 0 else f"type {number}"
