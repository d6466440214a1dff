"""Compute the SHA-256 of a model and its files, and cache it by file, since weights can have gigabytes.

The cache key of a file is its path, size, times and inode. The digest of a file that was changed in the last two
seconds is not cached: another change could leave the same time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from epkit._system import files, trust
from epkit._system.folders import make_cache_folder
from epkit.errors import ModelError
from epkit.model.file import Model, Source, read_model

SETTLED_SECONDS = 2.0


def digest_model(model: Source | Model) -> str:
    """Return the SHA-256 of a model in hexadecimal, computed anew: of its bytes, or over its files if it has several.

    Raises ModelError if a file can no longer be read.
    """
    found = model if isinstance(model, Model) else read_model(model)
    try:
        parts = [_sha256(found.source), *(_sha256(file.path) for file in found.external)]
    except OSError as error:
        raise _unreadable(error) from error
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def digest_files(model: Model) -> dict[str, str]:
    """Return the SHA-256 of the model and of each file of external data, by a name for messages.

    Raises ModelError if a file can no longer be read.
    """
    try:
        own = _sha256(model.source) if isinstance(model.source, bytes) else digest_file(model.source)
        external = {f"external data {file.path.name!r}": digest_file(file.path) for file in model.external}
    except OSError as error:
        raise _unreadable(error) from error
    return {"model": own} | external


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file, from the cache if the file has not changed."""
    state = _state(path)
    cached = _cache_file(path)
    if cached is not None:
        with suppress(OSError, ValueError):
            entry = trust.check_fields(trust.read_json(cached), {"state": (list,), "sha256": (str,)})
            if entry["state"] == state:
                return str(entry["sha256"])
    digest = _sha256(path)
    if cached is not None and _is_settled(path) and _state(path) == state:
        with suppress(OSError):
            files.write_atomic(cached, json.dumps({"state": state, "sha256": digest}), mode=files.PRIVATE_MODE)
    return digest


def _sha256(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(error: OSError) -> ModelError:
    return ModelError(f"the model can no longer be read: {error}", hint="check the file, and try again")


def _cache_file(path: Path) -> Path | None:
    """Return the file that caches the digest of `path`; None if the cache cannot be written."""
    try:
        folder = make_cache_folder("digests")
    except OSError:
        return None
    return folder / f"{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]}.json"


def _state(path: Path) -> Sequence[object]:
    found = path.stat()
    return [str(path.absolute()), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _is_settled(path: Path) -> bool:
    """Whether the last change was long enough ago; False for a time in the future."""
    found = path.stat()
    return time.time() - max(found.st_mtime, found.st_ctime) > SETTLED_SECONDS
