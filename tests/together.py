"""Many threads at once, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def together(work: Callable[[int], object], threads: int = 8) -> None:
    """Do the work in so many threads that begin at once; each is told its number. Raise what one of them raised."""
    ready = threading.Barrier(threads)

    def begin(number: int) -> None:
        ready.wait(60)
        work(number)

    with ThreadPoolExecutor(threads) as pool:
        asked = [pool.submit(begin, number) for number in range(threads)]
    for one in asked:
        one.result()
