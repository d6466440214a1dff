"""Convert a value to an array of the model's dtype, or refuse it.

What has a dtype (arrays, NumPy scalars, tensors of other libraries) is converted where its *type* says that nothing is
lost: to a wider integer, to a wider float, from bool. With `cast`, within its kind: float64 to float32, int64 to int32,
integers to floats. Even then a number that would wrap round or become infinite is refused, and so is an int64 beyond
2^53 for float64, which NumPy calls safe.

Python's numbers have no dtype; they take the model's. Integers and bools must arrive as the same number. A float may be
rounded where the model has floats, as 0.1 always is, but it stays finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epkit._system.arguments import type_name
from epkit.model.dtypes import Array, DType, is_ml_dtype, onnx_name
from epkit.runtime.device_array import DeviceArray

_PYTHON = (int, float, str, list, tuple)
# bool, unsigned, signed, float: a conversion to the right stays within the kind.
_KINDS = "buif"
_EXACT_IN_FLOAT64 = 2**53
# DLPack's numbers of memory that the CPU reads: its own, pinned by CUDA, pinned by ROCm, managed by CUDA.
_READABLE = (1, 3, 11, 13)
_DEVICES = {2: "cuda", 4: "opencl", 7: "vulkan", 8: "metal", 10: "rocm", 14: "oneapi", 15: "webgpu", 16: "hexagon"}
_MOST_DIMENSIONS = 64
_LONGEST_SHOWN = 128


class ConversionError(Exception):
    """A value does not fit the model: `got` describes it, `hint` what to do."""

    def __init__(self, got: str, hint: str = "") -> None:
        super().__init__(got)
        self.got = got
        self.hint = hint


def to_tensor(value: object, wanted: DType, *, cast: bool = False) -> Array:
    """Return a value as an array of the dtype `wanted`, C-contiguous and aligned; the value itself if it is one.

    Raises ConversionError rather than give a number other than the one that was given.
    """
    if isinstance(value, _PYTHON) and not isinstance(value, np.generic):
        return _convert_python(value, wanted, cast)
    array = _read(value)
    if wanted.kind == "O":
        array = _check_texts(array)
    elif array.dtype is not wanted:
        array = _convert(array, wanted, cast)
    array = np.asarray(array, order="C")
    return array if array.flags.aligned else array.copy()


def format_type(dtype: str, shape: Sequence[int | str | None] | None) -> str:
    """Format a dtype and shape: "float32 [N, 3, ?]"."""
    if shape is None:
        return f"{dtype} of any shape"
    return f"{dtype} [{', '.join('?' if size is None else str(size) for size in shape)}]"


def _read(value: object) -> Array:
    """Return an array of what `value` holds, without a copy where that can be."""
    if isinstance(value, np.ma.MaskedArray):
        raise ConversionError("a masked array", "fill its gaps with .filled(...)")
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    if isinstance(value, DeviceArray):
        return value.numpy()
    kind = type(value)
    name = type_name(value)
    if not any(hasattr(kind, method) for method in ("__array__", "__array_interface__", "__dlpack__")):
        raise ConversionError(name)
    try:
        if hasattr(value, "__dlpack_device__"):
            number, index = value.__dlpack_device__()
            if number not in _READABLE:
                device = _DEVICES.get(int(number), f"device type {int(number)}")
                raise ConversionError(f"{name} on {device}:{index}", "copy it to the CPU first")
        if hasattr(value, "data_type") and "float8" in str(value.data_type()):
            raise ConversionError(f"{name} that gives its float8 away as uint8", "give an ml_dtypes array")
        # DLPack comes last: an OrtValue hands out its bools as uint8 through it.
        if hasattr(kind, "__array__") or not hasattr(value, "__dlpack__"):
            return np.asarray(value)
        return np.from_dlpack(value)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        hint = "give it detached: .detach()" if getattr(value, "requires_grad", False) is True else "give a NumPy array"
        raise ConversionError(f"{name} that NumPy cannot read ({error})", hint) from error


def _describe(array: Array) -> str:
    return format_type("structured" if array.dtype.names else onnx_name(array.dtype), array.shape)


def _convert(array: Array, wanted: DType, cast: bool) -> Array:
    source = array.dtype
    if source.newbyteorder("=") == wanted:
        return array.astype(wanted, copy=False)
    safe = _is_safe(source, wanted)
    if not safe and not (cast and _is_same_kind(source, wanted)):
        raise ConversionError(_describe(array), _advise(source, wanted))
    with np.errstate(all="ignore"):
        result = array.astype(wanted)
    if safe and (cast or wanted != np.float64 or source.kind not in "iu" or source.itemsize < 8):
        return result
    lost = _find_lost(array, result)
    if lost.any():
        raise ConversionError(
            f"{_describe(array)} with {array[lost].flat[0]} in it, which {onnx_name(wanted)} cannot hold"
        )
    return result


def _is_safe(source: DType, wanted: DType) -> bool:
    """Whether the types say that nothing is lost."""
    if is_ml_dtype(wanted):
        # What ml_dtypes tells NumPy of conversions to its own types is not true: int8 to float8 would be safe.
        return source == wanted
    return bool(_kind(source)) and bool(_kind(wanted)) and np.can_cast(source, wanted, "safe")


def _is_same_kind(source: DType, wanted: DType) -> bool:
    # ml_dtypes knows no way from uint4 to int4 at all.
    can = np.can_cast(source, wanted, "unsafe") and not (source.kind == "u" and _may_be_bits(source, wanted))
    return can and bool(_kind(source)) and _KINDS.find(_kind(source)) <= _KINDS.find(_kind(wanted))


def _may_be_bits(source: DType, wanted: DType) -> bool:
    """Whether what is given may hold the bits of bfloat16 or float8, for which NumPy has no type of its own.

    Unsigned integers and NumPy's files hold nothing else as a rule; signed integers may.
    """
    carries = source.kind in "ui" or (source.kind == "V" and not source.names and not is_ml_dtype(source))
    return is_ml_dtype(wanted) and _kind(wanted) == "f" and carries and source.itemsize == wanted.itemsize


def _kind(dtype: DType) -> str:
    """Return b, u, i or f; empty for what is no real number (complex, dates, texts, objects, records)."""
    if is_ml_dtype(dtype):
        return "f" if "float" in dtype.name else dtype.name[0]
    return dtype.kind if dtype.kind in _KINDS else ""


def _advise(source: DType, wanted: DType) -> str:
    name = f"ml_dtypes.{wanted.name}" if is_ml_dtype(wanted) else repr(wanted.name)
    by_hand = f"convert it with .astype({name})"
    if _may_be_bits(source, wanted):
        by_hand = f"if it holds the bits of {onnx_name(wanted)}, give it as .view({name})"
        by_hand += "" if source.kind == "V" else f"; if it holds numbers, as .astype({name})"
    return f"{by_hand}, or set `cast = true` in the target" if _is_same_kind(source, wanted) else by_hand


def _find_lost(before: Array, after: Array) -> Array:
    """Mark the numbers that did not arrive: integers that are others now, floats that are infinite now."""
    if _kind(after.dtype) != "f":
        return np.asarray(before != (after.astype(np.int64) if is_ml_dtype(after.dtype) else after))
    if after.dtype == np.float64 and before.dtype.kind in "iu":
        return np.asarray((before > _EXACT_IN_FLOAT64) | (before < -_EXACT_IN_FLOAT64))
    return _find_overflowed(before, after)


def _find_overflowed(before: Array, after: Array) -> Array:
    with np.errstate(all="ignore"):  # NaN itself is warned of
        wide = after.astype(np.float64)
        return np.asarray((np.isfinite(before) != np.isfinite(wide)) | (np.isinf(before) != np.isinf(wide)))


def _check_texts(array: Array) -> Array:
    """Return an object array of texts that ONNX Runtime can encode."""
    if array.dtype.kind not in "OUTS":
        raise ConversionError(_describe(array), "convert it with .astype(str)")
    try:
        array = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        texts = array if array.dtype.kind == "O" else array.astype(object)
        "".join(texts.ravel().tolist()).encode()
    except TypeError as error:
        stranger = next(type(item).__name__ for item in texts.ravel().tolist() if not isinstance(item, str))
        raise ConversionError(f"texts with {stranger} among them", "give texts only") from error
    except UnicodeError as error:
        raise ConversionError(f"texts that are not UTF-8 ({error})", "decode them to str first") from error
    return texts


def _convert_python(value: object, wanted: DType, cast: bool) -> Array:
    """Return Python's numbers, texts, and nested lists of them, as an array."""
    shape, items = _flatten(value)
    if wanted.kind == "O":
        return _check_texts(np.array(items, dtype=object)).reshape(shape)
    for kind in set(map(type, items)):
        given = np.dtype(kind) if issubclass(kind, np.generic) else None
        if given is not None and not (_is_safe(given, wanted) or (cast and _is_same_kind(given, wanted))):
            raise ConversionError(f"{onnx_name(given)} in a list", _advise(given, wanted))
        if given is None and not issubclass(kind, bool | int | float):
            found = type_name(value) if items[0] is value else f"{kind.__qualname__} in a list"
            raise ConversionError(found, "put arrays together with numpy.stack" if issubclass(kind, np.ndarray) else "")
    numbers = [item.item() if isinstance(item, np.generic) else item for item in items]
    array = _make_floats(numbers, wanted, cast) if _kind(wanted) == "f" else _make_integers(numbers, wanted)
    return array.reshape(shape)


