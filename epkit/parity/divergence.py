"""Find the first tensor of the graph that two targets compute differently.

The tensors between the nodes are made outputs of the model, a group at a time so that memory stays bounded, and both
targets run what comes of it. A provider that fuses nodes cannot fuse across an output: what it computes then may differ
from before, so it is said whether the outputs of the model still do.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from epkit.model.edit import ALIASES, GraphNode, add_outputs, find_dependent_nodes
from epkit.model.file import Model
from epkit.model.types import BITS
from epkit.parity.agreement import measured
from epkit.parity.metrics import Metrics, measure
from epkit.parity.outputs import Outputs, read
from epkit.parity.process import ComparisonTask, TargetRun, run
from epkit.parity.tolerance import Tolerance, judge, of_largest
from epkit.session.request import EXTERNAL_FOLDER, PlannedTarget

GROUP_BYTES = 256 * 2**20
"""How much the tensors of one group hold together; one that is larger is a group of its own."""
UNKNOWN_BYTES = 16 * 2**20
"""What a tensor counts for whose size is not known before it runs."""
MOST_OPENINGS = 40
"""How often a target is opened at most."""
REFUSALS = frozenset({"ProviderDropped", "ModelError"})
"""What is raised where a session cannot be opened."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two targets part."""

    compared: int
    """How many tensors were compared, outputs among them, in the order of the graph."""
    reproduced: bool
    """Whether the outputs still differed when tensors in between were outputs too."""
    told: str
    tensor: str = ""
    """The first tensor that differs; empty when none was found."""
    node: str = ""
    operator: str = ""
    metrics: Metrics | None = None
    reads: Mapping[str, float] | None = None
    """What its node reads, by the share of the largest magnitude by which the two are apart there."""
    skipped: tuple[str, ...] = ()
    """Tensors that could not be compared, since a target does not open a model that has them as outputs."""

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {**asdict(self), "skipped": list(self.skipped)}


@dataclass(frozen=True, slots=True)
class Tensors:
    """The tensors that can be compared, in the order of the graph: what makes them, and what is known of them."""

    contents: bytes
    makers: Mapping[str, GraphNode]
    outputs: frozenset[str]
    described: Mapping[str, Mapping[str, Any]]
    """Name, dtype and shape, of those that ONNX Runtime knows."""

    def size(self, name: str) -> int:
        """Return the bytes of a tensor, a guess where they are not known."""
        found = self.described.get(name)
        if found is None or not all(isinstance(size, int) for size in found["shape"]):
            return UNKNOWN_BYTES
        elements: int = prod(found["shape"])
        return elements * BITS.get(found["dtype"], 64) // 8


def tensors(model: Model, candidate: PlannedTarget, task: ComparisonTask) -> Tensors:
    """Find the tensors of a model, and ask ONNX Runtime on a target what they are, without running it."""
    contents = model.source if isinstance(model.source, bytes) else model.source.read_bytes()
    found = find_dependent_nodes(contents, [tensor.name for tensor in model.inputs])
    used = {name for node in found for name in node.inputs}
    outputs = frozenset(output.name for output in model.outputs)
    # What nobody reads is an output that was left out, or a mask that only training wants.
    wanted = [name for node in found for name in node.outputs if node.operator not in ALIASES and name in used]
    makers = {name: node for node in found for name in node.outputs if name in outputs or name in wanted}
    with changed(task, add_outputs(contents, [name for name in wanted if name not in outputs]), seeds=()) as opening:
        asked = run(candidate, opening)
    described = {tensor["name"]: tensor for tensor in asked.outputs} if isinstance(asked, TargetRun) else {}
    return Tensors(contents, makers, outputs, described)


