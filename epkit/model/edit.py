"""Edit an ONNX model without the onnx package: add outputs, and add rounding noise to tensors.

Both edits serve to find the first tensor at which two providers differ. The field numbers are explained in
`epkit.model.onnx`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from epkit.model.protobuf import Message
from epkit.model.types import ELEMENT_TYPES

ROUNDING_STEPS: Mapping[str, float] = {
    "float64": 2.0**-52,
    "float32": 2.0**-23,
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
}
"""The machine epsilon by dtype: the distance from 1 to the next number."""

ALIASES = frozenset({"Identity", "Dropout"})
"""Operators that return their input. ONNX Runtime removes them, so that two names are one tensor."""

_NUMBERS = {name: number for number, (name, _) in ELEMENT_TYPES.items()}
_FLOAT, _INT = 1, 2


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node of the main graph."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    """Its inputs, and the names that its subgraphs read."""
    outputs: tuple[str, ...]

    @property
    def label(self) -> str:
        """The operator, and the name of the node if it has one."""
        return f"{self.operator} {self.name!r}" if self.name else self.operator


def find_dependent_nodes(model: bytes, inputs: Iterable[str]) -> list[GraphNode]:
    """Return the nodes whose outputs depend on these inputs, in their order; the others are constant."""
    dependent = set(inputs)
    found = []
    for node in map(_node, _graph_fields(model, 1)):
        if not dependent.isdisjoint(node.inputs):
            dependent.update(node.outputs)
            found.append(node)
    return found


def add_outputs(model: bytes, names: Iterable[str]) -> bytes:
    """Return the model with these tensors as additional outputs.

    Protobuf merges a message field that appears twice: appending a graph with only the outputs is enough.
    """
    outputs = b"".join(encode_field(12, encode_field(1, name.encode())) for name in names)
    return model + encode_field(7, outputs) if outputs else model


def add_rounding_noise(model: bytes, dtypes: Mapping[str, str], seed: int) -> bytes:
    """Return the model with random noise of up to one rounding step in each element of these floating-point tensors.

    Each run of a session draws new noise; sessions with the same seed draw the same sequence.
    """
    other_fields, graph = list[bytes](), list[bytes]()
    for number, value in Message(model):
        if number != 7 or not isinstance(value, Message):
            other_fields.append(copy_field(number, value))
            continue
        for inner, part in value:
            if inner == 1 and isinstance(part, Message):
                graph.append(_add_noise(part, dtypes, seed + len(graph)))
            else:
                graph.append(copy_field(inner, part))
    return b"".join((*other_fields, encode_field(7, b"".join(graph))))


def _graph_fields(model: bytes, wanted: int) -> Iterator[Message]:
    """Yield the messages in one field of the main graph."""
    for number, graph in Message(model):
        if number == 7 and isinstance(graph, Message):
            yield from (part for inner, part in graph if inner == wanted and isinstance(part, Message))


def _node(message: Message) -> GraphNode:
    inputs, outputs = list[str](), list[str]()
    name = operator = ""
    subgraphs: list[Message] = []
    for part in message:
        match part:
            case 1, Message() as text:
                inputs.append(text.text())
            case 2, Message() as text:
                outputs.append(text.text())
            case 3, Message() as text:
                name = text.text()
            case 4, Message() as text:
                operator = text.text()
            case 5, Message() as attribute:
                subgraphs.extend(_subgraphs(attribute))
    # A list, since subgraphs can nest deeper than Python's recursion limit.
    while subgraphs:
        for number, inner in subgraphs.pop():
            if number == 12 and isinstance(inner, Message):
                inputs.extend(text.text() for key, text in inner if key == 1 and isinstance(text, Message))
            if number != 1 or not isinstance(inner, Message):
                continue
            for key, value in inner:
                if key == 1 and isinstance(value, Message):
                    inputs.append(value.text())
                elif key == 5 and isinstance(value, Message):
                    subgraphs.extend(_subgraphs(value))
    return GraphNode(name, operator, tuple(filter(None, inputs)), tuple(filter(None, outputs)))


def _subgraphs(attribute: Message) -> list[Message]:
    return [graph for number, graph in attribute if number in (6, 11) and isinstance(graph, Message)]


def _add_noise(message: Message, dtypes: Mapping[str, str], seed: int) -> bytes:
    """Return a node with renamed outputs, followed by nodes that add the noise: T = T' + T' * random."""
    node: list[bytes] = []
    noise: list[bytes] = []
    for number, value in message:
        name = value.text() if number == 2 and isinstance(value, Message) else ""
        if name not in dtypes or dtypes[name] not in ROUNDING_STEPS:
            node.append(copy_field(number, value))
            continue
        node.append(encode_field(2, f"{name}/before".encode()))
        noise.extend(_noise_nodes(name, dtypes[name], seed + len(noise)))
    return b"".join((encode_field(1, b"".join(node)), *noise))


def _noise_nodes(name: str, dtype: str, seed: int) -> Iterator[bytes]:
    is_wide = dtype in ("float32", "float64")
    before, product, random, difference, after = (
        f"{name}/{part}" for part in ("before", "wide", "drawn", "by", "moved")
    )
    start, end = (before, name) if is_wide else (product, after)
    if not is_wide:
        yield _encode_node("Cast", [before], [start], _encode_attribute("to", _NUMBERS["float32"]))
    step = ROUNDING_STEPS[dtype]
    limits = _encode_attribute("low", -step) + _encode_attribute("high", step) + _encode_attribute("seed", float(seed))
    yield _encode_node("RandomUniformLike", [start], [random], limits)
    yield _encode_node("Mul", [start, random], [difference])
    yield _encode_node("Add", [start, difference], [end])
    if not is_wide:
        yield _encode_node("Cast", [after], [name], _encode_attribute("to", _NUMBERS[dtype]))


def _encode_node(operator: str, inputs: Iterable[str], outputs: Iterable[str], attributes: bytes = b"") -> bytes:
    texts = [(1, name) for name in inputs] + [(2, name) for name in outputs] + [(4, operator)]
    return encode_field(1, b"".join(encode_field(number, text.encode()) for number, text in texts) + attributes)


def _encode_attribute(name: str, value: int | float) -> bytes:
    if isinstance(value, float):
        kind, encoded = _FLOAT, b"\x15" + struct.pack("<f", value)
    else:
        kind, encoded = _INT, encode_field(3, value)
    return encode_field(5, encode_field(1, name.encode()) + encoded + encode_field(20, kind))


def copy_field(number: int, value: int | Message) -> bytes:
    """Encode a field that was read, unchanged."""
    if isinstance(value, int):
        return encode_field(number, value)
    return encode_field(number, bytes(value.buffer[value.start : value.stop]))


def encode_field(number: int, value: bytes | int) -> bytes:
    """Encode a field with an integer or bytes."""
    if isinstance(value, int):
        return _encode_varint(number << 3) + _encode_varint(value)
    return _encode_varint(number << 3 | 2) + _encode_varint(len(value)) + value


def _encode_varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))
