"""Read and check a model file before ONNX Runtime opens it.

For a missing file, a directory, a truncated download or an HTML page, ONNX Runtime raises the same exceptions as for a
failing provider. So epkit checks the file first: after that, an error is not the file's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from mmap import mmap
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO, Literal, TypeAlias

from epkit.errors import ConfigError, ModelError
from epkit.model.onnx import CONTROL_FLOW, ModelContents, StoredTensor, read_into
from epkit.model.pages import Pages
from epkit.model.protobuf import Buffer, Message, TruncatedError, WireError
from epkit.model.signature import HEAD_BYTES, identify
from epkit.model.types import BITS, TensorInfo, parse_ort_type

__all__ = ["BITS", "ORT_UNKNOWN", "ExternalFile", "Model", "Source", "TensorInfo", "parse_ort_type", "read_model"]

SMALL_BYTES = 4 << 20

_LARGEST_POINTER = 1024
"""The largest Git LFS pointer in bytes, by its specification."""

Source: TypeAlias = str | os.PathLike[str] | bytes
"""A model's path, or its bytes."""


ORT_UNKNOWN = "the inputs of a model in ORT format are known only after it is opened"


@dataclass(frozen=True, slots=True)
class ExternalFile:
    """A file with external data: weights of the model."""

    path: Path
    bytes: int


@dataclass(frozen=True, slots=True)
class Model:
    """The contents of a model file, without weights. Of the "ort" format, only source and size are known."""

    source: Path | bytes = field(repr=False)
    size: int
    """Bytes of the model file, without external data."""
    format: Literal["onnx", "ort"]
    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    """Versions by domain; ONNX's own is "ai.onnx"."""
    producer: str = ""
    metadata: dict[str, str] = field(default_factory=dict, repr=False)
    """Metadata of the exporter: class names, image sizes, alphabets."""
    inputs: tuple[TensorInfo, ...] = ()
    """The inputs of a run, without initializers, even those that a run may override."""
    outputs: tuple[TensorInfo, ...] = ()
    intermediates: tuple[TensorInfo, ...] = field(default=(), repr=False)
    """Values computed in the main graph that are not outputs; one without a declared type is "undefined"."""
    lifetimes: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)
    """For each intermediate, the positions of the node that computes it and of the last node that reads it."""
    operators: dict[str, int] = field(default_factory=dict)
    """Number of nodes by operator ("Conv", "ai.onnx.ml.Scaler"), most frequent first; with subgraphs and functions."""
    parameters: int = 0
    """Elements of all stored tensors: initializers and constants."""
    weight_bytes: int = 0
    """Bytes of all stored tensors."""
    external: tuple[ExternalFile, ...] = ()
    stride: int = 1
    """The largest factor by which convolutions and poolings of the main graph shrink an image."""
    compiled_for: tuple[str, ...] = ()
    """ONNX Runtime's names of the providers for which the model was compiled; empty for a model that was not."""

    @property
    def is_parsed(self) -> bool:
        """Whether inputs, outputs, types and operators are known; they are unknown for the "ort" format."""
        return self.format == "onnx"

    @property
    def has_control_flow(self) -> bool:
        """Whether the model has If, Loop or Scan."""
        return not CONTROL_FLOW.isdisjoint(self.operators)


def read_model(model: Source, *, folder: str | os.PathLike[str] | None = None) -> Model:
    """Read a model file, or a model given as bytes, without its weights.

    `folder` is the folder of external data: by default the file's own, or for bytes the working directory, as in ONNX
    Runtime. Raises ModelError if the file is missing or not a complete model; versions are not checked.
    """
    if isinstance(model, bytes):
        if not model:
            raise ModelError("the model given as bytes is empty", hint="give the whole content of an .onnx file")
        return _read(model, model, "the model given as bytes", Path(folder or "."))
    if not isinstance(model, str | os.PathLike):
        raise ConfigError(f"a model is a path or bytes, not {type(model).__name__}", hint=_suggest_bytes(model))
    path = Path(os.fsdecode(model))
    with _open(path) as file:
        try:
            return _read(_buffer(file), path, f"the model file '{path}'", Path(folder or path.parent))
        except OSError as cause:
            reason = cause.strerror or cause
            hint = "wait until it is copied, and try again"
            raise ModelError(f"the model file '{path}' cannot be read: {reason}", hint=hint) from cause


