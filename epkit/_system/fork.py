"""Reset locks and objects in a forked process, where only the thread that forked still runs."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class ResetsAfterFork(Protocol):
    """An object with state of threads, which a forked process does not have."""

    def after_fork(self) -> None:
        """Reset, in the child, the state of the parent's other threads."""


_registered: weakref.WeakSet[ResetsAfterFork] = weakref.WeakSet()
_locks: weakref.WeakSet[threading.RLock] = weakref.WeakSet()


def make_lock() -> threading.RLock:
    """Return a reentrant lock that is free in a forked process, even if a thread of the parent held it.

    It is reentrant since a signal handler or a `__del__` can run while the lock is held.
    """
    new = threading.RLock()
    _locks.add(new)
    return new


def register(owner: ResetsAfterFork) -> None:
    """Call `owner.after_fork()` in each forked process."""
    _registered.add(owner)


def never_free(value: object) -> None:
    """Never free `value`, not even at exit."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _in_child() -> None:
    for lock in tuple(_locks):
        if lock.acquire(blocking=False):
            lock.release()
        else:  # held by a thread that the child lacks; `threading` resets its own locks in the same way
            lock._at_fork_reinit()  # type: ignore[attr-defined]
    for owner in tuple(_registered):
        owner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
