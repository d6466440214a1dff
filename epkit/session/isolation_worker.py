"""Open a model in a process where a crash or a hang does no harm.

Report that the plan is made, each chain of providers before a session of it is created, and at the end the error that
was raised, empty for none.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epkit._system.process import Parent

NAME = "isolated-open"


def main() -> None:
    """Answer one request."""
    parent = Parent()
    received = parent.receive()
    if received is None:
        return
    request: Mapping[str, Any] = received
    contents = parent.receive_bytes(request["bytes"])
    parent.exit_with_parent()
    os.environ.pop("EPKIT_EVENTS", None)  # the parent emits the events of this opening
    error = ""
    try:
        open_isolated(request, contents, parent)
    except Exception as raised:  # noqa: BLE001 - whatever it is, the parent meets it too
        traceback.print_exc()
        error = str(getattr(raised, "message", raised))
    parent.send({"error": error})
    parent.exit()


def open_isolated(request: Mapping[str, Any], contents: bytes, parent: Parent) -> None:
    """Open the model along the parent's plan, warm it up, and close it."""
    from dataclasses import replace

    from epkit.config.file import load
    from epkit.config.target import read as read_target
    from epkit.discovery.probe import Answer
    from epkit.discovery.registry import discover
    from epkit.model.file import read_model
    from epkit.session.opener import Crashes
    from epkit.session.opening import open_model
    from epkit.session.plan import resolve
    from epkit.session.request import EXTERNAL_FOLDER

    # The parent's table has everything merged into it, the environment too.
    config = load({"targets": {NAME: request["table"]}}, environ={})
    target = replace(read_target(NAME, config, discover()), isolate_open=False, cache=request["cache"])
    model = read_model(contents or Path(request["model"]), folder=target.session_options.entries().get(EXTERNAL_FOLDER))
    answers = {name: Answer.from_json(answer) for name, answer in request["answers"].items()}
    plan = resolve(target, {name: answer.availability for name, answer in answers.items()})
    crashes = Crashes({(tuple(names), captures): cause for names, captures, cause in request["crashes"]})
    parent.set_time_limit(request["seconds"])
    parent.send({"planned": True})

    def report(names: tuple[str, ...], captures: bool) -> None:
        parent.set_time_limit(request["seconds"])
        parent.send({"chain": names, "captures": captures})

    open_model(model, plan, crashes, report).ready.session.close()


if __name__ == "__main__":
    main()
