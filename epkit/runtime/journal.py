"""How are events kept? One JSON document a line, in a file that many processes may share."""

from __future__ import annotations

import json
import os
import re
import time
import weakref
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from epkit._system import fork
from epkit.errors import ConfigError
from epkit.runtime import events

VARIABLE = "EPKIT_EVENTS"


class JsonLines:
    """An observer that appends each event to a file, as `{"event": "opened", "at": ..., "pid": ..., ...}`."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        """Open the file; raises OSError."""
        # One write a line at the end of the file, so that processes and threads do not mix theirs.
        self._name = os.fspath(file)
        self._file = os.open(Path(file), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        # Not at exit: other threads may still tell of something then.
        weakref.finalize(self, os.close, self._file).atexit = False

    def __repr__(self) -> str:
        return f"JsonLines({self._name!r})"

    def __call__(self, event: events.Event) -> None:
        """Write one line; `at` is in seconds since 1970."""
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(event).__name__).lower()
        line = {"event": kind, "at": round(time.time(), 6), "pid": os.getpid()} | asdict(event)
        os.write(self._file, (json.dumps(line) + "\n").encode())


_begun: dict[str, events.Observation] = {}
_lock = fork.make_lock()


def begin(environ: Mapping[str, str] | None = None) -> None:
    """Keep events in the file that EPKIT_EVENTS names, for as long as it does; raises ConfigError."""
    file = (os.environ if environ is None else environ).get(VARIABLE, "")
    with _lock:
        for other in [one for one in _begun if one != file]:
            _begun.pop(other).stop()
        if not file or file in _begun:
            return
        try:
            _begun[file] = events.observe(JsonLines(file))
        except OSError as error:
            told = f"{VARIABLE} names {file!r}, which cannot be written: {error.strerror}"
            raise ConfigError(told, hint=f"export {VARIABLE}=events.jsonl") from error
