"""Plan what is run before the first request and why, run it, and check what comes out.

The plan is pure data: shapes from the target, with assumed sizes for dynamic dimensions that nobody named, and for each
the runs that the providers of a session declare that they need.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from epkit._system.platform import peak_rss
from epkit._system.text import format_count
from epkit.config.schema import Warmup
from epkit.errors import ConfigError, InputError, nearest
from epkit.model.assumed_sizes import RANK_PREFIX, ImageHints, assume_sizes
from epkit.model.file import TensorInfo
from epkit.model.sample_inputs import SampleShapes, check_memory, choose_shapes, generate_inputs
from epkit.model.shapes import batch_dimensions, dynamic_dimensions, infer_sizes, matches_declared
from epkit.provider import Provider, WarmupNeed
from epkit.session.report import WarmupRow
from epkit.session.steady import is_steady, no_longer_falls

Run = Callable[[Mapping[str, object]], Mapping[str, object]]

_NONE: Mapping[str, int] = MappingProxyType({})

MOST_RUNS = 12
MOST_SECONDS = 5.0
"""Where a provider wants runs until they are steady, each shape gets no more than this."""


class WarmupFault(Exception):
    """A warm-up run failed, or gave something that cannot be right, for this input."""

    def __init__(self, cause: str, feed: Mapping[str, object], *, misdeclared: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.feed = feed
        self.misdeclared = misdeclared
        """Whether all that is wrong is that an output has not the shape that the model declares."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One shape to run: how often at least and at most, the last run being the steady one, and who wants it why."""

    shapes: Mapping[str, tuple[int, ...]]
    runs: int
    most: int
    """More than `runs` where a provider wants runs until they are steady."""
    providers: tuple[str, ...]
    """Whose need it is; empty where only the target wants it."""
    why: str


@dataclass(frozen=True, slots=True)
class WarmupPlan:
    """What warm-up will run, in order, and why."""

    runs: tuple[PlannedRun, ...] = ()
    why: str = ""
    notes: tuple[str, ...] = ()
    assumed: Mapping[str, int] = field(default_factory=dict)
    """Sizes of dynamic dimensions that nobody says."""

    def summary(self) -> str:
        """Say it in one line: "3 shapes, 2 runs each: cpu: the first run allocates the arena"."""
        if not self.runs:
            return f"none: {self.why or '; '.join(self.notes)}"
        counts = sorted({run.runs for run in self.runs})
        each = f"{format_count(counts[0], 'run')}{' each' if len(self.runs) > 1 else ''}"
        if len(counts) > 1:
            each = f"{counts[0]} to {format_count(counts[-1], 'run')}"
        return f"{format_count(len(self.runs), 'shape')}, {each}: {self.why}"


def check_warmup(inputs: Sequence[TensorInfo], wanted: Warmup, sizes: Mapping[str, int]) -> None:
    """Compare a target's warm-up with the inputs of the model; raises ConfigError.

    `sizes` are those of dynamic dimensions that the session options say.
    """
    for key in (name for shape in wanted.shapes for name in shape):
        if key not in {tensor.name for tensor in inputs}:
            hint = nearest(key, [tensor.name for tensor in inputs], what="inputs")
            raise ConfigError(f"warmup.shapes names {key!r}, which is not an input of the model", hint=hint)
    known = dynamic_dimensions(inputs)
    for key in wanted.dimensions:
        if key not in known:
            hint = nearest(key, known, what="dynamic dimensions")
            raise ConfigError(f"warmup.dimensions names {key!r}, which is not a dimension of the model", hint=hint)
    if wanted.batches:
        _batch(inputs, wanted, sizes)


