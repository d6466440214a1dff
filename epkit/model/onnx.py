"""Read an ONNX ModelProto without its weights: graph, operators, stored tensors and metadata.

The field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from epkit.model.protobuf import Message, WireError, signed
from epkit.model.strides import shrink_factor
from epkit.model.types import ELEMENT_TYPES, MAX_RANK, TensorInfo, read_value_info

CONTEXT = "com.microsoft.EPContext"
"""The operator of a subgraph that a provider has compiled (an EP context)."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})

_MAX_SHRINKAGE = 2**20


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """An initializer or constant: its number of elements and bytes, and its place in external data."""

    name: str
    elements: int
    bytes: int
    external: dict[str, str] | None
    """ONNX's keys `location`, `offset` and `length`; None for a tensor inside the model file."""


@dataclass(slots=True)
class GraphContents:
    """One graph: its inputs, outputs and intermediate values."""

    inputs: list[TensorInfo] = field(default_factory=list)
    outputs: list[TensorInfo] = field(default_factory=list)
    declared: dict[str, TensorInfo] = field(default_factory=dict)
    """Declared intermediate values, by name."""
    initializers: set[str] = field(default_factory=set)
    computed: dict[str, int] = field(default_factory=dict)
    """Names of the values that nodes compute, with the position of the node; outputs of Constant are left out."""
    last_read: dict[str, int] = field(default_factory=dict)
    """The position of the last node that reads a value; reads inside subgraphs are not counted."""
    nodes: int = 0
    shrunk: dict[str, int] = field(default_factory=dict)
    """By which factor an image has shrunk at a value; values that are missing here have the factor 1."""


@dataclass(slots=True)
class ModelContents:
    """The contents of a model, as far as they are read."""

    foreign: bool = False
    """Whether a field was found that no ModelProto has."""
    ir_version: int = 0
    producer: list[str] = field(default_factory=list)
    opsets: dict[str, int] = field(default_factory=dict)
    graph: GraphContents | None = None
    operators: Counter[str] = field(default_factory=Counter)
    stored: list[StoredTensor] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    """Metadata of the exporter: class names, image sizes, alphabets."""
    compiled_for: dict[str, None] = field(default_factory=dict)
    """ONNX Runtime's names of the providers for which parts of the model were compiled."""
    bodies: list[Message] = field(default_factory=list)
    """Subgraphs that are not read yet. A list, since hostile models can nest deeper than Python's recursion limit."""


def read_into(contents: ModelContents, model: Message) -> None:
    """Read a ModelProto into `contents`. Raises WireError if it is invalid; what was read until then is kept."""
    for part in model:
        match part:
            case 1, int(version):
                contents.ir_version = signed(version)
            case ((2 | 3), Message() as text):
                contents.producer.append(text.text())
            case 7, Message() as graph:
                contents.graph = contents.graph or GraphContents()
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
        _graph(contents.bodies.pop(), GraphContents(), contents)


def _opset(message: Message, contents: ModelContents) -> None:
    domain, version = "", 0
    for part in message:
        match part:
            case 1, Message() as text:
                domain = text.text()
            case 2, int(number):
                version = signed(number)
    contents.opsets[domain or "ai.onnx"] = version


def _function(message: Message, contents: ModelContents) -> None:
    for part in message:
        match part:
            case 7, Message() as node:
                _node(node, contents)
            case 11, Message() as default:
                _attribute(default, contents)


def _graph(message: Message, graph: GraphContents, contents: ModelContents) -> None:
    for part in message:
        match part:
            case 1, Message() as node:
                reads, computed, factor = _node(node, contents)
                shrunk = max((graph.shrunk.get(name, 1) for name in reads), default=1) * factor
                if shrunk > 1:
                    graph.shrunk.update(dict.fromkeys(computed, min(int(shrunk), _MAX_SHRINKAGE)))
                graph.last_read.update(dict.fromkeys(reads, graph.nodes))
                graph.computed.update(dict.fromkeys(computed, graph.nodes))
                graph.nodes += 1
            case 5, Message() as tensor:
                graph.initializers.add(_tensor(tensor, contents))
            case 15, Message() as sparse:
                graph.initializers.add(_sparse(sparse, contents))
            case 11, Message() as value:
                graph.inputs.append(read_value_info(value))
            case 12, Message() as value:
                graph.outputs.append(read_value_info(value))
            case 13, Message() as value:
                info = read_value_info(value)
                graph.declared[info.name] = info


def _node(message: Message, contents: ModelContents) -> tuple[list[str], list[str], float]:
    """Count the node; return the names that it reads and computes, and by which factor it shrinks images."""
    inputs, outputs, operator, domain = [], [], "", ""
    attributes: list[Message] = []
    for part in message:
        match part:
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
    is_standard = domain in ("", "ai.onnx")
    name = operator if is_standard else f"{domain}.{operator}"
    contents.operators[name] += 1
    if name == CONTEXT:
        _context(attributes, contents)
    computed = [] if is_standard and operator == "Constant" else [output for output in outputs if output]
    return inputs, computed, shrink_factor(operator, attributes) if is_standard else 1


def _context(attributes: list[Message], contents: ModelContents) -> None:
    """Record the provider for which a node was compiled, and the file of the compiled code if it is not in the node."""
    values = {}
    for attribute in attributes:
        found = dict(attribute)
        name = found.get(1)
        values[name.text() if isinstance(name, Message) else ""] = found
    source = values.get("source", {}).get(4)
    contents.compiled_for[source.text() if isinstance(source, Message) else ""] = None
    place = values.get("ep_cache_context", {}).get(4)
    if values.get("embed_mode", {}).get(3, 1) == 0 and isinstance(place, Message) and len(place):
        contents.stored.append(StoredTensor("what was compiled", 0, 0, {"location": place.text()}))


def _attribute(message: Message, contents: ModelContents) -> None:
    for part in message:
        match part:
            case ((5 | 10), Message() as tensor):
                _tensor(tensor, contents)
            case ((22 | 23), Message() as sparse):
                _sparse(sparse, contents)
            case ((6 | 11), Message() as graph):
                contents.bodies.append(graph)


def _sparse(message: Message, contents: ModelContents) -> str:
    name = ""
    for part in message:
        match part:
            case 1, Message() as values:
                name = _tensor(values, contents)
            case 2, Message() as indices:
                _tensor(indices, contents)
    return name


def _tensor(message: Message, contents: ModelContents) -> str:
    """Record a stored tensor, and return its name. Its data is skipped."""
    name, dimensions, number, text_bytes, outside = "", list[int](), 0, 0, False
    place: dict[str, str] = {}
    for part in message:
        match part:
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
    if len(dimensions) > MAX_RANK or any(signed(size) < 0 for size in dimensions):
        raise WireError(f"the tensor {name!r} cannot have {len(dimensions)} dimensions, or a negative one")
    elements = math.prod(dimensions)
    size = text_bytes + (elements * ELEMENT_TYPES.get(number, ("", 0))[1] + 7) // 8
    contents.stored.append(StoredTensor(name, elements, size, place if outside else None))
    return name


def _entry(message: Message) -> dict[str, str]:
    texts = {number: value.text() for number, value in message if isinstance(value, Message)}
    return {texts.get(1, ""): texts.get(2, "")}
