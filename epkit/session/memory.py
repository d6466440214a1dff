"""Estimate the memory that a model needs by batch size, and measure it.

Each batch size is measured in a process of its own, since the memory that one has taken hides what the next one needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from epkit._system.arguments import check_integer, check_items
from epkit._system.folders import make_scratch_folder
from epkit._system.process import Child
from epkit.errors import ConfigError
from epkit.model.inspect import Inspection, MeasuredMemory
from epkit.model.inspect import inspect as read_and_estimate
from epkit.model.shapes import batch_dimensions
from epkit.session.fault import WorkerFault, lost, read_fault

if TYPE_CHECKING:
    from epkit.config.file import ConfigSource
    from epkit.model.file import Model, Source
    from epkit.session.request import OpenRequest, PlannedTarget

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
        check_integer(batch, "a batch size", "--batch 1,4,16")
        for batch in check_items(batches, "batches", "--batch 1,4,16")
    ]
    found = read_and_estimate(model, tuple(dict.fromkeys(sizes)), dimensions or {})
    if target is None:
        return found
    if not sizes:
        raise ConfigError("a target is named to measure on, but no batch size", hint="--batch 1,4,16")
    from epkit.session.request import OpenRequest

    request = OpenRequest(model, target, config=config)
    planned = _plan(found.model, request)
    with make_scratch_folder() as folder:
        sent = {**request.for_child(folder).to_json(), **planned.to_json(), "dimensions": dict(dimensions or {})}
        rows = [replace(row, measured=_measure({**sent, "batch": row.batch})) for row in found.batches]
    return replace(found, batches=tuple(rows))


def _plan(model: Model, request: OpenRequest) -> PlannedTarget:
    """Find the faults that need no process to be found, and probe once for all of them."""
    from epkit.discovery.registry import discover
    from epkit.session.request import check_fit, plan_target

    registry = discover()
    target = request.read_target(registry)
    check_fit(model, target)
    batch_dimensions(model.inputs, {*target.session_options.free_dimension_overrides, *target.warmup.dimensions})
    planned = plan_target(target, registry)
    planned.check()
    return planned


def _measure(request: Mapping[str, object]) -> MeasuredMemory:
    with Child(WORKER) as child:
        child.send(request)
        reply: Mapping[str, Any] | None = child.receive(LIMIT_S)
        if reply is None:
            return _faulty(lost(child, "it was measured", str(request["target"])))
    fault = read_fault(reply)
    return MeasuredMemory(**reply) if fault is None else _faulty(fault)


def _faulty(fault: WorkerFault) -> MeasuredMemory:
    return MeasuredMemory(None, "", fault=fault.reason, hint=fault.hint)
