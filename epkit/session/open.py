"""Open a model: from what was asked for to a session that is warmed up, with its report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

from epkit._system import telemetry
from epkit.config.file import ConfigSource, load
from epkit.config.target import Target
from epkit.config.target import read as read_target
from epkit.discovery import probe
from epkit.discovery.registry import Registry, discover
from epkit.errors import ConfigError, RuntimeMissing
from epkit.model.file import Model, read_model
from epkit.runtime import api, events
from epkit.session.checks import check_inputs
from epkit.session.opening import open_plan
from epkit.session.plan import Plan, resolve
from epkit.session.session import Session

EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_WEIGHTS_IN_BYTES = ("session.use_ort_model_bytes_directly", "session.use_ort_model_bytes_for_initializers")


def open(
    model: str | os.PathLike[str] | bytes,
    target: str | None = None,
    *,
    options: Mapping[str, object] | None = None,
    session_options: Mapping[str, object] | None = None,
    config: ConfigSource = None,
) -> Session:
    """Open a model on the best provider of a target that this machine really has.

    `model` is a path, or a model's bytes. `target` names a target of the config or a provider (then strictly that
    one); without it, the config's default or the automatic chain. `options` (of the first provider) and
    `session_options` are laid over what the target says; `config` is a file, or a mapping of the same shape.

    Raises ConfigError before anything is probed, ModelError when the model cannot be read or opened, ProviderError
    when a provider that was required cannot be had, RuntimeMissing without an ONNX Runtime.
    """
    written = load(config)
    registry = discover()
    wanted = read_target(target, written, registry, options=options, session_options=session_options)
    contents = read_model(model, folder=wanted.session_options.entries().get(EXTERNAL_FOLDER))
    check_fit(contents, wanted)
    plan, answers = plan_for(wanted, registry)
    session = open_plan(contents, plan, answers)
    session._again = partial(
        open,
        model if isinstance(model, bytes) else os.path.abspath(model),  # noqa: PTH100 - a text in every form
        target,
        options=options and dict(options),
        session_options=session_options and dict(session_options),
        config=_portable(config),
    )
    return session


def _portable(config: ConfigSource) -> ConfigSource:
    """Return a config that means the same in another process, whatever its working directory."""
    if config is None or isinstance(config, Mapping):
        return config and dict(config)
    return os.path.abspath(config)  # noqa: PTH100 - a text in every form


def check_fit(model: Model, target: Target) -> None:
    """Check what a target says of inputs and dimensions against those of the model; raises ConfigError."""
    if not model.is_parsed:
        check_bytes(model, target)
        return  # its inputs are checked once it is open
    check_inputs(model.inputs, target)


def check_bytes(model: Model, target: Target) -> None:
    """Refuse weights that point into bytes: ONNX Runtime keeps those that it points into no longer than it loads."""
    entries = target.session_options.entries()
    if isinstance(model.source, bytes) and all(entries.get(one) == "1" for one in _WEIGHTS_IN_BYTES):
        told = f"{' and '.join(_WEIGHTS_IN_BYTES)} give wrong numbers for a model given as bytes"
        hint = f"give the path of the model, or leave out {_WEIGHTS_IN_BYTES[1]}"
        raise ConfigError(f"target {target.name!r}: {told}", hint=hint)


def plan_for(target: Target, registry: Registry, *, refresh: bool = False) -> tuple[Plan, dict[str, probe.Answer]]:
    """Probe the providers of a target, and resolve what to try. Raises RuntimeMissing without an ONNX Runtime."""
    if not api.is_installed():
        raise RuntimeMissing(api.MISSING, hint=api.MISSING_HINT)
    events.start_log()
    telemetry.request(target.telemetry)
    answers = probe.ask([(one.provider, one.device) for one in target.chain], registry, refresh=refresh)
    return resolve(target, {name: answer.availability for name, answer in answers.items()}), answers
