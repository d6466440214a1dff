"""Open the planned providers in one session: drop those that fail, and take back those that were not at fault.

Adding a provider to the session options fails by itself, so the failing one is known. When creating the session fails,
the exception does not name one: the first provider that is not the CPU is dropped (where the target requires its first
provider, those after it go first), and the rest is tried again. Once that opens, those dropped before the last one are
taken back if it still opens with them. The model is at fault exactly if the CPU alone fails too (or, where the CPU is
forbidden, every provider alone). A provider that fails in warm-up is dropped as well, and the rest opened anew. What is
cached is never a reason to drop a provider: after a failure with it, the same is tried without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from epkit.errors import ModelError, ProviderDropped
from epkit.runtime import create, events
from epkit.runtime.configured import CPU, ConfiguredProvider
from epkit.runtime.create import OpenFault
from epkit.runtime.placement import describe_others
from epkit.runtime.plugin_calls import hint_for
from epkit.session.opener import Created, Opener, is_cpu, read_placement
from epkit.session.plan import Plan
from epkit.session.report import CacheRow, Outcome, Tried, WarmupRow

if TYPE_CHECKING:
    from epkit.session.capture import Capture
    from epkit.session.session import Session

CPU_FORBIDDEN = "fallback to CPU EP has been explicitly disabled"
"""ONNX Runtime's words for `session.disable_cpu_ep_fallback`; there is no code for it."""

