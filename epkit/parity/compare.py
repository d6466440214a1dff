"""Compare what several targets compute on one model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from epkit._system.arguments import check_integer, check_names
from epkit._system.folders import make_scratch_folder
from epkit.config.file import ConfigSource, load
from epkit.config.target import read as read_target
from epkit.discovery.registry import discover
from epkit.errors import ConfigError
from epkit.model.assumed_sizes import describe_assumed
from epkit.model.digest import digest_model
from epkit.model.file import Model, Source
from epkit.parity.agreement import Agreement, agreement, incomparable, judged
from epkit.parity.conditioning import Conditioning, conditioning
from epkit.parity.divergence import Divergence, Tensors, tensors, trace
from epkit.parity.feed import feed
from epkit.parity.outputs import NOTHING, read, tell_nothing
from epkit.parity.process import ComparisonTask, TargetRun, run
from epkit.parity.result import Comparison, Judgement, Row
from epkit.parity.tolerance import AUTO, Tolerance, determined, judge, tolerance_of
from epkit.runtime.configured import CPU
from epkit.session.fault import WorkerFault, raise_common_fault
from epkit.session.request import (
    OpenRequest,
    PlannedTarget,
    external_folder,
    plan_target,
    plan_targets,
    read_candidates,
    strictly,
)

SEEDS = 5
"""How many sets of made-up inputs are run: one of them may agree by luck."""


def compare(
    model: Source,
    targets: Sequence[str],
    *,
    config: ConfigSource = None,
    inputs: Mapping[str, str] | None = None,
    dimensions: Mapping[str, int] | None = None,
    seeds: int = SEEDS,
    tolerance: str | float = "auto",
    refresh: bool = False,
) -> Comparison:
    """Run a model on several targets, each strictly on its first provider, and compare the outputs with the first's.

    `inputs` maps names to .npy files; other inputs are made up, anew for each of `seeds` seeds, with the sizes that
    `dimensions` says for dynamic dimensions, else such as the model tells or takes. `tolerance` names a preset, or is
    the share of an output's largest magnitude by which it may be off. Where outputs differ, the first tensor of the
    graph that does is looked for, and how far rounding alone moves the outputs is measured.

    A target that cannot be had, fails or crashes is a row with its fault. Raises ConfigError before anything is probed,
    ModelError before any process is started; and the error that all targets have met, when it is the model's or the
    inputs': ModelError, RunError, ConfigError.
    """
    within = tolerance_of(tolerance)
    targets = check_names(targets, "targets", "-t cpu -t openvino")
    if len(targets) < 2:
        raise ConfigError(f"a comparison takes two targets or more, not {len(targets)}", hint="-t cpu -t openvino")
    check_integer(seeds, "the number of seeds", "give a number from 1 on: --seeds 5")
    written, registry = load(config), discover()
    wanted = read_candidates(targets, written, registry)
    request = OpenRequest(model, config=config)
    contents = request.read_model(*wanted)
    given = feed({} if inputs is None else inputs, wanted, contents, dimensions or {})
    sha256 = digest_model(contents)
    candidates = plan_targets(wanted, registry, refresh=refresh)
    with make_scratch_folder() as folder:
        task = ComparisonTask(
            request.for_child(folder),
            weights=_weights(contents, external_folder(*wanted)),
            feed=given,
            seeds=tuple(range(seeds)),
            folder=folder,
        )
        found = []
        for candidate in candidates:
            found.append(run(candidate, task))
            task = _settled(task, found[-1])
        raise_common_fault([result if isinstance(result, WorkerFault) else None for result in found])
        first = next((at for at, result in enumerate(found) if isinstance(result, TargetRun)), 0)

        def cpu() -> PlannedTarget:
            return plan_target(strictly(read_target(CPU, written, registry)), registry)

        looking = _Looking(contents, candidates[first], task, within, cpu)
        rows = tuple(
            _row(candidate, one, found[first] if at != first else None, looking)
            for at, (candidate, one) in enumerate(zip(candidates, found, strict=True))
        )
    reference = found[first]
    ran = reference if isinstance(reference, TargetRun) else None
    return Comparison(
        model="given as bytes" if isinstance(contents.source, bytes) else str(contents.source),
        model_sha256=sha256,
        reference=candidates[first].name,
        rows=rows,
        tolerance=within,
        inputs=ran.inputs if ran else (),
        seeds=tuple(run.seed for run in ran.runs) if ran else (),
        notes=(*written.ignored, *(_notes(ran, seeds, contents) if ran else ())),
    )


def _settled(task: ComparisonTask, found: TargetRun | WorkerFault) -> ComparisonTask:
    """Give all that follow the sizes with which the first has run."""
    if isinstance(found, WorkerFault) or task.feed.assumed is not None:
        return task
    return replace(task, feed=replace(task.feed, assumed=found.assumed))


def _weights(contents: Model, named: str | None) -> str:
    if not contents.external:
        return ""
    beside = Path() if isinstance(contents.source, bytes) else contents.source.parent
    return str(Path(named or beside).absolute())


def _notes(ran: TargetRun, seeds: int, contents: Model) -> list[str]:
    notes = []
    if ran.assumed:
        notes.append(describe_assumed(ran.assumed, contents.inputs))
    made_up = [str(tensor["name"]) for tensor in ran.inputs if tensor["origin"] == "made up"]
    if made_up and len(ran.runs) < seeds:
        sets = "only one set was" if len(ran.runs) == 1 else f"only {len(ran.runs)} sets were"
        message = f"inputs of integers and texts are made up as the same for every seed, so {sets} compared"
        notes.append(f"{message}: give --input for {', '.join(made_up)}")
    return notes


def _row(
    candidate: PlannedTarget,
    found: TargetRun | WorkerFault,
    reference: TargetRun | WorkerFault | None,
    looking: _Looking,
) -> Row:
    """Make a target's row; without a reference, it is the reference itself."""
    if isinstance(found, WorkerFault):
        return Row(candidate.name, candidate.plan.target.first.name, fault=found)
    row = Row(candidate.name, found.provider, found.summary, notes=found.notes)
    if not isinstance(reference, TargetRun):
        return row
    name = looking.reference.name
    runs = tuple(_judgements(name, reference, found, looking.within))
    wrong = [comparison for comparison in runs if not comparison.agreement.agree]
    if not wrong and all(tell_nothing(read(run.file)) for run in reference.runs):
        message = incomparable(name, NOTHING).told
        return replace(row, verdict="differ", told=f"{message}; give --input", runs=runs)
    if not wrong:
        largest = max(runs, key=lambda comparison: comparison.agreement.share or 0.0)
        return replace(row, verdict="agree", told=largest.agreement.told, runs=runs)
    worst = max(wrong, key=_how_wrong)
    if not worst.agreement.outputs:
        return replace(row, verdict="differ", told=worst.agreement.told, runs=runs)
    divergence, measured, notes = looking.at(candidate, worst)
    row = replace(row, divergence=divergence, conditioning=measured, notes=(*row.notes, *notes))
    runs = tuple(_conditioned(comparison, measured, looking.within) for comparison in runs)
    wrong = [comparison for comparison in runs if not comparison.agreement.agree]
    if not wrong:
        message = f"{max(runs, key=_how_wrong).agreement.told}: as far as this model allows"
        return replace(row, verdict="agree", told=message, runs=runs)
    message = f"{max(wrong, key=_how_wrong).agreement.told}; so in {len(wrong)} of {len(runs)} sets of inputs"
    if _arbitrary(worst.agreement, divergence, measured):
        return replace(row, verdict="ill-conditioned", told=message, runs=runs)
    return replace(row, verdict="differ", told=message, runs=runs)