def _suggest_bytes(model: object) -> str:
    """Return the expression that converts an object with a model to bytes."""
    if isinstance(model, bytearray | memoryview | mmap):
        return "bytes(model)"
    for method in ("SerializeToString", "getvalue", "tobytes", "read"):
        if callable(getattr(model, method, None)):
            return f"model.{method}()"
    return "give the path of an .onnx file"


def _read(buffer: Buffer, source: Path | bytes, name: str, folder: Path) -> Model:
    if buffer[4:8] == b"ORTM":
        return Model(source, len(buffer), "ort")
    contents = ModelContents()
    try:
        read_into(contents, Message(buffer))
    except WireError as cause:
        raise _describe_invalid(buffer, name, contents, cause) from cause
    graph = contents.graph
    if graph is None or not contents.ir_version or not contents.opsets:
        raise _describe_invalid(buffer, name, contents, None)
    outputs = {tensor.name for tensor in graph.outputs}
    return Model(
        source,
        len(buffer),
        "onnx",
        ir_version=contents.ir_version,
        opsets=contents.opsets,
        producer=" ".join(filter(None, contents.producer)),
        metadata=contents.metadata,
        stride=max(graph.shrunk.values(), default=1),
        inputs=tuple(tensor for tensor in graph.inputs if tensor.name not in graph.initializers),
        outputs=tuple(graph.outputs),
        intermediates=tuple(
            graph.declared.get(name) or TensorInfo(name, "undefined", None)
            for name in graph.computed
            if name not in outputs
        ),
        lifetimes={
            name: (computed, max(computed, graph.last_read.get(name, computed)))
            for name, computed in graph.computed.items()
            if name not in outputs
        },
        operators=dict(contents.operators.most_common()),
        parameters=sum(tensor.elements for tensor in contents.stored),
        weight_bytes=sum(tensor.bytes for tensor in contents.stored),
        external=tuple(_check_external(contents.stored, name, folder)),
        compiled_for=tuple(contents.compiled_for),
    )


def _describe_invalid(buffer: Buffer, name: str, contents: ModelContents, cause: WireError | None) -> ModelError:
    """Return the error for bytes that are not a complete model."""
    again = "copy, download or export it again"
    kind, hint = identify(buffer[:HEAD_BYTES])
    if kind:
        return ModelError(f"{name} is {kind}, not an ONNX model", hint=hint)
    if contents.foreign or not contents.ir_version:
        return ModelError(f"{name} is not an ONNX model", hint="give an .onnx file")
    if isinstance(cause, TruncatedError):
        return ModelError(f"{name} is truncated: {cause}", hint=again)
    if cause is not None:
        return ModelError(f"{name} is damaged: {cause}", hint=again)
    missing = "names no operator set" if contents.graph else "has no graph"
    return ModelError(f"{name} {missing}; it may be truncated", hint=again)


def _check_external(stored: list[StoredTensor], name: str, folder: Path) -> Iterator[ExternalFile]:
    """Check that the files of external data exist and are long enough, and yield them."""
    sizes: dict[str, int] = {}
    for tensor in stored:
        if tensor.external is None:
            continue
        location = tensor.external.get("location", "")
        path = folder / location
        if location not in sizes:
            sizes[location] = _size(path)
            if sizes[location] >= 0:
                yield ExternalFile(path, sizes[location])
        problem = f"external data of {name}: the tensor '{tensor.name}' lies in '{location}'"
        if sizes[location] < 0:
            raise ModelError(f"{problem}, which is not in '{folder}'", hint=_find_external(location, folder, name))
        kind, hint = _identify_pointer(path, sizes[location])
        if kind:
            raise ModelError(f"{problem}, which is {kind}", hint=hint)
        end = _end(tensor)
        if end is None:
            raise ModelError(f"{problem} at an offset that is not a number", hint="export the model again")
        if end > sizes[location]:
            found = f"which has {sizes[location]:,} bytes where {end:,} are needed"
            raise ModelError(f"{problem}, {found}", hint=f"copy or download '{location}' again")


