"""What does the model file say, before ONNX Runtime opens it?

ONNX Runtime answers a missing file, a directory, half a download and a web page with the same classes of exception that
a failing provider raises. So epkit reads the file first: what is wrong with it is then nobody else's fault.
"""

from __future__ import annotations

import hashlib
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
from epkit.model.onnx import BITS, CONTROL_FLOW, Contents, Stored, TensorInfo, read_into
from epkit.model.pages import Pages
from epkit.model.protobuf import Buffer, Message, TruncatedError, WireError
from epkit.model.signature import HEAD, identify

__all__ = ["BITS", "UNTOLD", "ExternalFile", "Model", "Source", "TensorInfo", "digest", "parse_ort_type", "read"]

SMALL_BYTES = 4 << 20

_LARGEST_POINTER = 1024
"""Bytes of a pointer of Git LFS, at most: its specification says so."""

Source: TypeAlias = str | os.PathLike[str] | bytes
"""A model's path, or its bytes."""


UNTOLD = "a model in ORT format tells its inputs only when it is opened"


@dataclass(frozen=True, slots=True)
class ExternalFile:
    """A file beside the model that holds weights."""

    path: Path
    bytes: int


@dataclass(frozen=True, slots=True)
class Model:
    """What a model file says about itself. Of the "ort" format, only its source and size are known."""

    source: Path | bytes = field(repr=False)
    size: int
    """Bytes of the model file, external data apart."""
    format: Literal["onnx", "ort"]
    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    """Versions by domain; ONNX's own is "ai.onnx"."""
    producer: str = ""
    metadata: dict[str, str] = field(default_factory=dict, repr=False)
    """What the exporter wrote beside the graph: class names, image sizes, alphabets."""
    inputs: tuple[TensorInfo, ...] = ()
    """What has to be given: initializers are left out, those that a run may override too."""
    outputs: tuple[TensorInfo, ...] = ()
    intermediates: tuple[TensorInfo, ...] = field(default=(), repr=False)
    """What the nodes of the main graph compute beside the outputs; without a declared type it is "undefined"."""
    lifetimes: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)
    """For each of them, the positions of the node that computes it and of the last one that reads it."""
    operators: dict[str, int] = field(default_factory=dict)
    """Nodes by operator ("Conv", "ai.onnx.ml.Scaler"), most frequent first; subgraphs and functions are included."""
    parameters: int = 0
    """Elements of all stored tensors: initializers and constants."""
    weight_bytes: int = 0
    """Bytes of all stored tensors."""
    external: tuple[ExternalFile, ...] = ()
    stride: int = 1
    """By how much the convolutions and poolings of the main graph shrink an image, at most."""
    compiled_for: tuple[str, ...] = ()
    """What ONNX Runtime calls the providers for which the model was compiled; empty for a plain model."""

    @property
    def tells(self) -> bool:
        """Whether the file tells inputs, outputs, types and operators; in the "ort" format they are unknown."""
        return self.format == "onnx"

    @property
    def has_control_flow(self) -> bool:
        """Whether it has If, Loop or Scan."""
        return not CONTROL_FLOW.isdisjoint(self.operators)


def read(model: Source, *, folder: str | os.PathLike[str] | None = None) -> Model:
    """Read a model file, or a model given as bytes, without its weights.

    `folder` is where external data is looked for: beside the file, or for bytes in the working directory, as ONNX
    Runtime does. Raises ModelError when there is no such file, or it is no whole model; versions are not judged.
    """
    if isinstance(model, bytes):
        if not model:
            raise ModelError("the model given as bytes is empty", hint="give the whole content of an .onnx file")
        return _read(model, model, "the model given as bytes", Path(folder or "."))
    if not isinstance(model, str | os.PathLike):
        raise ConfigError(f"a model is a path or bytes, not {type(model).__name__}", hint=_as_bytes(model))
    path = Path(os.fsdecode(model))
    with _opened(path) as file:
        try:
            return _read(_buffer(file), path, f"the model file '{path}'", Path(folder or path.parent))
        except OSError as cause:
            reason = cause.strerror or cause
            hint = "wait until it is copied, and try again"
            raise ModelError(f"the model file '{path}' cannot be read: {reason}", hint=hint) from cause


def _as_bytes(model: object) -> str:
    """Return how what holds a model is turned into its bytes."""
    if isinstance(model, bytearray | memoryview | mmap):
        return "bytes(model)"
    for method in ("SerializeToString", "getvalue", "tobytes", "read"):
        if callable(getattr(model, method, None)):
            return f"model.{method}()"
    return "give the path of an .onnx file"


def digest(model: Source | Model) -> str:
    """Return the SHA-256 of a model in hexadecimal: that of its bytes, or over those of its files if it has several."""
    found = model if isinstance(model, Model) else read(model)
    try:
        parts = [_sha256(found.source), *(_sha256(one.path) for one in found.external)]
    except OSError as cause:
        raise ModelError(f"the model cannot be read any more: {cause}", hint="check the file, and try again") from cause
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def parse_ort_type(text: str) -> str:
    """Translate a type as ONNX Runtime writes it: "seq(tensor(float))" is "sequence(float32)"."""
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


