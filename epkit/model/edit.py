"""How is an ONNX model changed without the onnx package?

Two changes, both to find where two providers part: intermediate tensors become outputs, and what nodes compute is moved
by a rounding step at random. The field numbers are those of `_onnx`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from epkit.model.onnx import ELEMENTS
from epkit.model.protobuf import Message

STEPS: Mapping[str, float] = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""One rounding step: the distance from 1 to the next number, by dtype."""

ALIASES = frozenset({"Identity", "Dropout"})
"""Operators that hand on what they read; ONNX Runtime takes them out, so that two names stand for one tensor."""

_NUMBERS = {name: number for number, (name, _) in ELEMENTS.items()}
_FLOAT, _INT = 1, 2


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the main graph."""

    name: str
    operator: str
    reads: tuple[str, ...]
    """Its inputs, and what its subgraphs read from outside of them, or from each other."""
    makes: tuple[str, ...]

    @property
    def told(self) -> str:
        """The operator, and the name of the node if it has one."""
        return f"{self.operator} {self.name!r}" if self.name else self.operator


def nodes(model: bytes, inputs: Iterable[str]) -> list[Node]:
    """Return the nodes whose results depend on these inputs, in their order; the others fold to constants."""
    depend = set(inputs)
    found = []
    for node in map(_node, _of_graph(model, 1)):
        if not depend.isdisjoint(node.reads):
            depend.update(node.makes)
            found.append(node)
    return found


def exposed(model: bytes, names: Iterable[str]) -> bytes:
    """Return the model with these tensors as outputs, after its own.

    A message that comes twice is merged: a graph that holds nothing but outputs is enough.
    """
    outputs = b"".join(field(12, field(1, name.encode())) for name in names)
    return model + field(7, outputs) if outputs else model


def shaken(model: bytes, dtypes: Mapping[str, str], seed: int) -> bytes:
    """Return the model with these floating-point tensors moved by up to one rounding step, at random in each element.

    Each run of a session draws anew; the seed makes a session repeat another's draws.
    """
    outside, graph = list[bytes](), list[bytes]()
    for number, value in Message(model):
        if number != 7 or not isinstance(value, Message):
            outside.append(copied(number, value))
            continue
        for inner, part in value:
            if inner == 1 and isinstance(part, Message):
                graph.append(_shaken(part, dtypes, seed + len(graph)))
            else:
                graph.append(copied(inner, part))
    return b"".join((*outside, field(7, b"".join(graph))))


def _of_graph(model: bytes, wanted: int) -> Iterator[Message]:
    for number, graph in Message(model):
        if number == 7 and isinstance(graph, Message):
            yield from (part for inner, part in graph if inner == wanted and isinstance(part, Message))


def _node(message: Message) -> Node:
    reads, makes = list[str](), list[str]()
    name = operator = ""
    bodies: list[Message] = []
    for one in message:
        match one:
            case 1, Message() as text:
                reads.append(text.text())
            case 2, Message() as text:
                makes.append(text.text())
            case 3, Message() as text:
                name = text.text()
            case 4, Message() as text:
                operator = text.text()
            case 5, Message() as attribute:
                bodies.extend(_bodies(attribute))
    # A list, since subgraphs can nest deeper than Python recurses.
    while bodies:
        for number, part in bodies.pop():
            if number == 12 and isinstance(part, Message):
                reads.extend(text.text() for field, text in part if field == 1 and isinstance(text, Message))
            if number != 1 or not isinstance(part, Message):
                continue
            for field, value in part:
                if field == 1 and isinstance(value, Message):
                    reads.append(value.text())
                elif field == 5 and isinstance(value, Message):
                    bodies.extend(_bodies(value))
    return Node(name, operator, tuple(filter(None, reads)), tuple(filter(None, makes)))


def _bodies(attribute: Message) -> list[Message]:
    return [graph for number, graph in attribute if number in (6, 11) and isinstance(graph, Message)]


def _shaken(message: Message, dtypes: Mapping[str, str], seed: int) -> bytes:
    """Return a node, its results renamed, and behind it the nodes that move them: T = T' + T' * random."""
    own: list[bytes] = []
    behind: list[bytes] = []
    for number, value in message:
        name = value.text() if number == 2 and isinstance(value, Message) else ""
        if name not in dtypes or dtypes[name] not in STEPS:
            own.append(copied(number, value))
            continue
        own.append(field(2, f"{name}/before".encode()))
        behind.extend(_moving(name, dtypes[name], seed + len(behind)))
    return b"".join((field(1, b"".join(own)), *behind))


def _moving(name: str, dtype: str, seed: int) -> Iterator[bytes]:
    wide = dtype in ("float32", "float64")
    before, product, drawn, by, after = (f"{name}/{part}" for part in ("before", "wide", "drawn", "by", "moved"))
    start, end = (before, name) if wide else (product, after)
    if not wide:
        yield _made("Cast", [before], [start], _attribute("to", _NUMBERS["float32"]))
    step = STEPS[dtype]
    limits = _attribute("low", -step) + _attribute("high", step) + _attribute("seed", float(seed))
    yield _made("RandomUniformLike", [start], [drawn], limits)
    yield _made("Mul", [start, drawn], [by])
    yield _made("Add", [start, by], [end])
    if not wide:
        yield _made("Cast", [after], [name], _attribute("to", _NUMBERS[dtype]))


def _made(operator: str, inputs: Iterable[str], outputs: Iterable[str], attributes: bytes = b"") -> bytes:
    texts = [(1, one) for one in inputs] + [(2, one) for one in outputs] + [(4, operator)]
    return field(1, b"".join(field(number, text.encode()) for number, text in texts) + attributes)


def _attribute(name: str, value: int | float) -> bytes:
    if isinstance(value, float):
        kind, held = _FLOAT, b"\x15" + struct.pack("<f", value)
    else:
        kind, held = _INT, field(3, value)
    return field(5, field(1, name.encode()) + held + field(20, kind))


def copied(number: int, value: int | Message) -> bytes:
    """Return a field as it was read."""
    if isinstance(value, int):
        return field(number, value)
    return field(number, bytes(value.buffer[value.start : value.stop]))


def field(number: int, value: bytes | int) -> bytes:
    """Return a field that holds a number, or bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))
