"""What happens, and who is told?

An observer is called with each event, in the thread where it happens. A session that was opened while nobody observed
is ONNX Runtime's own, and tells nothing of its runs; so what nobody asked for costs nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

from epkit._system.text import describe_error
from epkit.runtime.session_wrapper import Wrapped

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
    """An observer at work, until `stop` or the end of a `with` block."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self._calling = threading.local()

    def call(self, event: Event) -> None:
        """Call the observer, unless it is at work in this thread: of what it does itself it is not told."""
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
            _at_work.remove(self)

    def __enter__(self) -> Observation:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()


# Added to and taken from in one call each, so that a signal handler in their middle has no lock to wait for.
_at_work: list[Observation] = []
_numbers = itertools.count(1)


def observe(observer: Observer) -> Observation:
    """Call `observer` with every event from now on, until the `Observation` that is returned is stopped.

    Runs are told of by the sessions that are opened from now on. An observer is called in the thread where something
    happens, from several at once, and what it takes is added to the run: let it be quick. One that raises is called no
    more, and the logger `epkit` says so.
    """
    observation = Observation(observer)
    _at_work.append(observation)
    return observation


def observed() -> bool:
    """Whether anybody is told."""
    return bool(_at_work)


def tell(event: Event) -> None:
    """Call every observer."""
    for one in tuple(_at_work):
        try:
            one.call(event)
        except OSError as error:  # what it writes to is full or gone: its code is not at fault
            one.stop()
            logging.getLogger("epkit").error("an observer failed, and is called no more: %r: %s", one.observer, error)
        except Exception:
            one.stop()
            logging.getLogger("epkit").exception("an observer failed, and is called no more: %r", one.observer)


class Watched(Wrapped):
    """A session that tells of its runs, once `begin` has said as what."""

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self.number = next(_numbers)
        self._provider: str | None = None
        self._begun = False

    def begin(self, provider: str | None) -> None:
        """Tell of the runs from now on; those before it were warm-up."""
        self._provider = provider
        self._begun = True

    def around(self, run: Callable[[], Result]) -> Result:
        """Do one run, and tell how long it took."""
        if not self._begun or not _at_work:
            return run()
        error = ""
        started = time.perf_counter()
        try:
            return run()
        except BaseException as fault:
            error = describe_error(fault) if isinstance(fault, Exception) else type(fault).__name__
            raise
        finally:
            tell(Ran(self.number, self._provider, time.perf_counter() - started, error))