def _judgements(name: str, reference: TargetRun, found: TargetRun, within: Tolerance) -> Iterator[Judgement]:
    for expected, other in zip(reference.runs, found.runs, strict=False):
        if expected.inputs_sha256 != other.inputs_sha256:
            yield Judgement(expected.seed, expected.inputs_sha256, incomparable(name, "its session wants other inputs"))
        else:
            agreed = agreement(name, read(expected.file), read(other.file), within)
            yield Judgement(expected.seed, expected.inputs_sha256, agreed)


def _how_wrong(judgement: Judgement) -> float:
    # Without a share there is a NaN, an infinity, another shape or another number of outputs.
    return math.inf if judgement.agreement.share is None else judgement.agreement.share


def _conditioned(judgement: Judgement, measured: Conditioning | None, within: Tolerance) -> Judgement:
    """Judge again, with what is known of the model."""
    if measured is None or not judgement.agreement.outputs:
        return judgement
    metrics = [each.metrics for each in judgement.agreement.outputs]
    moved = {each.output: measured.share(each.output) for each in metrics}
    return replace(judgement, agreement=judged(judgement.agreement.reference, metrics, {}, within, moved))


def _arbitrary(wrong: Agreement, divergence: Divergence | None, measured: Conditioning | None) -> bool:
    """Whether rounding makes the outputs that differ arbitrary, and explains the first tensor that does."""
    apart = [output.metrics.output for output in wrong.outputs if not output.agree]
    if measured is None or any(determined(measured.share(name)) for name in apart):
        return False
    first = None if divergence is None else divergence.metrics
    if first is None:
        return True
    moved = measured.share(first.output)
    return not determined(moved) or judge(first, AUTO, moved).agree


class _Looking:
    """What it takes to look into the model where outputs differ."""

    def __init__(
        self,
        contents: Model,
        reference: PlannedTarget,
        task: ComparisonTask,
        within: Tolerance,
        cpu: Callable[[], PlannedTarget],
    ) -> None:
        self.reference = reference
        self.within = within
        self._contents, self._task, self._plan_cpu = contents, task, cpu
        self._cpu: PlannedTarget | None = None
        self._tensors: Tensors | None = None

    def at(
        self, candidate: PlannedTarget, wrong: Judgement
    ) -> tuple[Divergence | None, Conditioning | None, tuple[str, ...]]:
        """Find where a candidate and the reference part, and how far rounding moves the outputs; notes say why not."""
        if not self._contents.is_parsed or self._contents.compiled_for:
            return None, None, ("the model cannot be looked into: it is not plain ONNX",)
        task = replace(self._task, seeds=(wrong.seed or 0,))
        if self._cpu is None or self._tensors is None:
            self._cpu = self._plan_cpu()
            self._tensors = tensors(self._contents, self._cpu, task)
        divergence = trace(self._tensors, (self.reference, candidate), task, self.within)
        measured = conditioning(self._tensors, self._cpu, task, (divergence.tensor,) if divergence.tensor else ())
        if isinstance(measured, WorkerFault):
            note = f"how far rounding moves the outputs was not measured on the CPU: {measured.reason}"
            return divergence, None, (note,)
        return divergence, measured, ()
