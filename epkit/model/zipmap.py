"""Remove ZipMap from a classifier, so that it returns probabilities as one array.

Converters from scikit-learn and others end a classifier with ZipMap, which turns each row into a dictionary: slow to
build, and slow to use. Without it, the output is the array that ZipMap would read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from epkit.errors import ConfigError
from epkit.model.edit import copy_field, encode_field
from epkit.model.file import Source, read_model
from epkit.model.protobuf import Message, signed

_ZIPMAP = "ai.onnx.ml.ZipMap"
_IDENTITY_SINCE = 13
_FLOAT32 = 1


def drop_zipmap(model: Source) -> bytes:
    """Return a classifier's bytes without ZipMap: its outputs are arrays float32 [rows, classes], with the same names.

    The labels of an output's columns become metadata, as JSON: `session.metadata["probabilities.classes"]`. A model
    without ZipMap is returned unchanged. Raises ModelError if it cannot be read, ConfigError if it has external data.
    """
    found = read_model(model)
    contents = model if isinstance(model, bytes) else Path(model).read_bytes()
    if _ZIPMAP not in found.operators:
        return contents
    if found.external:
        raise ConfigError("the model's weights lie in other files", hint="save it in one file: onnx.save")
    classes: dict[str, list[int | str]] = {}
    changed = b"".join(
        encode_field(7, _graph(value, classes))
        if number == 7 and isinstance(value, Message)
        else copy_field(number, value)
        for number, value in Message(contents)
    )
    for name, labels in classes.items():
        changed += encode_field(
            14, encode_field(1, f"{name}.classes".encode()) + encode_field(2, json.dumps(labels).encode())
        )
    if "ai.onnx" not in found.opsets:
        changed += encode_field(8, encode_field(1, b"") + encode_field(2, _IDENTITY_SINCE))
    return changed


def _graph(graph: Message, classes: dict[str, list[int | str]]) -> bytes:
    """Replace each ZipMap of the main graph by Identity, and add its labels to `classes` by output."""
    parts = list(graph)
    nodes = [_node(value, classes) if number == 1 and isinstance(value, Message) else b"" for number, value in parts]
    return b"".join(
        encode_field(1, node) if node else _output(value, classes) if number == 12 else copy_field(number, value)
        for (number, value), node in zip(parts, nodes, strict=True)
    )


def _node(node: Message, classes: dict[str, list[int | str]]) -> bytes:
    """Return an Identity for a ZipMap, b"" for any other node."""
    texts = {number: value.text() for number, value in node if number in (2, 4, 7) and isinstance(value, Message)}
    if (texts.get(4), texts.get(7)) != ("ZipMap", "ai.onnx.ml"):
        return b""
    labels = [value for number, value in node if number == 5 and isinstance(value, Message)]
    classes[texts.get(2, "")] = [label for attribute in labels for label in _labels(attribute)]
    kept = b"".join(copy_field(number, value) for number, value in node if number in (1, 2, 3))
    return kept + encode_field(4, b"Identity")


def _labels(attribute: Message) -> Iterator[int | str]:
    for part in attribute:
        match part:
            case 8, int(number):
                yield signed(number)
            case 8, Message() as packed:
                yield from map(signed, packed.integers())
            case 9, Message() as text:
                yield text.text()


def _output(value: Message | int, classes: dict[str, list[int | str]]) -> bytes:
    """Return the type of an output: an array in place of a sequence of maps."""
    assert isinstance(value, Message)
    name = next((part.text() for number, part in value if number == 1 and isinstance(part, Message)), "")
    if name not in classes:
        return copy_field(12, value)
    shape = encode_field(1, b"") + encode_field(1, encode_field(1, len(classes[name])))
    array = encode_field(1, _FLOAT32) + encode_field(2, shape)
    return encode_field(12, encode_field(1, name.encode()) + encode_field(2, encode_field(1, array)))
