"""A session on its way: what is left of the chain, how it is opened once, and how a provider is taken out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from epkit.errors import ProviderDropped
from epkit.model.file import Model, TensorInfo
from epkit.provider import Provider
from epkit.runtime import api, events
from epkit.runtime.api import Settings
from epkit.runtime.configured import CPU, Candidate
from epkit.runtime.placement import Share, placement
from epkit.runtime.plugin_calls import hint_for
from epkit.session.cache.session_cache import Compiled
from epkit.session.capture import Capture
from epkit.session.plan import Plan
from epkit.session.report import Outcome, Tried
from epkit.session.settings import without_cpu_rule

_PLAIN = "open the ONNX file that it was made from"
Before: TypeAlias = Callable[[Sequence[Candidate], bool], None]


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
    unknown: str = ""
    """Why it is not known where the nodes run; empty where it is."""
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
    def active(self) -> list[Candidate]:
        """The providers that took nodes; where that is not known, all that may have."""
        return [one for one in self.remaining if self.unknown or one.name in self.placed]

    @property
    def required(self) -> bool:
        """Whether the first provider of the chain must not be dropped."""
        return self.plan.target.required


def leave_out(opening: Opening, model: Model) -> None:
    """Drop the providers that crash on a tensor type of the model; raises ProviderDropped as `drop` does."""
    for candidate in tuple(opening.remaining):
        found = not_carried(candidate, model)
        if found is not None:
            told = f"it cannot carry {found.dtype} tensors, such as {found.name!r}"
            drop(opening, candidate, told, "failed to open")
        elif candidate.provider.unsupported_types and not model.is_parsed:
            lacking = ", ".join(candidate.provider.unsupported_types)
            told = f"it cannot carry tensors of {lacking}, and a model in ORT format does not tell whether it has any"
            drop(opening, candidate, told, "failed to open", _PLAIN)


def not_carried(candidate: Candidate, model: Model) -> TensorInfo | None:
    """Return a tensor of the model on whose type a provider crashes; None when there is none."""
    tensors = (*model.inputs, *model.outputs, *model.intermediates)
    return next(
        (one for one in tensors if any(lacking in one.dtype for lacking in candidate.provider.unsupported_types)), None
    )


def drop(opening: Opening, culprit: Candidate, cause: str, outcome: Outcome, hint: str = "") -> None:
    """Take a provider out of the chain, and tell of it; raises ProviderDropped when the target requires it."""
    take_out(opening, culprit, cause, outcome, hint)
    tell_dropped(opening, opening.dropped[culprit.name])


def take_out(opening: Opening, culprit: Candidate, cause: str, outcome: Outcome, hint: str = "") -> None:
    """Take a provider out of the chain, which may be taken back; raises ProviderDropped when the target requires it."""
    hint = hint_for(culprit.provider, cause) or hint
    if opening.required and culprit is opening.plan.target.first:
        verb = "did not open" if outcome == "failed to open" else "failed in warm-up"
        raise ProviderDropped(f"{culprit.name} {verb} for this model: {cause}", hint=hint)
    opening.dropped[culprit.name] = Tried(culprit.name, outcome, cause, hint)
    opening.remaining[:] = _without(opening, culprit)
    opening.compiled.trust()


def tell_dropped(opening: Opening, row: Tried) -> None:
    """Tell whoever listens that a provider was dropped, once it is known that it stays out."""
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
    return plain and candidate.provider.ort_name == api.CPU_ORT_NAME


def on_cpu(opening: Opening) -> Any:
    """Open the model on the CPU alone: the reference by which a failure is judged. Raises OpenFault."""
    return create(opening, (), without_cpu_rule(opening.settings))


def create(opening: Opening, chain: Sequence[Candidate], settings: Settings) -> Any:
    """Open a session of these providers without the cache; raises OpenFault."""
    if opening.before is not None:
        opening.before(chain, False)
    return api.create(opening.model, chain, settings)


def create_cached(opening: Opening, chain: Sequence[Candidate], settings: Settings, *, captures: bool = False) -> Any:
    """Open a session of these providers, which start from the cache or fill it; raises OpenFault."""
    if opening.before is not None:
        opening.before(chain, captures)
    opening.compiled.look(chain, settings)
    return api.create(opening.model, chain, settings, opening.compiled.sent)


def placement_of(opening: Opening, session: Any) -> dict[str, Share]:
    """Return what each provider took of the nodes of a session, by epkit's names."""
    names = {one.provider.ort_name: one.name for one in opening.remaining}
    return placement(api.assigned(session), {api.CPU_ORT_NAME: CPU} | names)
