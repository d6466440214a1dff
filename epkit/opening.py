"""Which of the planned providers does ONNX Runtime really open, and whose fault is it when it does not?

Adding a provider to the session options fails by itself, so the culprit is known. When creating the session fails, the
exception says nothing about whose fault it is: the first provider that is not the CPU is dropped and the rest tried
again; once that opens, those before the last one dropped are taken back if it still opens with them. It is the model's
fault exactly when the CPU alone fails too (or, where the CPU is forbidden, every provider alone).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from epkit import _runtime, events
from epkit._foreign import hint_for
from epkit._runtime import OpenFault, Settings
from epkit.capture import Capture, capturing
from epkit.compiled import Compiled
from epkit.effective import without_cpu_rule
from epkit.errors import ModelError, ProviderDropped
from epkit.model import Model, TensorInfo
from epkit.placement import Share, elsewhere, placement
from epkit.provider import Provider
from epkit.report import Outcome, Tried
from epkit.resolve import Plan
from epkit.target import CPU, Candidate

Before: TypeAlias = Callable[[Sequence[Candidate], bool], None]

# ONNX Runtime's words for `session.disable_cpu_ep_fallback`; there is no code for it.
CPU_FORBIDDEN = "fallback to CPU EP has been explicitly disabled"


@dataclass(slots=True)
class Opening:
    """A session on its way: what is left of the chain, what was dropped, and what ONNX Runtime did with the rest."""

    plan: Plan
    model: str | bytes
    settings: Settings
    remaining: list[Candidate]
    compiled: Compiled
    dropped: dict[str, Tried] = field(default_factory=dict)
    placed: dict[str, Share] = field(default_factory=dict)
    session: Any = None
    capture: Capture | None = None
    capturing: Settings | None = None
    """The settings of a session that captures graphs."""
    captures: bool = False
    """Whether the session captures graphs."""
    seconds: float = 0.0
    before: Before | None = None
    """Told of each chain before it is opened, and whether it captures; may refuse it with an OpenFault."""
    isolated: float = 0.0
    """The seconds that other processes took to open it first; they are not in `seconds`."""

    @property
    def provider(self) -> str | None:
        """The first provider of the chain that took a node."""
        return next((one.name for one in self.remaining if one.name in self.placed), None)

    @property
    def required(self) -> bool:
        """Whether the first provider of the chain must not be dropped."""
        return self.plan.target.required


def open_next(opening: Opening) -> None:
    """Open a session with what is left of the chain, dropping what fails on the way.

    Raises ModelError when no provider can be blamed, ProviderDropped when the target requires what failed, or a
    placement that did not come about.
    """
    started, isolated, told = time.perf_counter(), opening.isolated, len(opening.dropped)
    try:
        opening.session = _capturing(opening) or _created(opening)
    finally:
        # Not sooner: who was dropped may have been taken back.
        for row in list(opening.dropped.values())[told:]:
            _tell(opening, row)
    opening.seconds += time.perf_counter() - started - (opening.isolated - isolated)
    opening.placed = _placement(opening, opening.session)
    try:
        _hold_placement(opening)
    except ProviderDropped:
        opening.session = None  # its memory, which the error would hold on to
        raise


def leave_out(opening: Opening, model: Model) -> None:
    """Drop the providers that crash on a tensor type of the model; raises ProviderDropped as `drop` does."""
    for candidate in tuple(opening.remaining):
        found = not_carried(candidate, model)
        if found is not None:
            told = f"it cannot carry {found.dtype} tensors, such as {found.name!r}"
            drop(opening, candidate, told, "failed to open")


def not_carried(candidate: Candidate, model: Model) -> TensorInfo | None:
    """Return a tensor of the model on whose type a provider crashes; None when there is none."""
    tensors = (*model.inputs, *model.outputs, *model.intermediates)
    return next((one for one in tensors if any(lacking in one.dtype for lacking in candidate.provider.lacks)), None)


def drop(opening: Opening, culprit: Candidate, cause: str, outcome: Outcome, hint: str = "") -> None:
    """Take a provider out of the chain, and tell of it; raises ProviderDropped when the target requires it."""
    _take_out(opening, culprit, cause, outcome, hint)
    _tell(opening, opening.dropped[culprit.name])


def _take_out(opening: Opening, culprit: Candidate, cause: str, outcome: Outcome, hint: str = "") -> None:
    hint = hint_for(culprit.provider, cause) or hint
    if opening.required and culprit is opening.plan.target.first:
        verb = "did not open" if outcome == "failed to open" else "failed in warm-up"
        raise ProviderDropped(f"{culprit.name} {verb} for this model: {cause}", hint=hint)
    opening.dropped[culprit.name] = Tried(culprit.name, outcome, cause, hint)
    opening.remaining[:] = _without(opening, culprit)
    opening.compiled.trust()


def _tell(opening: Opening, row: Tried) -> None:
    events.tell(events.Dropped(opening.plan.target.name, row.provider, row.outcome, row.reason, row.hint))


def _without(opening: Opening, culprit: Candidate) -> list[Candidate]:
    """Return the rest of the chain, with the next provider that is the same to ONNX Runtime in place of the culprit."""
    twins = (
        step.candidate
        for step in opening.plan.steps
        if step.decision == "same runtime provider" and step.candidate.name not in opening.dropped
    )
    heir = next((one for one in twins if one.provider.ort_name == culprit.provider.ort_name), None)
    left = [one for one in (*opening.remaining, heir) if one is not None and one is not culprit]
    order = [step.candidate for step in opening.plan.steps]
    return sorted(left, key=order.index)


def is_cpu(candidate: Candidate) -> bool:
    """Whether a candidate is ONNX Runtime's own CPU, whatever its name, with nothing of a plugin's around it."""
    provider = type(candidate.provider)
    plain = provider.add is Provider.add and provider.open is Provider.open
    return plain and candidate.provider.ort_name == _runtime.CPU_ORT_NAME


def on_cpu(opening: Opening) -> Any:
    """Open the model on the CPU alone: the reference by which a failure is judged. Raises OpenFault."""
    return _create(opening, (), without_cpu_rule(opening.settings))


def _create(opening: Opening, chain: Sequence[Candidate], settings: Settings) -> Any:
    """Open a session of these providers without the cache; raises OpenFault."""
    if opening.before is not None:
        opening.before(chain, False)
    return _runtime.create(opening.model, chain, settings)


def _create_cached(opening: Opening, chain: Sequence[Candidate], settings: Settings, *, captures: bool = False) -> Any:
    """Open a session of these providers, which start from the cache or fill it; raises OpenFault."""
    if opening.before is not None:
        opening.before(chain, captures)
    opening.compiled.look(chain, settings)
    return _runtime.create(opening.model, chain, settings, opening.compiled.sent)


def _capturing(opening: Opening) -> Any | None:
    """Open a session that captures graphs, if one was asked for; None where that cannot be, which is then known."""
    capture = opening.capture
    opening.captures = False
    if capture is None or not capture.asked or not opening.remaining:
        return None
    if opening.remaining[0].name != capture.provider:
        opening.capture = capture = replace(capture, obstacles=(f"{capture.provider} was dropped",))
    if capture.possible and opening.capturing is not None:
        first, *rest = opening.remaining
        chain = [capturing(first), *rest]
        try:
            session = _create_cached(opening, chain, opening.capturing, captures=True)
        except OpenFault as fault:
            if opening.compiled.doubt(fault.cause):
                return _capturing(opening)
            opening.compiled.trust()
            opening.capture = capture = replace(capture, obstacles=(fault.cause,))
        else:
            frozen = _runtime.read_on_cpu(session)
            if not frozen:
                opening.captures = True
                return session
            del session  # its memory, before the next one wants some
            told = f"input {frozen[0]!r} is read on the CPU, so that a replay would not see it change"
            opening.capture = capture = replace(capture, obstacles=(told,))
    if opening.required:
        told = f"target {opening.plan.target.name!r} asks for captured graphs, but {capture.summary()}"
        raise ProviderDropped(told, hint="leave cuda_graph out of the target")
    return None


def _created(opening: Opening, *, review: bool = True) -> Any:
    """Open a session with what is left of the chain, dropping who seems to be at fault, and reviewing that once."""
    suspects: list[Candidate] = []
    session, refusal = None, None
    while opening.remaining and session is None and refusal is None:
        try:
            session = _create_cached(opening, opening.remaining, opening.settings)
        except OpenFault as fault:
            forbidden = CPU_FORBIDDEN in fault.cause
            if fault.candidate is not None and not forbidden:
                _take_out(opening, fault.candidate, fault.cause, "failed to open", fault.hint)
            elif opening.compiled.doubt(fault.cause):
                continue
            elif forbidden:
                refusal = fault
            else:
                culprit = _suspect(opening)
                if culprit is None:
                    raise _models_fault(opening, _first_cause(opening, suspects) or fault.cause) from fault
                suspects.append(culprit)
                _take_out(opening, culprit, fault.cause, "failed to open")
    # The last drop helped, where anything is left; the suspects before it may be innocent.
    last = next(reversed(opening.dropped), "") if opening.remaining else ""
    doubtful = [one for one in suspects if one.name != last]
    if review and doubtful:
        session = None  # its memory, before the next one wants some
        _take_back(opening, doubtful)
        if opening.remaining:
            return _created(opening, review=False)
    if session is not None:
        return session
    if refusal is not None:
        raise _forbidden(opening) from refusal
    if suspects:
        raise _models_fault(opening, _first_cause(opening, suspects))
    causes = "; ".join(f"{row.provider}: {row.reason}" for row in opening.dropped.values())
    raise ProviderDropped(
        f"no provider of target {opening.plan.target.name!r} opened: {causes}", hint="epkit providers"
    )


def _suspect(opening: Opening) -> Candidate | None:
    """Return who is dropped for a failure that names nobody; None when it is the model's."""
    able = [one for one in opening.remaining if not is_cpu(one)]
    if not able or not opening.required:
        return able[0] if able else None
    first, *others = able
    if others and _opens(opening, [one for one in opening.remaining if one not in others]):
        return others[0]
    return first if _opens_alone(opening) else None


