"""Keep ONNX Runtime's telemetry off unless it was requested, and report its state in this process.

Since 1.29, the official wheels send telemetry from Linux and macOS too. One environment variable, which ONNX Runtime
reads when it is imported, decides for the life of the process.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeAlias

from epkit._system import fork

VARIABLE = "ORT_DISABLE_TELEMETRY"
PAGE = "docs/telemetry.md"

State: TypeAlias = Literal["off", "on", "late"]
"""Off; on, since it was requested; or "late", since ONNX Runtime was imported before epkit could switch it off."""

_OFF = ("1", "true", "yes", "on")  # the values that ONNX Runtime accepts, in upper or lower case
_ON = ("0", "false", "no", "off")

_lock = fork.make_lock()
_worker = False
_origin = ""
_state: State | None = None
_stopped = False


def keep_off() -> None:
    """Keep telemetry off even if it is requested: for processes that epkit starts or owns."""
    global _worker
    _worker = True


def request(origin: str) -> None:
    """Allow telemetry in this process, as requested by `origin` (a place in a config); "" requests nothing."""
    global _origin
    _origin = _origin or origin


def read_variable() -> State | None:
    """Return what the environment variable sets; None if it is unset, or has a value that ONNX Runtime ignores."""
    value = os.environ.get(VARIABLE, "").lower()
    return "off" if value in _OFF else "on" if value in _ON else None


def decide(requested_by: str = "") -> tuple[State, str]:
    """Return the wanted state in a user's program, and its origin; `requested_by` is the place in a config."""
    value = read_variable()
    if value is not None:
        return value, f"{VARIABLE}={os.environ[VARIABLE]}"
    return ("on", requested_by) if requested_by else ("off", "epkit")


@contextlib.contextmanager
def guard_import() -> Iterator[None]:
    """Set the variable while ONNX Runtime is imported in the block; do nothing from the second time on."""
    if _state is None:
        with _lock:
            if _state is None:
                with _set_variable():
                    yield
                return
    yield


@contextlib.contextmanager
def _set_variable() -> Iterator[None]:
    global _state
    wanted = "off" if _worker else decide(_origin)[0]
    before = os.environ.get(VARIABLE)
    late = "onnxruntime" in sys.modules and read_variable() != "off"
    try:
        if wanted == "off" and not late:
            # Not in os.environ, which the rest of the program sees: ONNX Runtime reads the C environment.
            os.putenv(VARIABLE, "1")
        yield
    finally:
        if before is None:
            os.unsetenv(VARIABLE)
        else:
            os.putenv(VARIABLE, before)
    _state = "on" if wanted == "on" else "late" if late else "off"


def disable_after_import(runtime: ModuleType) -> None:
    """Disable the telemetry that can be disabled after the import, unless telemetry was requested.

    Needed on Windows, whose event tracing does not read the variable, and if ONNX Runtime was imported before.
    """
    global _stopped
    if _state != "on" and not _stopped:  # once: the program may enable it afterwards
        runtime.disable_telemetry_events()
    _stopped = True


def state() -> State | None:
    """Return the state in this process; None if epkit has not imported ONNX Runtime."""
    return _state


def notes(requested_by: str = "") -> tuple[str, ...]:
    """Return the notes for a report: telemetry is on, or it is off although the config requests it."""
    wanted, origin = decide(requested_by)
    if _state == "late":
        return (describe_late(),)
    if _state == "on":
        return (f"ONNX Runtime's telemetry is on in this process: {origin} ({PAGE})",)
    if wanted == "on" and not _worker and _state == "off":
        return (f"{origin} asks for ONNX Runtime's telemetry, and it was loaded in this process without",)
    return ()


def describe_late() -> str:
    """Return which telemetry can no longer be prevented in this process."""
    verb = "has recorded" if _is_recording() else "may have recorded"
    subject = "onnxruntime was imported before epkit, without ORT_DISABLE_TELEMETRY=1: what its telemetry"
    return f"{subject} {verb} of this process until then will be sent; later events are off ({PAGE})"


def folder() -> Path:
    """Return the folder with ONNX Runtime's device ID and its unsent telemetry."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")  # noqa: PTH111
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Application Support")  # noqa: PTH111
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(base) / "Microsoft" / "DeveloperTools" / ".onnxruntime"


def removal_command() -> str:
    """Return the shell command that removes the folder."""
    if sys.platform == "win32":
        return f'rmdir /s /q "{folder()}"'
    return f"rm -r {shlex.quote(str(folder()))}"


def _is_recording() -> bool:
    """Whether this process has the database of unsent telemetry open; False if unknown."""
    opened = Path("/proc/self/fd")
    try:
        return any(link.readlink() == folder() / "onnxruntime.db" for link in opened.iterdir() if link.is_symlink())
    except OSError:
        return False
