"""How does a classifier give its probabilities as one array?

Converters from scikit-learn and others end a classifier with ZipMap, which makes a dictionary of each row: slow to
make, and slow to use. Without it, the same output is the array that ZipMap was given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from epkit.errors import ConfigError
from epkit.model.edit import copied, field
from epkit.model.file import Source, read
from epkit.model.protobuf import Message, signed

_ZIPMAP = "ai.onnx.ml.ZipMap"
_IDENTITY_SINCE = 13
_FLOAT32 = 1


def drop_zipmap(model: Source) -> bytes:
    """Return a classifier's bytes without ZipMap: its outputs are arrays float32 [rows, classes], under the same names.

    The labels of an output's columns become metadata, as JSON: `session.metadata["probabilities.classes"]`. A model
    without ZipMap is returned as it is. Raises ModelError when it cannot be read, ConfigError for one whose weights lie
    in other files.
    """
    found = read(model)
    contents = model if isinstance(model, bytes) else Path(model).read_bytes()
    if _ZIPMAP not in found.operators:
        return contents
    if found.external:
        raise ConfigError("the model's weights lie in other files", hint="save it in one file: onnx.save")
    classes: dict[str, list[int | str]] = {}
    changed = b"".join(
        field(7, _graph(value, classes)) if number == 7 and isinstance(value, Message) else copied(number, value)
        for number, value in Message(contents)
    )
    for name, labels in classes.items():
        changed += field(14, field(1, f"{name}.classes".encode()) + field(2, json.dumps(labels).encode()))
    if "ai.onnx" not in found.opsets:
        changed += field(8, field(1, b"") + field(2, _IDENTITY_SINCE))
    return changed


def _graph(graph: Message, classes: dict[str, list[int | str]]) -> bytes:
    """Put Identity into the place of each ZipMap of the main graph, and note the labels by its output."""
    parts = list(graph)
    nodes = [_node(value, classes) if number == 1 and isinstance(value, Message) else b"" for number, value in parts]
    return b"".join(
        field(1, node) if node else _output(value, classes) if number == 12 else copied(number, value)
        for (number, value), node in zip(parts, nodes, strict=True)
    )


def _node(node: Message, classes: dict[str, list[int | str]]) -> bytes:
    """Return an Identity for a ZipMap, nothing for any other node."""
    texts = {number: value.text() for number, value in node if number in (2, 4, 7) and isinstance(value, Message)}
    if (texts.get(4), texts.get(7)) != ("ZipMap", "ai.onnx.ml"):
        return b""
    labels = [value for number, value in node if number == 5 and isinstance(value, Message)]
    classes[texts.get(2, "")] = [label for attribute in labels for label in _labels(attribute)]
    kept = b"".join(copied(number, value) for number, value in node if number in (1, 2, 3))
    return kept + field(4, b"Identity")


def _labels(attribute: Message) -> Iterator[int | str]:
    for one in attribute:
        match one:
            case 8, int(number):
                yield signed(number)
            case 8, Message() as packed:
                yield from map(signed, packed.integers())
            case 9, Message() as text:
                yield text.text()


def _output(value: Message | int, classes: dict[str, list[int | str]]) -> bytes:
    """Return the description of an output, as an array where it was a sequence of maps."""
    assert isinstance(value, Message)
    name = next((part.text() for number, part in value if number == 1 and isinstance(part, Message)), "")
    if name not in classes:
        return copied(12, value)
    shape = field(1, b"") + field(1, field(1, len(classes[name])))
    array = field(1, _FLOAT32) + field(2, shape)
    return field(12, field(1, name.encode()) + field(2, field(1, array)))
