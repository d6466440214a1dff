"""What does a model take in memory, by batch size: estimated, and measured beside it?

Each batch size is measured in a process of its own, since the memory that one has taken hides what the next one needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epkit._system.arguments import check_integer, check_items
from epkit._system.folders import make_scratch_folder, write_scratch
from epkit._system.process import Child
from epkit.errors import ConfigError, ProviderUnavailable
from epkit.model.inspect import Inspection, MeasuredMemory
from epkit.model.inspect import inspect as read_and_estimate
from epkit.model.shapes import batch_dimensions
from epkit.session.fault import Fault, lost, told

if TYPE_CHECKING:
    from epkit.config.file import ConfigSource
    from epkit.model.file import Source

WORKER = "epkit.session.memory_worker"
LIMIT_S = 600.0
"""How long one batch size may take: TensorRT builds an engine for minutes."""


def inspect(
    model: Source,
    batches: Sequence[int] = (),
    target: str | None = None,
    config: ConfigSource = None,
    *,
    dimensions: Mapping[str, int] | None = None,
) -> Inspection:
    """Say what is in a model, and what each of the batch sizes takes in memory.

    With a `target` (or a provider) that is measured too: each batch size is opened and run in a process of its own.
    `config` is a file, or a mapping of the same shape. `dimensions` are sizes of other dynamic dimensions: those that
    are not there count as 1 in the estimate, and have sizes that the model takes where it is measured.

    Raises ModelError when the model cannot be read, ConfigError when it has no batch dimension, or the target is wrong,
    ProviderUnavailable when a provider that was required cannot be had. What fails in a process is a `fault` there.
    """
    sizes = [
        check_integer(one, "a batch size", "--batch 1,4,16")
        for one in check_items(batches, "batches", "--batch 1,4,16")
    ]
    found = read_and_estimate(model, tuple(dict.fromkeys(sizes)), dimensions or {})
    if target is None:
        return found
    if not sizes:
        raise ConfigError("a target is named to measure on, but no batch size", hint="--batch 1,4,16")
    known = _checked(found, target, config)
    with _as_file(model) as path:
        request = {**known, "model": path, "in_memory": isinstance(model, bytes), "target": target}
        request["dimensions"] = dict(dimensions or {})
        rows = [replace(one, measured=_measured({**request, "batch": one.batch})) for one in found.batches]
    return replace(found, batches=tuple(rows))


def _checked(found: Inspection, target: str, config: ConfigSource) -> dict[str, object]:
    """Find the faults that need no process to be found, and probe once for all of them."""
    from epkit.config import file as files
    from epkit.config.target import read
    from epkit.discovery.registry import discover
    from epkit.session.open import check_fit, plan_for

    registry = discover()
    written = files.load(config)
    wanted = read(target, written, registry)
    check_fit(found.model, wanted)
    batch_dimensions(found.model.inputs, {*wanted.session_options.free_dimension_overrides, *wanted.warmup.dimensions})
    plan, _ = plan_for(wanted, registry)
    if plan.refusal is not None:
        step = plan.refusal
        raise ProviderUnavailable(f"{step.candidate.name} is not usable on this machine: {step.reason}", hint=step.hint)
    return {"config": dict(config) if isinstance(config, Mapping) else None if config is None else str(config)}


@contextlib.contextmanager
def _as_file(model: Source) -> Iterator[str]:
    """Give the path of a model; one given as bytes becomes a file for as long as it is needed."""
    if not isinstance(model, bytes):
        yield str(Path(model).absolute())
        return
    with make_scratch_folder() as folder:
        file = folder / "model.onnx"
        write_scratch(file, model)
        yield str(file)


def _measured(request: Mapping[str, object]) -> MeasuredMemory:
    with Child(WORKER) as child:
        child.send(request)
        reply: Mapping[str, Any] | None = child.receive(LIMIT_S)
        if reply is None:
            return _faulty(lost(child, "it was measured", str(request["target"])))
    fault = told(reply)
    return MeasuredMemory(**reply) if fault is None else _faulty(fault)


def _faulty(fault: Fault) -> MeasuredMemory:
    return MeasuredMemory(None, "", fault=fault.reason, hint=fault.hint)
