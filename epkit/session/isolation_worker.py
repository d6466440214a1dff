"""What happens when a model is opened, in a process where a crash or a hang does no harm?

Says which chain of providers it turns to, each time; at last that it is done, or what went wrong in an ordinary way.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epkit._system.process import Parent

if TYPE_CHECKING:
    from epkit.runtime.configured import Candidate
    from epkit.session.attempt import Before

NAME = "isolated-open"


def main() -> None:
    """Answer one request."""
    parent = Parent()
    request = parent.receive()
    if request is None:
        return
    told: Mapping[str, Any] = request
    contents = parent.receive_bytes(told["bytes"])
    parent.exit_with_parent()
    os.environ.pop("EPKIT_EVENTS", None)  # what happens here is told by the parent

    def before(chain: Sequence[Candidate], captures: bool) -> None:
        parent.set_time_limit(told["seconds"])
        parent.send({"chain": [one.name for one in chain], "captures": captures})

    error = ""
    try:
        rehearse(told, contents, before)
    except Exception as raised:  # noqa: BLE001 - whatever it is, the parent meets it too
        traceback.print_exc()
        error = str(getattr(raised, "message", raised))
    parent.send({"error": error})
    parent.exit()


def rehearse(request: Mapping[str, Any], contents: bytes, before: Before) -> None:
    """Open the model along the parent's plan, beginning with the chain that it is about to open; warm up, and close."""
    from dataclasses import replace

    from epkit._system import platform
    from epkit.config.file import load
    from epkit.config.target import read as read_target
    from epkit.discovery.probe import Answer
    from epkit.discovery.registry import discover
    from epkit.model.file import read_model
    from epkit.runtime import api
    from epkit.session.open import EXTERNAL_FOLDER, open_plan
    from epkit.session.plan import resolve
    from epkit.session.settings import effective, without_cpu_rule

    # The parent's table has everything merged into it, the environment too.
    config = load({"targets": {NAME: request["table"]}}, environ={})
    target = replace(read_target(NAME, config, discover()), isolate_open=False, cache=request["cache"])
    folder = target.session_options.entries().get(EXTERNAL_FOLDER)
    model = read_model(contents or Path(request["model"]), folder=folder)
    answers = {name: Answer.from_json(one) for name, one in request["answers"].items()}
    plan = resolve(target, {name: answer.availability for name, answer in answers.items()})
    chain = request["chain"]
    if not chain:
        before((), False)
        source = contents or request["model"]
        api.create(source, (), without_cpu_rule(effective(plan, platform.core_limit()).settings))
        return
    steps = tuple(replace(step, decision="open") for step in plan.steps if step.candidate.name in chain)
    with contextlib.closing(open_plan(model, replace(plan, steps=steps), answers, before=before)):
        pass


if __name__ == "__main__":
    main()