Stage: TypeAlias = Literal[
    "types", "add", "create", "cpu forbidden", "capture", "replay", "warm up", "review", "nothing left"
]
_MAY_BE_THE_CACHES: frozenset[Stage] = frozenset({"create", "cpu forbidden", "capture", "warm up"})
"""The stages at which what was cached may be at fault, and not a provider."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a chain is not the one that is opened, and at which stage of opening it."""

    stage: Stage
    cause: str = ""
    culprit: ConfiguredProvider | None = None
    """The provider at fault, where that is known."""
    hint: str = ""
    error: OpenFault | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A session that is warmed up."""

    session: Session
    created: Created
    warmup: tuple[WarmupRow, ...] = ()
    warmup_why: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenedChain:
    """What came of a plan: a session that is warmed up, and how it was come by."""

    ready: Ready
    dropped: Mapping[str, Tried]
    graph: Capture | None
    cache: tuple[CacheRow, ...]
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Remaining:
    """The providers of a plan that are left to be opened together, and why the others were dropped."""

    plan: Plan
    chain: tuple[ConfiguredProvider, ...]
    graph: Capture | None = None
    """Whether graphs were asked for, and what prevents it."""
    dropped: Mapping[str, Tried] = field(default_factory=dict)
    suspects: tuple[ConfiguredProvider, ...] = ()
    """Those that were dropped for a failure that names no provider, since the last warm-up."""
    reviewed: bool = False
    """Whether suspects were taken back already."""

    @property
    def captures(self) -> bool:
        """Whether the next session is to capture graphs."""
        graph = self.graph
        return graph is not None and graph.asked and graph.possible

    @property
    def doubtful(self) -> tuple[ConfiguredProvider, ...]:
        """The suspects that may be innocent: the last drop helped, where anything is left."""
        last = next(reversed(tuple(self.dropped)), "") if self.chain else ""
        return () if self.reviewed else tuple(suspect for suspect in self.suspects if suspect.name != last)


def open_chain(
    remaining: Remaining, opener: Opener, warm_up: Callable[[Created], Ready | Failure], known: Sequence[Failure] = ()
) -> OpenedChain:
    """Open a session with what is left of a plan, and warm it up, dropping what fails on the way.

    `known` are failures that need no attempt. Raises ModelError when no provider is at fault, ProviderDropped when the
    target requires what failed, or a placement that did not come about.
    """
    started, warmup_s, reported = time.perf_counter(), 0.0, 0
    try:
        for failure in known:
            remaining = _drop(remaining, failure)
        while True:
            if not remaining.suspects:
                reported = _notify_dropped(remaining, reported)
            result: Created | Ready | Failure = _create(remaining, opener)
            if isinstance(result, Created):
                reported = _notify_dropped(remaining, reported)
                begun = time.perf_counter()
                result = warm_up(result)
                warmup_s += time.perf_counter() - begun
            if isinstance(result, Ready):
                break
            remaining = _after(remaining, result, opener)
    finally:
        _notify_dropped(remaining, reported)
    seconds = {"open": time.perf_counter() - started - warmup_s, "warmup": warmup_s}
    cache = opener.keep_cache(result.created.active)
    return OpenedChain(result, remaining.dropped, remaining.graph, cache, seconds)


def _create(remaining: Remaining, opener: Opener) -> Created | Failure:
    """Create a session of what is left, with its nodes in place; raises ProviderDropped where they are not."""
    if not remaining.chain:
        return Failure("nothing left")
    _require_capture(remaining)
    captures = remaining.captures
    try:
        created = opener.create(remaining.chain, captures=captures)
    except OpenFault as fault:
        return Failure(_stage(fault, captures), fault.cause, fault.candidate, fault.hint, fault)
    if captures and (frozen := create.list_cpu_inputs(created.session)):
        return Failure("replay", f"input {frozen[0]!r} is read on the CPU, so that a replay would not see it change")
    if remaining.doubtful:
        return Failure("review")
    refusal = _placement_fault(remaining.plan, created)
    if refusal is not None:
        del created  # its memory, which the error would hold on to
        raise refusal
    return created


def _stage(fault: OpenFault, captures: bool) -> Stage:
    if captures:
        return "capture"
    if CPU_FORBIDDEN in fault.cause:
        return "cpu forbidden"
    return "create" if fault.candidate is None else "add"


def _require_capture(remaining: Remaining) -> None:
    target, graph = remaining.plan.target, remaining.graph
    if target.required and graph is not None and graph.asked and not graph.possible:
        message = f"target {target.name!r} asks for captured graphs, but {graph.summary()}"
        raise ProviderDropped(message, hint="leave cuda_graph out of the target")


def _placement_fault(plan: Plan, created: Created) -> ProviderDropped | None:
    """Return the error of a placement that the target does not allow; a model without nodes has none."""
    target, placed, unknown = plan.target, created.placement, created.placement_unknown
    first = target.first.name
    if unknown and (target.required or not target.cpu) and not all(is_cpu(candidate) for candidate in created.chain):
        message = f"target {target.name!r} asks that nodes run on {first}, but {unknown}"
        return ProviderDropped(message, hint="open the ONNX file that it was made from, or ask for nothing")
    if not placed or not target.required:
        return None
    if first not in placed:
        return ProviderDropped(
            f"{first} was registered but took no node of the model: {describe_others(placed, first)}",
            hint=f"a target with a fallback uses {first} where it can",
        )
    share = placed[first].share
    if target.min_placement is not None and share < target.min_placement:
        return ProviderDropped(
            f"{first} took {share:.4g} of the nodes where target {target.name!r} asks for {target.min_placement:g}; "
            f"elsewhere: {describe_others(placed, first)}",
            hint="lower min_placement, or take those operators out of the model",
        )
    return None


def _after(remaining: Remaining, failure: Failure, opener: Opener) -> Remaining:
    """Return what to open after a failure; raises what there is to report when there is nothing."""
    if failure.stage in _MAY_BE_THE_CACHES and opener.suspect_cache(failure.cause):
        return _afresh(remaining) if failure.stage == "warm up" else remaining
    match failure.stage:
        case "review":
            return _take_back(remaining, opener)
        case "cpu forbidden" | "nothing left" if remaining.doubtful:
            return _take_back(remaining, opener)
        case "cpu forbidden":
            raise _cpu_fault(remaining, opener) from failure.error
        case "nothing left":
            raise _nothing_left(remaining, opener)
        case "replay" | "capture":
            if failure.stage == "capture":
                opener.trust_cache()
            return _without_capture(remaining, failure.cause)
        case "create":
            culprit = _suspect(remaining, opener)
            if culprit is None:
                raise _model_fault(remaining, opener, failure.cause) from failure.error
            opener.trust_cache()
            left = _drop(remaining, replace(failure, culprit=culprit))
            return replace(left, suspects=(*left.suspects, culprit))
        case _:
            opener.trust_cache()
            left = _drop(remaining, failure)
            return _afresh(left) if failure.stage == "warm up" else left


def _afresh(remaining: Remaining) -> Remaining:
    """Return what is left after a session was opened: there is nobody to suspect any more."""
    return replace(remaining, suspects=(), reviewed=False)


def _drop(remaining: Remaining, failure: Failure) -> Remaining:
    """Take the culprit out of the chain; raises ProviderDropped when the target requires it."""
    culprit, target = failure.culprit, remaining.plan.target
    if culprit is None or culprit not in remaining.chain:
        return remaining
    hint = hint_for(culprit.provider, failure.cause) or failure.hint
    if target.required and culprit is target.first:
        verb = "failed in warm-up" if failure.stage == "warm up" else "did not open"
        raise ProviderDropped(f"{culprit.name} {verb} for this model: {failure.cause}", hint=hint)
    outcome: Outcome = "failed to warm up" if failure.stage == "warm up" else "failed to open"
    row = Tried(culprit.name, outcome, failure.cause, hint)
    left = replace(remaining, dropped={**remaining.dropped, culprit.name: row})
    left = replace(left, chain=_without(left, culprit))
    graph = left.graph
    if graph is None or not left.chain or left.chain[0].name == graph.provider or failure.stage in ("add", "create"):
        return left
    return _without_capture(left, f"{graph.provider} was dropped")


def _without(remaining: Remaining, culprit: ConfiguredProvider) -> tuple[ConfiguredProvider, ...]:
    """Return the rest of the chain, with the next provider that is the same to ONNX Runtime in place of the culprit."""
    twins = (
        step.candidate
        for step in remaining.plan.steps
        if step.decision == "same runtime provider" and step.candidate.name not in remaining.dropped
    )
    heir = next((twin for twin in twins if twin.provider.ort_name == culprit.provider.ort_name), None)
    left = [candidate for candidate in (*remaining.chain, heir) if candidate is not None and candidate is not culprit]
    return tuple(sorted(left, key=_order(remaining.plan).index))


def _order(plan: Plan) -> list[ConfiguredProvider]:
    return [step.candidate for step in plan.steps]


def _without_capture(remaining: Remaining, obstacle: str) -> Remaining:
    graph = remaining.graph
    return remaining if graph is None else replace(remaining, graph=replace(graph, obstacles=(obstacle,)))


def _take_back(remaining: Remaining, opener: Opener) -> Remaining:
    """Take back each of the suspects with which the rest of the chain opens after all."""
    for suspect in remaining.doubtful:
        remaining = _with(remaining, suspect, opener)
    # Where something is left, what fails from now on fails for a reason of its own.
    return replace(remaining, suspects=() if remaining.chain else remaining.suspects, reviewed=True)


def _with(remaining: Remaining, suspect: ConfiguredProvider, opener: Opener) -> Remaining:
    """Take a suspect back if the chain opens with it, in place of one that ONNX Runtime knows by the same name."""
    order = _order(remaining.plan)
    dropped = {name: row for name, row in remaining.dropped.items() if name != suspect.name}
    twin = next(
        (candidate for candidate in remaining.chain if candidate.provider.ort_name == suspect.provider.ort_name), None
    )
    if twin is not None and order.index(twin) < order.index(suspect):
        return replace(remaining, dropped=dropped)  # the twin that it stood in for is back
    chain = tuple(
        sorted((*(candidate for candidate in remaining.chain if candidate is not twin), suspect), key=order.index)
    )
    return replace(remaining, chain=chain, dropped=dropped) if opener.opens(chain) else remaining


def _suspect(remaining: Remaining, opener: Opener) -> ConfiguredProvider | None:
    """Return the provider to drop for a failure that names none; None when the model is at fault."""
    able = [candidate for candidate in remaining.chain if not is_cpu(candidate)]
    if not able or not remaining.plan.target.required:
        return able[0] if able else None
    first, *others = able
    if others and opener.opens([candidate for candidate in remaining.chain if candidate not in others]):
        return others[0]
    return first if _opens_alone(remaining.plan, opener) else None


def _opens_alone(plan: Plan, opener: Opener) -> bool:
    """Whether the CPU alone opens the model, or, where the CPU is forbidden, any provider alone."""
    usable = [step.candidate for step in plan.steps if step.decision != "unusable"]
    alone: list[tuple[ConfiguredProvider, ...]] = [()] if plan.target.cpu else [(candidate,) for candidate in usable]
    return any(opener.opens(chain) for chain in alone)


def _model_fault(remaining: Remaining, opener: Opener, cause: str = "") -> ModelError:
    from epkit.session.model_fault import model_fault

    first = remaining.dropped[remaining.suspects[0].name].reason if remaining.suspects else cause
    return model_fault(opener.model, first or cause, cpu=remaining.plan.target.cpu)


def _nothing_left(remaining: Remaining, opener: Opener) -> ModelError | ProviderDropped:
    if remaining.suspects:
        return _model_fault(remaining, opener)
    causes = "; ".join(f"{row.provider}: {row.reason}" for row in remaining.dropped.values())
    return ProviderDropped(
        f"no provider of target {remaining.plan.target.name!r} opened: {causes}", hint="epkit providers"
    )


def _cpu_fault(remaining: Remaining, opener: Opener) -> ProviderDropped:
    """Return the error of nodes that would run on the CPU, which the target forbids, with their operators."""
    names = ", ".join(candidate.name for candidate in remaining.chain)
    try:
        placed = read_placement(opener.create_freely(remaining.chain), remaining.chain)
        message = (
            describe_others({name: share for name, share in placed.items() if name == CPU}, "") or "some of its nodes"
        )
    except OpenFault:
        message = "some of its nodes"
    return ProviderDropped(
        f"target {remaining.plan.target.name!r} says cpu = false, but {names} leaves to the CPU: {message}",
        hint="allow the CPU with cpu = true, or take those operators out of the model",
    )


def _notify_dropped(remaining: Remaining, reported: int) -> int:
    """Call the observers for the dropped providers beyond the first `reported`; return their number."""
    target = remaining.plan.target.name
    for row in list(remaining.dropped.values())[reported:]:
        events.notify(events.Dropped(target, row.provider, row.outcome, row.reason, row.hint))
    return len(remaining.dropped)
