"""Warm a session up, with sizes that suit the model, and find out whose fault it is where that fails."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from epkit.errors import InputError, RunError
from epkit.model.assumed_sizes import read_image_hints
from epkit.model.file import Model
from epkit.model.shapes import infer_sizes
from epkit.runtime import api
from epkit.runtime.configured import Candidate
from epkit.runtime.deadline import Deadline
from epkit.runtime.execution import Caller
from epkit.runtime.run_options import RunOptions
from epkit.runtime.size_search import Given, first_run
from epkit.session.attempt import Opening, is_cpu, on_cpu
from epkit.session.report import WarmedUp
from epkit.session.session import Session
from epkit.session.warmup import Course, WarmupFault, course, suspicious, warm_up

_NONE: Mapping[str, int] = MappingProxyType({})

Failure = tuple[Candidate, str]


@dataclass(frozen=True, slots=True)
class Warm:
    """What warm-up did, and whose fault it was that it did no more."""

    planned: Course
    rows: tuple[WarmedUp, ...] = ()
    failed: Failure | None = None


def warmed(session: Session, opening: Opening, model: Model) -> Warm:
    """Warm up; a failure is the first provider's that took a node, unless the CPU alone fails in the same way."""
    seconds = opening.plan.target.warmup.timeout
    planned, looked = _course(session, opening, model), False
    outputs, said = session.outputs, list[str]()
    while True:
        try:
            with Deadline(seconds) as deadline:
                rows = warm_up(session.stoppable(deadline), planned, session.inputs, outputs)
            return Warm(_noted(planned, said), rows)
        except WarmupFault as fault:
            cause = f"it took longer than {seconds:g} s and was stopped" if deadline.passed else fault.cause
            culprit = next((one for one in opening.active if not is_cpu(one)), None)
            reference = _reference(opening, session) if culprit is not None else session._caller
            if culprit is not None and _is_sane(reference, session, fault, seconds):
                return Warm(planned, failed=(culprit, cause))
            if deadline.passed:
                note = f"warm-up took longer than {seconds:g} s and was stopped: say warmup.timeout, or warmup.shapes"
                return Warm(_noted(planned, [*said, note]))
            if fault.misdeclared:
                # Outputs come out as they are, whatever the model declares.
                said.append(f"{fault.cause}, on the CPU too")
                outputs = tuple(replace(one, shape=None) for one in outputs)
                continue
            sizes = None if looked else _others(reference, session, planned, model, seconds)
            if sizes is None:
                note = f"warm-up said {cause!r}, and so does the CPU: the inputs made up for it do not suit the model"
                return Warm(_noted(planned, [*said, note]))
            planned, looked = _course(session, opening, model, sizes), True


def _noted(planned: Course, said: Sequence[str]) -> Course:
    return replace(planned, notes=(*planned.notes, *said))


def _course(session: Session, opening: Opening, model: Model, others: Mapping[str, int] = _NONE) -> Course:
    target = opening.plan.target
    providers = [one.provider for one in opening.active]
    shrinks = target.shrink_above is not None
    return course(
        session.inputs, target.warmup, providers, shrinks=shrinks, known=read_image_hints(model), others=others
    )


def _reference(opening: Opening, session: Session) -> Caller | None:
    """Open the model on the CPU alone, to see what it says of the same inputs."""
    with contextlib.suppress(api.OpenFault):
        return Caller(on_cpu(opening), api.load(), session.inputs, session.outputs, exotic=session._inputs.exotic)
    return None


def _is_sane(reference: Caller | None, session: Session, fault: WarmupFault, seconds: float) -> bool:
    if reference is None:
        return False
    with contextlib.suppress(RunError), Deadline(seconds) as deadline:
        return not suspicious(reference.run(fault.feed, None, deadline.options(reference)), session.outputs)
    return False


def _others(
    reference: Caller | None, session: Session, planned: Course, model: Model, seconds: float
) -> Mapping[str, int] | None:
    """Look for sizes that the model takes on the CPU, where those that were assumed are not; None where there are none.

    What was made up for a shape that the target names is the target's affair.
    """
    if reference is None or not planned.assumed:
        return None
    said = infer_sizes(session.inputs, planned.runs[0].shapes)
    given = Given(dimensions={name: size for name, size in said.items() if name not in planned.assumed})
    with contextlib.suppress(RunError, InputError), Deadline(seconds) as deadline:

        def run(feed: dict[str, object], options: RunOptions) -> object:
            single = deadline.options(reference)
            with options.applied(single, reference.runtime):
                return reference.run(feed, None, single)

        found = first_run(run, session.inputs, given, read_image_hints(model)).made.assumed
        return None if found == planned.assumed else found
    return None
