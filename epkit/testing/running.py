"""Does it run, on that provider, and are the numbers right: in any thread, for any shape, through `run` and `bind`?

Each of these is kept in a child process, on a provider that epkit's proof has shown to run.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import epkit
from epkit.errors import EpkitError, InputError, RunError, SessionClosed
from epkit.testing import samples
from epkit.testing.promise import Broken, Promises, promise
from epkit.testing.samples import Feed, Sample

Call = Callable[[Feed], Mapping[str, Any]]

THREADS = 8
FEW = 3
TURNS = 12
TRIES = 3
FIRST_TIMES, FIRST_SECONDS = 5.0, 0.025
"""By how much a first request may be slower than the ones after: what is paid once is far more, noise far less."""


class Running(Promises):
    """What holds of sessions on a provider that is usable here."""

    opened: ExitStack
    """Closes what one promise has opened."""

    @promise()
    def test_the_first_request_is_steady(self) -> None:
        """After `warmup` the first request costs about what later ones do; tried in three fresh processes at most."""
        for _ in range(TRIES):
            try:
                self.subject.keep_apart("_is_warm", anew=True)
            except Broken as broken:
                fault = broken
            else:
                return
        raise fault

    @promise()
    def test_a_tiny_model_really_runs_on_it(self) -> None:
        """ONNX Runtime itself says that the provider took the nodes: it records where it places each."""
        told = self.subject.misplaced
        if told:
            name = self.subject.provider.ort_name
            found = f"ONNX Runtime gave no node of a tiny model to {name}: {told}"
            raise Broken(found, "ort_name must be what ONNX Runtime calls it, and opening must add it, or fail")
        self.subject.keep_apart("_runs_there")

    @promise(apart=True)
    def test_outputs_agree_with_the_cpu(self) -> None:
        """The model of its proof gives the CPU's numbers, through `run`, `bind` and `bind` on the CPU."""
        self._agree([samples.proof_of(self.subject.provider)])

    @promise(of="float32", apart=True)
    def test_float32_models_agree_with_the_cpu(self) -> None:
        """An MLP, convolutions, and two outputs of two inputs give the CPU's numbers."""
        self._agree(samples.of("float32"))

    @promise(of="float16", apart=True)
    def test_float16_models_agree_with_the_cpu(self) -> None:
        """An MLP in float16 gives the CPU's numbers within 1 %."""
        self._agree(samples.of("float16"))

    @promise(of="float64", apart=True)
    def test_float64_models_agree_with_the_cpu(self) -> None:
        """An MLP in float64 gives the CPU's numbers to the ninth digit: what is computed in float32 does not."""
        self._agree(samples.of("float64"))

    @promise(of="int64", apart=True)
    def test_int64_models_agree_with_the_cpu(self) -> None:
        """Whole numbers of more than 32 bits are added exactly."""
        self._agree(samples.of("int64"))

    @promise(of="int8", apart=True)
    def test_quantized_models_agree_with_the_cpu(self) -> None:
        """A matrix product of 8-bit integers in QDQ form gives the CPU's numbers."""
        self._agree(samples.of("int8"))

    @promise(of="strings", apart=True)
    def test_texts_come_through(self) -> None:
        """Texts pass through beside numbers that are computed, empty and not ASCII ones too."""
        self._agree(samples.of("strings"))

    @promise(of="dynamic-shapes", apart=True)
    def test_shapes_may_change_from_run_to_run(self) -> None:
        """Batches and images of many sizes, one after the other in one session and in one binding, are right."""
        # A provider that compiles for shapes may take seconds for each.
        turns = 3 if self.subject.provider.compiles == "shapes" else TURNS
        random = np.random.default_rng(1)
        sizes = [{name: int(random.integers(1, 9)) for name in ("batch", "side")} for _ in range(turns)]
        self._agree(samples.of("dynamic-shapes"), [*sizes, sizes[0]])

    @promise(of="data-shapes", apart=True)
    def test_outputs_whose_shape_depends_on_the_data_come_back_whole(self) -> None:
        """Positions of positive numbers, as many as there are; none of an earlier, longer result is left."""
        self._agree(samples.of("data-shapes"), [{}] * TURNS)

    @promise(apart=True)
    def test_eight_threads_on_two_sessions_get_their_own_numbers(self) -> None:
        """Through `run` and through a binding for each thread, with no more runs at once than `concurrency` says."""
        for how in ("run", "bind"):
            self._in_threads(how)

    @promise(apart=True)
    def test_sessions_may_be_opened_and_closed_beside_runs(self) -> None:
        """Two threads open and close sessions while others run."""
        sample = self._samples()[0]
        session, feed = self.open(sample), sample.feed()
        busy = threading.Event()

        def work(number: int) -> None:
            if number % 2:
                try:
                    for _ in range(TRIES):
                        with self.open(sample) as other:
                            self._check(sample, feed, other.run(feed), "beside others")
                finally:
                    busy.set()
            while not busy.is_set():
                self._check(sample, feed, session.run(feed), "while others were opened")

        self._together(work, FEW + 1)

    @promise(apart=True)
    def test_close_waits_for_runs_and_then_says_so(self) -> None:
        """What is under way when a session is closed comes back right; what comes later is `SessionClosed`."""
        sample = self._samples()[0]
        session, feed = self.open(sample), sample.feed()
        begun = threading.Event()

        def work(number: int) -> None:
            if number == FEW:
                begun.wait()
                session.close()
                return
            try:
                while True:
                    self._check(sample, feed, session.run(feed), "while it was closed")
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
        """Its buffers and results are where `buffers` says, it can be refilled, and it can be had on the CPU."""
        place = self.subject.provider.buffers(self.subject.device)
        mend = "let buffers() say where it runs"
        for sample in self._samples():
            session, feed = self.open(sample), sample.feed()
            try:
                bound = session.bind(feed)
            except EpkitError as error:
                raise Broken(f"nothing can be bound where buffers() says {place}: {error.message}", mend) from error
            with bound:
                for what, found in (("a binding", bound.device), *_places(bound.run())):
                    if found != place:
                        raise Broken(f"{what} is on {found} where buffers() says {place}", mend)
                for seed in range(TRIES):
                    refill = sample.feed(seed)
                    self._check(sample, refill, _read(bound.run(refill)), "refilled in a binding")
            with session.bind(feed, device="cpu") as bound:
                self._check(sample, feed, _read(bound.run()), "bound on the CPU")

    @promise(apart=True)
    def test_results_outlive_the_binding_and_the_session(self) -> None:
        """What was handed out stays right when what it came from is closed."""
        sample = self._samples()[0]
        feed = sample.feed()
        session = self.open(sample)
        bound = session.bind(feed)
        results, ran = bound.run(), session.run(feed)
        bound.close()
        session.close()
        del session, bound
        self._check(sample, feed, ran, "after its session was closed")
        self._check(sample, feed, _read(results), "after its binding was closed")

    @promise(of="dynamic-shapes", apart=True)
    def test_an_output_buffer_of_another_shape_is_refused(self) -> None:
        """A result is never written into a buffer that is smaller or larger: `checks_outputs` says who looks."""
        sample = samples.of("dynamic-shapes")[-1]
        session, feed = self.open(sample), sample.feed(sizes={"batch": 3})
        output = session.outputs[0]
        for rows in (1, 5):
            buffer = np.zeros((rows, *samples.wanted(sample, feed)[output.name].shape[1:]), np.float32)
            try:
                with session.bind(feed, {output.name: buffer}, device="cpu") as bound:
                    bound.run()
            except (InputError, RunError):
                continue
            told = f"a result of 3 rows was written into a buffer of {rows}"
            raise Broken(told, "let checks_outputs be False: epkit then looks by itself")

    @promise(of="graph capture")
    def test_replays_of_a_captured_graph_give_the_numbers_of_runs(self) -> None:
        """With `graph_option` a binding that captures gives the CPU's numbers, whatever it is refilled with."""
        self.subject.claims("float32")
        self.subject.keep_apart("_replays")

    def open(self, sample: Sample, file: Path | None = None, **keys: object) -> epkit.Session:
        """Open a model strictly on the provider, and look where ONNX Runtime put it."""
        name = self.subject.name
        target = {"provider": name, "strict": True, **self.subject.target, **keys}
        session = epkit.open(file or sample.contents, "kit", config={"targets": {"kit": target}})
        self.opened.callback(session.close)
        if session.report.provider != name:
            raise Broken(f"{sample.name} does not run on it: {session.report.summary()}", "let ort_name be its own")
        return session

    def _samples(self) -> Sequence[Sample]:
        """Return two models that the provider carries, or the one that it is proven by."""
        claimed = "float32" in self.subject.provider.capabilities
        return samples.of("float32")[1:] if claimed else [samples.proof_of(self.subject.provider)]

    def _check(self, sample: Sample, feed: Feed, found: Mapping[str, Any], how: str) -> None:
        samples.check_same(sample, feed, found, self.subject.tolerances, how)

    def _runs_there(self) -> None:
        for sample in (samples.proof_of(self.subject.provider), *self._samples()):
            session = self.open(sample)
            for name, share in session.report.placement.items():
                if name == self.subject.name and share.nodes:
                    break
            else:
                raise Broken(f"{sample.name}: {session.report.summary()}", "let ort_name be its own")

    def _agree(self, chosen: Sequence[Sample], sizes: Sequence[Mapping[str, int]] = ({},) * TRIES) -> None:
        for sample in chosen:
            session = self.open(sample)
            for how, call in ways(session).items():
                for seed, size in enumerate(sizes):
                    feed = sample.feed(seed, size)
                    self._check(sample, feed, call(feed), f"through {how}{_sized(size)}")

    def _in_threads(self, how: str) -> None:
        two = [*self._samples(), *self._samples()][:2]
        sessions = [self.open(sample) for sample in two]

        def work(number: int) -> None:
            calls = [ways(session)[how] for session in sessions]
            for turn in range(TURNS):
                at = (number + turn) % 2
                feed = two[at].feed(number * TURNS + turn)
                self._check(two[at], feed, calls[at](feed), f"in thread {number} of {THREADS}")

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
        for one in running:
            one.start()
        for one in running:
            one.join()
        if faults:
            first = faults[0]
            told = first.found if isinstance(first, Broken) else f"{type(first).__name__}: {first}"
            raise Broken(f"{len(faults)} of {threads} threads failed: {told}", self._stricter()) from first

    def _stricter(self) -> str:
        """Say what mends a fault that only threads have."""
        declared = self.subject.provider.concurrency
        stricter = {"free": '"per-session" or "per-process"', "per-session": '"per-process"'}.get(declared)
        return f"it declares concurrency {declared!r}: declare {stricter}" if stricter else "try it in one thread"

    def _is_warm(self) -> None:
        dynamic = "dynamic-shapes" in self.subject.provider.capabilities
        sample = samples.of("dynamic-shapes")[0] if dynamic else self._samples()[-1]
        feeds = [sample.feed(0, {"batch": batch, "side": 8}) for batch in ((1, 3) if dynamic else (1,))]
        need = self.subject.provider.warmup
        warmup: dict[str, object] = {"dimensions": {"side": 8}} if dynamic else {}
        if need.shapes == "each" and dynamic:
            warmup = {"shapes": [{name: array.shape for name, array in feed.items()} for feed in feeds]}
        session = self.open(sample, warmup=warmup)
        firsts = [_seconds(session, feed) for feed in feeds]
        for feed, first in zip(feeds, firsts, strict=True):
            later = statistics.median(_seconds(session, feed) for _ in range(TURNS))
            if first > FIRST_TIMES * later + FIRST_SECONDS:
                told = f"the first request took {first * 1e3:.1f} ms, later ones {later * 1e3:.1f} ms"
                again = " for a shape not seen before" if feed is not feeds[0] and need.shapes == "first" else ""
                mend = 'shapes="each"' if again else f"more than runs={need.runs}"
                raise Broken(told + again, f"declare the warm-up that it needs: WarmupNeed with {mend}")

    def _replays(self) -> None:
        sample = samples.of("float32")[-1]
        session = self.open(sample, cuda_graph=True)
        graph = session.report.graph
        if graph is None or not graph.possible:
            told = graph.summary() if graph is not None else "no graph was asked for"
            raise Broken(f"a model of matrix products cannot be captured: {told}", "leave graph_option out")
        with session.bind(sample.feed()) as bound:
            for seed in range(TURNS):
                feed = sample.feed(seed)
                self._check(sample, feed, _read(bound.run(feed)), "replayed from a graph")
                self._check(sample, feed, session.run(feed), "beside a captured graph")


def ways(session: epkit.Session) -> dict[str, Call]:
    """Return the ways to run a session; a binding is made at its first call, and refilled at the next."""
    return {"run": session.run, "bind": _bound(session, None), "bind on the CPU": _bound(session, "cpu")}


def _bound(session: epkit.Session, device: str | None) -> Call:
    bindings: list[epkit.Binding] = []

    def call(feed: Feed) -> Mapping[str, Any]:
        if not bindings:
            bindings.append(session.bind(feed, device=device))
            return _read(bindings[0].run())
        return _read(bindings[0].run(feed))

    return call


def _places(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, result in results.items():
        yield f"output {name!r}", result.device if isinstance(result, epkit.DeviceArray) else "cpu"


def _read(results: Mapping[str, Any]) -> dict[str, Any]:
    """Copy results, which the next run of a binding writes over."""
    return {name: np.array(result) for name, result in results.items()}


def _sized(size: Mapping[str, int]) -> str:
    return f" at {', '.join(f'{name} = {number}' for name, number in size.items())}" if size else ""


def _seconds(session: epkit.Session, feed: Feed) -> float:
    started = time.perf_counter()
    session.run(feed)
    return time.perf_counter() - started
