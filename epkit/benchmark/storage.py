"""Write and read the documents of benchmarks, and find the latest one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import time
from pathlib import Path
from typing import NoReturn

from epkit._system import files, trust
from epkit._system.folders import resolve_user_folder
from epkit._system.nesting import find_problem
from epkit._system.platform import free_memory
from epkit._system.text import format_bytes
from epkit.benchmark.audit.consistency import dangling
from epkit.benchmark.document import SCHEMA, Benchmark, Findings, Measured
from epkit.benchmark.limits import MOST_COMPARISONS, too_many
from epkit.errors import ConfigError

MOST_BYTES = 1 << 30
"""The largest document that is read."""
MEMORY_FACTOR = 12
"""How many times its size in memory reading a document takes, about."""
VARIABLE = "EPKIT_BENCH_DIR"
MOST_DOCUMENTS = 50
"""How many documents the folder of unnamed ones holds."""


_OLDER_SCHEMA = "epkit.bench/2"
_RENAMED = {"sweep": "pass_number", "meeting": "pair", "meetings": "pairs"}
"""The keys that have another name in that schema."""


class Unwritten(ConfigError):
    """The document of a benchmark could not be written; `benchmark` is what was measured."""

    def __init__(self, error: ConfigError, benchmark: Benchmark) -> None:
        super().__init__(error.message, hint=error.hint)
        self.benchmark = benchmark


def folder() -> Path:
    """Return the folder for unnamed documents: EPKIT_BENCH_DIR, or one in the user's data directory."""
    import platformdirs

    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    return resolve_user_folder(lambda: platformdirs.user_data_dir("epkit")) / "benchmarks"


def new_file(model: str) -> Path:
    """Name a new document after the time and the model, and delete the oldest unnamed ones.

    Raises ConfigError where the folder cannot be written to.
    """
    its_folder = folder()
    try:
        files.make_private_folder(its_folder)
        if not os.access(its_folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        reason = f"no benchmark can be saved in {its_folder}: {error.strerror or error}"
        raise ConfigError(reason, hint="--output FILE.json, or: export EPKIT_BENCH_DIR=FOLDER") from error
    for old in _documents(its_folder)[: -MOST_DOCUMENTS + 1]:
        with contextlib.suppress(OSError):
            old.unlink(missing_ok=True)
    name = re.sub(r"[^\w.-]+", "-", Path(model).stem) or "model"
    started = f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}-"
    return its_folder / f"{started}{files.shorten_name(name, len(started) + len('.json'))}.json"


def latest() -> Path:
    """Return the document that was written last. Raises ConfigError when there is none."""
    found = _documents(folder())
    if not found:
        raise ConfigError(f"there is no benchmark in {folder()} yet", hint="epkit bench")
    return found[-1]


def write(benchmark: Benchmark, file: Path) -> None:
    """Write a document atomically: a reader finds the old one or the new one. Raises ConfigError."""
    try:
        files.write_atomic(file, json.dumps(benchmark.as_json(), allow_nan=False) + "\n")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}", hint="--output FILE.json") from error


def is_replaced(file: Path) -> bool:
    """Whether a document replaces the file, so that it can be written again and again; raises ConfigError."""
    try:
        return files.is_replaced(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}", hint="--output FILE.json") from error


def read(file: str | os.PathLike[str]) -> Benchmark:
    """Read a document, also of the schema before this one. Raises ConfigError for a file that is not one."""
    from pydantic import TypeAdapter, ValidationError

    name = os.fspath(file)
    try:
        found = json.loads(_contents(Path(file)), parse_constant=_no_number)
    except OSError as error:
        raise _unreadable(f"{name} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise _unreadable(f"{name} is no JSON: {error}") from error
    except RecursionError as error:
        raise _unreadable(f"{name} is damaged: it is nested too deep") from error
    wrong = find_problem(found)
    if wrong:
        raise _unreadable(f"{name} is damaged: {wrong}")
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema == _OLDER_SCHEMA:
        found = {key: _renamed(part) if key in ("measured", "findings") else part for key, part in found.items()}
    elif schema != SCHEMA:
        said = f"says {schema!r} of itself" if schema else "does not say what it is"
        raise _unreadable(f"{name} {said}, where {SCHEMA!r} is expected")
    try:
        benchmark = Benchmark(
            TypeAdapter(Measured).validate_python(found.get("measured")),
            TypeAdapter(Findings).validate_python(found.get("findings")),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _unreadable(f"{name} is damaged: {where}: {first['msg']}") from error
    measured = benchmark.measured
    if any(True for part in (measured, benchmark.findings) for _ in dangling(part, measured)):
        raise _unreadable(f"{name} is damaged: it refers to what is not in it")
    many = too_many(len(measured.candidates), len(measured.cases))
    if many or len(benchmark.findings.comparisons) > MOST_COMPARISONS:
        raise _unreadable(f"{name} is too large: {many or 'it holds too many comparisons'}")
    return benchmark


def _unreadable(reason: str) -> ConfigError:
    return ConfigError(reason, hint="epkit bench --output FILE.json writes one")


def _renamed(part: object) -> object:
    """Rename the keys of the older schema, in the rows of lists."""
    if isinstance(part, dict):
        return {
            name: [_rename_keys(row) for row in its] if isinstance(its, list) else its for name, its in part.items()
        }
    return part


def _rename_keys(row: object) -> object:
    return {_RENAMED.get(key, key): its for key, its in row.items()} if isinstance(row, dict) else row


def _contents(file: Path) -> str:
    """Read a file of text that must not take more memory than there is; raises OSError and ValueError."""
    most = min(MOST_BYTES, (free_memory() or MOST_BYTES * MEMORY_FACTOR) // MEMORY_FACTOR)
    with file.open("rb") as opened:
        contents = opened.read(most + 1)
    if len(contents) > most:
        raise OSError(errno.EFBIG, f"it has more than {format_bytes(most)}")
    return contents.decode("utf-8")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")


def _documents(its_folder: Path) -> list[Path]:
    """List this user's documents in the order in which they were written.

    By the time of the file, not the one in its name: a clock that was wrong once would hide all later documents. Those
    dated in the future come first.
    """
    now, found = time.time(), []
    for file in its_folder.glob("[0-9]*T[0-9]*-*.json"):
        with contextlib.suppress(OSError):
            state = file.lstat()
            if stat.S_ISREG(state.st_mode) and not trust.distrust_entry(file, state):
                found.append((state.st_mtime <= now, state.st_mtime_ns, file))
    return [file for *_, file in sorted(found)]
