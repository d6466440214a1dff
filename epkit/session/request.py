"""Resolve what was asked for, a model and a target, to a plan; send it to a process of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epkit._system import arguments, telemetry
from epkit._system.folders import write_scratch
from epkit._system.process import Child
from epkit.config.file import Config, ConfigSource, load
from epkit.config.target import Target
from epkit.config.target import read as read_target
from epkit.discovery import probe
from epkit.discovery.probe import Answer
from epkit.discovery.registry import Registry, discover
from epkit.errors import ConfigError, ProviderUnavailable, RunError, RuntimeMissing
from epkit.model.file import Model, Source, read_model
from epkit.runtime import api, events
from epkit.runtime.configured import CPU
from epkit.session.checks import check_inputs
from epkit.session.fault import WorkerFault, lost, read_fault
from epkit.session.plan import Plan, resolve

EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_WEIGHTS_IN_BYTES = ("session.use_ort_model_bytes_directly", "session.use_ort_model_bytes_for_initializers")


@dataclass(frozen=True, slots=True)
class PlannedTarget:
    """A target, what is tried for it, and the answers of the probes that the plan rests on."""

    plan: Plan
    answers: Mapping[str, Answer]

    @property
    def name(self) -> str:
        """The target's name."""
        return self.plan.target.name

    @property
    def refused(self) -> WorkerFault | None:
        """Why it cannot be opened at all, as far as the plan knows."""
        refusal = self.plan.refusal
        return None if refusal is None else WorkerFault("unusable", "ProviderUnavailable", refusal.reason, refusal.hint)

    def check(self) -> None:
        """Raise ProviderUnavailable where it cannot be opened at all, as far as the plan knows."""
        if (step := self.plan.refusal) is not None:
            reason = f"{step.candidate.name} is not usable on this machine: {step.reason}"
            raise ProviderUnavailable(reason, hint=step.hint)

    def to_json(self) -> dict[str, object]:
        """Return what a request to another process says of it, so that it comes to the same plan without probing."""
        return {"target": self.name, "answers": {name: answer.as_json() for name, answer in self.answers.items()}}


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A model and the target to open it on, as the caller gave them.

    `resolve` does all that comes before opening: it reads the target and the model, and plans. A caller that has
    something to do in between takes the same steps one by one: `read_target`, `read_model`, and `plan_target`.
    """

    model: Source
    target: str | None = None
    options: Mapping[str, object] | None = None
    session_options: Mapping[str, object] | None = None
    config: ConfigSource = None
    refresh: bool = False
    """Whether to probe anew instead of trusting remembered answers."""
    answers: Mapping[str, Answer] | None = None
    """Answers of probes that another process has made; with them, nothing is probed."""
    in_memory: bool = False
    """Whether the model was given as bytes, which now lie in the file `model`."""

    def resolve(self, change: Callable[[Target], Target] | None = None) -> tuple[Model, PlannedTarget]:
        """Read target and model, and plan; `change` is applied to the target before it is used.

        Raises ConfigError, ModelError, and RuntimeMissing, all before anything is probed.
        """
        registry = discover()
        target = self.read_target(registry)
        target = change(target) if change is not None else target
        model = self.read_model(target)
        return model, plan_target(target, registry, refresh=self.refresh, answers=self.answers)

    def read_target(self, registry: Registry) -> Target:
        """Read the config, and validate the target; raises ConfigError."""
        config = load(self.config)
        return read_target(self.target, config, registry, options=self.options, session_options=self.session_options)

    def read_model(self, *targets: Target) -> Model:
        """Read the model, with external data where the first target says that names a folder; check that it fits all.

        Raises ModelError, ConfigError.
        """
        model = read_model(self.model, folder=external_folder(*targets))
        for target in targets:
            check_fit(model, target)
        return model

    def portable(self) -> OpenRequest:
        """Return a request that means the same in another process, whatever its working directory."""
        given = self.config
        return replace(
            self,
            model=self.model if isinstance(self.model, bytes) else os.path.abspath(self.model),  # noqa: PTH100 - a text in every form
            options=self.options and dict(self.options),
            session_options=self.session_options and dict(self.session_options),
            config=given and (dict(given) if isinstance(given, Mapping) else os.path.abspath(given)),  # noqa: PTH100
        )

    def for_child(self, folder: Path) -> OpenRequest:
        """Return a request that can be sent to a child process: a model given as bytes becomes a file in `folder`."""
        if not isinstance(self.model, bytes):
            return self
        file = folder / "model.onnx"
        write_scratch(file, self.model)
        return replace(self, model=file, in_memory=True)

    def to_json(self) -> dict[str, object]:
        """Return the request as JSON values; a model given as bytes must have become a file."""
        assert not isinstance(self.model, bytes)
        answers = self.answers
        return {
            "model": os.fsdecode(self.model),
            "target": self.target,
            "options": _plain(self.options),
            "session_options": _plain(self.session_options),
            "config": _plain(self.config),
            "answers": None if answers is None else {name: answer.as_json() for name, answer in answers.items()},
            "in_memory": self.in_memory,
        }

    @classmethod
    def from_json(cls, sent: Mapping[str, Any]) -> OpenRequest:
        """Return the request that was sent, with the bytes of the model if it was given as bytes."""
        file, answers = Path(sent["model"]), sent["answers"]
        return cls(
            model=file.read_bytes() if sent["in_memory"] else file,
            target=sent["target"],
            options=sent["options"],
            session_options=sent["session_options"],
            config=sent["config"],
            answers=None if answers is None else {name: Answer.from_json(answer) for name, answer in answers.items()},
        )


def _plain(given: ConfigSource) -> Any:
    """Return a mapping or a path as JSON values."""
    if given is None or isinstance(given, Mapping):
        return json.loads(json.dumps(given if given is None else dict(given), default=_plain_value))
    return os.fspath(given)


def _plain_value(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


def external_folder(*targets: Target) -> str | None:
    """Return where the external data of the model lies: as the first target says that names a folder."""
    return next(filter(None, (target.session_options.entries().get(EXTERNAL_FOLDER) for target in targets)), None)


def check_fit(model: Model, target: Target) -> None:
    """Check what a target says of inputs and dimensions against those of the model; raises ConfigError."""
    if model.is_parsed:
        check_inputs(model.inputs, target)
    else:  # its inputs are checked once it is open
        _check_weights(model, target)


def _check_weights(model: Model, target: Target) -> None:
    """Refuse weights that point into bytes: ONNX Runtime keeps those that it points into no longer than it loads."""
    entries = target.session_options.entries()
    if isinstance(model.source, bytes) and all(entries.get(key) == "1" for key in _WEIGHTS_IN_BYTES):
        found = f"{' and '.join(_WEIGHTS_IN_BYTES)} give wrong numbers for a model given as bytes"
        hint = f"give the path of the model, or leave out {_WEIGHTS_IN_BYTES[1]}"
        raise ConfigError(f"target {target.name!r}: {found}", hint=hint)


def plan_target(
    target: Target, registry: Registry, *, refresh: bool = False, answers: Mapping[str, Answer] | None = None
) -> PlannedTarget:
    """Probe the providers of a target unless the `answers` are known, and resolve what to try.

    Raises RuntimeMissing without an ONNX Runtime.
    """
    if answers is None:
        if not api.is_installed():
            raise RuntimeMissing(api.MISSING, hint=api.MISSING_HINT)
        events.start_log()
        telemetry.request(target.telemetry)
        answers = probe.ask(
            [(candidate.provider, candidate.device) for candidate in target.chain], registry, refresh=refresh
        )
    return PlannedTarget(resolve(target, {name: answer.availability for name, answer in answers.items()}), answers)


def plan_targets(targets: Sequence[Target], registry: Registry, *, refresh: bool = False) -> list[PlannedTarget]:
    """Probe what the targets need, all at the same time. Raises RuntimeMissing without an ONNX Runtime."""
    with ThreadPoolExecutor(max_workers=max(1, len(targets))) as pool:
        return list(pool.map(lambda target: plan_target(target, registry, refresh=refresh), targets))


def read_candidates(names: Sequence[str] | None, config: Config, registry: Registry) -> list[Target]:
    """Return the targets that were named, or else every provider that is installed: cpu first, then by rank.

    Each is held to its first provider. Raises ConfigError.
    """
    if names is None or not (names := arguments.check_names(names, "targets", "-t cpu -t openvino")):
        offered = sorted(
            registry.providers.values(), key=lambda provider: (provider.name != CPU, provider.rank, provider.name)
        )
        names = [provider.name for provider in offered]
    return [strictly(read_target(name, config, registry)) for name in names]


def strictly(target: Target) -> Target:
    """Hold a target to its first provider, and leave its first run to the caller, in a process apart."""
    return replace(apart(target), strict=True)


def apart(target: Target) -> Target:
    """Leave the first run of a target to the caller, which opens it in a process apart."""
    return replace(target, warmup=target.warmup.model_copy(update={"runs": 0}), isolate_open=False)


def ask(
    candidate: PlannedTarget, worker: str, request: Mapping[str, object], *, doing: str, limit_s: float
) -> Mapping[str, Any] | WorkerFault:
    """Have a new process do one thing with a candidate, and return its reply, or what went wrong while `doing` it."""
    if candidate.refused is not None:
        return candidate.refused
    try:
        started = Child(worker)
    except RunError as error:
        return WorkerFault("failed", type(error).__name__, error.message, error.hint)
    with started as child:
        child.send({**request, **candidate.to_json()})
        reply: Mapping[str, Any] | None = child.receive(limit_s)
        if reply is None:
            return lost(child, doing, candidate.name)
    return read_fault(reply) or reply
