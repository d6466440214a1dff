"""Check sessions and bindings with threads, refills and captured graphs, and after they are closed.

Each of these too is kept in a child process, on a provider that epkit's proof has shown to run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

import epkit
from epkit.errors import EpkitError, InputError, RunError, SessionClosed
from epkit.runtime.plugin_calls import concurrency_of
from epkit.testing import samples
from epkit.testing.inference import TRIES, TURNS, Running, read, ways
from epkit.testing.promise import Broken, promise

THREADS = 8
FEW = 3


class Sessions(Running):
    """What holds of sessions and bindings that are shared, kept and closed."""

    @promise(apart=True)
    def test_eight_threads_on_two_sessions_get_their_own_numbers(self) -> None:
        """Through `run` and through a binding for each thread, with no more runs at once than `concurrency` says."""
        for how in ("run", "bind"):
            self._in_threads(how)

    @promise(apart=True)
    def test_sessions_may_be_opened_and_closed_beside_runs(self) -> None:
        """Two threads open and close sessions while others run."""
        sample = self.carried()[0]
        session, feed = self.open(sample), sample.feed()
        busy = threading.Event()

        def work(number: int) -> None:
            if number % 2:
                try:
                    for _ in range(TRIES):
                        with self.open(sample) as other:
                            self.check(sample, feed, other.run(feed), "beside others")
                finally:
                    busy.set()
            while not busy.is_set():
                self.check(sample, feed, session.run(feed), "while others were opened")

        self._together(work, FEW + 1)

    @promise(apart=True)
    def test_close_waits_for_runs_and_then_says_so(self) -> None:
        """What is under way when a session is closed comes back right; what comes later is `SessionClosed`."""
        sample = self.carried()[0]
        session, feed = self.open(sample), sample.feed()
        begun = threading.Event()

        def work(number: int) -> None:
            if number == FEW:
                begun.wait()
                session.close()
                return
            try:
                while True:
                    self.check(sample, feed, session.run(feed), "while it was closed")
                    begun.set()
            except SessionClosed:
                pass
            finally:
                begun.set()

        self._together(work, FEW + 1)
        session.close()
        for call in (lambda: session.run(feed), lambda: session.bind(feed)):
            try:
                call()
            except SessionClosed:
                continue
            raise Broken("a session that is closed still runs", "tell epkit's authors")

    @promise(apart=True)
    def test_a_binding_is_where_it_says(self) -> None:
        """Its buffers and results are where `Devices.memory_device` says; it can be refilled, and made on the CPU."""
        place = self.subject.provider.devices.memory_device(self.subject.device)
        mend = "let devices.memory_device() say where it runs"
        for sample in self.carried():
            session, feed = self.open(sample), sample.feed()
            try:
                bound = session.bind(feed)
            except EpkitError as error:
                raise Broken(
                    f"nothing can be bound where devices.memory_device() says {place}: {error.message}", mend
                ) from error
            with bound:
                for what, found in (("a binding", bound.device), *_places(bound.run())):
                    if found != place:
                        raise Broken(f"{what} is on {found} where devices.memory_device() says {place}", mend)
                for seed in range(TRIES):
                    refill = sample.feed(seed)
                    self.check(sample, refill, read(bound.run(refill)), "refilled in a binding")
            with session.bind(feed, device="cpu") as bound:
                self.check(sample, feed, read(bound.run()), "bound on the CPU")

    @promise(apart=True)
    def test_results_outlive_the_binding_and_the_session(self) -> None:
        """What was handed out stays right when what it came from is closed."""
        sample = self.carried()[0]
        feed = sample.feed()
        session = self.open(sample)
        bound = session.bind(feed)
        results, ran = bound.run(), session.run(feed)
        bound.close()
        session.close()
        del session, bound
        self.check(sample, feed, ran, "after its session was closed")
        self.check(sample, feed, read(results), "after its binding was closed")

    @promise(of="dynamic-shapes", apart=True)
    def test_an_output_buffer_of_another_shape_is_refused(self) -> None:
        """A result is never written into a buffer of another size: `Limits.validates_output_shape` says so."""
        sample = samples.networks("dynamic-shapes", self.subject.provider)[-1]
        session, feed = self.open(sample), sample.feed(sizes={"batch": 3})
        output = session.outputs[0]
        for rows in (1, 5):
            buffer = np.zeros((rows, *samples.wanted(sample, feed)[output.name].shape[1:]), np.float32)
            try:
                with session.bind(feed, {output.name: buffer}, device="cpu") as bound:
                    bound.run()
            except (InputError, RunError):
                continue
            message = f"a result of 3 rows was written into a buffer of {rows}"
            raise Broken(message, "let limits.validates_output_shape be False: epkit then looks by itself")

    @promise(of="graph capture")
    def test_replays_of_a_captured_graph_give_the_numbers_of_runs(self) -> None:
        """With `capture` a binding that captures gives the CPU's numbers, whatever it is refilled with."""
        self.subject.claims("float32")
        self.subject.keep_apart("_replays")

    def _in_threads(self, how: str) -> None:
        two = [*self.carried(), *self.carried()][:2]
        sessions = [self.open(sample) for sample in two]

        def work(number: int) -> None:
            calls = [ways(session)[how] for session in sessions]
            for turn in range(TURNS):
                at = (number + turn) % 2
                feed = two[at].feed(number * TURNS + turn)
                self.check(two[at], feed, calls[at](feed), f"in thread {number} of {THREADS}")

        self._together(work, THREADS)

    def _together(self, work: Callable[[int], None], threads: int) -> None:
        """Do the work in so many threads at once, and raise the first fault."""
        faults: list[BaseException] = []

        def guarded(number: int) -> None:
            try:
                work(number)
            except BaseException as fault:  # noqa: BLE001 - raised again below
                faults.append(fault)

        running = [threading.Thread(target=guarded, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        if faults:
            first = faults[0]
            message = first.found if isinstance(first, Broken) else f"{type(first).__name__}: {first}"
            raise Broken(f"{len(faults)} of {threads} threads failed: {message}", self._stricter()) from first

    def _stricter(self) -> str:
        """Say what mends a fault that only threads have."""
        declared = concurrency_of(self.subject.provider)
        stricter = {"free": '"per-session" or "per-process"', "per-session": '"per-process"'}.get(declared)
        return f"it declares concurrency {declared!r}: declare {stricter}" if stricter else "try it in one thread"

    def _replays(self) -> None:
        sample = samples.networks("float32", self.subject.provider)[-1]
        session = self.open(sample, cuda_graph=True)
        graph = session.report.graph
        if graph is None or not graph.possible:
            message = graph.summary() if graph is not None else "no graph was asked for"
            raise Broken(f"a model of matrix products cannot be captured: {message}", "leave capture out")
        with session.bind(sample.feed()) as bound:
            for seed in range(TURNS):
                feed = sample.feed(seed)
                self.check(sample, feed, read(bound.run(feed)), "replayed from a graph")
                self.check(sample, feed, session.run(feed), "beside a captured graph")


def _places(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, result in results.items():
        yield f"output {name!r}", result.device if isinstance(result, epkit.DeviceArray) else "cpu"
