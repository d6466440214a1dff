"""Find sizes with which a model runs, for inputs that were not given.

The first sizes are assumed from the model. If a run fails with them, others are tried: those that the error names, then
common ones. A failure at another operator counts as progress, and the search continues from there.
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
"""Of all inputs together: a size that is only tried takes no gigabytes."""

_NODE = re.compile(r"running (\w+) node\. Name:'([^']*)'")
_CODE = re.compile(r"\S+\.(?:h|cc|cpp|cu):\d+|Name:'[^']*'|0x[0-9a-fA-F]+|\[ONNXRuntimeError\] : \d+")


@dataclass(frozen=True, slots=True)
class KnownInputs:
    """The inputs that were given: arrays, shapes of inputs to generate, and sizes of dimensions."""

    feed: Mapping[str, object] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dimensions: Mapping[str, int] = field(default_factory=dict)

    def sizes(self, inputs: Sequence[TensorInfo]) -> Sizes:
        """Return the sizes that are settled: those said, then those of the arrays and shapes."""
        shapes = {name: value.shape for name, value in self.feed.items() if isinstance(value, np.ndarray)}
        return infer_sizes(inputs, {**self.shapes, **shapes}) | dict(self.dimensions)


@dataclass(frozen=True, slots=True)
class SampleFeed:
    """The inputs of a run, the names of the generated ones, and the sizes that were assumed for these."""

    feed: dict[str, object]
    made_up: tuple[str, ...]
    assumed: Sizes


@dataclass(frozen=True, slots=True)
class FirstRun(Generic[T]):
    """The result of the first run that succeeded, and its inputs. `tried` counts the runs that failed before."""

    result: T
    made: SampleFeed
    seconds: float
    tried: int = 0


def make_feed(
    inputs: Sequence[TensorInfo],
    given: KnownInputs,
    known: ImageHints | None = None,
    others: Mapping[str, int] = _NONE,
    seed: int = 0,
) -> SampleFeed:
    """Generate the inputs that are not given, with the sizes of `others`, else sizes assumed from the model."""
    missing = [wanted for wanted in inputs if wanted.name not in given.feed]
    said = given.sizes(inputs)
    sizes = assume_sizes(missing, said, known, others)
    made = make_sample_inputs(missing, given.shapes, sizes | said, seed)
    ranks = dict.fromkeys((name for name in made.assumed if name.startswith(RANK_PREFIX)), 1)
    return SampleFeed({**made.feed, **given.feed}, tuple(made.feed), {**sizes, **ranks})


def first_run(
    run: Callable[..., T], inputs: Sequence[TensorInfo], given: KnownInputs, known: ImageHints | None = None
) -> FirstRun[T]:
    """Run a model on inputs of which some are made up, with the first sizes that it takes.

    `run` is called with the inputs and `options`, which silence the log of runs that fail on the way.

    Raises the RunError of the first try when all fail, with a hint that names what was assumed.
    """
    search = _Search(run, inputs, given, known)
    first = make_feed(inputs, given, known)
    failure = search.attempt(first)
    if failure is not None:
        search.from_here(first.assumed, failure)
    if search.found is None:
        assert failure is not None
        raise RunError(failure.message, hint=advise(first, inputs, failure)) from failure
    return search.found


def advise(made: SampleFeed, inputs: Sequence[TensorInfo], failure: RunError | None = None) -> str:
    """Return a hint for generated inputs that do not fit the model."""
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
        given: KnownInputs,
        known: ImageHints | None,
    ) -> None:
        self.found: FirstRun[T] | None = None
        self._run, self._inputs, self._given, self._known = run, inputs, given, known
        missing = [wanted for wanted in inputs if wanted.name not in given.feed]
        self._free = find_open_dimensions(missing, given.sizes(inputs))
        self._seen: set[tuple[tuple[str, int], ...]] = set()
        self._until = time.monotonic() + MOST_SECONDS

    def attempt(self, made: SampleFeed) -> RunError | None:
        """Run once; returns what went wrong."""
        self._seen.add(tuple(sorted(made.assumed.items())))
        started = time.perf_counter()
        try:
            result = self._run(made.feed, options=QUIET)
        except (RunTimeout, SessionClosed):
            raise
        except RunError as error:
            return error
        self.found = FirstRun(result, made, time.perf_counter() - started, len(self._seen) - 1)
        return None

    def from_here(self, sizes: Sizes, failure: RunError, depth: int = 0) -> None:
        """Try what the failure of these sizes suggests."""
        for others in _suggest(sizes, self._free, failure.message):
            if len(self._seen) > MOST_TRIALS or time.monotonic() > self._until:
                return
            made = self._make(others)
            if made is None:
                continue
            failed = self.attempt(made)
            if failed is not None and depth < DEEPEST and _locate_failure(failed) != _locate_failure(failure):
                self.from_here(made.assumed, failed, depth + 1)
            if self.found is not None:
                return

    def _make(self, others: Sizes) -> SampleFeed | None:
        missing = [wanted for wanted in self._inputs if wanted.name not in self._given.feed]
        said = self._given.sizes(self._inputs)
        sizes = assume_sizes(missing, said, self._known, others)
        if tuple(sorted(sizes.items())) in self._seen or _count_bytes(missing, {**sizes, **said}) > MOST_BYTES:
            return None
        return make_feed(self._inputs, self._given, self._known, others)


def _suggest(sizes: Sizes, open_sizes: Mapping[str, Role], failure: str) -> Iterator[Sizes]:
    """Yield other sizes: what the failure names, for all lengths and then for each dimension, then usual ones."""
    sides = [name for name, role in open_sizes.items() if role in ("height", "width")]
    lengths = [name for name, role in open_sizes.items() if role == "length"]
    others = [name for name in open_sizes if name not in sides]
    for together in [lengths, *([name] for name in others)]:
        yield from _suggest_numbers(sizes, together, failure)
    for usual, together in ((SIDES, sides), (LENGTHS, lengths)):
        for size in usual if together else ():
            yield {**sizes, **dict.fromkeys(together, size)}
    # Last, since a very small image may pass where a real one does not.
    for together in [sides, *([name] for name in sides)]:
        yield from _suggest_numbers(sizes, together, failure)


def _suggest_numbers(sizes: Sizes, together: Sequence[str], failure: str) -> Iterator[Sizes]:
    if together:
        for size in _suggest_sizes(sizes[together[0]], _read_numbers(failure)):
            yield {**sizes, **dict.fromkeys(together, size)}


def _suggest_sizes(size: int, numbers: Sequence[int]) -> Iterator[int]:
    """Yield sizes that may suit where ONNX Runtime names these numbers, one of them made from `size`."""
    yield from numbers
    for number in numbers:
        for other in numbers:
            if number != other and size * other % number == 0 and 1 < size * other // number <= 2**20:
                yield size * other // number


def _read_numbers(failure: str) -> list[int]:
    found = (int(number) for number in re.findall(r"(?<![\w.])\d{1,6}(?![\w.])", _CODE.sub(" ", failure)))
    return list(dict.fromkeys(number for number in found if number > 1))[:6]


def _locate_failure(failure: RunError) -> object:
    """Return where a run failed: the innermost node that is named, or what was said but for its numbers."""
    nodes = _NODE.findall(failure.message)
    return nodes[-1] if nodes and nodes[-1][1] else (nodes, re.sub(r"\d+", "", failure.message))


def _count_bytes(inputs: Sequence[TensorInfo], sizes: Mapping[str, int]) -> int:
    return sum(8 * int(np.prod(shape, dtype=object)) for shape in choose_shapes(inputs, None, sizes).shapes.values())
