"""How do tensors get in and out whose type ONNX Runtime's `run` cannot carry?

bfloat16, float8 and 4-bit integers travel as bare memory through an IO binding, whose other tensors go the usual way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from epkit.errors import RunError
from epkit.model import parse_ort_type
from epkit.run.dtypes import bits, from_raw, is_exotic, onnx_type_number


def run_raw(session: Any, names: Sequence[str], feed: Mapping[str, object]) -> list[Any]:
    """Run a session through a binding of its own; raises RunError for what no binding takes: text, sequences, maps."""
    binding = session.io_binding()
    kept = []  # a bound address keeps nothing alive
    for name, value in feed.items():
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            what = "text" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
            raise RunError(f"input {name!r} is {what}, which ONNX Runtime cannot take beside bfloat16, float8 or int4")
        dtype = value.dtype.name.replace("_", "")
        if not is_exotic(dtype):
            binding.bind_cpu_input(name, value)
            continue
        memory = bits(value)
        kept.append(memory)
        binding.bind_input(name, "cpu", 0, onnx_type_number(dtype), value.shape, memory.ctypes.data)
    for name in names:
        binding.bind_output(name)
    session.run_with_iobinding(binding)
    return [_read(value) for value in binding.get_outputs()]


def _read(value: Any) -> Any:
    if not value.has_value():
        return None
    dtype = parse_ort_type(value.data_type())
    if is_exotic(dtype):
        return from_raw(value.data_ptr(), value.shape(), dtype)
    found = value.numpy()
    return found.copy() if isinstance(found, np.ndarray) else found
