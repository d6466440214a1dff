"""Where does a command put what nobody needs once it is over?

Into a folder that goes when it ends. One that is killed tidies nothing up, so whoever makes the next folder does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from epkit.errors import ConfigError

PREFIX = "epkit-scratch-"
LOCK = ".in-use"
"""Held as long as the folder is wanted; the system lets go of it when the process ends, however that is."""
YOUNG_S = 60.0
"""How long a folder is left alone, whatever it looks like: it may be about to be locked."""


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder that is gone after the block, and remove those that processes of this user left behind.

    Raises ConfigError where none can be made.
    """
    import filelock

    try:
        _tidy_up()
        made = tempfile.TemporaryDirectory(prefix=PREFIX)
    except OSError as error:
        told = f"no folder for temporary files can be made: {error.strerror or error}"
        raise ConfigError(told, hint="export TMPDIR=FOLDER, one that can be written") from error
    with made as name, contextlib.ExitStack() as stack:
        # On a file system without locks nobody else can lock it either, and so nobody takes it away.
        with contextlib.suppress(NotImplementedError):
            stack.enter_context(filelock.FileLock(Path(name) / LOCK))
        yield Path(name)


def write(file: Path, contents: bytes) -> None:
    """Write a file into such a folder; raises ConfigError."""
    try:
        file.write_bytes(contents)
    except OSError as error:
        told = f"{file} cannot be written: {error.strerror or error}"
        raise ConfigError(told, hint="export TMPDIR=FOLDER, one with more space") from error


def _tidy_up() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, NotImplementedError):
            if _is_left_behind(folder):
                shutil.rmtree(folder)


def _is_left_behind(folder: Path) -> bool:
    import filelock

    found = folder.lstat()
    mine = stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())
    if not mine or time.time() - found.st_mtime < YOUNG_S:
        return False
    lock = filelock.FileLock(folder / LOCK)
    lock.acquire(timeout=0)  # raises Timeout, an OSError, where somebody holds it
    lock.release()
    return True
