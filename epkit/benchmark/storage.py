"""Where do the documents of benchmarks lie, and how are they written and read?"""

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
from epkit.benchmark.document import MOST_COMPARISONS, SCHEMA, Benchmark, Findings, Measured, too_many
from epkit.errors import ConfigError

MOST_BYTES = 1 << 30
"""How large a document may be."""
MEMORY_FACTOR = 12
"""How many times its size reading a document takes, about."""
VARIABLE = "EPKIT_BENCH_DIR"
KEPT = 50
"""How many documents are kept in the folder of those that nobody gave a name."""


class Unwritten(ConfigError):
    """A benchmark was measured, and its document could not be written; here it is."""

    def __init__(self, error: ConfigError, benchmark: Benchmark) -> None:
        super().__init__(error.message, hint=error.hint)
        self.benchmark = benchmark


def folder() -> Path:
    """Return the folder for documents that nobody gave a name: EPKIT_BENCH_DIR, or the user's data directory."""
    import platformdirs

    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    return resolve_user_folder(lambda: platformdirs.user_data_dir("epkit")) / "benchmarks"


def new_file(model: str) -> Path:
    """Name a new document after the time and the model, and let go of the oldest; those that were named stay.

    Raises ConfigError where nothing can be written.
    """
    its_folder = folder()
    try:
        files.make_private_folder(its_folder)
        if not os.access(its_folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        told = f"no benchmark can be kept in {its_folder}: {error.strerror or error}"
        raise ConfigError(told, hint="--output FILE.json, or: export EPKIT_BENCH_DIR=FOLDER") from error
    for old in _documents(its_folder)[: -KEPT + 1]:
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
    """Write a document; whoever reads it meanwhile finds the old one or the new one. Raises ConfigError."""
    try:
        files.write_atomic(file, json.dumps(benchmark.as_json(), allow_nan=False) + "\n")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}", hint="--output FILE.json") from error


def is_replaced(file: Path) -> bool:
    """Whether a document takes the place of a file, and may so be written again and again; raises ConfigError."""
    try:
        return files.is_replaced(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}", hint="--output FILE.json") from error


def read(file: str | os.PathLike[str]) -> Benchmark:
    """Read a document. Raises ConfigError for a file that is not one."""
    from pydantic import TypeAdapter, ValidationError

    hint = "epkit bench --output FILE.json writes one"
    try:
        found = json.loads(_contents(Path(file)), parse_constant=_no_number)
    except OSError as error:
        raise ConfigError(f"{os.fspath(file)} cannot be read: {error.strerror or error}", hint=hint) from error
    except ValueError as error:
        raise ConfigError(f"{os.fspath(file)} is no JSON: {error}", hint=hint) from error
    except RecursionError as error:
        raise ConfigError(f"{os.fspath(file)} is damaged: it is nested too deep", hint=hint) from error
    wrong = find_problem(found)
    if wrong:
        raise ConfigError(f"{os.fspath(file)} is damaged: {wrong}", hint=hint)
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        said = f"says {schema!r} of itself" if schema else "does not say what it is"
        raise ConfigError(f"{os.fspath(file)} {said}, where {SCHEMA!r} is expected", hint=hint)
    try:
        whole = Benchmark(
            TypeAdapter(Measured).validate_python(found.get("measured")),
            TypeAdapter(Findings).validate_python(found.get("findings")),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(one) for one in first["loc"])
        raise ConfigError(f"{os.fspath(file)} is damaged: {where}: {first['msg']}", hint=hint) from error
    if not _hangs_together(whole):
        raise ConfigError(f"{os.fspath(file)} is damaged: it refers to what is not in it", hint=hint)
    many = too_many(len(whole.candidates), len(whole.measured.cases))
    if many or len(whole.findings.comparisons) > MOST_COMPARISONS:
        raise ConfigError(f"{os.fspath(file)} is too large: {many or 'it holds too many comparisons'}", hint=hint)
    return whole


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


def _hangs_together(found: Benchmark) -> bool:
    """Whether every case, candidate and process that is referred to by its place is there."""
    measured, its = found.measured, found.findings
    cases, candidates, processes = map(range, map(len, (measured.cases, measured.candidates, measured.processes)))
    return (
        all(one.candidate in candidates for one in measured.processes)
        and all(one.candidate in candidates for one in its.starts)
        and all(one.case in cases and one.process in processes for one in measured.blocks)
        and all(one.case in cases and one.candidate in candidates for one in its.figures)
        and all(one.case in cases and one.a in candidates and one.b in candidates for one in its.comparisons)
        and len(its.winners) == len(cases)
        and all(one is None or one in candidates for one in its.winners)
    )


def _documents(its_folder: Path) -> list[Path]:
    """List this user's documents in the order in which they were written.

    By the time of the file, not the one in its name: a clock that was wrong once would hide what came after. What is
    dated in the future comes first, as the least to be believed.
    """
    now, found = time.time(), []
    for file in its_folder.glob("[0-9]*T[0-9]*-*.json"):
        with contextlib.suppress(OSError):
            state = file.lstat()
            if stat.S_ISREG(state.st_mode) and not trust.distrust_entry(file, state):
                found.append((state.st_mtime <= now, state.st_mtime_ns, file))
    return [file for *_, file in sorted(found)]
