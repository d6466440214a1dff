"""Which providers start from what was compiled before, and what is kept of what they compile now?

Whether anything is kept is the target's `cache`, or an option that asks for it (OpenVINO's CACHE_DIR). Under which name
is a digest of everything that the compiled form depends on: the model with its external data, options, session
options, device, the providers before it in the chain, versions, and what the provider says itself.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from epkit import cache, digests, kept, wheels
from epkit._foreign import asked
from epkit.errors import ModelError
from epkit.model import Model
from epkit.provider import Provider

if TYPE_CHECKING:
    from epkit._runtime import Settings
    from epkit.target import Candidate

FORMAT = "1"
WAIT_SECONDS = 600.0
"""How long to wait for another process that builds the same."""

CacheOutcome: TypeAlias = Literal["hit", "built", "miss", "off", "failed"]

# Of the properties of SessionOptions, those that say what is logged or written, not what is compiled.
_UNRELATED = frozenset(
    {"enable_profiling", "logid", "log_severity_level", "log_verbosity_level", "optimized_model_filepath"}
    | {"profile_file_prefix"}
)
# Named last, and only where nothing else differs: it follows from the options.
_SENT = "what is sent"
_UNTOLD = 60
COMPILED_WITH = "what it was compiled with"
"""How the parts begin that the provider names."""


@dataclass(frozen=True, slots=True)
class Cached:
    """What one provider that compiles had to do with the cache.

    `bytes` are those of the kept files, `seconds` what building them took: opening and warm-up.
    """

    provider: str
    outcome: CacheOutcome
    reason: str = ""
    folder: str = ""
    bytes: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Wish:
    """Where one provider's entry for this model lies or would lie, and whether it may be built."""

    candidate: Candidate
    build: bool
    shelf: Path
    parts: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def folder(self) -> Path:
        return self.shelf / kept.key_of(self.parts)


