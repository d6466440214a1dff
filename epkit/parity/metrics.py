"""Measure how far two arrays are apart.

Measured, not judged: what is near enough is decided in `tolerance`, from these figures alone, so that they can be
judged again. NaN equals NaN in the same place, and an infinity the same infinity; the other figures leave such elements
out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epkit.model.dtypes import Array, numpy_dtype

FLOATS = frozenset(
    {"float64", "float32", "float16", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"}
)
COMPLEX = frozenset({"complex64", "complex128"})

NONE = "none"
"""In place of a dtype, where an optional output has no value."""

FLOOR = 1e-6
"""An output whose largest magnitude is below this counts as if it were this: an output of zeros has no scale."""

_MOST_CLASS_AXES = 3
"""An output of more axes is a picture or a map of features, whose last axis is no list of classes."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """How one output (or tensor) of B differs from that of A.

    A figure is None where there is nothing to work it out of; dtype and shape are None on the side that lacks the
    output.
    """

    output: str
    dtype: str | None
    other_dtype: str | None
    shape: tuple[int, ...] | None = None
    other_shape: tuple[int, ...] | None = None
    unequal: int | None = None
    """How many elements are not equal."""
    misplaced: int | None = None
    """How many elements are NaN or infinite on one side and something else on the other."""
    largest: float | None = None
    """The largest finite magnitude in A's."""
    max_abs: float | None = None
    mean_abs: float | None = None
    max_rel: float | None = None
    """The largest |a - b| / |a| where a is not 0. Where a is near 0 it is large, and says little."""
    mean_rel: float | None = None
    share: float | None = None
    """`max_abs` as a share of `largest`, or of a millionth if that is more."""
    max_ulp: int | None = None
    """How many numbers of the dtype lie between the two at most: 1 for neighbours."""
    cosine: float | None = None
    """The cosine of the angle between the two as vectors."""
    argmax_flips: int | None = None
    """In how many rows the largest element stands elsewhere: along the last axis, leaving out axes of size 1 at the
    end, of floats with three axes at most. Of equal elements the first counts."""
    argmax_of: int | None = None
    """How many rows there are."""


def measure(output: str, a: Array, b: Array, dtype: str, other_dtype: str | None = None) -> Metrics:
    """Measure one array against another. Types that NumPy lacks come as float32, with the name of their own dtype."""
    other_dtype = dtype if other_dtype is None else other_dtype
    found = Metrics(output, dtype, other_dtype, a.shape, b.shape)
    if a.shape != b.shape or (dtype != other_dtype and not (dtype in FLOATS and other_dtype in FLOATS)):
        return found
    if dtype in FLOATS or dtype in COMPLEX:
        return _numbers(found, a, b)
    unequal = int(np.count_nonzero(a != b))
    if a.dtype.kind not in "biu":
        return Metrics(output, dtype, other_dtype, a.shape, b.shape, unequal)
    apart = _distance(a, b)
    return Metrics(
        *(output, dtype, other_dtype, a.shape, b.shape, unequal),
        max_abs=float(apart.max(initial=0)),
        mean_abs=float(apart.mean()) if apart.size else 0.0,
    )


def ulps(a: Array, b: Array, dtype: str) -> npt.NDArray[np.uint64]:
    """Count the numbers of the dtype from `a` to `b`, element by element; both must be finite."""
    plain = numpy_dtype(dtype)
    return _distance(_ordered(a.astype(plain)), _ordered(b.astype(plain)))


def _numbers(found: Metrics, a: Array, b: Array) -> Metrics:
    assert found.dtype is not None
    is_complex = found.dtype in COMPLEX
    wide = np.complex128 if is_complex else np.float64
    x, y = a.astype(wide), b.astype(wide)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    finite = np.isfinite(x) & np.isfinite(y)
    flips, rows = (None, None) if is_complex else _flips(x, y)
    left, right = x[finite], y[finite]
    with np.errstate(over="ignore"):
        apart, size = np.abs(left - right), np.abs(left)
        relative = apart[size > 0] / size[size > 0]
    largest = float(size.max(initial=0.0))
    max_abs = _known(apart.max(initial=0.0))
    one_kind = found.dtype == found.other_dtype and not is_complex
    return Metrics(
        *(found.output, found.dtype, found.other_dtype, found.shape, found.other_shape),
        unequal=int(np.count_nonzero(~same)),
        misplaced=int(np.count_nonzero(~finite & ~same)),
        largest=_known(largest),
        max_abs=max_abs,
        mean_abs=_known(_mean(apart)),
        max_rel=_known(relative.max(initial=0.0)),
        mean_rel=_known(_mean(relative)),
        share=None if max_abs is None else _known(max_abs / max(largest, FLOOR)),
        max_ulp=int(ulps(a[finite], b[finite], found.dtype).max(initial=0)) if one_kind else None,
        cosine=_cosine(left, right),
        argmax_flips=flips,
        argmax_of=rows,
    )


def _flips(x: Array, y: Array) -> tuple[int | None, int | None]:
    shape = list(x.shape)
    while len(shape) > 1 and shape[-1] == 1:
        shape.pop()
    if not (1 <= len(shape) <= _MOST_CLASS_AXES and shape[-1] > 1):
        return None, None
    rows, others = x.reshape(-1, shape[-1]), y.reshape(-1, shape[-1])
    return int(np.count_nonzero(rows.argmax(axis=1) != others.argmax(axis=1))), len(rows)


def _cosine(x: Array, y: Array) -> float | None:
    sizes = [float(np.abs(array).max(initial=0.0)) for array in (x, y)]
    if not all(0 < size < math.inf for size in sizes):
        return None
    x, y = x / sizes[0], y / sizes[1]
    return float(np.clip(np.vdot(x, y).real / (np.linalg.norm(x) * np.linalg.norm(y)), -1.0, 1.0))


def _ordered(values: Array) -> npt.NDArray[np.int64]:
    """Give each float its place among all of its dtype, 0 for both zeros: its bits are a sign and a magnitude."""
    width = values.dtype.itemsize
    bits = np.ascontiguousarray(values).view(f"u{width}").astype(np.uint64)
    magnitude = (bits & np.uint64((1 << (8 * width - 1)) - 1)).astype(np.int64)
    return np.where(bits >> np.uint64(8 * width - 1), -magnitude, magnitude)


def _distance(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Subtract integers without overflow: modulo 2**64 the larger minus the smaller is right."""
    return np.asarray(np.maximum(a, b).astype(np.uint64) - np.minimum(a, b).astype(np.uint64))


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else 0.0


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
