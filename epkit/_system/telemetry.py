"""Keep ONNX Runtime's telemetry off unless it was asked for, and state what this process does about it.

Official wheels send telemetry from Linux and macOS too since 1.29. One environment variable, read while ONNX Runtime is
imported, decides for the life of the process.
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
"""Off; on, since the user asked for it; or on because ONNX Runtime had been imported before epkit could say no."""

_OFF = ("1", "true", "yes", "on")  # what ONNX Runtime takes as such, in any case
_ON = ("0", "false", "no", "off")

_lock = fork.lock()
_own = False
_asked = ""
_state: State | None = None
_stopped = False


def keep_off() -> None:
    """Keep it off whatever is asked for: this process is one of epkit's own."""
    global _own
    _own = True


def ask(origin: str) -> None:
    """Let ONNX Runtime have its telemetry in this process where `origin` asks for it; empty: nothing does."""
    global _asked
    _asked = _asked or origin


def variable() -> State | None:
    """Return what the user's environment says; None when it says nothing that ONNX Runtime understands."""
    said = os.environ.get(VARIABLE, "").lower()
    return "off" if said in _OFF else "on" if said in _ON else None


def wish(asked: str = "") -> tuple[State, str]:
    """Return what is wanted in a program of the user's, and what says so; `asked` is where a config asks for it."""
    said = variable()
    if said is not None:
        return said, f"{VARIABLE}={os.environ[VARIABLE]}"
    return ("on", asked) if asked else ("off", "epkit")


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import ONNX Runtime within: the variable holds meanwhile, and no longer. After the first time, do nothing."""
    if _state is None:
        with _lock:
            if _state is None:
                with _held():
                    yield
                return
    yield


@contextlib.contextmanager
def _held() -> Iterator[None]:
    global _state
    wanted = "off" if _own else wish(_asked)[0]
    before = os.environ.get(VARIABLE)
    late = "onnxruntime" in sys.modules and variable() != "off"
    try:
        if wanted == "off" and not late:
            # Not through os.environ, which the rest of the program sees: ONNX Runtime reads what lies below.
            os.putenv(VARIABLE, "1")
        yield
    finally:
        if before is None:
            os.unsetenv(VARIABLE)
        else:
            os.putenv(VARIABLE, before)
    _state = "on" if wanted == "on" else "late" if late else "off"


def loaded(runtime: ModuleType) -> None:
    """Stop what ONNX Runtime still lets one stop after its import, unless its telemetry was asked for.

    Where it was off from the start, this changes nothing; Windows' own event tracing knows no variable.
    """
    global _stopped
    if _state != "on" and not _stopped:  # once: what the program switches on afterwards is its own affair
        runtime.disable_telemetry_events()
    _stopped = True


def state() -> State | None:
    """Return what this process does; None when epkit has not imported ONNX Runtime."""
    return _state


def notes(asked: str = "") -> tuple[str, ...]:
    """Say what a report must, where telemetry is on, or is not what the config asks for."""
    wanted, origin = wish(asked)
    if _state == "late":
        return (late(),)
    if _state == "on":
        return (f"ONNX Runtime's telemetry is on in this process: {origin} ({PAGE})",)
    if wanted == "on" and not _own and _state == "off":
        return (f"{origin} asks for ONNX Runtime's telemetry, and it was loaded in this process without",)
    return ()


def late() -> str:
    """Say what can no longer be stopped in this process."""
    verb = "has recorded" if _recording() else "may have recorded"
    told = "onnxruntime was imported before epkit, without ORT_DISABLE_TELEMETRY=1: what its telemetry"
    return f"{told} {verb} of this process until then will be sent; later events are off ({PAGE})"


def folder() -> Path:
    """Return where ONNX Runtime keeps its id of the device and what it has not sent yet."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")  # noqa: PTH111
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Application Support")  # noqa: PTH111
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(base) / "Microsoft" / "DeveloperTools" / ".onnxruntime"


def removal() -> str:
    """Return the command that removes it."""
    if sys.platform == "win32":
        return f'rmdir /s /q "{folder()}"'
    return f"rm -r {shlex.quote(str(folder()))}"


def _recording() -> bool:
    """Whether this process has the file open in which telemetry waits; False also where the system does not tell."""
    opened = Path("/proc/self/fd")
    try:
        return any(link.readlink() == folder() / "onnxruntime.db" for link in opened.iterdir() if link.is_symlink())
    except OSError:
        return False
