"""Who takes part in a comparison, on which inputs, and how is that told to a process of its own?"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from epkit import arrays
from epkit._arguments import mapping
from epkit._arguments import names as named
from epkit.config import Config, ConfigSource
from epkit.dimensions import batch_dimensions
from epkit.errors import ConfigError
from epkit.faults import Fault
from epkit.model import UNTOLD, Model, TensorInfo
from epkit.probe import Answer
from epkit.registry import Registry
from epkit.resolve import Plan
from epkit.run.inputs import Inputs
from epkit.session import EXTERNAL_FOLDER, plan_for
from epkit.stand_in import StandIn, stand_in
from epkit.target import CPU, Target
from epkit.target import read as read_target


@dataclass(frozen=True, slots=True)
class Candidate:
    """One target that takes part, what was planned for it, and the answers that the plan rests on."""

    name: str
    plan: Plan
    answers: Mapping[str, Answer]

    @property
    def refused(self) -> Fault | None:
        """Why it cannot be opened at all, as far as the plan knows."""
        refusal = self.plan.refusal
        return None if refusal is None else Fault("unusable", "ProviderUnavailable", refusal.reason, refusal.hint)


@dataclass(frozen=True, slots=True)
class Feed:
    """What every candidate is given: arrays from files, by input; and for inputs that are made up, the sizes."""

    files: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dimensions: Mapping[str, int] = field(default_factory=dict)


def chosen(names: Sequence[str] | None, config: Config, registry: Registry) -> list[Target]:
    """Return the targets that were named, or else every provider that is installed: cpu first, then by rank.

    Raises ConfigError.
    """
    if names is None or not (names := named(names, "targets", "-t cpu -t openvino")):
        offered = registry.providers.values()
        names = [one.name for one in sorted(offered, key=lambda one: (one.name != CPU, one.rank, one.name))]
    return [strictly(read_target(name, config, registry)) for name in names]


def strictly(target: Target) -> Target:
    """Hold a target to its first provider, and leave the first run to whoever compares, in a process apart."""
    return replace(target, strict=True, warmup=target.warmup.model_copy(update={"runs": 0}), isolate_open=False)


def external_folder(target: Target) -> str | None:
    """Return where a target says that the model's external data lies."""
    return target.session_options.entries().get(EXTERNAL_FOLDER)


def planned(targets: Sequence[Target], registry: Registry, *, refresh: bool) -> list[Candidate]:
    """Probe what the targets need, all at once. Raises RuntimeMissing without an ONNX Runtime."""
    with ThreadPoolExecutor(max_workers=max(1, len(targets))) as pool:
        plans = list(pool.map(lambda target: plan_for(target, registry, refresh=refresh), targets))
    return [Candidate(target.name, plan, answers) for target, (plan, answers) in zip(targets, plans, strict=True)]


def feed(files: Mapping[str, str], targets: Sequence[Target], model: Model) -> Feed:
    """Check the files given, and settle sizes for the inputs that will be made up, so that all get the same.

    A size comes from the first target that says one. Raises InputError.
    """
    paths = mapping(files, "inputs", "give a mapping from the names of inputs to .npy files").values()
    if not all(isinstance(one, str | os.PathLike) for one in paths):
        raise ConfigError("inputs holds what is no path", hint="write the array with numpy.save, and give the file")
    given = {name: arrays.read(Path(file)) for name, file in files.items()}
    if model.tells:
        wanted = [one for one in model.inputs if one.name in given]
        known = wanted if len(wanted) == len(given) else model.inputs
        Inputs(known, cast=any(target.cast for target in targets)).feed(given)
    dimensions: dict[str, int] = {}
    for target in reversed(targets):
        said = target.session_options.free_dimension_overrides | target.warmup.dimensions
        if target.warmup.batches and not model.tells:
            raise ConfigError(
                f"target {target.name!r} names batch sizes, but {UNTOLD}", hint="name dimensions or shapes"
            )
        if target.warmup.batches:
            said |= dict.fromkeys(batch_dimensions(model.inputs, said), target.warmup.batches[0])
        dimensions |= said
    shapes = next((target.warmup.shapes[0] for target in targets if target.warmup.shapes), {})
    return Feed(dict(files), shapes, dimensions)


def made(inputs: Sequence[TensorInfo], wanted: Feed, seed: int = 0) -> StandIn:
    """Read the inputs that were given, and make up the others; the same seed makes them the same everywhere."""
    given = {name: arrays.read(Path(file)) for name, file in wanted.files.items()}
    missing = [one for one in inputs if one.name not in given]
    found = stand_in(missing, wanted.shapes, wanted.dimensions, seed)
    return StandIn({**found.feed, **given}, found.guessed)


def sendable(config: ConfigSource) -> object:
    """Return a config as it can be sent to another process."""
    if config is None or isinstance(config, Mapping):
        return json.loads(json.dumps(config, default=str))
    return os.fspath(config)
