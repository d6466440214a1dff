"""Do the outputs agree with the first candidate's?

Floating-point outputs agree when no element is further off than a share of the largest magnitude in that output: other
orders of summation and TensorFloat-32 stay below it, wrong numbers do not. Everything else must be equal. NaN agrees
with NaN in the same place, an infinity with the same infinity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from epkit.benchmark.outputs import Outputs
from epkit.run.dtypes import Array

TOLERANCE: Mapping[str, float] = {
    "float64": 1e-6,
    "complex128": 1e-6,
    "float32": 1e-3,
    "complex64": 1e-3,
    "float16": 1e-2,
    "bfloat16": 5e-2,
    "float8e4m3fn": 0.25,
    "float8e4m3fnuz": 0.25,
    "float8e5m2": 0.25,
    "float8e5m2fnuz": 0.25,
}
"""The share of an output's largest magnitude by which an element may be off, by dtype."""

FLOOR = 1e-6
"""An output whose largest magnitude is below this counts as if it were this: an output of zeros has no scale."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How one output differs. The relative difference is to the largest magnitude in the reference's output.

    Differences are None where there are no two numbers to subtract.
    """

    output: str
    agree: bool
    told: str
    max_abs: float | None = None
    max_rel: float | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether all outputs agree with those of the candidate `reference`, and how far they are apart."""

    reference: str
    agree: bool
    told: str
    max_abs: float | None
    max_rel: float | None
    outputs: tuple[Difference, ...]

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {**asdict(self), "outputs": [asdict(one) for one in self.outputs]}


def agreement(name: str, reference: Outputs, other: Outputs) -> Agreement:
    """Compare all outputs with those of the reference, the candidate `name`."""
    found = tuple(_differences(reference, other))
    wrong = [one for one in found if not one.agree]
    left_out = "".join(f"; {output}: {why}" for output, why in {**reference.left_out, **other.left_out}.items())
    largest = max(found, key=lambda one: one.max_rel or 0.0, default=None)
    if wrong:
        more = f", and {len(wrong) - 1} more outputs differ" if len(wrong) > 1 else ""
        told = f"differs from {name}: {wrong[0].told}{more}"
    elif largest is None:
        return incomparable(name, "there is no output that can be" + left_out)
    else:
        told = f"agrees with {name}: {largest.told}"
    return Agreement(
        name,
        bool(found) and not wrong,
        told + left_out,
        max((one.max_abs for one in found if one.max_abs is not None), default=None),
        max((one.max_rel for one in found if one.max_rel is not None), default=None),
        found,
    )


def incomparable(name: str, why: str) -> Agreement:
    """Say that the outputs cannot be compared with those of the candidate `name`; they count as disagreeing."""
    return Agreement(name, False, f"not compared with {name}: {why}", None, None, ())


def difference(output: str, reference: Array, other: Array, dtype: str) -> Difference:
    """Compare two arrays of one dtype."""
    if reference.shape != other.shape:
        told = f"{output} has shape {list(other.shape)} where {list(reference.shape)} is expected"
        return Difference(output, False, told)
    if dtype in TOLERANCE:
        return _of_numbers(output, reference, other, dtype)
    unequal = int(np.count_nonzero(reference != other))
    if unequal:
        return Difference(output, False, f"{output} differs in {unequal} of {reference.size} elements ({dtype})")
    return Difference(output, True, f"{output} is equal", *((0.0, 0.0) if reference.dtype.kind in "iub" else ()))


def _differences(reference: Outputs, other: Outputs) -> Iterator[Difference]:
    for name, expected in reference.arrays.items():
        dtype, found = reference.dtypes[name], other.dtypes.get(name)
        if found is None:
            if name not in other.left_out:
                yield Difference(name, False, f"{name} is missing")
        elif found != dtype:
            yield Difference(name, False, f"{name} is {found} where {dtype} is expected")
        else:
            yield difference(name, expected, other.arrays[name], dtype)
    for name in other.arrays:
        if name not in reference.arrays and name not in reference.left_out:
            yield Difference(name, False, f"{name} is not expected")


def _of_numbers(output: str, reference: Array, other: Array, dtype: str) -> Difference:
    wide = np.complex128 if dtype.startswith("complex") else np.float64
    a, b = reference.astype(wide), other.astype(wide)
    finite = np.isfinite(a) & np.isfinite(b)
    odd = int(np.count_nonzero(~finite & (a != b) & ~(np.isnan(a) & np.isnan(b))))
    with np.errstate(over="ignore"):
        apart, largest = _largest(a[finite] - b[finite]), _largest(a[finite])
    scale = max(largest, FLOOR)
    max_abs = apart if math.isfinite(apart) else None
    max_rel = max_abs / scale if max_abs is not None else None
    if odd:
        told = f"{output} is NaN or infinite in {odd} of {a.size} elements where the other is not"
        return Difference(output, False, told, max_abs, max_rel)
    allowed = TOLERANCE[dtype]
    agree = max_rel is not None and max_rel <= allowed
    off = f"is off by {apart:.3g}, {_share(apart / scale)} of its largest magnitude"
    told = f"{output} {off} ({_share(allowed)} allowed)" if apart else f"{output} is equal"
    return Difference(output, agree, told, max_abs, max_rel)


def _largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))


def _share(share: float) -> str:
    return f"{share * 100:.2g} %" if 1e-5 <= share <= 10 else f"{share:.2g} times" if share > 10 else f"{share:.1e}"