def plan_warmup(
    inputs: Sequence[TensorInfo],
    wanted: Warmup,
    providers: Sequence[Provider],
    sizes: Mapping[str, int] | None = None,
    *,
    shrinks: bool = False,
    known: ImageHints | None = None,
    others: Mapping[str, int] = _NONE,
) -> WarmupPlan:
    """Decide what to run, given the target's wishes and the providers that have nodes.

    Every shape that the target names is run; without any, one that is assumed. A provider that pays once needs its
    runs on the first shape only. Where memory is an arena the largest shape is run first: smaller ones then find room
    in what it took. But an arena that is to give memory back (`shrinks`) never gives back what it took first, so then
    it is the smallest. `sizes` are those of dynamic dimensions that are settled elsewhere. What is left is assumed by
    what is `known` of the model, or has the size that `others` say.
    """
    declared = bool(wanted.shapes or wanted.batches)
    if wanted.runs == 0:
        return WarmupPlan(why="the target says runs = 0")
    if not providers:
        return WarmupPlan(why="no provider has a node")
    if not declared and wanted.runs is None and not any(provider.warmup.runs for provider in providers):
        return WarmupPlan(why="no provider needs it")
    try:
        shapes, guessed = _shapes(inputs, wanted, sizes or {}, known, others)
    except InputError as error:
        return WarmupPlan(notes=(f"not warmed up: {error.message}",))
    try:
        for shape in shapes:
            check_memory(inputs, shape.shapes)
    except InputError as error:
        if declared or wanted.dimensions:
            raise ConfigError(f"the warm-up cannot be run: {error.message}", hint=error.hint) from error
        return WarmupPlan(notes=(f"not warmed up: {error.message}",))
    arenas = [provider.name for provider in providers if provider.devices.arena is not None]
    if arenas:
        shapes.sort(key=lambda shape: sum(map(math.prod, shape.shapes.values())), reverse=not shrinks)
    runs = tuple(_planned(shape, wanted, providers, first=shape is shapes[0]) for shape in shapes)
    why = [f"{provider.name}: {provider.warmup.why}" for provider in providers if provider.warmup.runs]
    if len(runs) > 1 and arenas:
        arena = f"the memory arena of {' and '.join(arenas)}"
        why.append(
            f"the smallest shape first, since {arena} never gives back what it took first"
            if shrinks
            else f"the largest shape first, since {arena} then grows once"
        )
    return WarmupPlan(runs, "; ".join(why), tuple(_guesses(guessed, providers)), guessed)


def run_warmup(
    run: Run, planned: WarmupPlan, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
) -> tuple[WarmupRow, ...]:
    """Run what was planned; raises WarmupFault, and ConfigError for shapes that the model does not take."""
    done = []
    for shape in planned.runs:
        feed = generate_inputs(inputs, shape.shapes)
        before = peak_rss()
        seconds: list[float] = []
        while not enough(seconds, shape.runs, shape.most):
            started = time.perf_counter()
            try:
                result = run(feed)
            except InputError as error:
                raise ConfigError(f"the warm-up does not fit the model: {error.message}", hint=error.hint) from error
            except Exception as error:
                raise WarmupFault(str(getattr(error, "message", error)), feed) from error
            seconds.append(time.perf_counter() - started)
            suspicion = not_finite(result) or misdeclared(result, outputs)
            if suspicion:
                raise WarmupFault(suspicion, feed, misdeclared=not not_finite(result))
            del result  # or two runs' outputs would count into the peak
        done.append(_row(shape, seconds, before, peak_rss()))
    return tuple(done)


def enough(seconds: Sequence[float], runs: int, most: int) -> bool:
    """Whether a shape has been run often enough: `runs` times, or until steady where `most` allows more."""
    if len(seconds) < runs:
        return False
    return len(seconds) >= most or is_steady(seconds) or no_longer_falls(seconds) or sum(seconds) > MOST_SECONDS


def suspicious(result: Mapping[str, object], outputs: Sequence[TensorInfo]) -> str:
    """Say what about the outputs cannot be right, in a sentence; empty when nothing is."""
    return not_finite(result) or misdeclared(result, outputs)


def not_finite(result: Mapping[str, object]) -> str:
    """Say which output holds what is no number; empty when none does."""
    for name, value in result.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fc" and not np.isfinite(value).all():
            return f"output {name!r} holds {'NaN' if np.isnan(value).any() else 'infinity'}"
    return ""


