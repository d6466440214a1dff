"""Make the folders that epkit writes to: its cache, and scratch folders that are removed after use.

A process that is killed leaves its scratch folder behind; the next process that makes one removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from epkit._system import files, trust
from epkit.errors import ConfigError

SCRATCH_PREFIX = "epkit-scratch-"
SCRATCH_LOCK = ".in-use"
"""A file that is locked while the folder is in use; the system releases the lock when the process ends."""
SCRATCH_MIN_AGE_S = 60.0
"""A younger folder is never removed: its process may not have locked it yet."""


def cache_path(part: str) -> Path:
    """Return the path of the cache folder `part`: below `EPKIT_CACHE_DIR`, or the user's cache folder."""
    root = os.environ.get("EPKIT_CACHE_DIR")
    if root:
        return Path(os.path.expanduser(root)) / part  # noqa: PTH111 - a process may have no home directory
    import platformdirs

    return resolve_user_folder(lambda: platformdirs.user_cache_dir("epkit", appauthor=False)) / part


def resolve_user_folder(find: Callable[[], str]) -> Path:
    """Return the user's folder that `find` finds; for a process without a home directory, one that cannot be made."""
    try:
        found = Path(find())
    except RuntimeError:
        found = Path()
    # Older versions of platformdirs do not expand "~", which would be a folder in the working directory.
    return found if found.is_absolute() else Path(os.devnull, "no home directory")


def make_cache_folder(part: str) -> Path:
    """Make the cache folder `part`; raises OSError if this user cannot write to it, or another user can."""
    folder = cache_path(part)
    files.make_private_folder(folder)
    if reason := trust.distrust(folder):
        raise PermissionError(reason)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the cache folder {folder} is not writable")
    return folder


@contextlib.contextmanager
def make_scratch_folder() -> Iterator[Path]:
    """Make a folder that is removed after the block, and remove those that killed processes of this user left.

    Raises ConfigError if it cannot be made.
    """
    import filelock

    try:
        _remove_abandoned()
        folder = tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX)
    except OSError as error:
        problem = f"no folder for temporary files can be made: {error.strerror or error}"
        raise ConfigError(problem, hint="export TMPDIR=FOLDER, one that can be written") from error
    with folder as name, contextlib.ExitStack() as stack:
        # On a file system without locks, no other process can lock it either, and so none removes it.
        with contextlib.suppress(NotImplementedError):
            stack.enter_context(filelock.FileLock(Path(name) / SCRATCH_LOCK))
        yield Path(name)


def write_scratch(file: Path, contents: bytes) -> None:
    """Write a file into a scratch folder; raises ConfigError."""
    try:
        file.write_bytes(contents)
    except OSError as error:
        problem = f"{file} cannot be written: {error.strerror or error}"
        raise ConfigError(problem, hint="export TMPDIR=FOLDER, one with more space") from error


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}*"):
        with contextlib.suppress(OSError, NotImplementedError):
            if _is_abandoned(folder):
                shutil.rmtree(folder)


def _is_abandoned(folder: Path) -> bool:
    import filelock

    found = folder.lstat()
    is_own = stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())
    if not is_own or time.time() - found.st_mtime < SCRATCH_MIN_AGE_S:
        return False
    lock = filelock.FileLock(folder / SCRATCH_LOCK)
    lock.acquire(timeout=0)  # raises Timeout, an OSError, while another process holds it
    lock.release()
    return True
