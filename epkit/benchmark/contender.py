"""How does one candidate stand, seen from outside its process?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, TypeAlias

from epkit._child import Child
from epkit.candidates import Candidate, Feed
from epkit.faults import Fault

WORKER = "epkit.benchmark.worker"
BLOCK_S = 0.02
WARM_MOST_S = 3.0
LEAST_LIMIT_S = 4.0
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


class Contender:
    """A candidate and its process, blocked on its pipe unless it is asked for something.

    What goes wrong becomes its `fault`, and ends the process; it is asked for nothing after that.
    """

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.opened: Reply = {}
        self.warmed: Reply = {}
        self.finished: Reply = {}
        self.blocks: list[list[float]] = []
        self.fault: Fault | None = None
        self._child: Child | None = None
        refusal = candidate.plan.refusal
        if refusal is not None:
            self.fault = Fault("unusable", "ProviderUnavailable", refusal.reason, refusal.hint)

    def open(self, model: Mapping[str, object], config: object, feed: Feed, seconds: float) -> None:
        """Start the process, open the model in it, and run it for the first time."""
        self._child = Child(WORKER)
        answers = {name: answer.as_json() for name, answer in self.candidate.answers.items()}
        request = {"target": self.candidate.name, "config": config, "answers": answers, "feed": asdict(feed), **model}
        self.opened = self._ask("open", seconds, request)

    def warm(self, seconds: float) -> None:
        """Run until steady."""
        # Half of the time is left for the run that is under way when it is over.
        self.warmed = self._ask("warm", seconds, {"seconds": min(WARM_MOST_S, seconds / 2)})

    def give_outputs(self, file: str, seconds: float) -> None:
        """Run once more and write the outputs to a file."""
        self._ask("outputs", seconds, {"file": file})

    def block(self, seconds: float) -> None:
        """Run for a short while, at least once, and keep the seconds of each run."""
        reply = self._ask("block", seconds, {"seconds": BLOCK_S})
        if self.fault is None:
            self.blocks.append(list(reply["seconds"]))

    def finish(self, seconds: float) -> None:
        """Ask for memory and CPU time, and end the process."""
        self.finished = self._ask("finish", seconds, {})
        self.end()

    @property
    def longest_s(self) -> float:
        """The longest run after the first so far, in seconds."""
        return max((run for block in self.blocks for run in block), default=float(self.warmed.get("run_s", 0.0)))

    def end(self) -> None:
        """End the process, if there is one."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _ask(self, task: Task, seconds: float, details: Mapping[str, object]) -> Reply:
        """Ask for one thing and wait; without an answer, or with an error, there is a fault and an empty reply."""
        if self.fault is not None or self._child is None:
            return {}
        limit = max(LEAST_LIMIT_S, seconds)
        self._child.send({"do": task, **details})
        reply: Reply | None = self._child.receive(limit)
        if reply is None:
            self.fault = self._gone(self._child, task, limit)
        elif "error" in reply:
            kind = str(reply["error"])
            status: Literal["unusable", "failed"] = "unusable" if kind == "ProviderUnavailable" else "failed"
            self.fault = Fault(status, kind, str(reply["message"]), str(reply["hint"]))
        else:
            return reply
        self.end()
        return {}

    def _gone(self, child: Child, task: Task, limit: float) -> Fault:
        ending = child.ending()
        if child.timed_out:
            reason = f"its process {ending} while {_DOING[task]} (limit: {limit:.3g} s)"
            return Fault("failed", "", reason, "give the benchmark more time with --budget")
        said = child.last_words()
        reason = f"its process {ending} while {_DOING[task]}" + (f": {said}" if said else "")
        return Fault("failed", "", reason, f"epkit run MODEL -t {self.candidate.name}")