@contextlib.contextmanager
def changed(task: ComparisonTask, contents: bytes, **changes: Any) -> Iterator[ComparisonTask]:
    """Give the task for a model that was changed; its files are gone afterwards."""
    with tempfile.TemporaryDirectory(dir=task.folder) as folder:
        session_options = {"config": {EXTERNAL_FOLDER: task.weights}} if task.weights else None
        request = replace(task.request, model=contents, session_options=session_options).for_child(Path(folder))
        yield replace(task, request=request, altered=True, folder=Path(folder), **changes)


def trace(found: Tensors, sides: Sequence[PlannedTarget], task: ComparisonTask, tolerance: Tolerance) -> Divergence:
    """Find the first tensor that differs between two targets, for the first seed of the task."""
    strict = replace(tolerance, conditioned=False)
    exposing = [_Exposing(side, task, found.contents) for side in sides]
    shares: dict[str, float] = {}
    compared, reproduced, first = 0, False, None
    for group in groups(found):
        between = [name for name in group if name not in found.outputs]
        one, other = (each.outputs(between) for each in exposing)
        alike = {metrics.output: judge(metrics, strict).agree for metrics in measured(one, other)}
        reproduced = reproduced or not all(alike.get(name, True) for name in found.outputs)
        for name in group:
            if name not in one.arrays or name not in other.arrays:
                continue
            compared += 1
            metrics = measure(name, one.arrays[name], other.arrays[name], one.dtypes[name], other.dtypes[name])
            shares[name] = metrics.share or 0.0
            if not judge(metrics, strict).agree:
                first = metrics
                break
        if first is not None:
            break
    skipped = tuple(dict.fromkeys(name for each in exposing for name in each.skipped))
    if first is None:
        message = f"none of the {compared} tensors compared differs"
        if not reproduced:
            message += ", nor do the outputs once these are outputs too: the difference comes of fusing nodes"
        return Divergence(compared, reproduced, message, skipped=skipped)
    node = found.makers[first.output]
    reads = {name: shares[name] for name in node.inputs if name in shares and name != first.output}
    message = f"the first tensor that differs is {first.output}, of {node.label}"
    if first.share is not None:
        message += f", by {of_largest(first.share)}"
    message += (
        f"; what it reads differs by {max(reads.values()):.1e} at most" if reads else "; what it reads is the same"
    )
    return Divergence(
        *(compared, reproduced, message, first.output, node.name, node.operator, first, reads),
        skipped=skipped,
    )


def groups(found: Tensors) -> Iterator[list[str]]:
    """Part the tensors into groups of a bounded size, in the order of the graph."""
    group, size = list[str](), 0
    for name in found.makers:
        more = 0 if name in found.outputs else found.size(name)
        if group and size + more > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += more
    if group:
        yield group


class _Exposing:
    """One target, which runs the model with some of its tensors as outputs."""

    def __init__(self, candidate: PlannedTarget, task: ComparisonTask, contents: bytes) -> None:
        self.skipped: list[str] = []
        self._candidate, self._task, self._contents = candidate, task, contents
        self._openings = 0
        self._plain: Outputs | None = None

    def outputs(self, names: Sequence[str]) -> Outputs:
        """Return these tensors, and the outputs of the model; what the target does not give is left out.

        A target may refuse a model for one of its outputs, so a group that is refused is halved.
        """
        if self._openings >= MOST_OPENINGS:
            self.skipped.extend(names)
            return Outputs({}, {}, {})
        self._openings += 1
        with changed(self._task, add_outputs(self._contents, names)) as task:
            found = run(self._candidate, task)
            if isinstance(found, TargetRun):
                return read(found.runs[0].file)
        if len(names) < 2 or found.kind not in REFUSALS:
            self.skipped.extend(names)
            if self._plain is None:
                self._plain = self.outputs(()) if names else Outputs({}, {}, {})
            return self._plain
        half = len(names) // 2
        first, second = self.outputs(names[:half]), self.outputs(names[half:])
        return Outputs(
            {**first.arrays, **second.arrays},
            {**first.dtypes, **second.dtypes},
            {**first.left_out, **second.left_out},
        )