class Compiled:
    """The cache, as one opening uses it. Close it when the opening is over, however it ended."""

    def __init__(self, model: Model, wanted: bool | None) -> None:
        self.sent: dict[str, dict[str, str]] = {}
        """By provider, the options under which it starts from the cache or fills it."""
        self._model = model
        self._wanted = wanted
        self._rows: dict[str, Cached] = {}
        self._hits: dict[str, kept.Entry] = {}
        self._builds: dict[str, kept.Entry] = {}
        self._doubted: dict[str, tuple[kept.Entry, str]] = {}
        self._held = contextlib.ExitStack()
        self._started = 0.0

    @property
    def rows(self) -> tuple[Cached, ...]:
        """A row for each provider that compiles."""
        return tuple(self._rows.values())

    def look(self, chain: Sequence[Candidate], settings: Settings, *, build: bool = True) -> None:
        """Find what these providers start from; where nothing is kept and the target asks, make ready to keep it.

        With `build` false nothing is made ready, and the rows say what would be.
        """
        self._let_go()
        self._rows = {}
        wishes = [wish for at, one in enumerate(chain) if (wish := self._wish(one, chain[:at], settings)) is not None]
        # Locks are taken in the order of their names: two processes must not wait for each other.
        for wish in sorted(wishes, key=lambda one: str(one.folder)):
            name = wish.candidate.name
            if not self._hit(wish):
                reason = wish.reason + ("; opening the model builds it" if wish.build and not build else "")
                self._rows[name] = Cached(name, "miss", reason, str(wish.folder) if wish.parts else "")
                if wish.build and build:
                    self._make_ready(wish)
        self._rows = {one.name: self._rows[one.name] for one in chain if one.name in self._rows}
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
            found = kept.fault(entry)
            if not found:
                kept.touch(entry)
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
                kept.remove(entry.folder)
        self._builds, self._hits, self.sent = {}, {}, {}
        self._held.close()

    def _wish(self, candidate: Candidate, before: Sequence[Candidate], settings: Settings) -> _Wish | None:
        """Work out where the entry of one provider is; None, with a row, where there can be none."""
        provider, name = candidate.provider, candidate.name
        if not provider.compiles:
            return None
        off = ""
        if self._wanted is False:
            off = "the target says cache = false"
        elif self._model.compiled_for:
            off = "the model is compiled already"
        else:
            off = asked(provider.check_cache, candidate.options)
        if name in self._doubted:
            entry, cause = self._doubted[name]
            self._rows[name] = Cached(name, "failed", f"opening with it failed: {cause}", str(entry.folder))
            return None
        if off:
            self._rows[name] = Cached(name, "off", off)
            return None
        own = asked(provider.asked_cache, candidate.options)
        # A folder of "" is asked for without being named.
        wish = _Wish(candidate, self._wanted is True or own is not None, shelf(provider, own))
        there = tuple(kept.entries(wish.shelf))
        size = _bytes(self._model)
        if wish.build or any(one.model_bytes == size for one in there):
            wish.parts = parts_of(self._model, candidate, before, settings)
        wish.reason = why_missed(wish.parts, _path(self._model), there)
        return wish

    def _hit(self, wish: _Wish) -> bool:
        name, folder = wish.candidate.name, wish.folder
        try:
            entry = kept.read(folder) if wish.parts else None
        except ValueError as error:
            wish.reason = str(error)
            return False
        if entry is None:
            return False
        found = kept.fault(entry)
        if found:
            wish.reason = f"what was kept is damaged: {found}"
            return False
        self._hits[name] = entry
        self.sent[name] = _sent(wish.candidate, kept.files_of(folder))
        self._rows[name] = Cached(name, "hit", "", str(folder), entry.bytes, entry.seconds)
        return True

    def _make_ready(self, wish: _Wish) -> None:
        """Take the lock and an empty folder to build in, unless another process has built it meanwhile."""
        name, folder = wish.candidate.name, wish.folder
        kept.limit()  # refused before minutes are spent, not after
        waited = contextlib.ExitStack()
        try:
            waited.enter_context(kept.locked(folder, WAIT_SECONDS))
            if self._hit(wish):
                waited.close()
                return
            files = kept.begin(folder)
        except OSError as error:
            waited.close()
            self._fail(name, f"nothing can be kept: {error}")
            return
        self._held.push(waited)
        self._builds[name] = kept.Entry(
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
        self.sent[name] = _sent(wish.candidate, files)

    def _keep(self, name: str, entry: kept.Entry, seconds: float, active: Sequence[str]) -> None:
        try:
            fresh = digests.of_model(self._model)
            if name not in active:
                refused = f"{name} took no node of the model"
            elif any(entry.parts.get(part) != digest for part, digest in fresh.items()):
                refused = "the model changed while it was compiled"
            else:
                done = kept.seal(replace(entry, seconds=seconds))
                refused = "" if done.files else f"{name} wrote nothing that could be kept"
            if refused:
                kept.remove(entry.folder)
                self._fail(name, refused)
                return
            reason = self._rows[name].reason
            self._rows[name] = Cached(name, "built", reason, str(entry.folder), done.bytes, seconds)
            kept.shrink([entry.folder.parent], kept.limit(), keep=[entry.folder])
        except (OSError, ModelError) as error:
            self._fail(name, f"nothing can be kept: {error}")

    def _fail(self, name: str, reason: str) -> None:
        self._rows[name] = Cached(name, "failed", reason, self._rows[name].folder)


def _forget(entry: kept.Entry) -> None:
    """Remove an entry that is no good, unless another process has put a new one in its place."""
    now = None
    with contextlib.suppress(ValueError):
        now = kept.read(entry.folder)
    if now in (None, entry):
        kept.drop(entry.folder)


def shelf(provider: Provider, own: str | None = None) -> Path:
    """Return where the entries of a provider lie: in epkit's cache folder, or in one that its options name."""
    return (Path(own) if own else cache.place("compiled")) / provider.name


def parts_of(model: Model, candidate: Candidate, before: Sequence[Candidate], settings: Settings) -> dict[str, str]:
    """Return everything that the compiled form of a model depends on, by what a person calls it."""
    provider, options = candidate.provider, candidate.options
    written = options.written() | options.extra
    # What names the folder depends on nothing, and nothing depends on it.
    own = set(written) - set(_sent_names(candidate, written))
    parts = digests.of_model(model)
    parts |= {f"option {name}": str(value) for name, value in written.items() if name not in own}
    parts |= {name: _stamps(str(written[name])) for name in provider.native_options if name in written}
    parts |= {
        f"session option {name}": str(value) for name, value in settings.properties.items() if name not in _UNRELATED
    }
    parts |= {f"session option config.{key}": value for key, value in settings.entries.items()}
    parts |= {f"free dimension {key}": str(size) for key, size in settings.free_dimensions.items()}
    parts |= {f"free dimension of {key}": str(size) for key, size in settings.free_dimensions_by_denotation.items()}
    parts |= {f"custom operators {library}": _stamps(library) for library in settings.custom_ops}
    parts |= versions(provider, candidate.device)
    return parts | {
        "provider": f"{candidate.name} ({provider.ort_name})",
        "device": str(candidate.device),
        "the providers before it": json.dumps([[one.name, one.sent] for one in before]),
        _SENT: json.dumps(_sent(candidate, Path("files")), sort_keys=True),
    }


def versions(provider: Provider, device: int | str | None) -> dict[str, str]:
    """Return the parts that this machine and what is installed on it contribute."""
    return {
        "epkit's cache format": FORMAT,
        "ONNX Runtime": _runtime_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    } | {f"{COMPILED_WITH} ({at})": told for at, told in enumerate(asked(_texts, provider, device), 1)}


def why_missed(parts: Mapping[str, str], path: str, there: Sequence[kept.Entry]) -> str:
    """Say why none of the entries that are there is the one that is wanted: how the nearest one differs."""
    own = [one for one in there if (path and one.model == path) or (parts and one.parts.get("model") == parts["model"])]
    if not own:
        return "nothing was built for this model"
    if not parts:
        return "the model changed"
    nearest = min(own, key=lambda one: (len(list(_differing(one.parts, parts))), -one.made))
    told = list(_differing(nearest.parts, parts))
    return "; ".join(told[:3]) + (f"; and {len(told) - 3} more" if len(told) > 3 else "")


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Say of each part how it differs."""
    names = [name for name in dict.fromkeys((*new, *old)) if old.get(name) != new.get(name)]
    for name in names:
        was, now = old.get(name, "not set"), new.get(name, "not set")
        if name == _SENT and len(names) > 1:
            continue
        subject = "the model" if name == "model" else name
        digest = name == "model" or name.startswith("external data")
        short = not digest and len(was) <= _UNTOLD and len(now) <= _UNTOLD
        yield f"{subject} changed" + (f": {was} -> {now}" if short else "")


def _texts(provider: Provider, device: int | str | None) -> list[str]:
    return [str(one) for one in provider.stale_when(device)]


def _sent(candidate: Candidate, files: Path) -> dict[str, str]:
    """Return what a provider is sent when it keeps what it compiles in `files`."""
    provider = candidate.provider
    options = asked(provider.cached, candidate.options, candidate.device, files)
    return asked(provider.encode, options, candidate.device)


def _sent_names(candidate: Candidate, written: Mapping[str, object]) -> list[str]:
    """Return the names of the options that stay as they are written when a folder for the cache is put in."""
    options = asked(candidate.provider.cached, candidate.options, candidate.device, Path("files"))
    kept_options = options.written() | options.extra
    return [name for name, value in written.items() if kept_options.get(name) == value]


def _runtime_version() -> str:
    installed = ", ".join(f"{name} {version}" for name, version in sorted(wheels.runtimes().items()))
    return installed or _stamps(wheels.origin("onnxruntime"))


def _stamps(files: str) -> str:
    """Return the sizes and times of files, whose paths are separated by semicolons."""
    stamps = []
    for name in filter(None, files.split(";")):
        try:
            state = Path(name).stat()
            stamps.append(f"{name} {state.st_size} {state.st_mtime_ns}")
        except OSError:
            stamps.append(f"{name} absent")
    return "; ".join(stamps)


def _path(model: Model) -> str:
    return "" if isinstance(model.source, bytes) else str(model.source.absolute())


def _bytes(model: Model) -> int:
    return model.size + sum(one.bytes for one in model.external)
