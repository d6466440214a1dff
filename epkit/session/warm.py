"""Warm a session up with sizes that suit the model, and find out which provider is at fault where that fails."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from epkit.config.target import Target
from epkit.errors import InputError, RunError
from epkit.model.assumed_sizes import read_image_hints
from epkit.model.file import Model
from epkit.model.shapes import infer_sizes
from epkit.runtime import api, create, events
from epkit.runtime.execution import Executor
from epkit.runtime.run_options import RunOptions
from epkit.runtime.size_search import KnownInputs, first_run
from epkit.runtime.timeout import Deadline
from epkit.session.checks import check_opened
from epkit.session.fallback import Failure, Ready
from epkit.session.opener import Created, Opener, is_cpu
from epkit.session.session import Session
from epkit.session.warmup import WarmupFault, WarmupPlan, plan_warmup, run_warmup, suspicious

_NONE: Mapping[str, int] = MappingProxyType({})


def warm_up_session(created: Created, *, model: Model, target: Target, opener: Opener) -> Ready | Failure:
    """Warm up what was created.

    A failure is that of the first provider that took a node, unless the CPU alone fails in the same way: then it is
    noted.
    """
    said = [] if model.is_parsed else check_opened(created.session, target)
    if events.has_observers():
        created = replace(created, session=events.ObservedSession(created.session))
    session = Session(created, model, target)
    seconds = target.warmup.timeout
    planned, looked = _plan(session, created, model, target), False
    outputs = session.outputs
    while True:
        try:
            with Deadline(seconds) as deadline:
                rows = run_warmup(session.stoppable(deadline), planned, session.inputs, outputs)
            return Ready(session, created, rows, planned.why, (*planned.notes, *said))
        except WarmupFault as fault:
            cause = f"it took longer than {seconds:g} s and was stopped" if deadline.expired else fault.cause
            culprit = next((candidate for candidate in created.active if not is_cpu(candidate)), None)
            reference = session._caller if culprit is None else _reference(opener, session)
            if culprit is not None and _is_sane(reference, session, fault, seconds):
                session.close()  # its memory, before the next one wants some
                return Failure("warm up", cause, culprit)
            if deadline.expired:
                note = f"warm-up took longer than {seconds:g} s and was stopped: say warmup.timeout, or warmup.shapes"
                return Ready(session, created, (), planned.why, (*planned.notes, *said, note))
            if fault.misdeclared:
                # Outputs come out as they are, whatever the model declares.
                said.append(f"{fault.cause}, on the CPU too")
                outputs = tuple(replace(output, shape=None) for output in outputs)
                continue
            sizes = None if looked else _other_sizes(reference, session, planned, model, seconds)
            if sizes is None:
                note = f"warm-up said {cause!r}, and so does the CPU: the inputs made up for it do not suit the model"
                return Ready(session, created, (), planned.why, (*planned.notes, *said, note))
            planned, looked = _plan(session, created, model, target, sizes), True


def _plan(
    session: Session, created: Created, model: Model, target: Target, others: Mapping[str, int] = _NONE
) -> WarmupPlan:
    providers = [candidate.provider for candidate in created.active]
    shrinks = target.shrink_above is not None
    return plan_warmup(
        session.inputs, target.warmup, providers, shrinks=shrinks, known=read_image_hints(model), others=others
    )


def _reference(opener: Opener, session: Session) -> Executor | None:
    """Open the model on the CPU alone, to compare what it computes from the same inputs."""
    with contextlib.suppress(create.OpenFault):
        opened = opener.create_freely(())
        return Executor(opened, api.load(), session.inputs, session.outputs, exotic=session._inputs.exotic)
    return None


def _is_sane(reference: Executor | None, session: Session, fault: WarmupFault, seconds: float) -> bool:
    if reference is None:
        return False
    with contextlib.suppress(RunError), Deadline(seconds) as deadline:
        return not suspicious(reference.run(fault.feed, None, deadline.options(reference)), session.outputs)
    return False


def _other_sizes(
    reference: Executor | None, session: Session, planned: WarmupPlan, model: Model, seconds: float
) -> Mapping[str, int] | None:
    """Look for sizes that the model takes on the CPU, where it refuses those that were assumed; None without any.

    Sizes that the target names are not replaced.
    """
    if reference is None or not planned.assumed:
        return None
    said = infer_sizes(session.inputs, planned.runs[0].shapes)
    given = KnownInputs(dimensions={name: size for name, size in said.items() if name not in planned.assumed})
    with contextlib.suppress(RunError, InputError), Deadline(seconds) as deadline:

        def run(feed: dict[str, object], options: RunOptions) -> object:
            single = deadline.options(reference)
            with options.applied(single, reference.runtime):
                return reference.run(feed, None, single)

        found = first_run(run, session.inputs, given, read_image_hints(model)).made.assumed
        return None if found == planned.assumed else found
    return None
