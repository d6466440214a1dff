"""Open what was planned, and report how it went."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from epkit._system import platform, telemetry
from epkit.discovery.probe import Answer
from epkit.errors import ProviderUnavailable
from epkit.model.file import Model, TensorInfo
from epkit.provider import Usable
from epkit.runtime import events
from epkit.runtime.configured import ConfiguredProvider
from epkit.runtime.placement import UNRECORDED
from epkit.session.fallback import Failure, OpenedChain, Remaining, open_chain
from epkit.session.opener import Crashes, Created, Observe, Opener
from epkit.session.plan import Plan, Step
from epkit.session.report import Report, tried
from epkit.session.session import Session, narrowed_types
from epkit.session.settings import build_settings
from epkit.session.warm import warm_up_session

if TYPE_CHECKING:
    from epkit.session.cache.session_cache import Compiled
    from epkit.session.capture import Capture

NO_CRASHES = Crashes()
_PLAIN = "open the ONNX file that it was made from"


def open_plan(model: Model, plan: Plan, answers: Mapping[str, Answer]) -> Session:
    """Open what was planned, strictly, and warm it up; `answers` are what the plan was made from."""
    events.start_log()
    if plan.refusal is not None:
        raise _unavailable(plan, plan.refusal)
    notes: list[str] = []
    if model.compiled_for:
        from epkit.session.context import check_context

        notes = check_context(model, plan)
    crashes, seconds = NO_CRASHES, {}
    if plan.target.isolate_open:
        from epkit.session.isolation import find_crashes

        started = time.perf_counter()
        crashes = find_crashes(model, plan, answers)
        seconds["isolated"] = time.perf_counter() - started
    opened = open_model(model, plan, crashes)
    # The providers are probed at the same time.
    probed = max((answer.seconds for answer in answers.values()), default=0.0)
    session = opened.ready.session
    notes = [*plan.target.notes, *environment_notes(plan.target.chain), *probe_notes(answers), *notes]
    session.report = _report(opened, model, plan, notes, {"probe": probed, **opened.seconds, **seconds})
    if isinstance(opened.ready.created.session, events.ObservedSession):
        _tell_opened(session.report, opened.ready.created.session)
    return session


def open_model(model: Model, plan: Plan, crashes: Crashes = NO_CRASHES, observe: Observe | None = None) -> OpenedChain:
    """Open the chain of a plan, and warm it up; `observe` is called before each session is created."""
    target = plan.target
    for candidate in target.chain:
        _ = candidate.sent  # a plugin that cannot encode its options is a PluginError, not a failure to open
    with contextlib.ExitStack() as stack:
        opener = Opener(
            model.source if isinstance(model.source, bytes) else str(model.source),
            build_settings(target, platform.core_limit()),
            "" if model.is_parsed else UNRECORDED,
            _cache(model, plan, stack),
            crashes,
            observe,
        )
        warm_up = partial(warm_up_session, model=model, target=target, opener=opener)
        return open_chain(Remaining(plan, plan.chain, _graph(model, plan)), opener, warm_up, _unsupported(plan, model))


def _cache(model: Model, plan: Plan, stack: contextlib.ExitStack) -> Compiled | None:
    """Return the cache of what providers compile, which closes with the stack; None where none compiles."""
    if all(step.candidate.provider.caching.compiles == "never" for step in plan.steps):
        return None
    from epkit.session.cache.session_cache import Compiled

    return stack.enter_context(contextlib.closing(Compiled(model, plan.target)))


def _graph(model: Model, plan: Plan) -> Capture | None:
    """Return whether graphs can be captured; None where the target does not ask for it."""
    if not plan.target.cuda_graph and not plan.chain[0].captures:
        return None
    from epkit.session.capture import capture

    return capture(model, plan)


def _unavailable(plan: Plan, refusal: Step) -> ProviderUnavailable:
    message = f"{refusal.candidate.name} is not usable on this machine: {refusal.reason}"
    if not plan.target.required:
        others = [step for step in plan.steps if step is not refusal]
        message += "".join(f"; nor is {step.candidate.name}: {step.reason}" for step in others)
    return ProviderUnavailable(message, hint=refusal.hint)


def _unsupported(plan: Plan, model: Model) -> list[Failure]:
    """Return a failure for each usable provider that crashes on a tensor type of the model."""
    return [
        Failure("types", cause, step.candidate, "" if model.is_parsed else _PLAIN)
        for step in plan.steps
        if step.decision != "unusable" and (cause := _unsupported_type(step.candidate, model))
    ]


def _unsupported_type(candidate: ConfiguredProvider, model: Model) -> str:
    """Return why a provider would crash on a tensor type of the model; empty when it would not."""
    tensor = unsupported_tensor(candidate, model)
    if tensor is not None:
        return f"it cannot carry {tensor.dtype} tensors, such as {tensor.name!r}"
    if candidate.provider.limits.unsupported_types and not model.is_parsed:
        listed = ", ".join(candidate.provider.limits.unsupported_types)
        return f"it cannot carry tensors of {listed}, and a model in ORT format does not tell whether it has any"
    return ""


def unsupported_tensor(candidate: ConfiguredProvider, model: Model) -> TensorInfo | None:
    """Return a tensor of the model on whose type a provider crashes; None when there is none."""
    types = candidate.provider.limits.unsupported_types
    tensors = (*model.inputs, *model.outputs, *model.intermediates) if types else ()
    return next((tensor for tensor in tensors if any(name in tensor.dtype for name in types)), None)


def _report(
    opened: OpenedChain, model: Model, plan: Plan, notes: Sequence[str], seconds: Mapping[str, float]
) -> Report:
    ready, created, target = opened.ready, opened.ready.created, plan.target
    provider = created.provider
    last = list(ready.notes)
    if not created.active:
        last.insert(0, "the model has no node to run: it folds to constants, or passes its inputs through")
    return Report(
        target=target.name,
        why=target.why,
        model=f"{len(model.source)} bytes" if isinstance(model.source, bytes) else str(model.source),
        provider=None if provider is None else provider.name,
        placement=created.placement,
        tried=tried(plan, opened.dropped, created.placement, created.placement_unknown),
        placement_unknown=created.placement_unknown,
        warmup=ready.warmup,
        warmup_why=ready.warmup_why,
        graph=opened.graph if opened.graph is not None and opened.graph.asked else None,
        cache=opened.cache,
        notes=(*notes, *telemetry.notes(target.telemetry), *_narrowing_notes(ready.session, created), *last),
        metadata=dict(ready.session.metadata),
        seconds=seconds,
    )


def _tell_opened(report: Report, watched: events.ObservedSession) -> None:
    """Call the observers for what was opened, and from now on for its runs."""
    for row in report.cache:
        events.notify(events.Cached(report.target, **asdict(row)))
    for shape in report.warmup:
        events.notify(events.WarmedUp(report.target, shape.shapes, shape.runs, shape.first_s, shape.steady_s))
    nodes = {name: share.nodes for name, share in report.placement.items()}
    events.notify(events.Opened(watched.number, report.model, report.target, report.provider, nodes, report.seconds))
    watched.begin(report.provider)


def environment_notes(chain: Sequence[ConfiguredProvider]) -> tuple[str, ...]:
    """Name the environment variables that are set and change sessions of these providers."""
    return tuple(
        f"{variable}={os.environ[variable]} is set in the environment and changes sessions of {candidate.name}"
        for candidate in chain
        for pattern in candidate.provider.environment
        for variable in sorted(os.environ)
        if fnmatch.fnmatchcase(variable, pattern)
    )


def probe_notes(answers: Mapping[str, Answer]) -> list[str]:
    """Return what is unusual about the providers, and about where the results of their probes come from."""
    unusual = (answer.availability.note for answer in answers.values() if isinstance(answer.availability, Usable))
    return list(dict.fromkeys(note for note in (*unusual, *(answer.note for answer in answers.values())) if note))


def _narrowing_notes(session: Session, created: Created) -> list[str]:
    """Return which types of the model's inputs and outputs are computed in a narrower one."""
    present = {tensor.dtype for tensor in (*session.inputs, *session.outputs)}
    return [
        f"{provider} computes {wide} in {narrow}: larger numbers are refused as inputs, and rounded or wrong in between"
        for wide, (narrow, provider) in narrowed_types(created).items()
        if wide in present
    ]
