"""Create ONNX Runtime sessions of one model, for any chain of its providers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from epkit.provider import Provider
from epkit.runtime import api, create
from epkit.runtime.configured import CPU, ConfiguredProvider
from epkit.runtime.create import OpenFault, Settings
from epkit.runtime.placement import Share, count_nodes
from epkit.session.capture import capturing
from epkit.session.settings import with_capture, without_cpu_rule

if TYPE_CHECKING:
    from epkit.session.cache.session_cache import Compiled
    from epkit.session.report import CacheRow

Chain: TypeAlias = Sequence[ConfiguredProvider]
Observe: TypeAlias = Callable[[tuple[str, ...], bool], None]
"""Called before a session is created, with the names of its providers and whether it captures graphs."""


@dataclass(frozen=True, slots=True)
class Crashes:
    """What another process found that opened the model first: which chains crash or hang, and how."""

    chains: Mapping[tuple[tuple[str, ...], bool], str] = field(default_factory=dict)
    """By the names of the providers, and whether the session captures graphs."""
    others: str = ""
    """Why no other chain could be tried; empty where all were."""

    def check(self, names: tuple[str, ...], captures: bool) -> None:
        """Raise OpenFault for a chain that is known to crash or hang."""
        cause = self.chains.get((names, captures), self.others)
        if cause:
            raise OpenFault(cause)


@dataclass(frozen=True, slots=True)
class Created:
    """A session of ONNX Runtime, with its providers, and the nodes that they took."""

    session: Any
    chain: tuple[ConfiguredProvider, ...]
    settings: Settings
    captures: bool
    """Whether it captures graphs."""
    placement: Mapping[str, Share]
    placement_unknown: str = ""
    """Why it is not known where the nodes run; empty where it is."""

    @property
    def provider(self) -> ConfiguredProvider | None:
        """The first provider of the chain that took a node."""
        return next((candidate for candidate in self.chain if candidate.name in self.placement), None)

    @property
    def active(self) -> list[ConfiguredProvider]:
        """The providers that took nodes; where that is not known, all that may have."""
        return [candidate for candidate in self.chain if self.placement_unknown or candidate.name in self.placement]


@dataclass(frozen=True, slots=True)
class Opener:
    """A model and what its sessions are given."""

    model: str | bytes
    settings: Settings
    placement_unknown: str = ""
    cache: Compiled | None = None
    """None where no provider compiles."""
    crashes: Crashes = field(default_factory=Crashes)
    observe: Observe | None = None

    def create(self, chain: Chain, *, captures: bool = False) -> Created:
        """Create a session of providers that start from the cache or fill it; raises OpenFault."""
        settings, given = self.settings, chain
        if captures:
            settings, given = with_capture(settings), [capturing(chain[0]), *chain[1:]]
        self._announce(chain, captures)
        sent: Mapping[str, Mapping[str, str]] = {}
        if self.cache is not None:
            self.cache.look(given, settings)
            sent = self.cache.sent
        session = create.create_session(self.model, given, settings, sent)
        # In ORT format, what a provider compiled is all that may be recorded: a part would pass for the whole.
        placed = {} if self.placement_unknown else read_placement(session, chain)
        return Created(session, tuple(chain), settings, captures, placed, self.placement_unknown)

    def create_freely(self, chain: Chain) -> Any:
        """Create a session without the cache, wherever its nodes run: to find out what fails. Raises OpenFault."""
        self._announce(chain, captures=False)
        return create.create_session(self.model, chain, without_cpu_rule(self.settings))

    def opens(self, chain: Chain) -> bool:
        """Whether a session of these providers can be created, wherever its nodes run."""
        with contextlib.suppress(OpenFault):
            self.create_freely(chain)
            return True
        return False

    def suspect_cache(self, cause: str) -> bool:
        """After a failure: whether what is cached had a part in it. Then it is not used until `trust_cache`."""
        return self.cache is not None and self.cache.doubt(cause)

    def trust_cache(self) -> None:
        """Use what is cached again: something else was at fault."""
        if self.cache is not None:
            self.cache.trust()

    def keep_cache(self, active: Sequence[ConfiguredProvider]) -> tuple[CacheRow, ...]:
        """Keep what the active providers of an opened session compiled; return what the cache did for each."""
        if self.cache is None:
            return ()
        self.cache.keep([candidate.name for candidate in active])
        return self.cache.rows

    def _announce(self, chain: Chain, captures: bool) -> None:
        if self.observe is None and not self.crashes.chains and not self.crashes.others:
            return
        names = tuple(candidate.name for candidate in chain)
        self.crashes.check(names, captures)
        if self.observe is not None:
            self.observe(names, captures)


def read_placement(session: Any, chain: Chain) -> dict[str, Share]:
    """Return what each provider took of the nodes of a session, by epkit's names."""
    names = {candidate.provider.ort_name: candidate.name for candidate in chain}
    return count_nodes(create.get_assignments(session), {api.CPU_ORT_NAME: CPU} | names)


def is_cpu(candidate: ConfiguredProvider) -> bool:
    """Whether a candidate is ONNX Runtime's own CPU, whatever its name, with nothing of a plugin's around it."""
    provider = type(candidate.provider)
    plain = provider.add is Provider.add and provider.open is Provider.open
    return plain and candidate.provider.ort_name == api.CPU_ORT_NAME
