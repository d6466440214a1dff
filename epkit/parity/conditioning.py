"""Measure how far rounding alone moves what a model computes.

On the CPU, the result of every operator is moved by up to one rounding step of its dtype, at random in each element,
and the model runs several times. Correct providers round differently, so nobody can ask them to agree better than these
runs do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from epkit.model.edit import ROUNDING_STEPS, add_outputs, add_rounding_noise
from epkit.parity.agreement import measured
from epkit.parity.divergence import Tensors, changed
from epkit.parity.outputs import read
from epkit.parity.process import ComparisonTask, TargetRun, run
from epkit.parity.tolerance import of_largest
from epkit.session.fault import WorkerFault
from epkit.session.request import PlannedTarget

DRAWS = 4
"""How many runs are compared; each draws anew."""


@dataclass(frozen=True, slots=True)
class Conditioning:
    """How far rounding alone moves an output, or the first tensor that differs, on the CPU."""

    moved: Mapping[str, float | None]
    """By output: the share of its largest magnitude; None where a NaN or an infinity came or went."""
    step: float
    """The rounding step by which results of operators were moved: of the widest dtype that was."""
    amplified: float | None
    """How many times the step that is, of the output that is moved most."""
    draws: int
    told: str

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return asdict(self)

    def share(self, name: str) -> float:
        """Return by how much an output is moved; 0 where that is not known."""
        found = self.moved.get(name, 0.0)
        return math.inf if found is None else found


def conditioning(
    found: Tensors, cpu: PlannedTarget, task: ComparisonTask, extra: Sequence[str] = ()
) -> Conditioning | WorkerFault:
    """Measure how far rounding moves the outputs, and the tensors named in `extra`, for the first seed of the task."""
    dtypes = {name: tensor["dtype"] for name, tensor in found.described.items() if name in found.makers}
    moving = {name: dtype for name, dtype in dtypes.items() if dtype in ROUNDING_STEPS}
    named = [name for name in extra if name not in found.outputs]
    contents = add_outputs(add_rounding_noise(found.contents, moving, task.seeds[0]), named)
    with changed(task, contents, seeds=task.seeds[:1] * DRAWS, repeats=True) as drawing:
        ran = run(cpu, drawing)
        if not isinstance(ran, TargetRun):
            return ran
        draws = [read(run.file) for run in ran.runs]
    moved: dict[str, float | None] = {}
    for draw in draws[1:]:
        for metrics in measured(draws[0], draw):
            before = moved.get(metrics.output, 0.0)
            lost = before is None or metrics.misplaced or (metrics.share is None and metrics.misplaced is not None)
            moved[metrics.output] = None if lost else max(before or 0.0, metrics.share or 0.0)
    step = max((ROUNDING_STEPS[dtype] for dtype in moving.values()), default=0.0)
    outputs = [name for name in moved if name not in named]
    most = max(outputs, key=lambda name: math.inf if moved[name] is None else moved[name] or 0.0, default="")
    amplified = (moved[most] or 0.0) / step if most and moved[most] is not None and step else None
    return Conditioning(moved, step, amplified, len(draws), _told(most, moved, step, amplified))


def _told(most: str, moved: Mapping[str, float | None], step: float, amplified: float | None) -> str:
    if not most or not step:
        return "the model computes nothing that rounding could move"
    what = f"one rounding step ({step:.1e}) after each operator moves {most} on the CPU alone"
    if moved[most] is None or amplified is None:
        return f"{what} to or from infinity"
    return f"{what} by {of_largest(moved[most] or 0.0)}: {amplified:.2g} times as much"
