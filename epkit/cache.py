"""Where does epkit keep what it need not find out twice?"""

from __future__ import annotations

import os
from pathlib import Path


def directory(part: str) -> Path:
    """Return the folder for `part`, made if need be: below `EPKIT_CACHE_DIR`, else the user's cache folder.

    Raises OSError where it cannot be written.
    """
    root = os.environ.get("EPKIT_CACHE_DIR")
    if root:
        folder = Path(os.path.expanduser(root)) / part  # noqa: PTH111 - a process may have no home
    else:
        import platformdirs

        folder = platformdirs.user_cache_path("epkit", appauthor=False) / part
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the cache folder {folder} is not writable")
    return folder
