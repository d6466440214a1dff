"""How is a model opened: from what was asked for to a session that is warmed up, with its report?"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

from epkit._system import platform, telemetry
from epkit.config.file import ConfigSource, load
from epkit.config.target import Target
from epkit.config.target import read as read_target
from epkit.discovery import probe
from epkit.discovery.registry import Registry, discover
from epkit.errors import (
    ConfigError,
    ProviderUnavailable,
    RuntimeMissing,
    nearest,
)
from epkit.model.file import Model, TensorInfo, read_model
from epkit.provider import Usable
from epkit.runtime import api, events, journal
from epkit.runtime.configured import Candidate
from epkit.runtime.placement import UNRECORDED
from epkit.runtime.plugin_calls import asked
from epkit.session.attempt import Before, Opening, drop, leave_out
from epkit.session.cache.session_cache import Compiled
from epkit.session.capture import capture
from epkit.session.context import check_context
from epkit.session.creation import open_next
from epkit.session.isolation import isolation
from epkit.session.plan import Plan, resolve
from epkit.session.report import Report, tried
from epkit.session.session import Session, narrowed_types, read_inputs
from epkit.session.settings import effective
from epkit.session.warm import warmed
from epkit.session.warmup import check_warmup

EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_WEIGHTS_IN_BYTES = ("session.use_ort_model_bytes_directly", "session.use_ort_model_bytes_for_initializers")


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
    written = load(config)
    registry = discover()
    wanted = read_target(target, written, registry, options=options, session_options=session_options)
    contents = read_model(model, folder=wanted.session_options.entries().get(EXTERNAL_FOLDER))
    check_fit(contents, wanted)
    plan, answers = plan_for(wanted, registry)
    session = open_plan(contents, plan, answers)
    session._again = partial(
        open,
        model if isinstance(model, bytes) else os.path.abspath(model),  # noqa: PTH100 - a text in every form
        target,
        options=options and dict(options),
        session_options=session_options and dict(session_options),
        config=_portable(config),
    )
    return session


def _portable(config: ConfigSource) -> ConfigSource:
    """Return a config that means the same in another process, whatever its working directory."""
    if config is None or isinstance(config, Mapping):
        return config and dict(config)
    return os.path.abspath(config)  # noqa: PTH100 - a text in every form


def check_fit(model: Model, target: Target) -> None:
    """Check what a target says of inputs and dimensions against those of the model; raises ConfigError."""
    if not model.is_parsed:
        check_bytes(model, target)
        return  # its inputs are checked once it is open
    check_inputs(model.inputs, target)


def check_bytes(model: Model, target: Target) -> None:
    """Refuse weights that point into bytes: ONNX Runtime keeps those that it points into no longer than it loads."""
    entries = target.session_options.entries()
    if isinstance(model.source, bytes) and all(entries.get(one) == "1" for one in _WEIGHTS_IN_BYTES):
        told = f"{' and '.join(_WEIGHTS_IN_BYTES)} give wrong numbers for a model given as bytes"
        hint = f"give the path of the model, or leave out {_WEIGHTS_IN_BYTES[1]}"
        raise ConfigError(f"target {target.name!r}: {told}", hint=hint)


def check_inputs(inputs: Sequence[TensorInfo], target: Target) -> None:
    """Check what a target says of inputs and dimensions; raises ConfigError."""
    dynamic = {size for one in inputs for size in one.shape or () if isinstance(size, str)}
    for name in target.session_options.free_dimension_overrides:
        if name not in dynamic:
            told = f"free_dimension_overrides names {name!r}, which is not a dimension of the model"
            raise ConfigError(f"target {target.name!r}: {told}", hint=nearest(name, dynamic, "dynamic dimensions"))
    check_warmup(inputs, target.warmup, target.session_options.free_dimension_overrides)
    shapes = {one.name: one.shape for one in inputs}
    for candidate in target.chain:
        fault = asked(candidate.provider.check_inputs, candidate.options, shapes)
        if fault:
            raise ConfigError(f"target {target.name!r}, options of {candidate.name}: {fault}")


def check_opened(opening: Opening) -> list[str]:
    """Check a target against the inputs of a model that tells them only now; return what to note. Raises ConfigError.

    ONNX Runtime fixes no dimension of a model in ORT format: its graph was settled when it was made.
    """
    target = opening.plan.target
    check_inputs(read_inputs(opening.session), target)
    overrides = target.session_options.free_dimension_overrides
    fixed = ", ".join(f"{name} = {size}" for name, size in overrides.items())
    return [f"free_dimension_overrides ({fixed}) does nothing to a model in ORT format"] if overrides else []


def plan_for(target: Target, registry: Registry, *, refresh: bool = False) -> tuple[Plan, dict[str, probe.Answer]]:
    """Probe the providers of a target, and resolve what to try. Raises RuntimeMissing without an ONNX Runtime."""
    if not api.installed():
        raise RuntimeMissing(api.MISSING, hint=api.MISSING_HINT)
    journal.begin()
    telemetry.request(target.telemetry)
    answers = probe.ask([(one.provider, one.device) for one in target.chain], registry, refresh=refresh)
    return resolve(target, {name: answer.availability for name, answer in answers.items()}), answers


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
        under_way.unknown = "" if model.is_parsed else UNRECORDED
        under_way.before = before or isolation(under_way, model, answers)
        return _opened(model, under_way, answers)


def _opened(model: Model, under_way: Opening, answers: Mapping[str, probe.Answer]) -> Session:
    plan, source, target = under_way.plan, under_way.model, under_way.plan.target
    said = check_context(model, plan)
    leave_out(under_way, model)
    warmup_seconds = 0.0
    while True:
        open_next(under_way)
        if not model.is_parsed:
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


def meddling(chain: Sequence[Candidate]) -> tuple[str, ...]:
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
