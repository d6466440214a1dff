"""Would opening a model end this process, or hang it? A child finds out first: a target's `isolate_open`.

The child goes the way of the same plan, and names each chain of providers before it opens a session of it. A chain at
which the child crashes or hangs is a failure to open it here, too; whatever else goes wrong there goes wrong here as
well, and is found here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

from pydantic_core import to_jsonable_python

from epkit._system.process import Child
from epkit.config.file import plain
from epkit.discovery.probe import Answer
from epkit.errors import ConfigError, RunError
from epkit.model.file import Model
from epkit.runtime.api import OpenFault
from epkit.runtime.plugin_calls import asked
from epkit.session.attempt import Before, Opening
from epkit.session.cache import store
from epkit.session.cache.session_cache import shelf

if TYPE_CHECKING:
    from epkit.runtime.configured import Candidate

WORKER = "epkit.session.isolation_worker"
SECONDS = 1800.0
"""How long the child may take for one chain, unless the target says: TensorRT builds an engine for minutes."""

_Chain: TypeAlias = tuple[tuple[str, ...], bool]
"""The names of the providers, and whether the session captures graphs."""


def isolation(opening: Opening, model: Model, answers: Mapping[str, Answer]) -> Before | None:
    """Return what has each chain opened in a child before it is opened here; None where the target does not ask."""
    return _Isolation(opening, model, answers).before if opening.plan.target.isolate_open else None


class _Isolation:
    def __init__(self, opening: Opening, model: Model, answers: Mapping[str, Answer]) -> None:
        wanted = opening.plan.target.isolate_open
        self._seconds = SECONDS if wanted is True else wanted
        self._opening = opening
        self._model = model
        self._answers = answers
        self._faults: dict[_Chain, str] = {}
        """What a child said of the chains that it has opened; empty when it lived."""

    def before(self, chain: Sequence[Candidate], captures: bool) -> None:
        """Open a chain in a child, unless one has done so; raises OpenFault when it crashed or hung."""
        key = (tuple(one.name for one in chain), captures)
        if key not in self._faults:
            started = time.perf_counter()
            self._opening.compiled.close()  # the child may want the same entries of the cache
            self._find_out(key)
            self._opening.isolated += time.perf_counter() - started
        if self._faults[key]:
            raise OpenFault(self._faults[key])

    def _find_out(self, key: _Chain) -> None:
        target, source = self._opening.plan.target, self._model.source
        contents = source if isinstance(source, bytes) else b""
        request = {
            "table": to_jsonable_python(plain(target.written), fallback=str),
            "cache": target.cache,
            "answers": {name: answer.as_json() for name, answer in self._answers.items()},
            "chain": key[0],
            "model": None if contents else str(source),
            "bytes": len(contents),
            "seconds": self._seconds,
        }
        try:
            started = Child(WORKER)
        except RunError as error:
            told = f"target {target.name!r} says isolate_open, but {error.message}"
            raise ConfigError(told, hint="leave isolate_open out of the target") from error
        with started as child:
            child.send(request, contents)
            at: _Chain | None = None
            while (reply := child.receive(self._seconds)) is not None:
                if at is not None:
                    self._faults[at] = ""
                if "chain" not in reply:
                    return self._ended(key, str(reply["error"]))
                at = (tuple(cast("list[str]", reply["chain"])), bool(reply["captures"]))
            ending, said = child.describe_end(), "" if child.timed_out else child.last_line()
        limit = f" (limit: {self._seconds:g} s)" if child.timed_out else ""
        told = f"opening it in a process of its own {ending}{limit}" + (f": {said}" if said else "")
        self._faults[at or key] = told
        self._faults.setdefault(key, "" if self._reached(key) else told)
        self._clear()
        return None

    def _ended(self, key: _Chain, error: str) -> None:
        """Make sure that the child got as far as opening what it was asked for."""
        if not self._reached(key):
            told = f"target {self._opening.plan.target.name!r} says isolate_open, but its process could not open it"
            raise ConfigError(f"{told}: {error}", hint="leave isolate_open out of the target")
        self._faults.setdefault(key, "")

    def _reached(self, key: _Chain) -> bool:
        """Whether a child has turned to these providers; whether it captured graphs is its own decision."""
        return key[0] in [names for names, _ in self._faults]

    def _clear(self) -> None:
        """Remove what a child was building when it ended."""
        compilers = [one for one in self._opening.plan.target.chain if one.provider.compiles != "never"]
        shelves = [shelf(one.provider, asked(one.provider.requested_cache_dir, one.options)) for one in compilers]
        store.shrink(shelves, store.limit())
