"""Keep compiled models on disk, and check that they are sound.

An entry is a folder, `<shelf>/<key>/`: `files/`, which a provider wrote, and `manifest.json`, which epkit writes last
and in one step. So a folder without a manifest is a build that never ended, and whoever builds next clears it away. A
lock file beside the folder is held while it is built or removed, and not while somebody starts from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath

from epkit._system import files as disk
from epkit._system import trust
from epkit.errors import ConfigError

SCHEMA = "epkit.compiled/1"
LIMIT = "10GiB"
_MANIFEST = "manifest.json"
_GONE = ".gone-"
_KEY = re.compile("[0-9a-f]{32}")
_FILE = {"name": (str,), "bytes": (int,), "mtime_ns": (int,), "sha256": (str,)}
_ENTRY: Mapping[str, tuple[type, ...]] = {
    "provider": (str,),
    "model": (str,),
    "model_bytes": (int,),
    "device": (int, str, type(None)),
    "parts": (dict,),
    "made": (float, int),
    "seconds": (float, int),
    "files": (list,),
}
_REMOVED = re.compile(rf"{re.escape(_GONE)}{_KEY.pattern}-\d+-\d+")


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One file of an entry, as it was when the entry was made."""

    name: str
    bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A compiled model that is kept, and everything that it depends on."""

    folder: Path
    provider: str
    model: str
    """The model's path when it was built; empty for bytes."""
    model_bytes: int
    device: int | str | None
    parts: Mapping[str, str]
    """What it depends on, by what a person calls it."""
    files: tuple[KeptFile, ...]
    made: float
    """When it was made, in seconds since 1970."""
    seconds: float
    """How long it took to build: opening and warm-up."""

    @property
    def bytes(self) -> int:
        """The size of its files."""
        return sum(file.bytes for file in self.files)

    @property
    def used(self) -> float:
        """When a session last started from it; 0 where it is gone."""
        with contextlib.suppress(OSError):
            return (self.folder / _MANIFEST).stat().st_mtime
        return 0.0


def key_of(parts: Mapping[str, str]) -> str:
    """Return the name of the entry that depends on these parts."""
    return hashlib.sha256(json.dumps(sorted(parts.items())).encode()).hexdigest()[:32]


def files_of(folder: Path) -> Path:
    """Return where the provider keeps the files of an entry."""
    return folder / "files"


def read(folder: Path) -> CacheEntry | None:
    """Return the entry in a folder; None when there is none, or it was never finished. Raises ValueError if damaged."""
    try:
        found = trust.read_json(folder / _MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"its manifest cannot be read: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError("its manifest is of another version of epkit")
    try:
        entry = trust.check_fields(found, _ENTRY)
        if not all(isinstance(message, str) for message in entry["parts"].values()):
            raise ValueError("parts are no texts")
        return CacheEntry(folder=folder, **entry | {"files": tuple(map(_file, entry["files"]))})
    except ValueError as error:
        raise ValueError(f"its manifest is damaged: {error}") from error


def _file(found: object) -> KeptFile:
    file = KeptFile(**trust.check_fields(found, _FILE))
    path = PurePath(file.name)
    if path.is_absolute() or ".." in path.parts or "\0" in file.name or file.bytes < 0:
        raise ValueError(f"{file.name!r} is no file of its own")
    return file


def distrust(place: Path) -> str:
    """Say why what lies there is not used: somebody else can have written it; empty when all is well, or not there."""
    try:
        return trust.distrust(place)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return f"it cannot be looked at: {error}"


def fault(entry: CacheEntry, *, thorough: bool = False) -> str:
    """Say in a few words what is wrong with the files of an entry; empty when nothing is.

    A file whose size and time are those of the manifest is taken to be the same; `thorough` reads all of them.
    """
    root = files_of(entry.folder)
    try:
        if found := _unsafe(entry.folder):
            return found
    except OSError as error:
        return f"it cannot be looked at: {error}"
    listed = {file.name for file in entry.files}
    for name in _names(root):
        if name not in listed:
            return f"{name} was added"
    for file in entry.files:
        try:
            state = (root / file.name).stat()
            if state.st_size != file.bytes:
                return f"{file.name} has {state.st_size} bytes where {file.bytes} were written"
            if (thorough or state.st_mtime_ns != file.mtime_ns) and _sha256(root / file.name) != file.sha256:
                return f"{file.name} was changed"
        except OSError:
            return f"{file.name} is missing"
    return ""


def _unsafe(folder: Path) -> str:
    """Say what in a folder somebody else can write, or is a link to what may lie elsewhere; raises OSError."""
    for path in (folder, *folder.rglob("*")):
        state = path.lstat()
        if stat.S_ISLNK(state.st_mode):
            return f"{path} is a link"
        if found := trust.distrust_entry(path, state):
            return found
    return ""


def entries(shelf: Path) -> Iterator[CacheEntry]:
    """Return the entries of one provider that can be read."""
    for folder in folders(shelf):
        with contextlib.suppress(ValueError):
            entry = read(folder)
            if entry is not None:
                yield entry


def folders(shelf: Path) -> list[Path]:
    """Return the folders of the entries of one provider, finished or not.

    Whoever names a folder may keep other things there: an entry has a key for a name, and a manifest or a lock.
    """
    with contextlib.suppress(OSError):
        return sorted(
            folder
            for folder in shelf.iterdir()
            if _KEY.fullmatch(folder.name)
            and folder.is_dir()
            and ((folder / _MANIFEST).exists() or folder.with_name(f"{folder.name}.lock").exists())
        )
    return []


@contextlib.contextmanager
def locked(folder: Path, seconds: float) -> Iterator[None]:
    """Hold an entry against everybody who builds or removes it; raises TimeoutError, or OSError.

    What others can write is an OSError too: a lock that they can take or replace holds nothing.
    """
    import filelock

    disk.make_private_folder(folder.parent)
    if found := distrust(folder.parent):
        raise PermissionError(found)
    lock = filelock.FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=seconds)
    except filelock.Timeout as error:
        raise TimeoutError(f"another process is building it for longer than {seconds:g} s") from error
    except NotImplementedError as error:  # a file system without locks
        raise OSError(str(error)) from error
    try:
        yield
    finally:
        lock.release()


