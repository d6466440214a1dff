"""Combine the sizes of dynamic dimensions into cases, on each of which every candidate runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from epkit.benchmark.document import Case
from epkit.errors import ConfigError
from epkit.model.file import ORT_UNKNOWN, Model
from epkit.model.shapes import batch_dimensions, check_sizes
from epkit.parity.feed import Feed


def combine_sizes(model: Model, batches: Sequence[int], dimensions: Mapping[str, Sequence[int]]) -> list[Case]:
    """Combine all sizes. Raises ConfigError for a dimension that the model lacks, and for sizes below 1."""
    if not model.is_parsed and (batches or dimensions):
        raise ConfigError(f"no size can be varied: {ORT_UNKNOWN}", hint="benchmark the ONNX file that it was made from")
    check_sizes(model.inputs, dict.fromkeys(dimensions, 1))
    wanted: list[tuple[str, Sequence[str], Sequence[int]]] = []
    if batches:
        wanted.append(("batch", batch_dimensions(model.inputs, dimensions), batches))
    wanted += [(name, [name], sizes) for name, sizes in dimensions.items()]
    if any(size < 1 for _, _, sizes in wanted for size in sizes):
        raise ConfigError("a dimension has a size of 1 at least", hint="--batch 1,4,16")
    cases = []
    for sizes in itertools.product(*(sizes for _, _, sizes in wanted)):
        varied = list(zip(wanted, sizes, strict=True))
        name = ", ".join(f"{option}={size}" for (option, _, _), size in varied)
        cases.append(Case(name, {dimension: size for (_, names, _), size in varied for dimension in names}))
    return cases


def feed_of(given: Feed, case: Case) -> Feed:
    """Return the inputs that were given, with the sizes of a case."""
    return replace(given, dimensions={**given.dimensions, **case.dimensions})
