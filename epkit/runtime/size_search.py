"""On which inputs does a model run, where nobody gave any?

Sizes are assumed by what the model tells. Where a run fails with them, others are tried: those that the failure names,
and usual ones. A failure at another operator counts as progress, and the search goes on from there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, TypeVar

import numpy as np

from epkit.errors import RunError, RunTimeout, SessionClosed
from epkit.model.assumed_sizes import (
    RANK_PREFIX,
    ImageHints,
    Role,
    assume_sizes,
    describe_assumed,
    find_open_dimensions,
)
from epkit.model.file import TensorInfo
from epkit.model.sample_inputs import choose_shapes, make_sample_inputs
from epkit.model.shapes import infer_sizes
from epkit.runtime.run_options import RunOptions

T = TypeVar("T")
Sizes = dict[str, int]

SIDES = (224, 256, 320, 384, 416, 448, 512, 640, 1024, 128, 32, 299, 336, 518, 28)
LENGTHS = (2, 8, 16, 32, 64, 100, 128, 256, 512, 1024, 4096, 16000)
_NONE: Mapping[str, int] = MappingProxyType({})

QUIET = RunOptions(log_severity_level=4)

MOST_TRIALS = 80
MOST_SECONDS = 10.0
DEEPEST = 4
MOST_BYTES = 2**28
"""Of all inputs: nobody wants gigabytes for a size that is only tried."""

_NODE = re.compile(r"running (\w+) node\. Name:'([^']*)'")
_CODE = re.compile(r"\S+\.(?:h|cc|cpp|cu):\d+|Name:'[^']*'|0x[0-9a-fA-F]+|\[ONNXRuntimeError\] : \d+")


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of the inputs before a run: arrays, shapes of inputs that are made up, and sizes."""

    feed: Mapping[str, object] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dimensions: Mapping[str, int] = field(default_factory=dict)

    def sizes(self, inputs: Sequence[TensorInfo]) -> Sizes:
        """Return the sizes that are settled: those said, then those of the arrays and shapes."""
        shapes = {name: value.shape for name, value in self.feed.items() if isinstance(value, np.ndarray)}
        return infer_sizes(inputs, {**self.shapes, **shapes}) | dict(self.dimensions)


@dataclass(frozen=True, slots=True)
class Made:
    """The inputs of a run, the names of those that were made up, and the sizes that were assumed for these."""

    feed: dict[str, object]
    made_up: tuple[str, ...]
    assumed: Sizes


@dataclass(frozen=True, slots=True)
class Ran(Generic[T]):
    """What a run returned, and what it was given. `tried` counts the runs that failed before."""

    result: T
    made: Made
    seconds: float
    tried: int = 0


def make(
    inputs: Sequence[TensorInfo],
    given: Given,
    known: ImageHints | None = None,
    others: Mapping[str, int] = _NONE,
    seed: int = 0,
) -> Made:
    """Make up the inputs that are not given, with the sizes of `others`, else such as the model tells."""
    missing = [wanted for wanted in inputs if wanted.name not in given.feed]
    said = given.sizes(inputs)
    sizes = assume_sizes(missing, said, known, others)
    made = make_sample_inputs(missing, given.shapes, sizes | said, seed)
    ranks = dict.fromkeys((name for name in made.assumed if name.startswith(RANK_PREFIX)), 1)
    return Made({**made.feed, **given.feed}, tuple(made.feed), {**sizes, **ranks})


def first_run(
    run: Callable[..., T], inputs: Sequence[TensorInfo], given: Given, known: ImageHints | None = None
) -> Ran[T]:
    """Run a model on inputs of which some are made up, with the first sizes that it takes.

    `run` takes them, and `options`, since nobody wants to read of runs that fail on the way.

    Raises the RunError of the first try when all fail, with a hint that names what was assumed.
    """
    search = _Search(run, inputs, given, known)
    first = make(inputs, given, known)
    failure = search.attempt(first)
    if failure is not None:
        search.from_here(first.assumed, failure)
    if search.found is None:
        assert failure is not None
        raise RunError(failure.message, hint=advice(first, inputs, failure)) from failure
    return search.found


def advice(made: Made, inputs: Sequence[TensorInfo], failure: RunError | None = None) -> str:
    """Return what to do where made-up inputs do not suit the model."""
    if made.assumed:
        return describe_assumed(made.assumed, inputs)
    if made.made_up:
        return f"{', '.join(made.made_up)} made up: give --input {made.made_up[0]}=FILE.npy"
    return failure.hint if failure is not None else ""


