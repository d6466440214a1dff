"""Translate between ONNX element types and NumPy dtypes, and between arrays and ONNX Runtime's raw memory.

NumPy has no bfloat16, float8, and numbers of 4 or 2 bits: for those, and only then, `ml_dtypes` is imported. ONNX
Runtime's `run` does not support them either (for float8e4m3fn it returns bytes), so they are passed as raw memory:
`to_raw` converts an array, `from_raw` converts back.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from epkit.errors import ModelError
from epkit.model.types import ELEMENT_TYPES

Array: TypeAlias = npt.NDArray[Any]
DType: TypeAlias = np.dtype[Any]

_NUMBERS = {name: number for number, (name, _) in ELEMENT_TYPES.items()}

# ONNX's name -> the name in ml_dtypes.
_ML_DTYPES = {
    "bfloat16": "bfloat16",
    "float8e4m3fn": "float8_e4m3fn",
    "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2": "float8_e5m2",
    "float8e5m2fnuz": "float8_e5m2fnuz",
    "uint4": "uint4",
    "int4": "int4",
    "float4e2m1": "float4_e2m1fn",
    "float8e8m0": "float8_e8m0fnu",
    "uint2": "uint2",
    "int2": "int2",
}

_PACKED = {"uint4": 4, "int4": 4, "float4e2m1": 4, "uint2": 2, "int2": 2}
"""The bits of the types of which a byte holds several numbers."""


def onnx_type_number(dtype: str) -> int:
    """Return ONNX's number of a tensor type: 1 for "float32", 16 for "bfloat16"."""
    return _NUMBERS[_known(dtype)]


def needs_ml_dtypes(dtype: str) -> bool:
    """Whether NumPy and ONNX Runtime's `run` do not support this type: bfloat16, float8, 4 or 2 bits."""
    return dtype in _ML_DTYPES


def numpy_dtype(dtype: str) -> DType:
    """Return the NumPy dtype of a tensor type; object for strings. Raises ModelError if `ml_dtypes` is missing."""
    if _known(dtype) == "string":
        return np.dtype(object)
    if dtype not in _ML_DTYPES:
        return np.dtype(dtype)
    try:
        import ml_dtypes
    except ImportError as error:
        message = f"the model has {dtype} tensors, which NumPy alone cannot hold"
        raise ModelError(message, hint="pip install ml_dtypes") from error
    found: DType = np.dtype(getattr(ml_dtypes, _ML_DTYPES[dtype]))
    return found


def is_ml_dtype(dtype: DType) -> bool:
    """Whether a NumPy dtype comes from `ml_dtypes`."""
    return bool(dtype.type.__module__ == "ml_dtypes")


def onnx_name(dtype: DType) -> str:
    """Return the ONNX name of a NumPy dtype, or its NumPy name if ONNX has none."""
    if dtype.kind in "UT":
        return "string"
    return next((name for name, numpy_name in _ML_DTYPES.items() if numpy_name == dtype.name), dtype.name)


def to_raw(array: Array) -> Array:
    """Return an array's bytes as ONNX Runtime stores them: two 4-bit numbers in a byte, the low half first."""
    if array.dtype.hasobject:
        raise ValueError("strings have no raw form")
    unpacked = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    width = _PACKED.get(onnx_name(array.dtype))
    if width is None:
        return unpacked
    per_byte = 8 // width
    parts = np.zeros(-(-unpacked.size // per_byte) * per_byte, np.uint8)
    parts[: unpacked.size] = unpacked & (2**width - 1)
    packed: Array = np.bitwise_or.reduce(parts.reshape(-1, per_byte) << np.arange(0, 8, width, dtype=np.uint8), axis=1)
    return packed


def from_raw(address: int, shape: Sequence[int], dtype: str) -> Array:
    """Copy a tensor of ONNX Runtime at `address` in CPU memory into a new array."""
    if dtype == "string":
        raise ValueError("strings have no raw form")
    width = _PACKED.get(dtype)
    target, size = numpy_dtype(dtype), math.prod(shape)
    raw = np.empty(-(-size * width // 8) if width else size * target.itemsize, np.uint8)
    if raw.size:
        ctypes.memmove(raw.ctypes.data, address, raw.size)
    if width:
        parts = raw[:, None] >> np.arange(0, 8, width, dtype=np.uint8) & (2**width - 1)
        raw = parts.reshape(-1)[:size]
        if "float" not in dtype:
            # Two's complement: in four bits, 8 to 15 are -8 to -1.
            sign = 0 if dtype.startswith("u") else 1 << (width - 1)
            numbers: Array = (raw.astype(np.int8) ^ sign) - sign
            return numbers.astype(target).reshape(shape)
    return raw.view(target).reshape(shape)


def _known(dtype: str) -> str:
    if dtype not in _NUMBERS:
        raise ModelError(f"epkit knows no tensor type {dtype!r}", hint=f"known: {', '.join(_NUMBERS)}")
    return dtype