def begin(folder: Path) -> Path:
    """Make room for a build, and return where its files go. The caller holds the lock."""
    remove(folder)
    files = files_of(folder)
    disk.make_private_folder(files)
    return files


def seal(entry: CacheEntry) -> CacheEntry:
    """Write the manifest of an entry whose files are there, and return it with them. The caller holds the lock."""
    root = files_of(entry.folder)
    for path in root.rglob("*"):
        _close_to_others(path)
    files = []
    for name in _names(root):
        path = root / name
        _flush(path)
        state = path.stat()
        files.append(KeptFile(name, state.st_size, state.st_mtime_ns, _sha256(path)))
    message = asdict(entry) | {"schema": SCHEMA, "files": [asdict(file) for file in files]}
    del message["folder"]
    disk.write_atomic(entry.folder / _MANIFEST, json.dumps(message, indent=1), mode=disk.PRIVATE_MODE, durable=True)
    return CacheEntry(**{name: getattr(entry, name) for name in CacheEntry.__slots__} | {"files": tuple(files)})


def touch(entry: CacheEntry) -> None:
    """Note that a session started from an entry, where that can be written."""
    with contextlib.suppress(OSError):
        os.utime(entry.folder / _MANIFEST)


def remove(folder: Path) -> None:
    """Remove an entry: out of sight in one step, then file by file. The caller holds the lock."""
    if not folder.exists():
        return
    gone = folder.with_name(f"{_GONE}{folder.name}-{os.getpid()}-{time.monotonic_ns()}")
    folder.replace(gone)
    shutil.rmtree(gone, ignore_errors=True)


def limit() -> int:
    """Return how many bytes of compiled models may be kept: `EPKIT_CACHE_LIMIT`; raises ConfigError."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    written = os.environ.get("EPKIT_CACHE_LIMIT") or LIMIT
    try:
        return int(TypeAdapter(ByteSize).validate_python(written))
    except ValidationError as error:
        hint = "EPKIT_CACHE_LIMIT=10GiB"
        raise ConfigError(f"EPKIT_CACHE_LIMIT is {written!r}, which is no number of bytes", hint=hint) from error


def shrink(shelves: Iterable[Path], limit: int, keep: Iterable[Path] = ()) -> list[CacheEntry]:
    """Remove what was used longest ago until the rest is within the limit; what somebody is building stays.

    Returns what was removed. Builds that never ended are cleared away too.
    """
    shelves = tuple(shelves)
    for shelf in shelves:
        for folder in folders(shelf):
            if not (folder / _MANIFEST).exists():
                drop(folder, unfinished=True)
        for gone in shelf.glob(f"{_GONE}*"):
            if _REMOVED.fullmatch(gone.name):
                shutil.rmtree(gone, ignore_errors=True)
    there = sorted((entry for shelf in shelves for entry in entries(shelf)), key=lambda entry: entry.used)
    total, removed, spared = sum(entry.bytes for entry in there), [], set(keep)
    for entry in there:
        if total <= limit:
            break
        if entry.folder not in spared and drop(entry.folder):
            total -= entry.bytes
            removed.append(entry)
    return removed


def drop(folder: Path, *, unfinished: bool = False) -> bool:
    """Remove an entry unless somebody is building it, or (`unfinished`) has just finished it; whether it is gone."""
    with contextlib.suppress(OSError), locked(folder, 0):
        if not (unfinished and (folder / _MANIFEST).exists()):
            remove(folder)
            return True
    return False


def building(folder: Path) -> bool:
    """Whether somebody is building an entry, or removing it, just now."""
    try:
        with locked(folder, 0):
            return False
    except TimeoutError:
        return True
    except OSError:
        return False


def _names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _close_to_others(path: Path) -> None:
    """Take from others the right to write a file: providers write them as the umask has it."""
    mode = path.lstat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(mode):
        path.chmod(stat.S_IMODE(mode) & ~(stat.S_IWGRP | stat.S_IWOTH))


def _flush(path: Path) -> None:
    """Have a file on the disk before the manifest that vouches for it.

    Opened for reading, since OpenVINO writes files that may only be read; Windows cannot flush them then, and does not.
    """
    with path.open("rb") as file:
        if sys.platform != "win32":
            os.fsync(file.fileno())
