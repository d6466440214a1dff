"""Pass the outputs of a run from a child process to its parent.

As flat, plain arrays: what NumPy's files cannot hold is written in another form, and the name of its dtype beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epkit.model.dtypes import Array, is_ml_dtype, onnx_name
from epkit.parity.metrics import NONE

NOTHING = "all outputs are without a value, empty, or NaN and infinities"
"""What to say where `tell_nothing`."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Arrays by name, and their ONNX dtypes; `left_out` says of which outputs there is no array, and why.

    The parts of a sequence are "name[0]", those of a map "name.keys" and "name.values".
    """

    arrays: Mapping[str, Array]
    dtypes: Mapping[str, str]
    left_out: Mapping[str, str]


def flat(values: Mapping[str, object]) -> Outputs:
    """Take the outputs of a run apart."""
    arrays: dict[str, Array] = {}
    dtypes: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name, part in (pair for output, value in values.items() for pair in _parts(output, value)):
        if part is None:
            arrays[name], dtypes[name] = np.zeros(0), NONE
        elif isinstance(part, np.ndarray):
            arrays[name], dtypes[name] = _plain(part)
        else:
            left_out[name] = f"a {type(part).__name__} cannot be compared"
    return Outputs(arrays, dtypes, left_out)


def write(outputs: Outputs, file: Path) -> None:
    """Write them to one .npz file, and their names beside it."""
    np.savez(file, *outputs.arrays.values())
    message = {"dtypes": dict(outputs.dtypes), "left_out": dict(outputs.left_out)}
    file.with_suffix(".json").write_text(json.dumps(message), encoding="utf-8")


def read(file: Path) -> Outputs:
    """Read what `write` wrote."""
    message = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    with np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[f"arr_{position}"] for position, name in enumerate(message["dtypes"])}
    return Outputs(arrays, message["dtypes"], message["left_out"])


def tell_nothing(outputs: Outputs) -> bool:
    """Whether no output holds an element that could differ: all are without a value, empty, or NaN and infinities."""
    return not any(
        array.size and (array.dtype.kind not in "fc" or np.isfinite(array).any()) for array in outputs.arrays.values()
    )


def described(feed: Mapping[str, object], files: Mapping[str, str]) -> list[dict[str, object]]:
    """Say of each input its name, dtype and shape, and the file that it comes from."""
    found = flat(feed)
    return [
        {"name": name, "dtype": found.dtypes[name], "shape": list(one.shape), "origin": files.get(name, "made up")}
        for name, one in found.arrays.items()
    ]


def digest(values: Mapping[str, object]) -> str:
    """Return the SHA-256 of what a run is given or gives, in hexadecimal."""
    found = hashlib.sha256()
    for name, array in sorted(flat(values).arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape} ".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _parts(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, list | tuple):
        for position, one in enumerate(value):
            yield from _parts(f"{name}[{position}]", one)
    elif isinstance(value, Mapping):
        ordered = sorted(value, key=lambda key: (isinstance(key, str), key))
        yield f"{name}.keys", np.array(ordered)
        yield f"{name}.values", np.array([value[key] for key in ordered])
    elif isinstance(value, bool | int | float | str | np.generic):
        yield name, np.array(value)
    else:
        yield name, value


def _plain(array: Array) -> tuple[Array, str]:
    if array.dtype.kind == "O":
        return array.astype(str), "string"
    # float32 holds every one of them exactly: bfloat16, float8, 4 and 2 bits.
    return array.astype(np.float32) if is_ml_dtype(array.dtype) else array, onnx_name(array.dtype)
