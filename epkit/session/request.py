"""Decide which targets take part, plan them, and hand one to a process of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epkit._system import arguments
from epkit._system.process import Child
from epkit.config.file import Config, ConfigSource, load
from epkit.config.target import Target
from epkit.config.target import read as read_target
from epkit.discovery.probe import Answer
from epkit.discovery.registry import Registry, discover
from epkit.errors import RunError
from epkit.model.file import Model, read_model
from epkit.runtime.configured import CPU
from epkit.session.fault import Fault, lost, told
from epkit.session.open import EXTERNAL_FOLDER, plan_for
from epkit.session.plan import Plan, resolve


@dataclass(frozen=True, slots=True)
class Candidate:
    """One target that takes part, what was planned for it, and the answers that the plan rests on."""

    name: str
    plan: Plan
    answers: Mapping[str, Answer]

    @property
    def refused(self) -> Fault | None:
        """Why it cannot be opened at all, as far as the plan knows."""
        refusal = self.plan.refusal
        return None if refusal is None else Fault("unusable", "ProviderUnavailable", refusal.reason, refusal.hint)


def chosen(names: Sequence[str] | None, config: Config, registry: Registry) -> list[Target]:
    """Return the targets that were named, or else every provider that is installed: cpu first, then by rank.

    Raises ConfigError.
    """
    if names is None or not (names := arguments.check_names(names, "targets", "-t cpu -t openvino")):
        offered = registry.providers.values()
        names = [one.name for one in sorted(offered, key=lambda one: (one.name != CPU, one.rank, one.name))]
    return [strictly(read_target(name, config, registry)) for name in names]


def strictly(target: Target) -> Target:
    """Hold a target to its first provider, and leave the first run to whoever compares, in a process apart."""
    return replace(target, strict=True, warmup=target.warmup.model_copy(update={"runs": 0}), isolate_open=False)


def external_folder(target: Target) -> str | None:
    """Return where a target says that the model's external data lies."""
    return target.session_options.entries().get(EXTERNAL_FOLDER)


def planned(targets: Sequence[Target], registry: Registry, *, refresh: bool) -> list[Candidate]:
    """Probe what the targets need, all at once. Raises RuntimeMissing without an ONNX Runtime."""
    with ThreadPoolExecutor(max_workers=max(1, len(targets))) as pool:
        plans = list(pool.map(lambda target: plan_for(target, registry, refresh=refresh), targets))
    return [Candidate(target.name, plan, answers) for target, (plan, answers) in zip(targets, plans, strict=True)]


def sendable(config: ConfigSource) -> object:
    """Return a config as it can be sent to another process."""
    if config is None or isinstance(config, Mapping):
        return json.loads(json.dumps(config, default=str))
    return os.fspath(config)


def ask(
    candidate: Candidate, worker: str, request: Mapping[str, object], *, doing: str, limit_s: float
) -> Mapping[str, Any] | Fault:
    """Have a new process do one thing with a candidate, and return its reply, or what went wrong while `doing` it."""
    if candidate.refused is not None:
        return candidate.refused
    try:
        started = Child(worker)
    except RunError as error:
        return Fault("failed", type(error).__name__, error.message, error.hint)
    with started as child:
        child.send({**named(candidate), **request})
        reply: Mapping[str, Any] | None = child.receive(limit_s)
        if reply is None:
            return lost(child, doing, candidate.name)
    return told(reply) or reply


def named(candidate: Candidate) -> dict[str, object]:
    """Return what a process is told of a candidate; it does not probe again, and comes to the same plan."""
    return {
        "target": candidate.name,
        "answers": {name: answer.as_json() for name, answer in candidate.answers.items()},
    }


def located(file: Path, *, in_memory: bool) -> dict[str, object]:
    """Return what a process is told of a model: its file, and whether to open the bytes of it instead."""
    return {"model": str(file), "in_memory": in_memory}


def target_of(request: Mapping[str, Any], session_options: Mapping[str, object] | None = None) -> Target:
    """Return the target that a request names; session options that are given here come before its own."""
    found = read_target(request["target"], load(request["config"]), discover(), session_options=session_options)
    return strictly(found)


def model_of(request: Mapping[str, Any], target: Target) -> Model:
    """Return the model of a request, with its external data where the target says."""
    file = Path(request["model"])
    return read_model(file.read_bytes() if request["in_memory"] else file, folder=external_folder(target))


def plan_of(request: Mapping[str, Any], target: Target) -> tuple[Plan, dict[str, Answer]]:
    """Plan a target by the answers of a request, and return these too."""
    answers = {name: Answer.from_json(one) for name, one in request["answers"].items()}
    return resolve(target, {name: answer.availability for name, answer in answers.items()}), answers
