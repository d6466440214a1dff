"""How do inputs come from files, and outputs go into them?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epkit.errors import ConfigError, InputError, nearest
from epkit.model import TensorInfo


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
    if dtype.startswith("map("):
        return _map(file, dtype)
    try:
        array = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise _absent(file) from None
    except (OSError, ValueError, EOFError) as error:
        hint = "write it with numpy.save(file, array)"
        raise InputError(f"{file} is not an array that NumPy can read: {error}", hint=hint) from error
    if isinstance(array, np.ndarray):
        return array
    with array:
        if dtype.startswith("sequence("):
            return [array[name] for name in array.files]
    raise InputError(f"{file} holds several arrays", hint="write one with numpy.save(file, array)")


def _map(file: Path, dtype: str) -> object:
    """Read a map from JSON, or the only one of a list, as outputs are written; keys become what the type says."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _absent(file) from None
    except (OSError, ValueError, RecursionError) as error:
        hint = 'write {"key": 0.5} into a .json file'
        raise InputError(f"{file} is no JSON that can be read: {error}", hint=hint) from error
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        raise InputError(f"{file} holds no map", hint='write {"key": 0.5} into it')
    try:
        return {key if dtype.startswith("map(string") else int(key): number for key, number in found.items()}
    except ValueError as error:
        raise InputError(f"{file} has a key that is not a whole number: {error}", hint='write {"1": 0.5}') from error


def _absent(file: Path) -> InputError:
    return InputError(f"the input file {file} does not exist", hint="check the path after --input NAME=")


def saved(outputs: Mapping[str, object], folder: Path) -> dict[str, Path]:
    """Write each output below `folder`: arrays as .npy, sequences of arrays as .npz, anything else as .json.

    bfloat16 and float8, which .npy cannot name, are written as float32, which holds their values exactly.
    """
    files: dict[str, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in outputs.items():
            # An output's name may hold a path; the file stays in the folder.
            stem = re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "output"
            while any(file.stem == stem for file in files.values()):
                stem += "_"
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
