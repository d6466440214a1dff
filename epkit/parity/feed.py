"""Make the inputs of a comparison or a benchmark, the same for every candidate."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from epkit._system.arguments import check_mapping
from epkit.config.target import Target
from epkit.errors import ConfigError
from epkit.model import array_files
from epkit.model.assumed_sizes import ImageHints, read_image_hints
from epkit.model.file import ORT_UNKNOWN, Model, TensorInfo
from epkit.model.shapes import batch_dimensions, check_sizes
from epkit.runtime import size_search
from epkit.runtime.inputs import Inputs
from epkit.session.session import Session


@dataclass(frozen=True, slots=True)
class Feed:
    """What every candidate is given: arrays from files, by input; and for inputs that are made up, the sizes."""

    files: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dimensions: Mapping[str, int] = field(default_factory=dict)
    assumed: Mapping[str, int] | None = None
    """Sizes of the dimensions that nobody gave, with which a run has succeeded; None before the first one has."""

    def given(self, inputs: Sequence[TensorInfo]) -> size_search.KnownInputs:
        """Read the files; raises InputError."""
        return size_search.KnownInputs(read(self.files, inputs), self.shapes, self.dimensions)


def read(files: Mapping[str, str], inputs: Sequence[TensorInfo]) -> dict[str, object]:
    """Read the file of each input; raises InputError."""
    dtypes = {tensor.name: tensor.dtype for tensor in inputs}
    return {name: array_files.read_input(Path(file), dtypes.get(name, "")) for name, file in files.items()}


def feed(
    files: Mapping[str, str], targets: Sequence[Target], model: Model, sizes: Mapping[str, int] = MappingProxyType({})
) -> Feed:
    """Check the files given, and settle sizes for the inputs that will be made up, so that all get the same.

    A size comes from `sizes`, else from the first target that says one. Raises InputError, ConfigError.
    """
    if model.is_parsed:
        check_sizes(model.inputs, sizes)
    paths = check_mapping(files, "inputs", "give a mapping from the names of inputs to .npy files").values()
    if not all(isinstance(path, str | os.PathLike) for path in paths):
        raise ConfigError("inputs holds what is no path", hint="write the array with numpy.save, and give the file")
    given = read(files, model.inputs)
    if model.is_parsed:
        wanted = [tensor for tensor in model.inputs if tensor.name in given]
        known = wanted if len(wanted) == len(given) else model.inputs
        Inputs(known, cast=any(target.cast for target in targets)).feed(given)
    dimensions: dict[str, int] = {}
    for target in reversed(targets):
        said = target.session_options.free_dimension_overrides | target.warmup.dimensions
        if target.warmup.batches and not model.is_parsed:
            raise ConfigError(
                f"target {target.name!r} names batch sizes, but {ORT_UNKNOWN}", hint="name dimensions or shapes"
            )
        if target.warmup.batches:
            said |= dict.fromkeys(batch_dimensions(model.inputs, said), target.warmup.batches[0])
        dimensions |= said
    shapes = next((target.warmup.shapes[0] for target in targets if target.warmup.shapes), {})
    return Feed(dict(files), shapes, dimensions | dict(sizes))


def made(
    inputs: Sequence[TensorInfo], wanted: Feed, known: ImageHints | None = None, seed: int = 0
) -> size_search.SampleFeed:
    """Read the inputs that were given, and make up the others; the same seed makes them the same everywhere."""
    return size_search.make_feed(inputs, wanted.given(inputs), known, wanted.assumed or {}, seed)


def settled(session: Session, model: Model, wanted: Feed) -> Feed:
    """Find sizes with which a session runs, for dimensions that nobody gave; raises RunError where there are none."""
    known = read_image_hints(model)
    if wanted.assumed is not None:
        return wanted
    found = size_search.first_run(session.run, session.inputs, wanted.given(session.inputs), known)
    return replace(wanted, assumed=found.made.assumed)
