"""Run the model in one process of a candidate; the entry point of the process.

It answers one JSON message a line, and runs only when it is sent one. Nothing heavy is imported before the first
message, so that the import can be timed.
"""

from __future__ import annotations

import itertools
import os
import runpy
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

from epkit._system.platform import kill_with_parent, peak_rss
from epkit._system.process import Parent, error_reply
from epkit.errors import RunError
from epkit.session.steady import is_steady

if TYPE_CHECKING:
    from epkit.model.file import Model
    from epkit.session.plan import Plan
    from epkit.session.session import Session

Message: TypeAlias = Mapping[str, Any]
Reply: TypeAlias = dict[str, object]
Call: TypeAlias = Callable[[], object]
Timed: TypeAlias = tuple[list[tuple[float, float]], list[tuple[float, float]]]
"""The end and the seconds of each run of the lead, and of each after it."""

WARM_WINDOW_S = 0.05
WARM_LEAST_S = 0.3
WARM_LEAST_RUNS = 3
MOST_RUNS = 2000
"""The most runs in a block: of runs of microseconds, more would only make the document long."""


def main() -> None:
    """Answer messages until the parent ends."""
    parent = Parent()
    kill_with_parent()
    messages: SimpleQueue[Message] = SimpleQueue()
    threading.Thread(target=_receive, args=(parent, messages), daemon=True).start()
    worker = Worker()
    while True:
        parent.send(worker.answer(messages.get()))


def _receive(parent: Parent, messages: SimpleQueue[Message]) -> None:
    while (message := parent.receive()) is not None:
        messages.put(message)
    # Whatever a library is doing now is not needed any more.
    os._exit(1)


