"""Control one worker process of a candidate.

It is stopped except while it answers: threads that ONNX Runtime leaves spinning after a run, for 50 ms on a machine
with two cores, would slow the process that runs next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from epkit._system.process import Child
from epkit.errors import RunError
from epkit.session.fault import WorkerFault, lost, read_fault

WORKER = "epkit.benchmark.worker"
LEAST_LIMIT_S = 8.0
"""The shortest time limit, whatever the budget: below it, a process that starts slowly would seem to hang."""

Reply: TypeAlias = Mapping[str, Any]
Command: TypeAlias = Literal["open", "warm", "block", "outputs", "finish"]

_DOING: Mapping[Command, str] = {
    "open": "opening and first running the model",
    "warm": "warming up",
    "block": "running",
    "outputs": "giving its outputs",
    "finish": "finishing",
}


class WorkerFailed(Exception):
    """The worker crashed, timed out or reported an error: `fault`."""

    def __init__(self, fault: WorkerFault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class WorkerProcess:
    """A process that executes one command at a time. Raises WorkerFailed."""

    def __init__(self, name: str) -> None:
        self.longest_s = 0.0
        """The longest run after the first so far."""
        self._name = name
        try:
            self._child = Child(WORKER)
        except RunError as error:
            raise WorkerFailed(WorkerFault("failed", type(error).__name__, error.message, error.hint)) from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def send(self, command: Command, **details: object) -> None:
        """Resume the process, and send it a command."""
        self._child.resume()
        self._child.send({"do": command, **details})

    def receive(self, command: Command, seconds: float) -> Reply:
        """Wait for the reply, and stop the process."""
        limit = max(LEAST_LIMIT_S, seconds)
        reply: Reply | None = self._child.receive(limit)
        if reply is None:
            raise WorkerFailed(self._no_reply(command, limit))
        fault = read_fault(reply)
        if fault is not None:
            raise WorkerFailed(fault)
        self._child.pause()
        return reply

    def warm(self, most_s: float, seconds: float) -> Reply:
        """Run every case until its times are steady."""
        # Half of the time is left for the run that is under way when it is over.
        self.send("warm", seconds=min(most_s, max(0.0, seconds / 2)))
        return self.receive("warm", seconds)

    def block(self, case: int, seconds: float, lead: float, core: int | None, limit: float) -> Reply:
        """Run for so long, once at least, after a lead; return the seconds of each run and the CPU time of all."""
        self.send("block", case=case, seconds=seconds, lead=lead, core=core)
        # A run may take long once in a while; one that takes twenty times the longest so far is hanging.
        reply = self.receive("block", min(20 * self.longest_s, limit))
        self.longest_s = max(self.longest_s, *reply["seconds"])
        return reply

    def finish(self) -> Reply:
        """Return the most memory that it held."""
        self.send("finish")
        return self.receive("finish", 0.0)

    def end(self) -> None:
        """End the process."""
        self._child.end()

    def _no_reply(self, command: Command, limit: float) -> WorkerFault:
        fault = lost(self._child, _DOING[command], self._name)
        if not self._child.timed_out:
            return fault
        hint = "give the benchmark more time with --budget"
        return replace(fault, reason=f"{fault.reason} (limit: {limit:.3g} s)", hint=hint)
