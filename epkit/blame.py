"""Which of the planned providers does ONNX Runtime really open, and whose fault is it when it does not?

Adding a provider to the session options fails by itself, so the culprit is known. When creating the session fails, the
exception says nothing about whose fault it is: the first provider that is not the CPU is dropped and the rest tried
again; once that opens, those before the last one dropped are taken back if it still opens with them. It is the model's
fault exactly when the CPU alone fails too (or, where the CPU is forbidden, every provider alone).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from epkit._runtime import OpenFault
from epkit.effective import without_cpu_rule
from epkit.errors import ModelError, ProviderDropped
from epkit.opening import Opening, create, create_cached, is_cpu, placement_of, take_out
from epkit.placement import elsewhere
from epkit.target import CPU, Candidate

# ONNX Runtime's words for `session.disable_cpu_ep_fallback`; there is no code for it.
CPU_FORBIDDEN = "fallback to CPU EP has been explicitly disabled"


def open_chain(opening: Opening, *, review: bool = True) -> Any:
    """Open a session with what is left of the chain, dropping who seems to be at fault, and reviewing that once."""
    suspects: list[Candidate] = []
    session, refusal = None, None
    while opening.remaining and session is None and refusal is None:
        try:
            session = create_cached(opening, opening.remaining, opening.settings)
        except OpenFault as fault:
            forbidden = CPU_FORBIDDEN in fault.cause
            if fault.candidate is not None and not forbidden:
                take_out(opening, fault.candidate, fault.cause, "failed to open", fault.hint)
            elif opening.compiled.doubt(fault.cause):
                continue
            elif forbidden:
                refusal = fault
            else:
                culprit = _suspect(opening)
                if culprit is None:
                    raise _models_fault(opening, _first_cause(opening, suspects) or fault.cause) from fault
                suspects.append(culprit)
                take_out(opening, culprit, fault.cause, "failed to open")
    # The last drop helped, where anything is left; the suspects before it may be innocent.
    last = next(reversed(opening.dropped), "") if opening.remaining else ""
    doubtful = [one for one in suspects if one.name != last]
    if review and doubtful:
        session = None  # its memory, before the next one wants some
        _take_back(opening, doubtful)
        if opening.remaining:
            return open_chain(opening, review=False)
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
        create(opening, chain, without_cpu_rule(opening.settings))
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
        placed = placement_of(opening, create(opening, opening.remaining, without_cpu_rule(opening.settings)))
        left = {name: share for name, share in placed.items() if name == CPU}
        told = elsewhere(left, "") or "some of its nodes"
    except OpenFault:
        told = "some of its nodes"
    return ProviderDropped(
        f"target {opening.plan.target.name!r} says cpu = false, but {names} leaves to the CPU: {told}",
        hint="allow the CPU with cpu = true, or take those operators out of the model",
    )
