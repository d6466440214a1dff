"""Check whether a model can be run as a captured graph on the provider that was planned for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from epkit.model.file import Model
from epkit.model.shapes import BINDABLE_DTYPES, find_unknown_outputs
from epkit.runtime.configured import ConfiguredProvider
from epkit.runtime.convert import format_type
from epkit.session.plan import Plan


@dataclass(frozen=True, slots=True)
class Capture:
    """Whether graphs were requested, of which provider, and what prevents them."""

    asked: bool
    provider: str
    obstacles: tuple[str, ...] = ()

    @property
    def possible(self) -> bool:
        """Whether nothing is known that prevents it."""
        return not self.obstacles

    def summary(self) -> str:
        """Return it as a sentence."""
        if self.obstacles:
            return f"graph capture is not possible: {'; '.join(self.obstacles)}"
        if not self.asked:
            return f"graph capture is possible on {self.provider}: cuda_graph = true in the target"
        return f"{self.provider} captures a graph for each combination of shapes of a binding; run() goes uncaptured"


def capture(model: Model, plan: Plan) -> Capture:
    """Check what can be known before a session is opened: the provider, control flow, types, and shapes."""
    first = plan.chain[0]
    found = [] if model.is_parsed else ["a model in ORT format tells neither its types nor its control flow"]
    if first.provider.capture is None:
        found.append(f"{first.name} captures no graphs")
    if model.has_control_flow:
        found.append("the model has If, Loop or Scan, so that which kernels run depends on the data")
    for kind, tensor in [*(("input", each) for each in model.inputs), *(("output", each) for each in model.outputs)]:
        if tensor.dtype not in BINDABLE_DTYPES:
            found.append(f"{kind} {tensor.name!r} is {tensor.dtype}, which cannot be bound on a device")
    found += [
        f"output {tensor.name!r} is {format_type(tensor.dtype, tensor.shape)}, "
        "whose shape does not follow from the inputs'"
        for tensor in find_unknown_outputs(model.inputs, model.outputs)
        if tensor.dtype in BINDABLE_DTYPES
    ]
    return Capture(plan.target.cuda_graph or first.captures, first.name, tuple(found))


def capturing(candidate: ConfiguredProvider) -> ConfiguredProvider:
    """Return the candidate with its switch for graph capture on."""
    switch = candidate.provider.capture.option if candidate.provider.capture is not None else None
    return replace(candidate, options=candidate.options.model_copy(update={switch: True})) if switch else candidate