def _flatten(value: object) -> tuple[tuple[int, ...], list[Any]]:
    """Return the shape of nested lists, and what they hold."""
    shape: list[int] = []
    level: list[Any] = [value]
    while level and all(isinstance(item, list | tuple) for item in level):
        lengths = {len(row) for row in level}
        if len(lengths) > 1:
            raise ConversionError(f"a list whose rows have {' and '.join(map(str, sorted(lengths)[:2]))} items")
        if len(shape) == _MOST_DIMENSIONS:
            raise ConversionError(f"a list nested more than {_MOST_DIMENSIONS} deep")
        shape.append(lengths.pop())
        level = [item for row in level for item in row]
    if any(isinstance(item, list | tuple) for item in level):
        raise ConversionError("a list whose rows are not all as deep")
    return tuple(shape), level


def _make_integers(numbers: Sequence[float], wanted: DType) -> Array:
    low, high = _get_range(wanted)
    for number in numbers:
        if not low <= number <= high or number != int(number):
            raise ConversionError(f"{_format_number(number)}, which {onnx_name(wanted)} cannot hold")
    whole = [int(number) for number in numbers]
    return np.array(whole, dtype=np.int8).astype(wanted) if is_ml_dtype(wanted) else np.array(whole, dtype=wanted)


def _get_range(wanted: DType) -> tuple[int, int]:
    if is_ml_dtype(wanted):
        width = int(wanted.name[-1])  # int4, uint2
        return (0, 2**width - 1) if _kind(wanted) == "u" else (-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    if wanted.kind == "b":
        return 0, 1
    limits = np.iinfo(wanted)
    return int(limits.min), int(limits.max)


def _make_floats(numbers: Sequence[float], wanted: DType, cast: bool) -> Array:
    try:
        wide = np.array(numbers, dtype=np.float64)
    except OverflowError as error:
        largest = max((number for number in numbers if isinstance(number, int)), key=abs)
        raise ConversionError(f"{_format_number(largest)}, which {onnx_name(wanted)} cannot hold") from error
    with np.errstate(all="ignore"):
        result = wide.astype(wanted)
    lost = _find_overflowed(wide, result)
    if lost.any():
        raise ConversionError(f"{wide[lost][0]}, which {onnx_name(wanted)} cannot hold")
    if not cast:
        for number, arrived in zip(numbers, result.astype(np.float64).tolist(), strict=True):
            if isinstance(number, int) and number != arrived:
                hint = "write it with a decimal point if it may be rounded"
                raise ConversionError(f"{_format_number(number)}, which {onnx_name(wanted)} cannot hold exactly", hint)
    return result


def _format_number(number: float) -> str:
    big = isinstance(number, int) and number.bit_length() > _LONGEST_SHOWN
    return f"an integer of {int(number).bit_length()} bits" if big else str(number)