def _first_cause(opening: Opening, suspects: Sequence[Candidate]) -> str:
    return opening.dropped[suspects[0].name].reason if suspects else ""


def _take_back(opening: Opening, suspects: Sequence[Candidate]) -> None:
    """Take back each of the providers that were dropped with which the rest of the chain opens after all."""
    order = [step.candidate for step in opening.plan.steps]
    for suspect in suspects:
        twin = next((one for one in opening.remaining if one.provider.ort_name == suspect.provider.ort_name), None)
        if twin is not None and order.index(twin) < order.index(suspect):
            del opening.dropped[suspect.name]  # the twin that it stood in for is back
            continue
        chain = sorted((*(one for one in opening.remaining if one is not twin), suspect), key=order.index)
        if _opens(opening, chain):
            del opening.dropped[suspect.name]
            opening.remaining[:] = chain


def _opens_alone(opening: Opening) -> bool:
    """Whether the CPU alone opens the model, or, where the CPU is forbidden, any provider alone."""
    usable = [step.candidate for step in opening.plan.steps if step.decision != "unusable"]
    alone: list[tuple[Candidate, ...]] = [()] if opening.plan.target.cpu else [(one,) for one in usable]
    return any(_opens(opening, candidates) for candidates in alone)


def _opens(opening: Opening, chain: Sequence[Candidate]) -> bool:
    """Whether a session of these providers opens, wherever its nodes land."""
    with contextlib.suppress(OpenFault):
        _create(opening, chain, without_cpu_rule(opening.settings))
        return True
    return False


