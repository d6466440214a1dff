"""How do inputs come from files, and outputs go into them?"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np

from epkit.dimensions import bound
from epkit.errors import ConfigError, InputError, nearest
from epkit.model import TensorInfo
from epkit.stand_in import stand_in

UNREADABLE = (
    *(OSError, ValueError, EOFError, NotImplementedError, RecursionError, SyntaxError),
    *(BadZipFile, TokenError, struct.error, zlib.error),
)
"""What reading an array or JSON from a file raises when it is none."""


def load_inputs(given: Sequence[str], inputs: Sequence[TensorInfo]) -> tuple[dict[str, object], tuple[str, ...]]:
    """Read `name=file.npy` pairs, and make up the other inputs; returns the feed and the names that were made up.

    For a model with one input the name may be left out. Dimensions of one name get one size: that of a given input.
    """
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
        feed[name] = read(Path(file))
    missing = [one for one in inputs if one.name not in feed]
    shapes = {name: value.shape for name, value in feed.items() if isinstance(value, np.ndarray)}
    made = stand_in(missing, dimensions=bound(inputs, shapes)).feed
    return {**feed, **made}, tuple(made)


def read(file: Path) -> np.ndarray[Any, Any]:
    """Read one .npy file; raises InputError."""
    try:
        with file.open("rb") as opened:  # NumPy leaves open what is no archive
            array = np.load(opened, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"the input file {file} does not exist", hint="check the path after --input NAME=") from None
    except UNREADABLE as error:
        hint = "write it with numpy.save(file, array)"
        raise InputError(f"{file} is not an array that NumPy can read: {error}", hint=hint) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{file} holds several arrays", hint="write one with numpy.save(file, array)")
    return array


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
            stem = re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "output"
            while stem in stems:
                stem += "_"
            stems.add(stem)
            files[name] = _write(folder / stem, value)
    except OSError as error:
        raise ConfigError(f"the outputs cannot be written to {folder}: {error.strerror or error}") from error
    return files


def _write(stem: Path, value: object) -> Path:
    if isinstance(value, np.ndarray):
        file = stem.with_name(stem.name + ".npy")
        np.save(file, _nameable(value))
    elif isinstance(value, list) and value and all(isinstance(one, np.ndarray) for one in value):
        file = stem.with_name(stem.name + ".npz")
        np.savez(file, *[_nameable(one) for one in value])
    else:
        file = stem.with_name(stem.name + ".json")
        file.write_text(json.dumps(value, default=lambda one: one.tolist()), encoding="utf-8")
    return file


def _nameable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind == "O":
        return array.astype(str)
    return array.astype(np.float32) if array.dtype.kind == "V" else array