class Worker:
    """The calls that are timed, for each case and caller."""

    def __init__(self) -> None:
        self._calls: list[list[Call]] = []
        self._host: list[Call] = []
        """The same with outputs on the host, to compare them."""
        self._callers = 1
        self._settle: Callable[[], list[Mapping[str, int] | None]] = list
        """Finds sizes with which the session runs, for each case."""

    def answer(self, message: Message) -> Reply:
        """Execute a command; an error is a reply with the class, the message and the hint."""
        try:
            match message["do"]:
                case "open":
                    return self._open(message)
                case "warm":
                    return {"warmups": [self._warm(calls, message["seconds"]) for calls in self._calls]}
                case "block":
                    return self._block(message)
                case "outputs":
                    return self._outputs(message["files"])
                case _:
                    return {"peak_rss_bytes": peak_rss()}
        except Exception as error:  # noqa: BLE001 - the boundary of the process: the parent reports it
            return error_reply(error)

    def _open(self, message: Message) -> Reply:
        """Open the model, and run each case once: `first_run_s`. `_block` makes the runs that are compared."""
        self._callers = message["callers"]
        reply = self._open_call(message["call"]) if "call" in message else self._open_target(message)
        firsts = []
        try:
            for calls in self._calls:
                started = time.perf_counter()
                calls[0]()
                firsts.append(time.perf_counter() - started)
        except RunError:
            if all(feed["assumed"] is not None for feed in message.get("feeds", ())):
                raise
            return {"settled": self._settle()}
        return {**reply, "first_run_s": firsts}

    def _open_target(self, message: Message) -> Reply:
        started = time.perf_counter()
        from epkit.model.assumed_sizes import read_image_hints
        from epkit.parity.feed import Feed, made, settled
        from epkit.parity.outputs import described, digest
        from epkit.runtime import api
        from epkit.session.opening import open_plan
        from epkit.session.request import OpenRequest, strictly

        api.load()
        import_s = time.perf_counter() - started
        model, planned = OpenRequest.from_json(message).resolve(strictly)
        plan = planned.plan
        if message["keep"]:
            plan = _with_cache(model, plan, message["keep"])
        started = time.perf_counter()
        session = open_plan(model, plan, planned.answers)
        open_s = time.perf_counter() - started
        cases = []
        known = read_image_hints(model)
        self._settle = lambda: [settled(session, model, Feed(**feed)).assumed for feed in message["feeds"]]
        for feed in message["feeds"]:
            inputs = made(session.inputs, Feed(**feed), known)
            host = _call(session, inputs.feed, bound=False)
            self._host.append(host)
            each = [_call(session, inputs.feed, bound=True) if message["bound"] else host for _ in range(self._callers)]
            self._calls.append(each)
            told = {"inputs": described(inputs.feed, feed["files"]), "inputs_sha256": digest(inputs.feed)}
            cases.append({**told, "assumed": inputs.assumed})
        report = session.report
        return {
            "import_s": import_s,
            "open_s": open_s,
            "provider": report.provider,
            "placement": {
                name: {"nodes": share.nodes, "share": share.share} for name, share in report.placement.items()
            },
            "summary": report.summary(),
            "notes": list(report.notes),
            "cache": [row.outcome for row in report.cache],
            "cases": cases,
        }

    def _open_call(self, where: str) -> Reply:
        file, _, name = where.rpartition(":")
        started = time.perf_counter()
        factory = runpy.run_path(file, run_name="epkit_bench")[name]
        import_s = time.perf_counter() - started
        started = time.perf_counter()
        call = factory()
        self._host.append(lambda: _by_position(call()))
        self._calls.append([call] * self._callers)
        told = {"inputs": [], "inputs_sha256": "", "assumed": {}}
        return {
            "import_s": import_s,
            "open_s": time.perf_counter() - started,
            "provider": None,
            "placement": None,
            "summary": "",
            "notes": [],
            "cache": [],
            "cases": [told],
        }

    def _warm(self, calls: list[Call], most: float) -> Reply:
        """Run until the times are steady: at least 3 runs and 0.3 s, and `most` seconds at most."""
        started, runs, steady = time.perf_counter(), 0, False
        own_s, all_s = time.thread_time(), time.process_time()
        windows: list[float] = []
        while not windows or (not steady and time.perf_counter() - started < most):
            window, _ = self._timed(calls, WARM_WINDOW_S)
            runs += len(window)
            windows.append(statistics.median(window))
            enough = runs >= WARM_LEAST_RUNS and time.perf_counter() - started >= WARM_LEAST_S
            steady = enough and is_steady(windows)
        seconds = time.perf_counter() - started
        own_s, all_s = time.thread_time() - own_s, time.process_time() - all_s
        alone = own_s >= 0.95 * all_s
        return {"runs": runs, "seconds": seconds, "steady": steady, "run_s": windows[-1], "alone": alone}

    def _block(self, message: Message) -> Reply:
        if message["core"] is not None:
            os.sched_setaffinity(0, {message["core"]})
        before = time.process_time()
        samples, lead = self._timed(self._calls[message["case"]], message["seconds"], message["lead"])
        cpu_s = time.process_time() - before
        return {"seconds": [round(sample, 9) for sample in samples], "lead": lead, "cpu_s": round(cpu_s, 9)}

    def _timed(self, calls: list[Call], seconds: float, lead: float = 0.0) -> tuple[list[float], int]:
        """Run for so long, once at least, after a lead; return the seconds of each run, and how many are of the lead.

        The runs are those of all callers, in the order in which they ended.
        """
        if self._callers == 1:
            return _in_order(_time_calls(calls[0], seconds, lead))
        found: list[Timed] = [([], [])] * self._callers
        faults: list[Exception] = []

        def caller(at: int) -> None:
            try:
                together.wait()
                found[at] = _time_calls(calls[at], seconds, lead)
            except Exception as error:  # noqa: BLE001 - raised again below, in the thread that answers
                faults.append(error)

        together = threading.Barrier(self._callers)
        threads = [threading.Thread(target=caller, args=(at,)) for at in range(self._callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]
        leading, samples = (list(itertools.chain.from_iterable(part)) for part in zip(*found, strict=True))
        return _in_order((leading, samples))

    def _outputs(self, files: list[str]) -> Reply:
        from epkit.parity.outputs import flat, write

        for call, file in zip(self._host, files, strict=True):
            outputs = call()
            assert isinstance(outputs, Mapping)
            write(flat(outputs), Path(file))
        return {}


def _with_cache(model: Model, plan: Plan, folder: str) -> Plan:
    """Use the cache of the user if it has the plan, else one in a folder of this benchmark.

    All later processes start from there, or each of them would compile again: TensorRT does so for minutes.
    """
    from contextlib import closing
    from dataclasses import replace

    from epkit._system import platform
    from epkit.session.cache.session_cache import Compiled
    from epkit.session.settings import build_settings

    with closing(Compiled(model, plan.target)) as compiled:
        compiled.look(plan.chain, build_settings(plan.target, platform.core_limit()), build=False)
        rows = compiled.rows
    if any(row.outcome == "hit" for row in rows) or all(row.outcome == "off" for row in rows):
        return plan
    os.environ["EPKIT_CACHE_DIR"] = folder
    return replace(plan, target=replace(plan.target, cache=True))


def _call(session: Session, feed: Mapping[str, object], *, bound: bool) -> Call:
    if bound:
        return session.bind(feed).run
    run = session.run
    return lambda: run(feed)


def _by_position(outputs: object) -> Mapping[str, object]:
    """Name the outputs of a call by position: one call may return a list where another returns names."""
    if outputs is None:
        return {}
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    parts = outputs if isinstance(outputs, list | tuple) else [outputs]
    return {str(place): part for place, part in enumerate(parts)}


def _time_calls(call: Call, seconds: float, lead: float) -> Timed:
    """Call for so long, once at least, after a lead; return the end of each call, and its seconds."""
    clock = time.perf_counter
    leading: list[tuple[float, float]] = []
    samples: list[tuple[float, float]] = []
    now = clock()
    until = now + lead
    while now < until:
        before = clock()
        call()
        now = clock()
        leading.append((now, now - before))
    until = now + seconds
    while not samples or (now < until and len(samples) < MOST_RUNS):
        before = clock()
        call()
        now = clock()
        samples.append((now, now - before))
    return leading, samples


def _in_order(found: Timed) -> tuple[list[float], int]:
    return [took for part in found for _, took in sorted(part)], len(found[0])


if __name__ == "__main__":
    main()