class _Search(Generic[T]):
    """Tries one set of sizes after the other, deeper from where a run failed at another operator."""

    def __init__(
        self,
        run: Callable[..., T],
        inputs: Sequence[TensorInfo],
        given: Given,
        known: ImageHints | None,
    ) -> None:
        self.found: Ran[T] | None = None
        self._run, self._inputs, self._given, self._known = run, inputs, given, known
        missing = [wanted for wanted in inputs if wanted.name not in given.feed]
        self._free = find_open_dimensions(missing, given.sizes(inputs))
        self._seen: set[tuple[tuple[str, int], ...]] = set()
        self._until = time.monotonic() + MOST_SECONDS

    def attempt(self, made: Made) -> RunError | None:
        """Run once; returns what went wrong."""
        self._seen.add(tuple(sorted(made.assumed.items())))
        started = time.perf_counter()
        try:
            result = self._run(made.feed, options=QUIET)
        except (RunTimeout, SessionClosed):
            raise
        except RunError as error:
            return error
        self.found = Ran(result, made, time.perf_counter() - started, len(self._seen) - 1)
        return None

    def from_here(self, sizes: Sizes, failure: RunError, depth: int = 0) -> None:
        """Try what the failure of these sizes suggests."""
        for others in _suggested(sizes, self._free, failure.message):
            if len(self._seen) > MOST_TRIALS or time.monotonic() > self._until:
                return
            made = self._made(others)
            if made is None:
                continue
            failed = self.attempt(made)
            if failed is not None and depth < DEEPEST and _place(failed) != _place(failure):
                self.from_here(made.assumed, failed, depth + 1)
            if self.found is not None:
                return

    def _made(self, others: Sizes) -> Made | None:
        missing = [wanted for wanted in self._inputs if wanted.name not in self._given.feed]
        said = self._given.sizes(self._inputs)
        sizes = assume_sizes(missing, said, self._known, others)
        if tuple(sorted(sizes.items())) in self._seen or _bytes(missing, {**sizes, **said}) > MOST_BYTES:
            return None
        return make(self._inputs, self._given, self._known, others)


def _suggested(sizes: Sizes, open_sizes: Mapping[str, Role], failure: str) -> Iterator[Sizes]:
    """Yield other sizes: what the failure names, for all lengths and then for each dimension, then usual ones."""
    sides = [name for name, role in open_sizes.items() if role in ("height", "width")]
    lengths = [name for name, role in open_sizes.items() if role == "length"]
    others = [name for name in open_sizes if name not in sides]
    for together in [lengths, *([name] for name in others)]:
        yield from _with_numbers(sizes, together, failure)
    for usual, together in ((SIDES, sides), (LENGTHS, lengths)):
        for size in usual if together else ():
            yield {**sizes, **dict.fromkeys(together, size)}
    # Last, since a very small image may pass where a real one does not.
    for together in [sides, *([name] for name in sides)]:
        yield from _with_numbers(sizes, together, failure)


def _with_numbers(sizes: Sizes, together: Sequence[str], failure: str) -> Iterator[Sizes]:
    if together:
        for size in _fitting(sizes[together[0]], _numbers(failure)):
            yield {**sizes, **dict.fromkeys(together, size)}


def _fitting(size: int, numbers: Sequence[int]) -> Iterator[int]:
    """Yield sizes that may suit where ONNX Runtime names these numbers, one of them made from `size`."""
    yield from numbers
    for number in numbers:
        for other in numbers:
            if number != other and size * other % number == 0 and 1 < size * other // number <= 2**20:
                yield size * other // number


def _numbers(failure: str) -> list[int]:
    found = (int(number) for number in re.findall(r"(?<![\w.])\d{1,6}(?![\w.])", _CODE.sub(" ", failure)))
    return list(dict.fromkeys(number for number in found if number > 1))[:6]


def _place(failure: RunError) -> object:
    """Return where a run failed: the innermost node that is named, or what was said but for its numbers."""
    nodes = _NODE.findall(failure.message)
    return nodes[-1] if nodes and nodes[-1][1] else (nodes, re.sub(r"\d+", "", failure.message))


def _bytes(inputs: Sequence[TensorInfo], sizes: Mapping[str, int]) -> int:
    return sum(8 * int(np.prod(shape, dtype=object)) for shape in choose_shapes(inputs, None, sizes).shapes.values())