def misdeclared(result: Mapping[str, object], outputs: Sequence[TensorInfo]) -> str:
    """Say which output has another shape than the model declares; empty when none has."""
    for wanted in outputs:
        value = result.get(wanted.name)
        if isinstance(value, np.ndarray) and not matches_declared(wanted, value.shape):
            declared = list(wanted.shape or ())
            return f"output {wanted.name!r} has shape {list(value.shape)} where the model declares {declared}"
    return ""


def _batch(inputs: Sequence[TensorInfo], wanted: Warmup, sizes: Mapping[str, int]) -> tuple[str, ...]:
    try:
        return batch_dimensions(inputs, {*wanted.dimensions, *sizes})
    except ConfigError as error:
        raise ConfigError(f"warmup.batches: {error.message}", hint=error.hint) from error


def _shapes(
    inputs: Sequence[TensorInfo],
    wanted: Warmup,
    sizes: Mapping[str, int],
    known: ImageHints | None,
    others: Mapping[str, int],
) -> tuple[list[SampleShapes], dict[str, int]]:
    """Return every shape that is wanted, once, and the sizes that were assumed; raises InputError and ConfigError."""
    dimensions = dict(sizes) | wanted.dimensions
    wishes: list[tuple[Mapping[str, Sequence[int]], dict[str, int]]]
    if wanted.batches:
        batch = _batch(inputs, wanted, sizes)
        wishes = [({}, dimensions | dict.fromkeys(batch, size)) for size in wanted.batches]
    else:
        wishes = [(shape, infer_sizes(inputs, shape) | dimensions) for shape in wanted.shapes or ({},)]
    found: list[SampleShapes] = []
    guessed: dict[str, int] = {}
    for shape, said in wishes:
        missing = assume_sizes(inputs, said, known, others)
        found.append(choose_shapes(inputs, shape, missing | said))
        guessed |= missing
        guessed |= dict.fromkeys((name for name in found[-1].assumed if name.startswith(RANK_PREFIX)), 1)
    return list({tuple(shape.shapes.items()): shape for shape in found}.values()), guessed


def _planned(shape: SampleShapes, wanted: Warmup, providers: Sequence[Provider], *, first: bool) -> PlannedRun:
    needs: dict[str, WarmupNeed] = {
        provider.name: provider.warmup
        for provider in providers
        if provider.warmup.runs and (first or provider.warmup.shapes == "each")
    }
    if wanted.runs is not None:
        runs = most = wanted.runs + 1
        why = f"the target says runs = {wanted.runs}, and one more is timed"
    else:
        runs = most = max((need.runs for need in needs.values()), default=1) + 1
        why = "; ".join(f"{name}: {need.why}" for name, need in needs.items())
        why = why or "the target names this shape, and no provider pays for it again"
        if any(need.steady for need in needs.values()):
            most = max(runs, MOST_RUNS)
            why += f"; until steady, at most {most} runs or {MOST_SECONDS:g} s"
    return PlannedRun(shape.shapes, runs, most, tuple(needs), why)


def _guesses(assumed: Mapping[str, int], providers: Sequence[Provider]) -> list[str]:
    if not assumed:
        return []
    message = f"warm-up assumed {', '.join(f'{name} = {size}' for name, size in assumed.items())}"
    payers = [provider.name for provider in providers if provider.warmup.shapes == "each"]
    if payers:
        message += f"; {' and '.join(payers)} pays again for each new shape"
    return [f"{message}; set them with warmup.shapes, warmup.batches or warmup.dimensions in the target"]


def _row(planned: PlannedRun, seconds: Sequence[float], before: int | None, after: int | None) -> WarmupRow:
    return WarmupRow(
        shapes=planned.shapes,
        runs=len(seconds),
        first_s=seconds[0],
        steady_s=seconds[-1] if len(seconds) > 1 else None,
        steady=(is_steady(seconds) or no_longer_falls(seconds)) if planned.most > planned.runs else None,
        peak_bytes=after,
        grew_bytes=None if before is None or after is None else after - before,
        why=planned.why,
    )
