"""What do the first requests cost, and is what comes out sane?

Runs what the providers of a session declare that they need, with inputs that the model accepts: shapes from the target,
and for dynamic dimensions that nobody named a guess of 1, which is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from epkit.errors import ConfigError, InputError, nearest
from epkit.model import TensorInfo
from epkit.provider import WarmupNeed
from epkit.report import WarmedUp
from epkit.run.dtypes import numpy_dtype
from epkit.target import Warmup

Run = Callable[[Mapping[str, object]], Mapping[str, object]]


class WarmupFault(Exception):
    """A warm-up run failed, or gave something that cannot be right, for this input."""

    def __init__(self, cause: str, feed: Mapping[str, object]) -> None:
        super().__init__(cause)
        self.cause = cause
        self.feed = feed


@dataclass(frozen=True, slots=True)
class StandIn:
    """Inputs that stand in for those that nobody gave, and the dimensions whose size was guessed."""

    feed: Mapping[str, object]
    guessed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Course:
    """What warm-up will run: the inputs, the runs for each, and why."""

    feeds: tuple[StandIn, ...] = ()
    runs: int = 0
    why: str = ""
    notes: tuple[str, ...] = field(default=())


def stand_in(
    inputs: Sequence[TensorInfo],
    shapes: Mapping[str, Sequence[int]] | None = None,
    dimensions: Mapping[str, int] | None = None,
) -> StandIn:
    """Make inputs that the model accepts: seeded numbers in [0, 1) for floats, 1 for integers, "a" for text.

    Integers are 1, since 0 may be divided by and anything larger may be past the end of a table. Raises InputError
    for an input that cannot be made up.
    """
    shapes, dimensions = shapes or {}, dimensions or {}
    random = np.random.default_rng(0)
    guessed: list[str] = []
    feed: dict[str, object] = {}
    for wanted in inputs:
        if wanted.dtype.startswith("optional("):
            continue
        inner = wanted.dtype.removeprefix("sequence(").removesuffix(")")
        if "(" in inner:
            raise InputError(f"input {wanted.name!r} is {wanted.dtype}, which cannot be made up", hint="give it")
        if wanted.shape is None and inner != wanted.dtype:
            guessed.append(f"the rank of {wanted.name}")  # a sequence of scalars suits few operators
        shape = shapes.get(wanted.name) or _shape(wanted, dimensions, guessed)
        value = _array(inner, tuple(shape), random)
        feed[wanted.name] = value if inner == wanted.dtype else [value]
    return StandIn(feed, tuple(dict.fromkeys(guessed)))


def check_names(inputs: Sequence[TensorInfo], wanted: Warmup) -> None:
    """Compare the names in a target's warm-up with those of the model; raises ConfigError."""
    for key in (name for shape in wanted.shapes for name in shape):
        if key not in {one.name for one in inputs}:
            hint = nearest(key, [one.name for one in inputs], what="inputs")
            raise ConfigError(f"warmup.shapes names {key!r}, which is not an input of the model", hint=hint)
    dynamic = {d for one in inputs for d in one.shape or () if isinstance(d, str)}
    for key in wanted.dimensions:
        if key not in dynamic:
            hint = nearest(key, dynamic, what="dynamic dimensions")
            raise ConfigError(f"warmup.dimensions names {key!r}, which is not a dimension of the model", hint=hint)


def course(inputs: Sequence[TensorInfo], wanted: Warmup, needs: Mapping[str, WarmupNeed]) -> Course:
    """Decide what to run, given the target's wishes and what each active provider needs."""
    runs = max((need.runs for need in needs.values()), default=0) if wanted.runs is None else wanted.runs
    if runs == 0:
        return Course(why="the target says runs = 0" if wanted.runs == 0 else "no provider has a node")
    why = "; ".join(f"{name}: {need.why}" for name, need in needs.items())
    try:
        feeds = tuple(stand_in(inputs, shape, wanted.dimensions) for shape in wanted.shapes or ({},))
    except InputError as error:
        return Course(why=why, notes=(f"not warmed up: {error.message}",))
    guessed = list(dict.fromkeys(dimension for feed in feeds for dimension in feed.guessed))
    notes: list[str] = []
    if guessed:
        sizes = ", ".join(f"{dimension} = 1" for dimension in guessed)
        payers = [name for name, need in needs.items() if need.shapes == "each"]
        told = f"warm-up guessed {sizes}"
        if payers:
            told += f"; {' and '.join(payers)} pays again for each new shape"
        notes.append(f"{told}; say warmup.shapes or warmup.dimensions in the target")
    return Course(feeds, runs, why, tuple(notes))


def warm_up(run: Run, planned: Course, outputs: Sequence[TensorInfo]) -> tuple[WarmedUp, ...]:
    """Run the course and one more run each, which is the steady one; raises WarmupFault."""
    done = []
    for one in planned.feeds:
        seconds = []
        for _ in range(planned.runs + 1):
            started = time.perf_counter()
            try:
                result = run(one.feed)
            except InputError as error:
                raise ConfigError(f"the warm-up does not fit the model: {error.message}", hint=error.hint) from error
            except Exception as error:
                raise WarmupFault(str(getattr(error, "message", error)), one.feed) from error
            seconds.append(time.perf_counter() - started)
        suspicion = suspicious(result, outputs)
        if suspicion:
            raise WarmupFault(suspicion, one.feed)
        shapes = {name: np.shape(value) for name, value in one.feed.items() if isinstance(value, np.ndarray)}
        done.append(WarmedUp(shapes, planned.runs, seconds[0], seconds[-1]))
    return tuple(done)


def suspicious(result: Mapping[str, object], outputs: Sequence[TensorInfo]) -> str:
    """Say what about the outputs cannot be right, in a sentence; empty when nothing is."""
    for wanted in outputs:
        value = result.get(wanted.name)
        if not isinstance(value, np.ndarray):
            continue
        if value.dtype.kind in "fc" and not np.isfinite(value).all():
            what = "NaN" if np.isnan(value).any() else "infinity"
            return f"output {wanted.name!r} holds {what}"
        declared = wanted.shape
        if declared is not None and (
            len(declared) != value.ndim
            or any(isinstance(d, int) and d != size for d, size in zip(declared, value.shape, strict=True))
        ):
            return f"output {wanted.name!r} has shape {list(value.shape)} where the model declares {list(declared)}"
    return ""


def _shape(wanted: TensorInfo, dimensions: Mapping[str, int], guessed: list[str]) -> list[int]:
    shape = []
    if wanted.shape is None and wanted.dtype.startswith("sequence("):
        return [1]
    for axis, dimension in enumerate(wanted.shape or ()):
        if isinstance(dimension, int):
            shape.append(dimension)
            continue
        name = dimension or f"{wanted.name}[{axis}]"
        if name not in dimensions:
            guessed.append(name)
        shape.append(dimensions.get(name, 1))
    return shape


def _array(dtype: str, shape: tuple[int, ...], random: np.random.Generator) -> object:
    if dtype == "string":
        return np.full(shape, "a", dtype=object)
    kind = numpy_dtype(dtype)
    if kind.kind in "biu":
        return np.ones(shape, dtype=kind)
    return random.random(shape, dtype=np.float32).astype(kind)
