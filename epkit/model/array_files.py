"""How do inputs come from files, and outputs go into them?"""

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
from epkit._system.units import size as size_text
from epkit.errors import ConfigError, InputError, nearest
from epkit.model.file import TensorInfo

MAGIC = b"\x93NUMPY"
"""How a .npy file begins."""
_HEADERS = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}

UNREADABLE = (
    *(OSError, ValueError, EOFError, MemoryError, NotImplementedError, RecursionError, SyntaxError),
    *(BadZipFile, TokenError, struct.error, zlib.error),
)
"""What reading an array or JSON from a file raises when it is none."""


def load_inputs(given: Sequence[str], inputs: Sequence[TensorInfo]) -> dict[str, object]:
    """Read `name=file.npy` pairs. For a model with one input the name may be left out. Raises InputError."""
    names = [one.name for one in inputs]
    feed: dict[str, object] = {}
    for pair in given:
        # Names of tensors may hold '=': the longest name that fits is meant.
        name = max((one for one in names if pair.startswith(f"{one}=")), key=len, default="")
        if not name and "=" not in pair and len(names) == 1:
            name, file = names[0], pair
        elif not name:
            wrong = pair.partition("=")[0]
            hint = nearest(wrong, names, what="inputs") + "; write --input NAME=FILE.npy"
            raise InputError(f"the model has no input {wrong!r}", hint=hint)
        else:
            file = pair[len(name) + 1 :]
        if name in feed:
            raise InputError(f"input {name!r} is given twice", hint="give it once")
        feed[name] = read(Path(file), next(one.dtype for one in inputs if one.name == name))
    return feed


def read(file: Path, dtype: str = "") -> object:
    """Read the value of one input of this type; raises InputError.

    It is an array in an .npy file; for a sequence all arrays of an .npz file, and for a map a .json file, as `saved`
    writes them.
    """
    try:
        if dtype.startswith("map("):
            return _map(json.loads(file.read_text(encoding="utf-8")), dtype)
        if dtype.startswith("sequence(") and zipfile.is_zipfile(file):
            return read_several(file)
        array = _one(file)
    except FileNotFoundError:
        raise InputError(f"the input file {file} does not exist", hint="check the path after --input NAME=") from None
    except UNREADABLE as error:
        is_map = dtype.startswith("map(")
        hint = 'write {"1": 0.5} into a .json file' if is_map else "write it with numpy.save(file, array)"
        raise InputError(f"{file} is not {'a map' if is_map else 'an array'}: {error}", hint=hint) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{file} holds several arrays", hint="write one with numpy.save(file, array)")
    return array


def read_several(file: Path) -> list[object]:
    """Read all arrays of an .npz file, each held to its length first; raises one of `UNREADABLE`."""
    with file.open("rb") as opened:
        with zipfile.ZipFile(opened) as packed:
            for one in packed.infolist():
                with packed.open(one) as member:
                    check_length(member, one.file_size)
        opened.seek(0)
        with np.load(opened, allow_pickle=False) as stored:
            return [stored[name] for name in stored]


def _one(file: Path) -> object:
    with file.open("rb") as opened:  # NumPy leaves open what is no archive
        if opened.read(len(MAGIC)) == MAGIC:
            opened.seek(0)
            check_length(opened, file.stat().st_size)
        opened.seek(0)
        return np.load(opened, allow_pickle=False)


def _map(found: object, dtype: str) -> dict[object, object]:
    """Return a map, or the only one of a list, as outputs are written; keys become what the type says."""
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        raise ValueError("its JSON is of another kind")
    return {key if dtype.startswith("map(string") else int(key): number for key, number in found.items()}


def check_length(stored: IO[bytes], length: int) -> None:
    """Hold what the header of a .npy file says to its length and to the free memory; raises ValueError.

    NumPy asks for the memory of all numbers before it reads the first.
    """
    read_header = _HEADERS.get(read_magic(stored))
    if read_header is None:
        raise ValueError("its version of the format is of structured arrays, or newer than NumPy")
    shape, _, dtype = read_header(stored)
    wanted = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or wanted > length - stored.tell():
        raise ValueError(f"its header says {list(shape)} of {dtype}, and it is too short for that")
    free = free_memory()
    if free is not None and wanted > free:
        raise ValueError(f"it holds {size_text(wanted)}, and {size_text(free)} of memory are free")


def saved(outputs: Mapping[str, object], folder: Path) -> dict[str, Path]:
    """Write each output below `folder`: arrays as .npy, sequences of arrays as .npz, anything else as .json.

    bfloat16 and float8, which .npy cannot name, are written as float32, which holds their values exactly.
    """
    files: dict[str, Path] = {}
    stems: set[str] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in outputs.items():
            # An output's name may hold a path; the file stays in the folder.
            stem = _stem(re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "output")
            while stem in stems:
                stem = _stem(f"{stem}_")
            stems.add(stem)
            files[name] = _write(folder / stem, value)
    except OSError as error:
        raise ConfigError(f"the outputs cannot be written to {folder}: {error.strerror or error}") from error
    return files


def _stem(name: str) -> str:
    return disk.fitting(name, len(".json"))


def _write(stem: Path, value: object) -> Path:
    if isinstance(value, np.ndarray):
        file = stem.with_name(stem.name + ".npy")
        with disk.written(file) as new:
            np.save(new, _nameable(value))
    elif isinstance(value, list) and value and all(isinstance(one, np.ndarray) for one in value):
        file = stem.with_name(stem.name + ".npz")
        with disk.written(file) as new:
            np.savez(new, *[_nameable(one) for one in value])
    else:
        file = stem.with_name(stem.name + ".json")
        disk.write(file, json.dumps(value, default=lambda one: one.tolist()))
    return file


def _nameable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind == "O":
        return array.astype(str)
    return array.astype(np.float32) if array.dtype.kind == "V" else array
