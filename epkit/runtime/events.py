"""Call observers with each event, and append events to a file of JSON lines.

An observer is called in the thread where the event happens. A session that was opened without an observer is ONNX
Runtime's own, and reports no runs: so without observers a run costs nothing more.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

from epkit._system import fork
from epkit._system.text import describe_error
from epkit.errors import ConfigError
from epkit.runtime.session_wrapper import SessionWrapper

VARIABLE = "EPKIT_EVENTS"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Probed:
    """What was found out about a provider: `reason` says why it is not usable, or what was found."""

    provider: str
    usable: bool
    reason: str
    hint: str
    seconds: float
    remembered: bool
    """Whether the answer was on disk from an earlier proof."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A provider of the chain was given up for this model, and the next one is tried."""

    target: str
    provider: str
    outcome: str
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Cached:
    """What a provider that compiles had to do with the cache: `hit`, `miss`, `built`, `off` or `failed`."""

    target: str
    provider: str
    outcome: str
    reason: str
    folder: str
    bytes: int
    seconds: float
    """What building the entry took."""


@dataclass(frozen=True, slots=True)
class WarmedUp:
    """One combination of shapes was warmed up; seconds of the first run, and of the last where there were two."""

    target: str
    shapes: Mapping[str, Sequence[int]]
    runs: int
    first_s: float
    steady_s: float | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A session is ready. `session` is its number in this process, which its runs carry too."""

    session: int
    model: str
    target: str
    provider: str | None
    nodes: Mapping[str, int]
    """How many nodes each provider took."""
    seconds: Mapping[str, float]
    """What probing, opening and warming up took."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A run of ONNX Runtime's, plain or bound; `error` is empty where it went well."""

    session: int
    provider: str | None
    seconds: float
    error: str


Event: TypeAlias = Probed | Dropped | Cached | WarmedUp | Opened | Ran
Observer: TypeAlias = Callable[[Event], None]


class Observation:
    """An active observer, until `stop` or the end of a `with` block."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self._calling = threading.local()

    def call(self, event: Event) -> None:
        """Call the observer, unless this thread is already in it: it gets no events of what it does itself."""
        if getattr(self._calling, "now", False):
            return
        self._calling.now = True
        try:
            self.observer(event)
        finally:
            self._calling.now = False

    def stop(self) -> None:
        """Call the observer no more."""
        with contextlib.suppress(ValueError):
            _observations.remove(self)

    def __enter__(self) -> Observation:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()


# Added to and taken from in one call each, so that a signal handler in their middle has no lock to wait for.
_observations: list[Observation] = []
_numbers = itertools.count(1)


def observe(observer: Observer) -> Observation:
    """Call `observer` with every event from now on, until the `Observation` that is returned is stopped.

    Runs are reported by the sessions that are opened from now on. An observer is called in the thread of the event, by
    several threads at once, and its time is added to the run: keep it short. If it raises, it is removed, and the
    logger `epkit` reports the error.
    """
    observation = Observation(observer)
    _observations.append(observation)
    return observation


def has_observers() -> bool:
    """Whether there is an observer."""
    return bool(_observations)


def notify(event: Event) -> None:
    """Call every observer."""
    for observation in tuple(_observations):
        try:
            observation.call(event)
        except OSError as error:  # what it writes to is full or gone: its code is not at fault
            observation.stop()
            logging.getLogger("epkit").error(
                "an observer failed, and is called no more: %r: %s", observation.observer, error
            )
        except Exception:
            observation.stop()
            logging.getLogger("epkit").exception("an observer failed, and is called no more: %r", observation.observer)


class ObservedSession(SessionWrapper):
    """A session that reports its runs to observers, after `begin`."""

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self.number = next(_numbers)
        self._provider: str | None = None
        self._begun = False

    def begin(self, provider: str | None) -> None:
        """Report the runs from now on; earlier ones were warm-up."""
        self._provider = provider
        self._begun = True

    def around(self, run: Callable[[], Result]) -> Result:
        """Do one run, and report its duration."""
        if not self._begun or not _observations:
            return run()
        error = ""
        started = time.perf_counter()
        try:
            return run()
        except BaseException as fault:
            error = describe_error(fault) if isinstance(fault, Exception) else type(fault).__name__
            raise
        finally:
            notify(Ran(self.number, self._provider, time.perf_counter() - started, error))


class JsonLines:
    """An observer that appends each event to a file, as `{"event": "opened", "at": ..., "pid": ..., ...}`."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        """Open the file; raises OSError."""
        # One write a line at the end of the file, so that processes and threads do not mix theirs.
        self._name = os.fspath(file)
        self._file = os.open(Path(file), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        # Not at exit: other threads may still report events then.
        weakref.finalize(self, os.close, self._file).atexit = False

    def __repr__(self) -> str:
        return f"JsonLines({self._name!r})"

    def __call__(self, event: Event) -> None:
        """Write one line; `at` is in seconds since 1970."""
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(event).__name__).lower()
        line = {"event": kind, "at": round(time.time(), 6), "pid": os.getpid()} | asdict(event)
        os.write(self._file, (json.dumps(line) + "\n").encode())


_logs: dict[str, Observation] = {}
_logs_lock = fork.make_lock()


def start_log(environ: Mapping[str, str] | None = None) -> None:
    """Append events to the file that EPKIT_EVENTS names, until it names another; raises ConfigError."""
    file = (os.environ if environ is None else environ).get(VARIABLE, "")
    with _logs_lock:
        for other in [name for name in _logs if name != file]:
            _logs.pop(other).stop()
        if not file or file in _logs:
            return
        try:
            _logs[file] = observe(JsonLines(file))
        except OSError as error:
            message = f"{VARIABLE} names {file!r}, which cannot be written: {error.strerror}"
            raise ConfigError(message, hint=f"export {VARIABLE}=events.jsonl") from error
