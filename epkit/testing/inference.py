"""Check that models run on the provider and give right numbers, for any type and shape, by `run` and `bind`.

Each of these is kept in a child process, on a provider that epkit's proof has shown to run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import epkit
from epkit.testing import samples
from epkit.testing.promise import Broken, Promises, promise
from epkit.testing.samples import Feed, Sample

Call = Callable[[Feed], Mapping[str, Any]]

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
        message = self.subject.misplaced
        if message:
            name = self.subject.provider.ort_name
            found = f"ONNX Runtime gave no node of a tiny model to {name}: {message}"
            raise Broken(found, "ort_name must be what ONNX Runtime calls it, and opening must add it, or fail")
        self.subject.keep_apart("_runs_there")

    @promise(apart=True)
    def test_outputs_agree_with_the_cpu(self) -> None:
        """The model of its proof gives the CPU's numbers, through `run`, `bind` and `bind` on the CPU."""
        self._agree([samples.proof_of(self.subject.provider)])

    @promise(of="float32", apart=True)
    def test_float32_models_agree_with_the_cpu(self) -> None:
        """Networks of the kinds that it is for, and two outputs of two inputs, give the CPU's numbers."""
        self._agree(samples.of("float32", self.subject.provider))

    @promise(of="float16", apart=True)
    def test_float16_models_agree_with_the_cpu(self) -> None:
        """An MLP in float16 gives the CPU's numbers within 1 %."""
        self._agree(samples.of("float16", self.subject.provider))

    @promise(of="float64", apart=True)
    def test_float64_models_agree_with_the_cpu(self) -> None:
        """An MLP in float64 gives the CPU's numbers to the ninth digit: what is computed in float32 does not."""
        self._agree(samples.of("float64", self.subject.provider))

    @promise(of="int64", apart=True)
    def test_int64_models_agree_with_the_cpu(self) -> None:
        """Whole numbers of more than 32 bits are added exactly."""
        self._agree(samples.of("int64", self.subject.provider))

    @promise(of="int8", apart=True)
    def test_quantized_models_agree_with_the_cpu(self) -> None:
        """A matrix product of 8-bit integers in QDQ form gives the CPU's numbers."""
        self._agree(samples.of("int8", self.subject.provider))

    @promise(of="strings", apart=True)
    def test_texts_come_through(self) -> None:
        """Texts pass through beside numbers that are computed, empty and not ASCII ones too."""
        self._agree(samples.of("strings", self.subject.provider))

    @promise(of="dynamic-shapes", apart=True)
    def test_shapes_may_change_from_run_to_run(self) -> None:
        """Batches, images and texts of many sizes, one after the other in a session and in a binding, are right."""
        # A provider that compiles for shapes may take seconds for each.
        turns = 3 if self.subject.provider.caching.compiles == "shapes" else TURNS
        random = np.random.default_rng(1)
        sizes = [{name: int(random.integers(1, 9)) for name in ("batch", "side", "tokens")} for _ in range(turns)]
        self._agree(samples.of("dynamic-shapes", self.subject.provider), [*sizes, sizes[0]])

    @promise(of="data-shapes", apart=True)
    def test_outputs_whose_shape_depends_on_the_data_come_back_whole(self) -> None:
        """Positions of positive numbers, as many as there are; none of an earlier, longer result is left."""
        self._agree(samples.of("data-shapes", self.subject.provider), [{}] * TURNS)

    def open(self, sample: Sample, file: Path | None = None, **keys: object) -> epkit.Session:
        """Open a model strictly on the provider, and look where ONNX Runtime put it."""
        name = self.subject.name
        target = {"provider": name, "strict": True, **self.subject.target, **keys}
        session = epkit.open(file or sample.contents, "kit", config={"targets": {"kit": target}})
        self.opened.callback(session.close)
        if session.report.provider != name:
            raise Broken(f"{sample.name} does not run on it: {session.report.summary()}", "let ort_name be its own")
        return session

    def carried(self) -> Sequence[Sample]:
        """Return networks of the kinds that the provider is for, or the model that it is proven by."""
        provider = self.subject.provider
        claimed = "float32" in provider.capabilities
        return samples.networks("float32", provider) if claimed else [samples.proof_of(provider)]

    def check(self, sample: Sample, feed: Feed, found: Mapping[str, Any], how: str) -> None:
        """Hold results to the CPU's; raises Broken, which says how they were come by."""
        samples.check_same(sample, feed, found, self.subject.tolerances, how)

    def _runs_there(self) -> None:
        for sample in (samples.proof_of(self.subject.provider), *self.carried()):
            self.open(sample)

    def _agree(self, chosen: Sequence[Sample], sizes: Sequence[Mapping[str, int]] = ({},) * TRIES) -> None:
        for sample in chosen:
            session = self.open(sample)
            for how, call in ways(session).items():
                for seed, size in enumerate(sizes):
                    feed = sample.feed(seed, size)
                    self.check(sample, feed, call(feed), f"through {how}{_sized(size)}")

    def _is_warm(self) -> None:
        dynamic = "dynamic-shapes" in self.subject.provider.capabilities
        sample = samples.networks("dynamic-shapes", self.subject.provider)[0] if dynamic else self.carried()[-1]
        sizes = {str(size): 8 for tensor in sample.inputs for size in tensor.shape or () if isinstance(size, str)}
        feeds = [sample.feed(0, sizes | {"batch": batch}) for batch in ((1, 3) if dynamic else (1,))]
        need = self.subject.provider.warmup
        fixed = {name: size for name, size in sizes.items() if name != "batch"}
        warmup: dict[str, object] = {"dimensions": fixed} if fixed else {}
        if need.shapes == "each" and dynamic:
            warmup = {"shapes": [{name: array.shape for name, array in feed.items()} for feed in feeds]}
        session = self.open(sample, warmup=warmup)
        firsts = [_seconds(session, feed) for feed in feeds]
        for feed, first in zip(feeds, firsts, strict=True):
            later = statistics.median(_seconds(session, feed) for _ in range(TURNS))
            if first > FIRST_TIMES * later + FIRST_SECONDS:
                message = f"the first request took {first * 1e3:.1f} ms, later ones {later * 1e3:.1f} ms"
                again = " for a shape not seen before" if feed is not feeds[0] and need.shapes == "first" else ""
                mend = 'shapes="each"' if again else f"more than runs={need.runs}"
                raise Broken(message + again, f"declare the warm-up that it needs: WarmupNeed with {mend}")


def ways(session: epkit.Session) -> dict[str, Call]:
    """Return the ways to run a session; a binding is made at its first call, and refilled at the next."""
    return {"run": session.run, "bind": _bound(session, None), "bind on the CPU": _bound(session, "cpu")}


def _bound(session: epkit.Session, device: str | None) -> Call:
    bindings: list[epkit.Binding] = []

    def call(feed: Feed) -> Mapping[str, Any]:
        if not bindings:
            bindings.append(session.bind(feed, device=device))
            return read(bindings[0].run())
        return read(bindings[0].run(feed))

    return call


def read(results: Mapping[str, Any]) -> dict[str, Any]:
    """Copy results, which the next run of a binding writes over."""
    return {name: np.array(result) for name, result in results.items()}


def _sized(size: Mapping[str, int]) -> str:
    return f" at {', '.join(f'{name} = {number}' for name, number in size.items())}" if size else ""


def _seconds(session: epkit.Session, feed: Feed) -> float:
    started = time.perf_counter()
    session.run(feed)
    return time.perf_counter() - started
