"""Check whether a model that was compiled before, an EP-context model, can be opened here.

ONNX Runtime finds out only while it opens the model, in words of its own. What can be known before is asked before.
"""

from __future__ import annotations

from epkit.errors import ModelError
from epkit.model.file import Model
from epkit.runtime import create
from epkit.session.plan import Plan

_AGAIN = "compile it again from the original: epkit compile MODEL --output FILE --force"


def check_context(model: Model, plan: Plan) -> list[str]:
    """Check that the providers for which a model was compiled are in the plan and take it; return what to note.

    Raises ModelError when one is not, or does not. A plain model passes.
    """
    name = "the model given as bytes" if isinstance(model.source, bytes) else f"'{model.source}'"
    source = model.source if isinstance(model.source, bytes) else str(model.source)
    notes = []
    for ort_name in model.compiled_for:
        candidate = next((candidate for candidate in plan.chain if candidate.provider.ort_name == ort_name), None)
        if candidate is None:
            raise _nobody(name, ort_name, plan)
        answer = create.get_compatibility(source, candidate)
        if answer == "EP_UNSUPPORTED":
            message = f"{name} was compiled for {candidate.name}, but by another version or for another device"
            raise ModelError(f"{message}: {candidate.name} refuses it", hint=_AGAIN)
        if answer == "EP_SUPPORTED_PREFER_RECOMPILATION":
            notes.append(f"{candidate.name} takes {name} but would be faster with it compiled anew; {_AGAIN}")
    return notes


def _nobody(name: str, ort_name: str, plan: Plan) -> ModelError:
    """Say that no provider of the plan opens what was compiled for another."""
    for step in plan.steps:
        if step.candidate.provider.ort_name == ort_name:
            message = (
                f"{name} was compiled for {step.candidate.name}, which is not usable on this machine: {step.reason}"
            )
            return ModelError(message, hint=step.hint or "open the original model")
    wanted = ort_name.removesuffix("ExecutionProvider").lower() or "a provider that it does not name"
    message = f"{name} was compiled for {wanted}, which target {plan.target.name!r} does not have"
    return ModelError(
        message, hint=f"-t {wanted}, or open the original model" if ort_name else "open the original model"
    )
