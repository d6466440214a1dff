"""Compare outputs that were saved before.

`epkit run --output-dir` writes a file for each output: .npy an array, .npz a sequence of arrays, .json anything else.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from epkit._system.nesting import MAX_DEPTH, is_deeper
from epkit.errors import ConfigError, InputError
from epkit.model import array_files
from epkit.parity.agreement import agreement, incomparable
from epkit.parity.outputs import NOTHING, Outputs, flat, tell_nothing
from epkit.parity.result import Comparison, Judgement, Row
from epkit.parity.tolerance import tolerance_of


def compare_saved(
    reference: str | os.PathLike[str], other: str | os.PathLike[str], *, tolerance: str | float = "auto"
) -> Comparison:
    """Compare the outputs in two folders, without running anything.

    Raises ConfigError for a folder that is not there or holds no outputs, InputError for a file that cannot be read.
    """
    within = tolerance_of(tolerance)
    first, second = read_folder(Path(reference)), read_folder(Path(other))
    name = os.fspath(reference)
    agreed = agreement(name, first, second, within)
    if agreed.agree and tell_nothing(first):
        agreed = incomparable(name, NOTHING)
    judgement = Judgement(None, "", agreed)
    row = Row(os.fspath(other), verdict="agree" if agreed.agree else "differ", told=agreed.told, runs=(judgement,))
    return Comparison("", "", name, (Row(name), row), within, (), ())


def read_folder(folder: Path) -> Outputs:
    """Read the outputs in a folder, by the names of their files."""
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix in (".npy", ".npz", ".json"))
    except OSError as error:
        hint = "epkit run MODEL -t A --output-dir DIR_A"
        raise ConfigError(f"{folder} is no folder of outputs: {error.strerror or error}", hint=hint) from error
    if not files:
        raise ConfigError(f"{folder} holds no outputs", hint=f"epkit run MODEL -t A --output-dir {folder}")
    return flat({file.stem: _read(file) for file in files})


def _shallow(value: object) -> object:
    if is_deeper(value):
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    return value


def _read(file: Path) -> object:
    if file.suffix == ".npy":
        return array_files.read_input(file)
    try:
        if file.suffix == ".json":
            return _shallow(json.loads(file.read_text(encoding="utf-8")))
        return array_files.read_npz(file)
    except array_files.UNREADABLE as error:
        raise InputError(f"{file} cannot be read: {error}", hint="write the outputs again") from error