def _read(buffer: Buffer, source: Path | bytes, name: str, folder: Path) -> Model:
    if buffer[4:8] == b"ORTM":
        return Model(source, len(buffer), "ort")
    contents = Contents()
    try:
        read_into(contents, Message(buffer))
    except WireError as cause:
        raise _unreadable(buffer, name, contents, cause) from cause
    graph = contents.graph
    if graph is None or not contents.ir_version or not contents.opsets:
        raise _unreadable(buffer, name, contents, None)
    outputs = {one.name for one in graph.outputs}
    return Model(
        source,
        len(buffer),
        "onnx",
        ir_version=contents.ir_version,
        opsets=contents.opsets,
        producer=" ".join(filter(None, contents.producer)),
        metadata=contents.metadata,
        stride=max(graph.shrunk.values(), default=1),
        inputs=tuple(one for one in graph.inputs if one.name not in graph.initializers),
        outputs=tuple(graph.outputs),
        intermediates=tuple(
            graph.declared.get(one) or TensorInfo(one, "undefined", None)
            for one in graph.computed
            if one not in outputs
        ),
        lifetimes={
            one: (made, max(made, graph.last_read.get(one, made)))
            for one, made in graph.computed.items()
            if one not in outputs
        },
        operators=dict(contents.operators.most_common()),
        parameters=sum(one.elements for one in contents.stored),
        weight_bytes=sum(one.bytes for one in contents.stored),
        external=tuple(_external(contents.stored, name, folder)),
        compiled_for=tuple(contents.compiled_for),
    )


def _unreadable(buffer: Buffer, name: str, contents: Contents, cause: WireError | None) -> ModelError:
    """Say what is wrong with bytes that are no whole model."""
    again = "copy, download or export it again"
    kind, hint = identify(buffer[:HEAD])
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


def _external(stored: list[Stored], name: str, folder: Path) -> Iterator[ExternalFile]:
    """Check that the files which the tensors name are there and long enough."""
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
        wanted = f"external data of {name}: the tensor '{tensor.name}' lies in '{location}'"
        if sizes[location] < 0:
            raise ModelError(f"{wanted}, which is not in '{folder}'", hint=_missing(location, folder, name))
        kind, hint = _stranger(path, sizes[location])
        if kind:
            raise ModelError(f"{wanted}, which is {kind}", hint=hint)
        end = _end(tensor)
        if end is None:
            raise ModelError(f"{wanted} at an offset that is not a number", hint="export the model again")
        if end > sizes[location]:
            found = f"which has {sizes[location]:,} bytes where {end:,} are needed"
            raise ModelError(f"{wanted}, {found}", hint=f"copy or download '{location}' again")


def _missing(location: str, folder: Path, name: str) -> str:
    """Return what to do where the file with the weights is not beside the model."""
    twin = location.replace("\\", "/")
    if twin != location and _size(folder / twin) >= 0:
        return f"the path is written as on Windows: cp '{folder / twin}' '{folder / location}'"
    model = folder / name.removeprefix("the model file '").removesuffix("'")
    with suppress(OSError, ValueError):
        real = model.resolve()
        if model.is_symlink() and _size(real.parent / location) >= 0:
            return f"'{model}' is a link; open the file itself: {real}"
    return f"put '{location}' beside the model"


def _stranger(path: Path, size: int) -> tuple[str, str]:
    """Return what a small file is that cannot hold weights, and what to do; two empty texts for any other file."""
    if size > _LARGEST_POINTER:
        return "", ""
    with suppress(OSError):
        head = path.read_bytes()[:HEAD]
        return identify(head) if head.startswith(b"version https://git-lfs") else ("", "")
    return "", ""


def _end(tensor: Stored) -> int | None:
    """Return the byte after a tensor's data in its external file; None when offset or length are no numbers."""
    place = tensor.external or {}
    offset, length = place.get("offset") or "0", place.get("length") or str(tensor.bytes)
    return int(offset) + int(length) if f"{offset}{length}".isdecimal() and len(offset + length) < 50 else None


def _size(path: Path) -> int:
    """Return the size of a regular file, -1 when there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return -1
    return found.st_size if S_ISREG(found.st_mode) else -1


def _buffer(file: BinaryIO) -> Buffer:
    """Return the contents of a file: a small one at once, of a large one only the pages that are looked at."""
    pages = Pages(file)
    return pages[:] if len(pages) <= SMALL_BYTES else pages


def _opened(path: Path) -> BinaryIO:
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
    models = sorted(one.name for one in path.glob("*.onnx"))
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
        names = [one.name for one in path.parent.iterdir()]
    near = get_close_matches(path.name, names, 1)
    hint = f"did you mean '{path.parent / near[0]}'?" if near else "check the path"
    return ModelError(f"no file is named '{path}'", hint=hint)


def _expanded(path: Path) -> str:
    return os.path.expanduser(path)  # noqa: PTH111 - a process may have no home, which is no error here


def _sha256(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
