"""Find the line of the user's own code that an error of PyTorch comes from."""

from __future__ import annotations

import linecache
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

_MENTIONED = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in|# File: (?P<file2>\S+?):(?P<line2>\d+) in')
_EPKIT = str(Path(__file__).parents[2])


def find_place(error: BaseException) -> tuple[str, int] | None:
    """Return file and line, innermost first: of the tracebacks, else of the places that the messages mention."""
    chain = list(_causes(error))
    for cause in reversed(chain):
        for frame in reversed(traceback.extract_tb(cause.__traceback__)):
            if _is_users(frame.filename) and frame.lineno:
                return frame.filename, frame.lineno
    for cause in reversed(chain):
        for found in reversed(list(_MENTIONED.finditer(str(cause)))):
            file, line = found["file"] or found["file2"], found["line"] or found["line2"]
            if _is_users(file):
                return file, int(line)
    return None


def describe_place(error: BaseException) -> str:
    """Return "; at net.py:12: if x.sum() > 0:", or nothing where no line of the user's is known."""
    place = find_place(error)
    if place is None:
        return ""
    file, line = place
    code = linecache.getline(file, line).strip()
    return f"; at {Path(file).name}:{line}" + (f": {code}" if code else "")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_users(file: str) -> bool:
    paths = sysconfig.get_paths()
    installed = (paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], _EPKIT)
    return not file.startswith("<") and not any(file.startswith(f"{folder}/") for folder in installed)
