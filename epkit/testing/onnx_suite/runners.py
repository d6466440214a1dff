"""Run a case on plain ONNX Runtime and on epkit side by side, and survive a crash of either.

Each has a worker process. One that dies or hangs has failed that case; a new one goes on with the next.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, cast

from epkit._system.process import Child
from epkit.errors import RunError
from epkit.testing.onnx_suite.cases import SuiteCase

WORKER = "epkit.testing.onnx_suite.worker"
CASE_SECONDS = 120.0
"""The slowest case takes a few seconds; a shader compiler in software, half a minute."""
LONGEST_SECONDS = 5 * CASE_SECONDS
"""How long epkit may take where plain ONNX Runtime came to an end: it also warms up."""
START_SECONDS = 120.0

Stage: TypeAlias = Literal["passed", "reading", "opening", "running", "outputs", "crashed", "hung"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one arm made of a case: how far it came, and what went wrong there."""

    stage: Stage
    words: str = ""
    took: int = 0
    """How many nodes the provider took."""
    nodes: int = 0
    left: str = ""
    """Why epkit went on without the provider; empty when it did not."""

    @property
    def passed(self) -> bool:
        """Whether the outputs were as expected."""
        return self.stage == "passed"


class Arm:
    """One of the two, and its worker."""

    def __init__(self, name: Literal["plain", "epkit"], provider: str, worker: str = WORKER) -> None:
        self._start = {"arm": name, "provider": provider}
        self._worker = worker
        self._child: Child | None = None
        self._ready = False

    def send(self, case: SuiteCase) -> None:
        """Give the worker a case; a worker is started where there is none."""
        if self._child is None:
            self._child, self._ready = Child(self._worker), False
            self._child.send(self._start)
        self._child.send({"case": asdict(case)})

    def receive(self, seconds: float) -> Outcome:
        """Wait for the outcome of the case that was sent; after so many seconds it hangs.

        Raises RunError when the worker cannot even start.
        """
        child = self._child
        assert child is not None
        if not self._ready:
            if child.receive(START_SECONDS) is None:
                message = f"the worker of the {self._start['arm']} arm {child.describe_end()}: {child.last_line()}"
                self.end()
                raise RunError(message, hint=f"epkit providers {self._start['provider']}")
            self._ready = True
        reply = child.receive(seconds)
        if reply is not None:
            return Outcome(**cast("dict[str, Any]", reply))
        stage: Stage = "hung" if child.timed_out else "crashed"
        words = f"the process {child.describe_end()}"
        if stage == "crashed" and (said := child.last_line()):
            words += f": {said}"
        self.end()
        return Outcome(stage, words)

    def end(self) -> None:
        """End the worker."""
        if self._child is not None:
            self._child.end()
            self._child = None


class Arms:
    """Both arms on one provider."""

    def __init__(self, provider: str) -> None:
        self._plain = Arm("plain", provider)
        self._epkit = Arm("epkit", provider)

    def judge(self, case: SuiteCase) -> tuple[Outcome, Outcome]:
        """Run a case in both, at the same time: plain ONNX Runtime's outcome, then epkit's."""
        self._plain.send(case)
        self._epkit.send(case)
        plain = self._plain.receive(CASE_SECONDS)
        return plain, self._epkit.receive(CASE_SECONDS if plain.stage == "hung" else LONGEST_SECONDS)

    def end(self) -> None:
        """End both workers."""
        self._plain.end()
        self._epkit.end()
