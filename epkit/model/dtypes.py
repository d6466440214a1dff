"""Which NumPy dtype stands for which ONNX type?

NumPy itself has no bfloat16, float8 and numbers of 4 or 2 bits: for those, and only then, `ml_dtypes` is imported. ONNX
Runtime's `run` carries none of them either (of float8e4m3fn it returns the bare bytes), so they travel as raw memory:
`bits` is what ONNX Runtime keeps for an array, `from_raw` reads it back.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from epkit.errors import ModelError

Array: TypeAlias = npt.NDArray[Any]
DType: TypeAlias = np.dtype[Any]

# The members of onnx.TensorProto.DataType.
_NUMBERS = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "string": 8,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
    "complex64": 14,
    "complex128": 15,
    "bfloat16": 16,
    "float8e4m3fn": 17,
    "float8e4m3fnuz": 18,
    "float8e5m2": 19,
    "float8e5m2fnuz": 20,
    "uint4": 21,
    "int4": 22,
    "float4e2m1": 23,
    "float8e8m0": 24,
    "uint2": 25,
    "int2": 26,
}

# ONNX's name -> the name in ml_dtypes.
_EXOTIC = {
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
"""The bits of a number, of which a byte holds several."""


def onnx_type_number(dtype: str) -> int:
    """Return the number that ONNX gives to a tensor type: 1 for "float32", 16 for "bfloat16"."""
    return _NUMBERS[_known(dtype)]


def is_exotic(dtype: str) -> bool:
    """Whether ONNX Runtime's plain `run` cannot carry tensors of this type: bfloat16, float8, 4 or 2 bits."""
    return dtype in _EXOTIC


def numpy_dtype(dtype: str) -> DType:
    """Return the NumPy dtype of a tensor type. Strings are objects; raises ModelError where `ml_dtypes` is missing."""
    if _known(dtype) == "string":
        return np.dtype(object)
    if dtype not in _EXOTIC:
        return np.dtype(dtype)
    try:
        import ml_dtypes
    except ImportError as error:
        message = f"the model has {dtype} tensors, which NumPy alone cannot hold"
        raise ModelError(message, hint="pip install ml_dtypes") from error
    found: DType = np.dtype(getattr(ml_dtypes, _EXOTIC[dtype]))
    return found


def is_foreign(dtype: DType) -> bool:
    """Whether a NumPy dtype is one of `ml_dtypes`."""
    return bool(dtype.type.__module__ == "ml_dtypes")


def name_of(dtype: DType) -> str:
    """Return the ONNX name of a NumPy dtype, or NumPy's own where ONNX has none."""
    if dtype.kind in "UT":
        return "string"
    return next((name for name, short in _EXOTIC.items() if short == dtype.name), dtype.name)


def bits(array: Array) -> Array:
    """Return the bytes that ONNX Runtime keeps for an array: of 4-bit numbers two in a byte, the low half first."""
    if array.dtype.hasobject:
        raise ValueError("strings have no raw form")
    plain = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    width = _PACKED.get(name_of(array.dtype))
    if width is None:
        return plain
    each = 8 // width
    parts = np.zeros(-(-plain.size // each) * each, np.uint8)
    parts[: plain.size] = plain & (2**width - 1)
    packed: Array = np.bitwise_or.reduce(parts.reshape(-1, each) << np.arange(0, 8, width, dtype=np.uint8), axis=1)
    return packed


def from_raw(address: int, shape: Sequence[int], dtype: str) -> Array:
    """Copy a tensor that ONNX Runtime holds at `address` in CPU memory into a new array."""
    if dtype == "string":
        raise ValueError("strings have no raw form")
    width = _PACKED.get(dtype)
    wanted, size = numpy_dtype(dtype), math.prod(shape)
    raw = np.empty(-(-size * width // 8) if width else size * wanted.itemsize, np.uint8)
    if raw.size:
        ctypes.memmove(raw.ctypes.data, address, raw.size)
    if width:
        parts = raw[:, None] >> np.arange(0, 8, width, dtype=np.uint8) & (2**width - 1)
        raw = parts.reshape(-1)[:size]
        if "float" not in dtype:
            # Two's complement: of four bits, 8 to 15 stand for -8 to -1.
            sign = 0 if dtype.startswith("u") else 1 << (width - 1)
            whole: Array = (raw.astype(np.int8) ^ sign) - sign
            return whole.astype(wanted).reshape(shape)
    return raw.view(wanted).reshape(shape)


def _known(dtype: str) -> str:
    if dtype not in _NUMBERS:
        raise ModelError(f"epkit knows no tensor type {dtype!r}", hint=f"known: {', '.join(_NUMBERS)}")
    return dtype
