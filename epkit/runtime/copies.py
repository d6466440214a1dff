"""List the tensors that a run copies, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np

from epkit._system.arguments import type_name
from epkit.model.dtypes import onnx_name
from epkit.runtime.convert import format_type


@dataclass(frozen=True, slots=True)
class Copy:
    """One tensor that a run copied: which, which way, how many bytes, and why."""

    name: str
    direction: Literal["in", "out"]
    bytes: int
    why: str


def list_copies(feed: Mapping[str, object], results: Mapping[str, object], why: str) -> list[Copy]:
    """List the copies of a run without a binding: all its arrays, in and out."""
    arrays: tuple[tuple[Literal["in", "out"], Mapping[str, object]], ...] = (("in", feed), ("out", results))
    return [
        Copy(name, direction, value.nbytes, why)
        for direction, values in arrays
        for name, value in values.items()
        if isinstance(value, np.ndarray)
    ]


def describe_conversion(given: object, array: object) -> str:
    """Describe the conversion of a value to an array; empty if they share memory."""
    if given is array or not isinstance(array, np.ndarray):
        return ""
    with suppress(AttributeError, BufferError, RuntimeError, TypeError, ValueError):
        if isinstance(given, np.ndarray):
            seen = given
        else:  # another look at the same memory; a list has none, and a device's is elsewhere
            seen = np.asarray(given) if hasattr(given, "__array_interface__") else np.from_dlpack(given)  # type: ignore[arg-type]
        if np.may_share_memory(seen, array):
            return ""
    return f"{_describe(given)} made into {_describe(array)}"


def _describe(value: object) -> str:
    if not isinstance(value, np.ndarray):
        return type_name(value)
    layout = "" if value.flags.c_contiguous else ", not C-contiguous"
    order = "" if value.dtype.isnative else ", big-endian"
    return f"{format_type(onnx_name(value.dtype), value.shape)}{order}{layout}"
