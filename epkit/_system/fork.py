"""Make locks and sessions usable again in a forked process, where only the thread that forked goes on."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Inherited(Protocol):
    """What a forked process inherits."""

    def after_fork(self) -> None:
        """Forget, in the child, what other threads of the parent held."""


_inherited: weakref.WeakSet[Inherited] = weakref.WeakSet()
_locks: weakref.WeakSet[threading.RLock] = weakref.WeakSet()


def lock() -> threading.RLock:
    """Return a lock that a forked process finds free, whichever thread of its parent held it.

    Its own thread may take it again: a signal handler, or a `__del__`, can run in the middle of what it guards.
    """
    new = threading.RLock()
    _locks.add(new)
    return new


def inherit(owner: Inherited) -> None:
    """Call `owner.after_fork()` in each forked process."""
    _inherited.add(owner)


def keep_for_ever(value: object) -> None:
    """Never free `value`, not even at exit."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _in_child() -> None:
    for lock in tuple(_locks):
        if lock.acquire(blocking=False):
            lock.release()
        else:  # by a thread that is not there; what `threading` does with its own
            lock._at_fork_reinit()  # type: ignore[attr-defined]
    for owner in tuple(_inherited):
        owner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
