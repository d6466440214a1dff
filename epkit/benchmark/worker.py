"""What does one candidate do, in a process of its own?

Answers a JSON message a line, one after the other, and runs the model only when it is told to. Nothing heavy is
imported before the first message, so that the import can be timed.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

from epkit._child import Parent
from epkit._platform import peak_rss
from epkit.errors import EpkitError
from epkit.steady import is_steady

if TYPE_CHECKING:
    from epkit.opened import Session

Message: TypeAlias = Mapping[str, Any]
Reply: TypeAlias = dict[str, object]

WARM_WINDOW_S = 0.05
WARM_LEAST_S = 0.3
WARM_LEAST_RUNS = 3


def main() -> None:
    """Answer messages until the parent goes."""
    parent = Parent()
    messages: SimpleQueue[Message] = SimpleQueue()
    threading.Thread(target=_receive, args=(parent, messages), daemon=True).start()
    worker = Worker()
    while True:
        parent.send(worker.answer(messages.get()))


def _receive(parent: Parent, messages: SimpleQueue[Message]) -> None:
    while (message := parent.receive()) is not None:
        messages.put(message)
    # Whatever a library is doing now, nobody waits for it any more.
    os._exit(1)


class Worker:
    """A session, its inputs, and what its runs took."""

    def __init__(self) -> None:
        self._session: Session
        self._feed: Mapping[str, object]
        self._cpu_s = 0.0

    def answer(self, message: Message) -> Reply:
        """Do what a message says; an error is a reply with the class, the message and the hint."""
        try:
            match message["do"]:
                case "open":
                    return self._open(message)
                case "warm":
                    return self._warm(message["seconds"])
                case "block":
                    return self._block(message["seconds"])
                case "outputs":
                    return self._outputs(Path(message["file"]))
                case _:
                    return {"peak_rss_bytes": peak_rss(), "cpu_s": self._cpu_s}
        except EpkitError as error:
            return {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        except Exception as error:  # noqa: BLE001 - the boundary of the process: whatever it is, the parent must know
            traceback.print_exc()
            return {"error": type(error).__name__, "message": f"{type(error).__name__}: {error}", "hint": ""}

    def _open(self, message: Message) -> Reply:
        started = time.perf_counter()
        from epkit import _runtime
        from epkit.candidates import Feed, external_folder, made, strictly
        from epkit.config import load
        from epkit.model import read
        from epkit.parity.outputs import described, digest
        from epkit.probe import Answer
        from epkit.registry import discover
        from epkit.resolve import resolve
        from epkit.session import open_plan
        from epkit.target import read as read_target

        _runtime.load()
        import_s = time.perf_counter() - started
        target = strictly(read_target(message["target"], load(message["config"]), discover()))
        answers = {name: Answer.from_json(one) for name, one in message["answers"].items()}
        path = Path(message["model"])
        model = read(path.read_bytes() if message["model_is_bytes"] else path, folder=external_folder(target))
        plan = resolve(target, {name: answer.availability for name, answer in answers.items()})
        started = time.perf_counter()
        self._session = open_plan(model, plan, answers)
        open_s = time.perf_counter() - started
        inputs = made(self._session.inputs, Feed(**message["feed"]))
        self._feed = inputs.feed
        started = time.perf_counter()
        self._session.run(self._feed)
        first_run_s = time.perf_counter() - started
        report = self._session.report
        hits = [f"{row.provider} started from the cache" for row in report.cache if row.outcome == "hit"]
        placement = {name: {"nodes": one.nodes, "share": one.share} for name, one in report.placement.items()}
        return {
            "import_s": import_s,
            "open_s": open_s,
            "first_run_s": first_run_s,
            "provider": report.provider,
            "placement": placement,
            "summary": report.summary(),
            "notes": [*report.notes, *hits],
            "inputs": described(self._feed, message["feed"]["files"]),
            "inputs_sha256": digest(self._feed),
            "guessed": list(inputs.guessed),
        }

    def _warm(self, most: float) -> Reply:
        """Run until steady: at least 3 runs and 0.3 s, and `most` seconds at most."""
        started, runs, steady = time.perf_counter(), 0, False
        windows: list[float] = []
        while not windows or (not steady and time.perf_counter() - started < most):
            window = self._timed(WARM_WINDOW_S)
            runs += len(window)
            windows.append(statistics.median(window))
            enough = runs >= WARM_LEAST_RUNS and time.perf_counter() - started >= WARM_LEAST_S
            steady = enough and is_steady(windows)
        return {"runs": runs, "seconds": time.perf_counter() - started, "steady": steady, "run_s": windows[-1]}

    def _block(self, seconds: float) -> Reply:
        before = time.process_time()
        samples = self._timed(seconds)
        self._cpu_s += time.process_time() - before
        return {"seconds": [round(one, 9) for one in samples]}

    def _timed(self, seconds: float) -> list[float]:
        """Run for so long, once at least, and return the seconds of each run."""
        run, feed, clock = self._session.run, self._feed, time.perf_counter
        samples: list[float] = []
        now = clock()
        end = now + seconds
        while not samples or now < end:
            before = clock()
            run(feed)
            now = clock()
            samples.append(now - before)
        return samples

    def _outputs(self, file: Path) -> Reply:
        from epkit.parity.outputs import flat, write

        write(flat(self._session.run(self._feed)), file)
        return {}


if __name__ == "__main__":
    main()
