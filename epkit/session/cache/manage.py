"""List what the cache keeps, check it, and remove what may go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from epkit._system import folders as cache
from epkit.discovery.registry import Registry, discover
from epkit.errors import EpkitError
from epkit.session.cache import store
from epkit.session.cache.key import COMPILED_WITH, versions

SCHEMA = "epkit.cache/1"

State: TypeAlias = Literal["sound", "damaged", "unfinished", "being built", "stale"]


@dataclass(frozen=True, slots=True)
class KeptRow:
    """One entry of the cache."""

    provider: str
    model: str
    state: State
    reason: str
    bytes: int
    made: float | None
    used: float | None
    seconds: float | None
    built_with: str
    folder: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept in one folder, or what was removed from it."""

    folder: str
    limit_bytes: int
    rows: tuple[KeptRow, ...]
    removed: tuple[KeptRow, ...] = ()
    answers: int = 0
    """How many answers of probes are remembered beside it."""

    @property
    def bytes(self) -> int:
        """The size of everything that is there."""
        return sum(row.bytes for row in self.rows)

    @property
    def exit_code(self) -> int:
        """1 when something is damaged."""
        return 1 if any(row.state == "damaged" for row in self.rows) else 0

    def as_json(self) -> dict[str, object]:
        """Return the document of the commands `epkit cache ... --json`."""
        message = {"schema": SCHEMA, **asdict(self), "bytes": self.bytes}
        message["freed_bytes"] = sum(row.bytes for row in self.removed)
        return message


def look(folder: str | Path | None = None, *, thorough: bool = False) -> Kept:
    """List what is kept in epkit's cache folder, or in a folder that a target names. `thorough` reads every file."""
    root = _root(folder)
    registry = discover()
    rows = tuple(_row(folder, registry, thorough=thorough) for folder in _folders(root))
    answers = len(list(cache.cache_path("probe").glob("*.json"))) if folder is None else 0
    return Kept(str(root), store.limit(), rows, answers=answers)


def prune(folder: str | Path | None = None, *, everything: bool = False, stale: bool = False) -> Kept:
    """Remove what was used longest ago until the rest is within the limit; or `everything`, or only what is `stale`.

    What is damaged or was never finished goes in any case; what somebody is building stays.
    """
    root, before = _root(folder), look(folder, thorough=False)
    unwanted = {"damaged", "unfinished"} | ({"stale"} if stale else set())
    for row in before.rows:
        if row.state in unwanted or (everything and row.state != "being built"):
            store.drop(Path(row.folder), unfinished=row.state == "unfinished")
    if not everything and not stale:
        store.shrink(_shelves(root), before.limit_bytes)
    left = {str(folder) for folder in _folders(root)}
    return Kept(
        str(root),
        before.limit_bytes,
        tuple(row for row in before.rows if row.folder in left),
        tuple(row for row in before.rows if row.folder not in left),
        before.answers,
    )


def _root(folder: str | Path | None) -> Path:
    return cache.cache_path("compiled") if folder is None else Path(folder)


def _shelves(root: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(folder for folder in root.iterdir() if folder.is_dir())
    return []


def _folders(root: Path) -> Iterator[Path]:
    for shelf in _shelves(root):
        yield from store.folders(shelf)


def _row(folder: Path, registry: Registry, *, thorough: bool) -> KeptRow:
    provider = folder.parent.name
    try:
        if found := store.distrust(folder.parent) or store.distrust(folder):
            raise ValueError(found)
        entry = store.read(folder)
    except ValueError as error:
        return KeptRow(provider, "", "damaged", str(error), _size(folder), None, None, None, "", str(folder))
    if entry is None:
        state: State = "being built" if store.building(folder) else "unfinished"
        return KeptRow(provider, "", state, "", _size(folder), None, None, None, "", str(folder))
    state, reason = _state(entry, registry, thorough=thorough)
    made_with = ", ".join(
        message for name, message in entry.parts.items() if name in ("ONNX Runtime", f"{COMPILED_WITH} (1)")
    )
    return KeptRow(
        provider,
        entry.model or "a model given as bytes",
        state,
        reason,
        entry.bytes,
        entry.made,
        entry.used,
        entry.seconds,
        made_with,
        str(folder),
    )


def _state(entry: store.CacheEntry, registry: Registry, *, thorough: bool) -> tuple[State, str]:
    found = store.fault(entry, thorough=thorough)
    if found:
        return "damaged", found
    provider = registry.providers.get(entry.provider)
    if provider is None:
        return "stale", f"{entry.provider} is not installed"
    try:
        now = versions(provider, entry.device)
    except EpkitError as error:
        return "stale", f"{entry.provider} cannot say what it depends on: {error.message}"
    for name, message in now.items():
        if entry.parts.get(name) != message:
            return "stale", f"built with {entry.parts.get(name, 'nothing')}, here is {message}"
    return "sound", ""


def _size(folder: Path) -> int:
    with suppress(OSError):
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return 0