def _models_fault(opening: Opening, cause: str) -> ModelError:
    name = opening.model if isinstance(opening.model, str) else "the model given as bytes"
    tried = "the CPU alone" if opening.plan.target.cpu else "any provider alone"
    return ModelError(f"{name} cannot be opened, not even by {tried}: {cause}", hint=_advice(cause, opening))


def _advice(cause: str, opening: Opening) -> str:
    lowered = cause.lower()
    if "ir version" in lowered or "ir_version" in lowered:
        return "export it with an older onnx package, or: pip install -U onnxruntime-gpu"
    if "opset" in lowered:
        return "export it with an older opset, or: pip install -U onnxruntime-gpu"
    if "is not a registered function/op" in lowered or "no op registered for" in lowered:
        return "name the library that brings the operator under session_options.custom_ops_libraries"
    model = opening.model if isinstance(opening.model, str) else "MODEL"
    return f"epkit inspect {model}"


def _forbidden(opening: Opening) -> ProviderDropped:
    """Say which operators would land on the CPU that the target forbids."""
    names = ", ".join(one.name for one in opening.remaining)
    try:
        placed = _placement(opening, _create(opening, opening.remaining, without_cpu_rule(opening.settings)))
        left = {name: share for name, share in placed.items() if name == CPU}
        told = elsewhere(left, "") or "some of its nodes"
    except OpenFault:
        told = "some of its nodes"
    return ProviderDropped(
        f"target {opening.plan.target.name!r} says cpu = false, but {names} leaves to the CPU: {told}",
        hint="allow the CPU with cpu = true, or take those operators out of the model",
    )


def _placement(opening: Opening, session: Any) -> dict[str, Share]:
    names = {one.provider.ort_name: one.name for one in opening.remaining}
    return placement(_runtime.assigned(session), {_runtime.CPU_ORT_NAME: CPU} | names)


def _hold_placement(opening: Opening) -> None:
    """Hold the target to what it asked of its first provider; a model without nodes asks nothing."""
    target, placed = opening.plan.target, opening.placed
    first = target.first.name
    if not placed or not opening.required:
        return
    if first not in placed:
        raise ProviderDropped(
            f"{first} was registered but took no node of the model: {elsewhere(placed, first)}",
            hint=f"a target with a fallback uses {first} where it can",
        )
    share = placed[first].share
    if target.min_placement is not None and share < target.min_placement:
        raise ProviderDropped(
            f"{first} took {share:.4g} of the nodes where target {target.name!r} asks for {target.min_placement:g}; "
            f"elsewhere: {elsewhere(placed, first)}",
            hint="lower min_placement, or take those operators out of the model",
        )
