"""Find out in other processes which chains of providers crash or hang when a model is opened: `isolate_open`.

A child opens the model along the same plan, and names each chain before it creates a session of it. When the child
crashes or hangs at a chain, the next child takes that for a failure to open, and so on, until one gets to the end:
whatever else goes wrong there goes wrong here as well, and is found here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, cast

from pydantic_core import to_jsonable_python

from epkit._system.process import Child
from epkit.config.layers import plain
from epkit.discovery.probe import Answer
from epkit.errors import ConfigError, RunError
from epkit.model.file import Model
from epkit.runtime.plugin_calls import call_plugin
from epkit.session.cache import store
from epkit.session.cache.session_cache import shelf
from epkit.session.opener import Crashes
from epkit.session.plan import Plan

WORKER = "epkit.session.isolation_worker"
LIMIT_S = 1800.0
"""How long the child may take for one chain, unless the target says: TensorRT builds an engine for minutes."""

_HINT = "leave isolate_open out of the target"
_Chain: TypeAlias = tuple[tuple[str, ...], bool]
"""The names of the providers, and whether the session captures graphs."""


def find_crashes(model: Model, plan: Plan, answers: Mapping[str, Answer]) -> Crashes:
    """Open a model in children until one survives; return where the others crashed or hung. Raises ConfigError."""
    chains: dict[_Chain, str] = {}
    while True:
        chain, cause = _open_in_child(model, plan, answers, chains)
        if not cause:
            return Crashes(chains)
        _remove_unfinished(plan)
        if chain is None:
            return Crashes(chains, others=cause)
        chains[chain] = cause


def _open_in_child(
    model: Model, plan: Plan, answers: Mapping[str, Answer], crashes: Mapping[_Chain, str]
) -> tuple[_Chain | None, str]:
    """Return how a child crashed or hung, empty where it did not; and at which chain, None where it got to none."""
    wanted = plan.target.isolate_open
    limit_s = LIMIT_S if wanted is True else wanted
    contents = model.source if isinstance(model.source, bytes) else b""
    chain: _Chain | None = None
    with _start(plan) as child:
        child.send(_request(model, plan, answers, crashes) | {"seconds": limit_s, "bytes": len(contents)}, contents)
        planned = False
        while (reply := child.receive(limit_s)) is not None:
            if "error" in reply:
                if not planned:
                    message = f"target {plan.target.name!r} says isolate_open, but its process could not open it"
                    raise ConfigError(f"{message}: {reply['error']}", hint=_HINT)
                return chain, ""
            planned = True
            if "chain" in reply:
                chain = tuple(cast("list[str]", reply["chain"])), bool(reply["captures"])
        return chain, _cause(child, limit_s)


def _start(plan: Plan) -> Child:
    try:
        return Child(WORKER)
    except RunError as error:
        message = f"target {plan.target.name!r} says isolate_open, but {error.message}"
        raise ConfigError(message, hint=_HINT) from error


def _request(
    model: Model, plan: Plan, answers: Mapping[str, Answer], crashes: Mapping[_Chain, str]
) -> dict[str, object]:
    return {
        "table": to_jsonable_python(plain(plan.target.written), fallback=str),
        "cache": plan.target.cache,
        "answers": {name: answer.as_json() for name, answer in answers.items()},
        "crashes": [[names, captures, cause] for (names, captures), cause in crashes.items()],
        "model": None if isinstance(model.source, bytes) else str(model.source),
    }


def _cause(child: Child, limit_s: float) -> str:
    """Return how a child ended that gave no more answer."""
    ending, said = child.describe_end(), "" if child.timed_out else child.last_line()
    limit = f" (limit: {limit_s:g} s)" if child.timed_out else ""
    return f"opening it in a process of its own {ending}{limit}" + (f": {said}" if said else "")


def _remove_unfinished(plan: Plan) -> None:
    """Remove from the caches what a child was building when it ended."""
    compilers = [candidate for candidate in plan.target.chain if candidate.provider.caching.compiles != "never"]
    shelves = [
        shelf(candidate.provider, call_plugin(candidate.provider.caching.requested_dir, candidate.options))
        for candidate in compilers
    ]
    store.shrink(shelves, store.limit())
