"""Read inputs from files, and write outputs to files."""

from __future__ import annotations

import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic

from epkit._system import files as disk
from epkit._system.platform import free_memory
from epkit._system.text import format_bytes
from epkit.errors import ConfigError, InputError, nearest
from epkit.model.types import TensorInfo

MAGIC = b"\x93NUMPY"
"""The first bytes of a .npy file."""
_HEADERS = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}

UNREADABLE = (
    *(OSError, ValueError, EOFError, MemoryError, NotImplementedError, RecursionError, SyntaxError),
    *(BadZipFile, TokenError, struct.error, zlib.error),
)
"""The exceptions of reading an array or JSON from an invalid file."""


def load_inputs(pairs: Sequence[str], inputs: Sequence[TensorInfo]) -> dict[str, object]:
    """Read `name=file.npy` pairs; a model with one input needs no name. Raises InputError."""
    names = [tensor.name for tensor in inputs]
    feed: dict[str, object] = {}
    for pair in pairs:
        # Names of tensors may contain "=": the longest name that matches is used.
        name = max((known for known in names if pair.startswith(f"{known}=")), key=len, default="")
        if not name and "=" not in pair and len(names) == 1:
            name, file = names[0], pair
        elif not name:
            unknown = pair.partition("=")[0]
            hint = nearest(unknown, names, what="inputs") + "; write --input NAME=FILE.npy"
            raise InputError(f"the model has no input {unknown!r}", hint=hint)
        else:
            file = pair[len(name) + 1 :]
        if name in feed:
            raise InputError(f"input {name!r} is given twice", hint="give it once")
        feed[name] = read_input(Path(file), next(tensor.dtype for tensor in inputs if tensor.name == name))
    return feed


def read_input(file: Path, dtype: str = "") -> object:
    """Read the value of one input of type `dtype`; raises InputError.

    A tensor is read from an .npy file, a sequence from an .npz file and a map from a .json file, as `save_outputs`
    writes them.
    """
    try:
        if dtype.startswith("map("):
            return _parse_map(json.loads(file.read_text(encoding="utf-8")), dtype)
        if dtype.startswith("sequence(") and zipfile.is_zipfile(file):
            return read_npz(file)
        array = _read_array(file)
    except FileNotFoundError:
        raise InputError(f"the input file {file} does not exist", hint="check the path after --input NAME=") from None
    except UNREADABLE as error:
        is_map = dtype.startswith("map(")
        hint = 'write {"1": 0.5} into a .json file' if is_map else "write it with numpy.save(file, array)"
        raise InputError(f"{file} is not {'a map' if is_map else 'an array'}: {error}", hint=hint) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{file} holds several arrays", hint="write one with numpy.save(file, array)")
    return array


def read_npz(file: Path) -> list[object]:
    """Read all arrays of an .npz file, after checking their headers; raises one of `UNREADABLE`."""
    with file.open("rb") as opened:
        with zipfile.ZipFile(opened) as packed:
            for entry in packed.infolist():
                with packed.open(entry) as member:
                    check_header(member, entry.file_size)
        opened.seek(0)
        with np.load(opened, allow_pickle=False) as stored:
            return [stored[name] for name in stored]


def _read_array(file: Path) -> object:
    with file.open("rb") as opened:  # NumPy does not close a file that is not an archive
        if opened.read(len(MAGIC)) == MAGIC:
            opened.seek(0)
            check_header(opened, file.stat().st_size)
        opened.seek(0)
        return np.load(opened, allow_pickle=False)


def _parse_map(found: object, dtype: str) -> dict[object, object]:
    """Return a map, or the only map of a list, as outputs are written; keys are converted to the type in `dtype`."""
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        raise ValueError("its JSON is not an object")
    return {key if dtype.startswith("map(string") else int(key): number for key, number in found.items()}


def check_header(stored: IO[bytes], length: int) -> None:
    """Check the header of a .npy file against its length and the free memory; raises ValueError.

    NumPy allocates the whole array before it reads.
    """
    read_header = _HEADERS.get(read_magic(stored))
    if read_header is None:
        raise ValueError("its format version is for structured arrays, or newer than NumPy")
    shape, _, dtype = read_header(stored)
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size > length - stored.tell():
        raise ValueError(f"its header declares {list(shape)} of {dtype}, and the file is too short for that")
    free = free_memory()
    if free is not None and size > free:
        raise ValueError(f"it holds {format_bytes(size)}, and {format_bytes(free)} of memory are free")


def save_outputs(outputs: Mapping[str, object], folder: Path) -> dict[str, Path]:
    """Write each output to `folder`: arrays as .npy, sequences of arrays as .npz, anything else as .json.

    bfloat16 and float8, which .npy does not support, are written as float32, which has all their values. Raises
    ConfigError.
    """
    files: dict[str, Path] = {}
    stems: set[str] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in outputs.items():
            # The name of an output may contain a path; its file must stay in the folder.
            stem = _stem(re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "output")
            while stem in stems:
                stem = _stem(f"{stem}_")
            stems.add(stem)
            files[name] = _write(folder / stem, value)
    except OSError as error:
        raise ConfigError(f"the outputs cannot be written to {folder}: {error.strerror or error}") from error
    return files


def _stem(name: str) -> str:
    return disk.shorten_name(name, len(".json"))


def _write(stem: Path, value: object) -> Path:
    if isinstance(value, np.ndarray):
        file = stem.with_name(stem.name + ".npy")
        with disk.open_atomic(file) as new:
            np.save(new, _to_npy(value))
    elif isinstance(value, list) and value and all(isinstance(item, np.ndarray) for item in value):
        file = stem.with_name(stem.name + ".npz")
        with disk.open_atomic(file) as new:
            np.savez(new, *[_to_npy(item) for item in value])
    else:
        file = stem.with_name(stem.name + ".json")
        disk.write_atomic(file, json.dumps(value, default=lambda array: array.tolist()))
    return file


def _to_npy(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Convert an array to a dtype that .npy supports without pickle."""
    if array.dtype.kind == "O":
        return array.astype(str)
    return array.astype(np.float32) if array.dtype.kind == "V" else array
