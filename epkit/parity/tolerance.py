"""Decide whether a difference is small enough.

A floating-point output agrees when no element is further off than a share of the largest magnitude in that output:
other orders of summation and TensorFloat-32 stay below it, wrong numbers do not. Everything else must be equal.

How small is small enough depends on the dtype, and on the model: one that turns a rounding step into a large difference
cannot be held to a small one. How far rounding alone moves an output is measured in `conditioning`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from epkit._system.arguments import type_name
from epkit.errors import ConfigError, nearest
from epkit.parity.metrics import COMPLEX, FLOATS, NONE, Metrics

BY_DTYPE: Mapping[str, float] = {
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

ROUNDINGS = 100
"""How many times as far as rounding once after each operator moves an output, correct providers may be apart.

They round inside of operators too. On four of the onnx package's light models, traced tensor by tensor, cpu and
openvino are up to 81 times as far apart.
"""
DETERMINED = 0.1
"""An output that may be off by more than this is not determined: hardly a digit of it means anything."""


def determined(moved: float) -> bool:
    """Whether an output means anything that rounding alone moves by the share `moved`."""
    return ROUNDINGS * moved <= DETERMINED


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What is small enough: a share of the largest magnitude, or with None the one that `BY_DTYPE` says."""

    name: str
    share: float | None = None
    conditioned: bool = False
    """Whether more is allowed where the model itself amplifies rounding."""
    mixed: bool = False
    """Whether one floating-point dtype may stand where another is expected."""

    def allowed(self, dtype: str, moved: float = 0.0) -> float:
        """Return the share that is allowed in an output that rounding alone moves by the share `moved`."""
        share = BY_DTYPE[dtype] if self.share is None else self.share
        return max(share, ROUNDINGS * moved) if self.conditioned and determined(moved) else share


AUTO = Tolerance("auto", conditioned=True)
PRESETS: Mapping[str, Tolerance] = {
    "auto": AUTO,
    "images": Tolerance("images", 0.01, mixed=True),
    "exact": Tolerance("exact", 0.0),
}


def tolerance_of(said: str | float) -> Tolerance:
    """Return the preset of that name, or a tolerance of that share; raises ConfigError."""
    if isinstance(said, str) and said in PRESETS:
        return PRESETS[str(said)]
    try:
        share = float(said)
    except (TypeError, ValueError, OverflowError):
        hint = nearest(str(said), PRESETS, "presets") + "; or a share, as in 0.001"
        shown = repr(said) if isinstance(said, str) else type_name(said)
        raise ConfigError(f"no tolerance is named {shown}", hint=hint) from None
    if not 0 <= share < math.inf:
        raise ConfigError(f"the tolerance is {said!r}", hint="give a share of the largest magnitude from 0 on: 0.001")
    return Tolerance(f"{share:g}", share)


@dataclass(frozen=True, slots=True)
class Judged:
    """One output: the figures, whether they are small enough, and the same in words."""

    metrics: Metrics
    agree: bool
    told: str
    allowed: float | None = None
    """The share that was allowed; None where nothing but equality is."""

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {**asdict(self.metrics), "agree": self.agree, "told": self.told, "allowed": self.allowed}


def judge(found: Metrics, tolerance: Tolerance = AUTO, moved: float = 0.0) -> Judged:
    """Judge the figures of one output."""
    name, dtype, other = found.output, found.dtype, found.other_dtype
    if dtype is None:
        return Judged(found, False, f"{name} is not expected")
    if other is None:
        return Judged(found, False, f"{name} is missing")
    if dtype != other and not (tolerance.mixed and {dtype, other} <= FLOATS):
        return Judged(found, False, f"{name} is {other} where {dtype} is expected")
    if found.shape != found.other_shape:
        message = f"{name} has shape {list(found.other_shape or ())} where {list(found.shape or ())} is expected"
        return Judged(found, False, message)
    size = math.prod(found.shape or ())
    if dtype not in FLOATS | COMPLEX:
        if found.unequal:
            return Judged(found, False, f"{name} differs in {found.unequal} of {size} elements ({dtype})")
        return Judged(found, True, f"{name} {'has no value' if dtype == NONE else 'is equal'}")
    # Of two dtypes, the coarser one decides.
    allowed = max(tolerance.allowed(kind, moved) for kind in (dtype, other))
    if found.misplaced:
        message = f"{name} is NaN or infinite in {found.misplaced} of {size} elements where the other is not"
        return Judged(found, False, message, allowed)
    if found.max_abs is None or found.share is None:
        return Judged(found, False, f"{name} is off by more than a float64 holds", allowed)
    off = f"{name} is off by {found.max_abs:.3g}, {of_largest(found.share)}"
    message = f"{off} ({_percent(allowed)} allowed)" if found.max_abs else f"{name} is equal"
    return Judged(found, found.share <= allowed, message + _flips(found), allowed)


def of_largest(share: float) -> str:
    """Write a share of an output's largest magnitude."""
    return f"{share:.3g} times its largest magnitude" if share > 10 else f"{_percent(share)} of its largest magnitude"


def _percent(share: float) -> str:
    percent = share * 100
    return f"{share:.1e}" if 0 < share < 1e-5 else f"{percent:.2g} %" if percent < 99.5 else f"{percent:.0f} %"


def _flips(found: Metrics) -> str:
    flips = found.argmax_flips
    return f", and its largest element is another in {flips} of {found.argmax_of} rows" if flips else ""
