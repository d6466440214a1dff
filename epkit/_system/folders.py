"""Where does epkit keep what it need not find out twice?"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from epkit._system import files, trust


def place(part: str) -> Path:
    """Return where the folder for `part` is or would be: below `EPKIT_CACHE_DIR`, else the user's cache folder."""
    root = os.environ.get("EPKIT_CACHE_DIR")
    if root:
        return Path(os.path.expanduser(root)) / part  # noqa: PTH111 - a process may have no home
    import platformdirs

    return users_folder(lambda: platformdirs.user_cache_dir("epkit", appauthor=False)) / part


def users_folder(find: Callable[[], str]) -> Path:
    """Return a folder of the user's; for a process without a home, one that cannot be made."""
    try:
        found = Path(find())
    except RuntimeError:
        found = Path()
    # Older versions of platformdirs leave "~" as it is, which would become a folder in the working directory.
    return found if found.is_absolute() else Path(os.devnull, "no home directory")


def directory(part: str) -> Path:
    """Return the folder for `part`, made if need be; raises OSError where it cannot be written, or where others can."""
    folder = place(part)
    files.private_folder(folder)
    if told := trust.distrust(folder):
        raise PermissionError(told)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the cache folder {folder} is not writable")
    return folder