def _find_external(location: str, folder: Path, name: str) -> str:
    """Return a hint for external data that is not in the folder of the model."""
    portable = location.replace("\\", "/")
    if portable != location and _size(folder / portable) >= 0:
        return f"the path is written as on Windows: cp '{folder / portable}' '{folder / location}'"
    model = folder / name.removeprefix("the model file '").removesuffix("'")
    with suppress(OSError, ValueError):
        real = model.resolve()
        if model.is_symlink() and _size(real.parent / location) >= 0:
            return f"'{model}' is a link; open the file itself: {real}"
    return f"put '{location}' beside the model"


def _identify_pointer(path: Path, size: int) -> tuple[str, str]:
    """Return that a small file is a pointer of Git LFS, and what to do; two empty strings for any other file."""
    if size > _LARGEST_POINTER:
        return "", ""
    with suppress(OSError):
        head = path.read_bytes()[:HEAD_BYTES]
        return identify(head) if head.startswith(b"version https://git-lfs") else ("", "")
    return "", ""


def _end(tensor: StoredTensor) -> int | None:
    """Return the end of a tensor in its external file; None if offset or length are not numbers."""
    entry = tensor.external or {}
    offset, length = entry.get("offset") or "0", entry.get("length") or str(tensor.bytes)
    return int(offset) + int(length) if f"{offset}{length}".isdecimal() and len(offset + length) < 50 else None


def _size(path: Path) -> int:
    """Return the size of a regular file; -1 if there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return -1
    return found.st_size if S_ISREG(found.st_mode) else -1


def _buffer(file: BinaryIO) -> Buffer:
    """Return the contents of a file: as bytes, or for a large file in pages that are read on demand."""
    pages = Pages(file)
    return pages[:] if len(pages) <= SMALL_BYTES else pages


def _open(path: Path) -> BinaryIO:
    try:
        found = path.stat()
        if S_ISDIR(found.st_mode):
            raise _directory(path)
        if not S_ISREG(found.st_mode):
            raise ModelError(f"'{path}' is not a regular file", hint="give the path of an .onnx file")
        if not found.st_size:
            raise ModelError(f"the model file '{path}' is empty", hint="copy, download or export it again")
        return path.open("rb", buffering=0)
    except FileNotFoundError as cause:
        raise _not_found(path) from cause
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or cause
        hint = f"ls -l '{path}'" if isinstance(cause, PermissionError) else "check the path"
        raise ModelError(f"the model file '{path}' cannot be read: {reason}", hint=hint) from cause


def _directory(path: Path) -> ModelError:
    models = sorted(model.name for model in path.glob("*.onnx"))
    hint = f"name a file in it: {', '.join(models[:3])}" if models else "name the .onnx file"
    return ModelError(f"'{path}' is a directory, not a model file", hint=hint)


def _not_found(path: Path) -> ModelError:
    address = re.match(r"(https?|s3|gs|hf|ftp)://?", os.fspath(path))
    if address:
        whole = f"{address[1]}://{os.fspath(path)[address.end() :]}"
        hint = f"curl -LO {whole}" if address[1].startswith("http") else "download it, and give the path of the file"
        return ModelError(f"'{whole}' is an address, and models are read from files", hint=hint)
    if path.parts[:1] and path.parts[0].startswith("~"):
        return ModelError(f"no file is named '{path}'", hint=f"write the folder that ~ stands for: {_expanded(path)}")
    if not path.parent.is_dir():
        return ModelError(f"there is no folder '{path.parent}' for the model '{path.name}'", hint="check the path")
    names: list[str] = []
    with suppress(OSError):
        names = [entry.name for entry in path.parent.iterdir()]
    near = get_close_matches(path.name, names, 1)
    hint = f"did you mean '{path.parent / near[0]}'?" if near else "check the path"
    return ModelError(f"no file is named '{path}'", hint=hint)


def _expanded(path: Path) -> str:
    return os.path.expanduser(path)  # noqa: PTH111 - a process may have no home directory, which is not an error
