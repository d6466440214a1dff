"""Open a model: from what was asked for to a session that is warmed up, with its report."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

from epkit._system import platform, telemetry
from epkit.config.file import ConfigSource
from epkit.discovery import probe
from epkit.errors import ProviderUnavailable
from epkit.model.file import Model
from epkit.provider import Usable
from epkit.runtime import events, journal
from epkit.runtime.configured import ConfiguredProvider
from epkit.runtime.placement import UNRECORDED
from epkit.session.attempt import Before, Opening, drop, leave_out
from epkit.session.cache.session_cache import Compiled
from epkit.session.capture import capture
from epkit.session.checks import check_inputs
from epkit.session.context import check_context
from epkit.session.creation import open_next
from epkit.session.isolation import isolation
from epkit.session.plan import Plan
from epkit.session.report import Report, tried
from epkit.session.request import OpenRequest
from epkit.session.session import Session, narrowed_types, read_inputs
from epkit.session.settings import effective
from epkit.session.warm import warmed


def open(
    model: str | os.PathLike[str] | bytes,
    target: str | None = None,
    *,
    options: Mapping[str, object] | None = None,
    session_options: Mapping[str, object] | None = None,
    config: ConfigSource = None,
) -> Session:
    """Open a model on the best provider of a target that this machine really has.

    `model` is a path, or a model's bytes. `target` names a target of the config or a provider (then strictly that
    one); without it, the config's default or the automatic chain. `options` (of the first provider) and
    `session_options` are laid over what the target says; `config` is a file, or a mapping of the same shape.

    Raises ConfigError before anything is probed, ModelError when the model cannot be read or opened, ProviderError
    when a provider that was required cannot be had, RuntimeMissing without an ONNX Runtime.
    """
    return open_request(OpenRequest(model, target, options, session_options, config))


def open_request(request: OpenRequest) -> Session:
    """Open what was asked for, as `open` does."""
    model, planned = request.resolve()
    session = open_plan(model, planned.plan, planned.answers)
    session._again = partial(open_request, request.portable())
    return session


def check_opened(opening: Opening) -> list[str]:
    """Check a target against the inputs of a model that tells them only now; return what to note. Raises ConfigError.

    ONNX Runtime fixes no dimension of a model in ORT format: its graph was settled when it was made.
    """
    target = opening.plan.target
    check_inputs(read_inputs(opening.session), target)
    overrides = target.session_options.free_dimension_overrides
    fixed = ", ".join(f"{name} = {size}" for name, size in overrides.items())
    return [f"free_dimension_overrides ({fixed}) does nothing to a model in ORT format"] if overrides else []


def open_plan(
    model: Model, plan: Plan, answers: Mapping[str, probe.Answer], *, before: Before | None = None
) -> Session:
    """Open what was planned, strictly, and warm it up; `answers` are what the plan was made from.

    `before` is told of each chain before it is opened.
    """
    journal.begin()
    target = plan.target
    if plan.refusal is not None:
        step = plan.refusal
        message = f"{step.candidate.name} is not usable on this machine: {step.reason}"
        if not target.required:
            others = [one for one in plan.steps if one is not step]
            message += "".join(f"; nor is {one.candidate.name}: {one.reason}" for one in others)
        raise ProviderUnavailable(message, hint=step.hint)
    source = model.source if isinstance(model.source, bytes) else str(model.source)
    cores = platform.core_limit()
    with contextlib.closing(Compiled(model, target)) as compiled:
        under_way = Opening(
            plan,
            source,
            effective(plan, cores).settings,
            list(plan.chain),
            compiled,
            capture=capture(model, plan),
            capturing=effective(plan, cores, captures=True).settings,
        )
        under_way.unknown = "" if model.tells else UNRECORDED
        under_way.before = before or isolation(under_way, model, answers)
        return _opened(model, under_way, answers)


def _opened(model: Model, under_way: Opening, answers: Mapping[str, probe.Answer]) -> Session:
    plan, source, target = under_way.plan, under_way.model, under_way.plan.target
    said = check_context(model, plan)
    leave_out(under_way, model)
    warmup_seconds = 0.0
    while True:
        open_next(under_way)
        if not model.tells:
            said = [*check_opened(under_way)]
        watched = events.Watched(under_way.session) if events.observed() else None
        under_way.session = watched or under_way.session
        session = Session(under_way, model)
        started = time.perf_counter()
        warm = warmed(session, under_way, model)
        warmup_seconds += time.perf_counter() - started
        if warm.failed is None:
            break
        # Its memory, before the next one wants some.
        session.close()
        under_way.session = watched = None
        if under_way.compiled.doubt(warm.failed[1]):
            continue
        drop(under_way, *warm.failed, "failed to warm up")
    under_way.compiled.keep([one.name for one in under_way.active])
    notes = warm.planned.notes
    if not under_way.active:
        notes = ("the model has no node to run: it folds to constants, or passes its inputs through", *notes)
    session.report = Report(
        target=target.name,
        why=target.why,
        model=source if isinstance(source, str) else f"{len(source)} bytes",
        provider=under_way.provider,
        placement=under_way.placed,
        tried=tried(plan, under_way.dropped, under_way.placed, under_way.unknown),
        placement_unknown=under_way.unknown,
        warmup=warm.rows,
        warmup_why=warm.planned.why,
        graph=under_way.capture if under_way.capture is not None and under_way.capture.asked else None,
        cache=under_way.compiled.rows,
        notes=(
            *(*target.notes, *meddling(target.chain), *probe_notes(answers), *said),
            *telemetry.notes(target.telemetry),
            *(*_narrowing(session, under_way), *notes),
        ),
        metadata=dict(session.metadata),
        seconds={
            # The providers are probed side by side.
            "probe": max((one.seconds for one in answers.values()), default=0.0),
            "open": under_way.seconds,
            "warmup": warmup_seconds,
        }
        | ({"isolated": under_way.isolated} if target.isolate_open else {}),
    )
    if watched is not None:
        _tell(session.report, watched.number)
        watched.begin(session.report.provider)
    return session


def _tell(report: Report, number: int) -> None:
    for row in report.cache:
        events.tell(events.Cached(report.target, **asdict(row)))
    for one in report.warmup:
        events.tell(events.WarmedUp(report.target, one.shapes, one.runs, one.first_s, one.steady_s))
    nodes = {name: share.nodes for name, share in report.placement.items()}
    events.tell(events.Opened(number, report.model, report.target, report.provider, nodes, report.seconds))


def meddling(chain: Sequence[ConfiguredProvider]) -> tuple[str, ...]:
    """Name the environment variables that are set and change sessions of these providers behind one's back."""
    return tuple(
        f"{variable}={os.environ[variable]} is set in the environment and changes sessions of {candidate.name}"
        for candidate in chain
        for pattern in candidate.provider.environment
        for variable in sorted(os.environ)
        if fnmatch.fnmatchcase(variable, pattern)
    )


def _narrowing(session: Session, opening: Opening) -> list[str]:
    """Say which types of the model's inputs and outputs are computed in a narrower one."""
    present = {one.dtype for one in (*session.inputs, *session.outputs)}
    return [
        f"{provider} computes {wide} in {narrow}: larger numbers are refused as inputs, and rounded or wrong in between"
        for wide, (narrow, provider) in narrowed_types(opening).items()
        if wide in present
    ]


def probe_notes(answers: Mapping[str, probe.Answer]) -> list[str]:
    """Return what is unusual about the providers, and about how their answers were come by."""
    unusual = (answer.availability.note for answer in answers.values() if isinstance(answer.availability, Usable))
    return list(dict.fromkeys(note for note in (*unusual, *(one.note for one in answers.values())) if note))
