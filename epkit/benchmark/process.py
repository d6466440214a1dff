"""How does one process of a candidate stand, seen from outside?

It is stopped unless it was asked for something: threads that ONNX Runtime leaves spinning after a run, for 50 ms on a
machine with two cores, would slow whoever runs next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from epkit._system.process import Child
from epkit.errors import RunError
from epkit.session.fault import Fault, lost, told

WORKER = "epkit.benchmark.worker"
LEAST_LIMIT_S = 8.0
"""The shortest limit that is set, whatever the budget: below it, a process that starts slowly would seem to hang."""

Reply: TypeAlias = Mapping[str, Any]
Task: TypeAlias = Literal["open", "warm", "block", "outputs", "finish"]

_DOING: Mapping[Task, str] = {
    "open": "opening and first running the model",
    "warm": "warming up",
    "block": "running",
    "outputs": "giving its outputs",
    "finish": "finishing",
}


class Fell(Exception):
    """The process came to grief, or said that it cannot; `fault` says what went wrong."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class Runner:
    """A process, which does one thing after the other when it is asked to. Whatever goes wrong raises Fell."""

    def __init__(self, name: str) -> None:
        self.longest_s = 0.0
        """The longest run after the first so far."""
        self._name = name
        try:
            self._child = Child(WORKER)
        except RunError as error:
            raise Fell(Fault("failed", type(error).__name__, error.message, error.hint)) from error

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._child.pid

    def ask(self, task: Task, **details: object) -> None:
        """Ask for something."""
        self._child.resume()
        self._child.send({"do": task, **details})

    def answer(self, task: Task, seconds: float) -> Reply:
        """Wait for what was asked for, and stop the process."""
        limit = max(LEAST_LIMIT_S, seconds)
        reply: Reply | None = self._child.receive(limit)
        if reply is None:
            raise Fell(self._gone(task, limit))
        fault = told(reply)
        if fault is not None:
            raise Fell(fault)
        self._child.pause()
        return reply

    def block(self, case: int, seconds: float, lead: float, core: int | None, limit: float) -> Reply:
        """Run for so long, once at least, after a lead; return the seconds of each run and the CPU time of all."""
        self.ask("block", case=case, seconds=seconds, lead=lead, core=core)
        # A run may take long once in a while; one that takes twenty times the longest so far is hanging.
        reply = self.answer("block", min(20 * self.longest_s, limit))
        self.longest_s = max(self.longest_s, *reply["seconds"])
        return reply

    def end(self) -> None:
        """End the process."""
        self._child.end()

    def _gone(self, task: Task, limit: float) -> Fault:
        fault = lost(self._child, _DOING[task], self._name)
        if not self._child.timed_out:
            return fault
        hint = "give the benchmark more time with --budget"
        return replace(fault, reason=f"{fault.reason} (limit: {limit:.3g} s)", hint=hint)
