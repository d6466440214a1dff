"""Open a model: from what was asked for to a session that is warmed up, with its report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

from epkit.config.file import ConfigSource
from epkit.session.opening import open_plan
from epkit.session.request import OpenRequest
from epkit.session.session import Session


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
    return open_request(OpenRequest(model, target, options, session_options, config))


def open_request(request: OpenRequest) -> Session:
    """Open what was asked for, as `open` does."""
    model, planned = request.resolve()
    session = open_plan(model, planned.plan, planned.answers)
    session._again = partial(open_request, request.portable())
    return session
