"""What is the digest of a model's files, without reading gigabytes each time?

A file's digest is remembered under what the file system says of it: path, size, times and inode. Of a file that was
changed in the last two seconds nothing is remembered: another change might leave the same time behind.
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
from epkit._system.folders import directory
from epkit.errors import ModelError
from epkit.model.file import Model

SETTLED_SECONDS = 2.0


def of_model(model: Model) -> dict[str, str]:
    """Return the SHA-256 of the model and of each file of external data, by what a person calls them.

    Raises ModelError when a file can no longer be read.
    """
    try:
        own = hashlib.sha256(model.source).hexdigest() if isinstance(model.source, bytes) else of_file(model.source)
        beside = {f"external data {one.path.name!r}": of_file(one.path) for one in model.external}
    except OSError as error:
        raise ModelError(f"the model cannot be read any more: {error}", hint="check the file, and try again") from error
    return {"model": own} | beside


def of_file(path: Path) -> str:
    """Return the SHA-256 of a file, remembered while the file stays as it is."""
    state = _state(path)
    memory = _memory(path)
    if memory is not None:
        with suppress(OSError, ValueError):
            kept = trust.fields(trust.read_json(memory), {"state": (list,), "sha256": (str,)})
            if kept["state"] == state:
                return str(kept["sha256"])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if memory is not None and _settled(path) and _state(path) == state:
        with suppress(OSError):
            files.write(memory, json.dumps({"state": state, "sha256": digest}), mode=files.KEPT)
    return digest


def _memory(path: Path) -> Path | None:
    """Return where the digest of a file is remembered; None where nothing can be."""
    try:
        folder = directory("digests")
    except OSError:
        return None
    return folder / f"{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]}.json"


def _state(path: Path) -> Sequence[object]:
    found = path.stat()
    return [str(path.absolute()), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _settled(path: Path) -> bool:
    """Whether the last change is long enough ago; a time in the future says nothing."""
    found = path.stat()
    return time.time() - max(found.st_mtime, found.st_ctime) > SETTLED_SECONDS
