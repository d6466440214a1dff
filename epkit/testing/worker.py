"""Run promises in a child process, apart from pytest: a crash or a hang is a result too."""

from __future__ import annotations

import contextlib
import traceback
from typing import Any

from epkit._system.process import Parent
from epkit._system.text import describe_error
from epkit.discovery.registry import discover
from epkit.errors import EpkitError
from epkit.testing.promise import SEE, Broken, NotProven
from epkit.testing.subject import Subject


def main() -> None:
    """Keep one promise for each request: `{"promise", "provider", "target", "tolerances", "seconds"}`."""
    parent = Parent()
    while request := parent.receive():
        parent.set_time_limit(float(str(request["seconds"])))
        reply = _outcome(request)
        parent.set_time_limit(None)  # the next request may be long in coming
        parent.send(reply)
    parent.exit()


def _outcome(request: dict[str, Any]) -> dict[str, object]:
    from epkit.testing.conformance import ProviderConformance

    provider = discover().get(str(request["provider"]))
    promises = type("Apart", (ProviderConformance,), {})()
    type(promises).subject = Subject(provider, request["target"], request["tolerances"])
    body = getattr(ProviderConformance, str(request["promise"]))
    try:
        with contextlib.ExitStack() as opened:
            promises.opened = opened
            getattr(body, "__wrapped__", body)(promises)
    except Broken as broken:
        return {"outcome": "broken", "found": broken.found, "mend": broken.mend, "details": broken.details}
    except NotProven as reason:
        return {"outcome": "not proven", "found": str(reason)}
    except EpkitError as error:
        return {"outcome": "broken", "found": error.message, "mend": error.hint, "details": _where()}
    except Exception as error:  # noqa: BLE001 - whatever it is, the promise is broken
        return {
            "outcome": "broken",
            "found": f"{type(error).__name__}: {describe_error(error)}",
            "mend": SEE,
            "details": _where(),
        }
    return {"outcome": "kept"}


def _where() -> str:
    return traceback.format_exc()


if __name__ == "__main__":
    main()
