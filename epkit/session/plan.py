"""Choose which providers to try, in which order, and why.

A pure function: a target and what the machine answered go in, a plan comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from epkit.config.target import Target
from epkit.provider import Availability, Unusable, Usable
from epkit.runtime.configured import ConfiguredProvider


@dataclass(frozen=True, slots=True)
class Step:
    """One provider of the chain, and what becomes of it."""

    candidate: ConfiguredProvider
    decision: Literal["open", "unusable", "same runtime provider"]
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be tried. `refusal` names the step that makes the request impossible, None when there is none."""

    target: Target
    steps: tuple[Step, ...]
    refusal: Step | None = None

    @property
    def chain(self) -> tuple[ConfiguredProvider, ...]:
        """The providers that one session will be opened with, best first."""
        return tuple(step.candidate for step in self.steps if step.decision == "open")


def resolve(target: Target, availabilities: Mapping[str, Availability]) -> Plan:
    """Decide what to try.

    All usable providers of the chain go into one session, in order, so that nodes which the first cannot take go to the
    next. In one chain the first provider with an ONNX Runtime name wins.
    """
    steps: list[Step] = []
    winners: dict[str, str] = {}
    for candidate in target.chain:
        ort_name = candidate.provider.ort_name
        match availabilities[candidate.name]:
            case Unusable(reason, hint):
                steps.append(Step(candidate, "unusable", reason, hint))
            case Usable() if ort_name in winners:
                reason = f"same runtime provider as {winners[ort_name]}: both are ONNX Runtime's {ort_name}"
                steps.append(Step(candidate, "same runtime provider", reason, "take one of them out of the chain"))
            case Usable(detail):
                winners[ort_name] = candidate.name
                steps.append(Step(candidate, "open", detail))
    first = steps[0]
    if target.required and first.decision != "open":
        return Plan(target, tuple(steps), first)
    if not any(step.decision == "open" for step in steps):
        return Plan(target, tuple(steps), first)
    return Plan(target, tuple(steps))
