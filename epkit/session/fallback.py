"""Which of the planned providers does ONNX Runtime really open, and whose fault is it when it does not?

Adding a provider to the session options fails by itself, so the culprit is known. When creating the session fails, the
exception says nothing about whose fault it is: the first provider that is not the CPU is dropped and the rest tried
again; once that opens, those before the last one dropped are taken back if it still opens with them. It is the model's
fault exactly when the CPU alone fails too (or, where the CPU is forbidden, every provider alone).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any

from epkit.errors import ConfigError, ModelError, ProviderDropped
from epkit.model.file import Model, read_model
from epkit.runtime.api import OpenFault
from epkit.runtime.configured import CPU, Candidate
from epkit.runtime.placement import elsewhere
from epkit.session.attempt import Opening, create, create_cached, is_cpu, placement_of, take_out
from epkit.session.settings import without_cpu_rule

# ONNX Runtime's words for `session.disable_cpu_ep_fallback`; there is no code for it.
_OLDEST = 7
"""The oldest opset of which ONNX Runtime has kernels of all operators."""
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
    escapes = re.search(r'path: "(.*?)" resolved path: "(.*?)" allowed directory: "(.*?)"', cause)
    if escapes and not re.search(r"^/|\.\.", escapes[1]):
        return (
            f"the data may be no link to another folder: cp --remove-destination {escapes[2]} {escapes[3]}/{escapes[1]}"
        )
    if escapes or "absolute path not allowed" in lowered:
        return "save it with its data beside it: onnx.save(onnx.load(MODEL), NEW, save_as_external_data=True)"
    domain = re.search(r"no opset import for domain '(.*?)'", cause, re.IGNORECASE)
    if domain:
        return (
            f"say the version: model.opset_import.append(onnx.helper.make_opsetid({domain[1]!r}, 1)), and save it again"
        )
    found = _reread(opening)
    if found is not None and found.format != _format(opening):
        return f"it is in {found.format.upper()} format, and ONNX Runtime goes by the suffix: call it .{found.format}"
    if found is not None and 0 < found.opsets.get("ai.onnx", _OLDEST) < _OLDEST:
        told = f"its opset is {found.opsets['ai.onnx']}, and ONNX Runtime has operators from {_OLDEST} on"
        return f"{told}: onnx.version_converter.convert_version(onnx.load(MODEL), 17)"
    if "ir version" in lowered or "ir_version" in lowered:
        return "export it with an older onnx package, or: pip install -U onnxruntime-gpu"
    if "opset" in lowered:
        return "export it with an older opset, or: pip install -U onnxruntime-gpu"
    if "is not a registered function/op" in lowered or "no op registered for" in lowered:
        return "name the library that brings the operator under session_options.custom_ops_libraries"
    model = opening.model if isinstance(opening.model, str) else "MODEL"
    return f"epkit inspect {model}"


def _reread(opening: Opening) -> Model | None:
    """Read the model's file once more, for what it says of itself; None where that cannot be."""
    with contextlib.suppress(ModelError, ConfigError):
        return read_model(opening.model)
    return None


def _format(opening: Opening) -> str:
    """Return for what ONNX Runtime takes the model: of a file it looks at the suffix."""
    if isinstance(opening.model, str):
        return "ort" if opening.model.endswith(".ort") else "onnx"
    return "ort" if opening.model[4:8] == b"ORTM" else "onnx"


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
