"""Run sessions with tensors of types that ONNX Runtime's `run` does not support.

bfloat16, float8 and numbers of 4 or 2 bits travel as bare memory. Inputs go into values that the session allocates;
outputs come out of an IO binding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from epkit.errors import RunError
from epkit.model.dtypes import Array, from_raw, needs_ml_dtypes, onnx_name, onnx_type_number, to_raw
from epkit.model.file import TensorInfo, parse_ort_type


def run_raw(
    session: Any, wanted: Sequence[TensorInfo], feed: Mapping[str, object], options: object | None = None
) -> list[Any]:
    """Run a session for the outputs `wanted`; raises RunError for what cannot go beside such an output."""
    names = [output.name for output in wanted]
    if any(needs_ml_dtypes(output.dtype) for output in wanted):
        return _run_bound(session, names, feed, options)
    values = {name: _allocated(session, value) if _exotic(value) else value for name, value in feed.items()}
    return list(session.run(names, values, options))


def _run_bound(session: Any, names: Sequence[str], feed: Mapping[str, object], options: object | None) -> list[Any]:
    binding = session.io_binding()
    kept = []  # a bound address keeps nothing alive
    for name, value in feed.items():
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            what = "text" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
            raise RunError(f"input {name!r} is {what}, which ONNX Runtime takes beside no output of {_KINDS}")
        if not _exotic(value):
            binding.bind_cpu_input(name, value)
            continue
        memory = to_raw(value)
        kept.append(memory)
        binding.bind_input(name, "cpu", 0, _number(value), value.shape, memory.ctypes.data)
    for name in names:
        binding.bind_output(name)
    session.run_with_iobinding(binding, options)
    # Not `get_outputs()`: it crashes on an optional output without a value.
    found = binding.get_outputs_as_ortvaluevector()
    return [_read(name, found[position]) for position, name in enumerate(names)]


_KINDS = "bfloat16, float8 or fewer bits"


def _exotic(value: object) -> bool:
    return isinstance(value, np.ndarray) and needs_ml_dtypes(onnx_name(value.dtype))


def _number(array: Array) -> int:
    return onnx_type_number(onnx_name(array.dtype))


def _allocated(session: Any, array: Any) -> Any:
    value = session.create_ortvalue_from_shape_and_type(list(array.shape), _number(array), "cpu", 0)
    memory = to_raw(array)
    if memory.size:
        ctypes.memmove(value.data_ptr(), memory.ctypes.data, memory.nbytes)
    return value


def _read(name: str, value: Any) -> Any:
    if not value.has_value():
        return None
    if not value.is_tensor():
        message = f"output {name!r} is no tensor, which ONNX Runtime gives beside no output of {_KINDS}"
        raise RunError(message, hint=f"ask for it alone: session.run(inputs, [{name!r}])")
    dtype = parse_ort_type(value.data_type())
    return from_raw(value.data_ptr(), value.shape(), dtype) if needs_ml_dtypes(dtype) else value.numpy().copy()
