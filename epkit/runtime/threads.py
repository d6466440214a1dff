"""Run work in threads at once: no work waits for a busy thread."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeAlias

from epkit._system import fork

MOST_IDLE = 16
"""How many threads stay when there is nothing to do: as many as were needed at once, at most this."""

Work: TypeAlias = Callable[[], None]


class WorkerThreads:
    """Threads that stay for more work, so that what a provider keeps for each of them is made once.

    Submitting takes no lock, since a signal handler may submit work in the middle of it.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._idle: list[None] = []
        """An element for each thread that waits for work, or is about to."""
        self._threads: list[threading.Thread] = []
        self._closed = False
        _pools.add(self)
        fork.register(self)

    def submit(self, work: Work) -> None:
        """Do the work in another thread; raises RuntimeError where none can be started.

        Where the threads are closed, it is done in this one.
        """
        if self._closed:
            work()
            return
        try:
            # First: interrupted after this, a thread too many is started one day, but no work waits for none.
            self._idle.pop()
        except IndexError:
            self._start()
        self._work.put(work)
        if self._closed:
            self._finish()

    def close(self) -> None:
        """Let the threads end when they are done."""
        self._closed = True
        for _ in tuple(self._threads):
            self._work.put(None)

    def join(self) -> None:
        """Wait for the threads to end."""
        for thread in tuple(self._threads):
            if thread.is_alive():
                thread.join()

    def after_fork(self) -> None:
        """Forget, in a forked process, the threads of its parent."""
        self._work, self._idle, self._threads = SimpleQueue(), [], []

    def _start(self) -> None:
        thread = threading.Thread(target=_serve, args=(weakref.ref(self), self._work), name="epkit-run", daemon=True)
        self._threads = [*(worker for worker in self._threads if worker.is_alive()), thread]
        thread.start()

    def _finish(self) -> None:
        """Do the remaining work in this thread."""
        try:
            while True:
                work = self._work.get_nowait()
                if work is not None:
                    work()
        except Empty:
            return

    def keep_idle(self) -> bool:
        """Whether a thread that is done waits for more, and then counts as idle."""
        if self._closed or len(self._idle) >= MOST_IDLE:
            return False
        self._idle.append(None)
        return True


def _serve(threads: weakref.ref[WorkerThreads], queue: SimpleQueue[Work | None]) -> None:
    """Work until there is to be none; holds nothing between two pieces of it."""
    while (work := queue.get()) is not None:
        work()
        del work
        owner = threads()
        if owner is None or not owner.keep_idle():
            return
        del owner


_pools: weakref.WeakSet[WorkerThreads] = weakref.WeakSet()


@atexit.register
def _join_all() -> None:
    """Wait for what goes on, at exit: native code that runs while the process is taken down crashes it."""
    for threads in tuple(_pools):
        threads.close()
    for threads in tuple(_pools):
        threads.join()
