"""Find what providers compiled before, start them from it, and keep what they compile now.

Whether anything is kept is the target's `cache`, or an option that asks for it (OpenVINO's CACHE_DIR). Under which name
is a digest of everything that the compiled form depends on: the model with its external data, options, session
options, device, the providers before it in the chain, versions, and what the provider says itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from epkit._system import folders
from epkit.errors import ModelError
from epkit.model import digest as digests
from epkit.model.file import Model
from epkit.provider import Provider
from epkit.runtime.plugin_calls import call_plugin
from epkit.session.cache import store
from epkit.session.cache.key import parts_of, sent_with, why_missed
from epkit.session.report import CacheRow

if TYPE_CHECKING:
    from epkit.config.target import Target
    from epkit.runtime.configured import ConfiguredProvider
    from epkit.runtime.create import Settings

WAIT_SECONDS = 600.0
"""How long to wait for another process that builds the same."""


@dataclass(slots=True)
class _Wish:
    """Where one provider's entry for this model lies or would lie, and whether it may be built."""

    candidate: ConfiguredProvider
    build: bool
    shelf: Path
    parts: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def folder(self) -> Path:
        return self.shelf / store.key_of(self.parts)


class Compiled:
    """The cache, as one opening uses it. Close it when the opening is over, however it ended."""

    def __init__(self, model: Model, target: Target) -> None:
        self.sent: dict[str, dict[str, str]] = {}
        """By provider, the options under which it starts from the cache or fills it."""
        self._model = model
        self._target = target
        self._rows: dict[str, CacheRow] = {}
        self._hits: dict[str, store.CacheEntry] = {}
        self._builds: dict[str, store.CacheEntry] = {}
        self._doubted: dict[str, tuple[store.CacheEntry, str]] = {}
        self._held = contextlib.ExitStack()
        self._started = 0.0

    @property
    def rows(self) -> tuple[CacheRow, ...]:
        """A row for each provider that compiles."""
        return tuple(self._rows.values())

    def look(self, chain: Sequence[ConfiguredProvider], settings: Settings, *, build: bool = True) -> None:
        """Find what these providers start from; where nothing is kept and the target asks, make ready to keep it.

        With `build` false nothing is made ready, and the rows say what would be.
        """
        self._let_go()
        self._rows = {}
        wishes = [
            wish
            for at, candidate in enumerate(chain)
            if (wish := self._wish(candidate, chain[:at], settings)) is not None
        ]
        # Locks are taken in the order of their names: two processes must not wait for each other.
        for wish in sorted(wishes, key=lambda wish: str(wish.folder)):
            name = wish.candidate.name
            if not self._hit(wish):
                reason = wish.reason + ("; opening the model builds it" if wish.build and not build else "")
                self._rows[name] = CacheRow(name, "miss", reason, str(wish.folder) if wish.parts else "")
                if wish.build and build:
                    self._make_ready(wish)
        self._rows = {candidate.name: self._rows[candidate.name] for candidate in chain if candidate.name in self._rows}
        self._started = time.perf_counter()

    def doubt(self, cause: str) -> bool:
        """After a failure: whether the cache had a part in it. It is then left out, to see if that was the fault."""
        fresh = {name: entry for name, entry in (self._hits | self._builds).items() if name not in self._doubted}
        self._doubted |= {name: (entry, cause) for name, entry in fresh.items()}
        return bool(fresh)

    def trust(self) -> None:
        """Take all doubts back: another provider was at fault."""
        self._doubted = {}

    def keep(self, active: Sequence[str]) -> None:
        """After a session was opened and warmed up: keep what the active providers compiled, and check what was hit."""
        seconds = time.perf_counter() - self._started
        for name, entry in self._hits.items():
            found = store.fault(entry)
            if not found:
                store.touch(entry)
                continue
            refused = f"{name} did not start from what was kept but compiled anew: {found}"
            self._fail(name, refused if entry.used else "what was kept was removed while it was opened")
            _forget(entry)
        for name, entry in self._builds.items():
            self._keep(name, entry, seconds, active)
        for name, (entry, _) in self._doubted.items():
            if name in active:
                _forget(entry)
        self._builds = {}
        self.close()

    def close(self) -> None:
        """Let go of the locks; what was begun and not kept is removed."""
        self._let_go()

    def _let_go(self) -> None:
        for entry in self._builds.values():
            with contextlib.suppress(OSError):
                store.remove(entry.folder)
        self._builds, self._hits, self.sent = {}, {}, {}
        self._held.close()

    def _wish(
        self, candidate: ConfiguredProvider, before: Sequence[ConfiguredProvider], settings: Settings
    ) -> _Wish | None:
        """Work out where the entry of one provider is; None, with a row, where there can be none."""
        provider, name = candidate.provider, candidate.name
        if provider.caching.compiles == "never":
            return None
        off = ""
        if self._target.cache is False:
            off = "the target says cache = false"
        elif self._model.compiled_for:
            off = "the model is compiled already"
        else:
            off = call_plugin(provider.caching.check, candidate.options)
        if name in self._doubted:
            entry, cause = self._doubted[name]
            self._rows[name] = CacheRow(name, "failed", f"opening with it failed: {cause}", str(entry.folder))
            return None
        if off:
            self._rows[name] = CacheRow(name, "off", off)
            return None
        own = call_plugin(provider.caching.requested_dir, candidate.options)
        # A folder of "" is asked for without being named.
        wish = _Wish(candidate, self._target.cache is True or own is not None, shelf(provider, own))
        if found := store.distrust(wish.shelf):
            self._rows[name] = CacheRow(name, "failed", f"what is kept there is not used: {found}", str(wish.shelf))
            return None
        there = tuple(store.entries(wish.shelf))
        size = _bytes(self._model)
        if wish.build or any(entry.model_bytes == size for entry in there):
            wish.parts = parts_of(self._model, candidate, before, settings, self._target.warmup)
        wish.reason = why_missed(wish.parts, _path(self._model), there)
        return wish

    def _hit(self, wish: _Wish) -> bool:
        name, folder = wish.candidate.name, wish.folder
        try:
            entry = store.read(folder) if wish.parts else None
        except ValueError as error:
            wish.reason = str(error)
            return False
        if entry is None:
            return False
        found = store.fault(entry)
        if found:
            wish.reason = f"what was kept is damaged: {found}"
            return False
        self._hits[name] = entry
        self.sent[name] = sent_with(wish.candidate, store.files_of(folder))
        self._rows[name] = CacheRow(name, "hit", "", str(folder), entry.bytes, entry.seconds)
        return True

    def _make_ready(self, wish: _Wish) -> None:
        """Take the lock and an empty folder to build in, unless another process has built it meanwhile."""
        name, folder = wish.candidate.name, wish.folder
        store.limit()  # refused before minutes are spent, not after
        waited = contextlib.ExitStack()
        try:
            waited.enter_context(store.locked(folder, WAIT_SECONDS))
            if self._hit(wish):
                waited.close()
                return
            files = store.begin(folder)
        except OSError as error:
            waited.close()
            self._fail(name, f"nothing can be kept: {error}")
            return
        self._held.push(waited)
        self._builds[name] = store.CacheEntry(
            folder=folder,
            provider=name,
            model=_path(self._model),
            model_bytes=_bytes(self._model),
            device=wish.candidate.device,
            parts=wish.parts,
            files=(),
            made=time.time(),
            seconds=0.0,
        )
        self.sent[name] = sent_with(wish.candidate, files)

    def _keep(self, name: str, entry: store.CacheEntry, seconds: float, active: Sequence[str]) -> None:
        try:
            fresh = digests.digest_files(self._model)
            if name not in active:
                refused = f"{name} took no node of the model"
            elif any(entry.parts.get(part) != digest for part, digest in fresh.items()):
                refused = "the model changed while it was compiled"
            else:
                done = store.seal(replace(entry, seconds=seconds))
                refused = "" if done.files else f"{name} wrote nothing that could be kept"
            if refused:
                store.remove(entry.folder)
                self._fail(name, refused)
                return
            reason = self._rows[name].reason
            self._rows[name] = CacheRow(name, "built", reason, str(entry.folder), done.bytes, seconds)
            store.shrink([entry.folder.parent], store.limit(), keep=[entry.folder])
        except (OSError, ModelError) as error:
            self._fail(name, f"nothing can be kept: {error}")

    def _fail(self, name: str, reason: str) -> None:
        self._rows[name] = CacheRow(name, "failed", reason, self._rows[name].folder)


def _forget(entry: store.CacheEntry) -> None:
    """Remove an entry that is no good, unless another process has put a new one in its place."""
    now = None
    with contextlib.suppress(ValueError):
        now = store.read(entry.folder)
    if now in (None, entry):
        store.drop(entry.folder)


def shelf(provider: Provider, own: str | None = None) -> Path:
    """Return where the entries of a provider lie: in epkit's cache folder, or in one that its options name."""
    return (Path(own) if own else folders.cache_path("compiled")) / provider.name


def _path(model: Model) -> str:
    return "" if isinstance(model.source, bytes) else str(model.source.absolute())


def _bytes(model: Model) -> int:
    return model.size + sum(file.bytes for file in model.external)
