"""Start the process that exports, and return what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epkit import errors
from epkit._system.process import Child
from epkit.errors import EpkitError, ModelError

WORKER = "epkit.prepare.export.worker"
LIMIT_S = 4 * 3600.0
"""How long exporting and proving may take; models of several GB take many minutes."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The document of an export, its summary, and the reason where it was refused."""

    document: Mapping[str, Any] | None
    summary: str
    refused: str
    hint: str


def export_in_child(source: str, example: str | None, arguments: Mapping[str, object]) -> Reply:
    """Export `net.py:make` or a .pt2 file with an example, in a process of its own.

    Raises what the process reports: ConfigError, ModelError; ModelError also where it crashes.
    """
    with Child(WORKER) as child:
        child.send({"source": source, "example": example, "arguments": dict(arguments)})
        reply = child.receive(LIMIT_S)
        if reply is None:
            last = child.last_line()
            told = f"the process that exports {child.describe_end()}" + (f": {last}" if last else "")
            raise ModelError(told, hint="export it with less: a smaller example, or fewer threads (OMP_NUM_THREADS=1)")
    if "error" in reply:
        kind = getattr(errors, str(reply["error"]) or "ModelError")
        assert issubclass(kind, EpkitError)
        raise kind(str(reply["message"]), hint=str(reply["hint"]))
    document = reply["document"]
    assert document is None or isinstance(document, dict)
    return Reply(document, *(str(reply.get(key, "")) for key in ("summary", "refused", "hint")))
