"""How is a process of its own told which candidate to open, and how does it read that?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epkit._child import Child
from epkit.candidates import Candidate, external_folder, strictly
from epkit.config import load
from epkit.errors import RunError
from epkit.faults import Fault, lost, told
from epkit.model import Model
from epkit.model import read as read_model
from epkit.probe import Answer
from epkit.registry import discover
from epkit.resolve import Plan, resolve
from epkit.target import Target
from epkit.target import read as read_target


def ask(
    candidate: Candidate, worker: str, request: Mapping[str, object], *, doing: str, limit_s: float
) -> Mapping[str, Any] | Fault:
    """Have a new process do one thing with a candidate, and return its reply, or what went wrong while `doing` it."""
    if candidate.refused is not None:
        return candidate.refused
    try:
        started = Child(worker)
    except RunError as error:
        return Fault("failed", type(error).__name__, error.message, error.hint)
    with started as child:
        child.send({**named(candidate), **request})
        reply: Mapping[str, Any] | None = child.receive(limit_s)
        if reply is None:
            return lost(child, doing, candidate.name)
    return told(reply) or reply


def named(candidate: Candidate) -> dict[str, object]:
    """Return what a process is told of a candidate; it does not probe again, and comes to the same plan."""
    return {
        "target": candidate.name,
        "answers": {name: answer.as_json() for name, answer in candidate.answers.items()},
    }


def located(file: Path, *, in_memory: bool) -> dict[str, object]:
    """Return what a process is told of a model: its file, and whether to open the bytes of it instead."""
    return {"model": str(file), "in_memory": in_memory}


def target_of(request: Mapping[str, Any], session_options: Mapping[str, object] | None = None) -> Target:
    """Return the target that a request names; session options that are given here come before its own."""
    found = read_target(request["target"], load(request["config"]), discover(), session_options=session_options)
    return strictly(found)


def model_of(request: Mapping[str, Any], target: Target) -> Model:
    """Return the model of a request, with its external data where the target says."""
    file = Path(request["model"])
    return read_model(file.read_bytes() if request["in_memory"] else file, folder=external_folder(target))


def plan_of(request: Mapping[str, Any], target: Target) -> tuple[Plan, dict[str, Answer]]:
    """Plan a target by the answers of a request, and return these too."""
    answers = {name: Answer.from_json(one) for name, one in request["answers"].items()}
    return resolve(target, {name: answer.availability for name, answer in answers.items()}), answers
