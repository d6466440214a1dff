"""Import a plugin and run its probe in a fresh child process, and report what that does to the interpreter.

Answers twice: after the import, and after the probe was asked, which may crash.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import signal
import sys
import time
import traceback
from typing import Any

import epkit.hookspecs
import epkit.provider  # noqa: F401
from epkit._system.platform import kill_with_parent
from epkit._system.process import Parent
from epkit.discovery.registry import Plugin, load
from epkit.provider import Provider, Unusable, Usable
from epkit.runtime.plugin_calls import compile_fingerprint

HEAVY = ("onnxruntime", "numpy", "torch", "tensorflow", "jax", "onnx")
QUICK_S = 2.0
TURNS = 5


def main() -> None:
    """Answer one request, `{"plugin", "value", "provider", "device", "seconds"}`: what the import did, and the rest."""
    parent = Parent()
    request = parent.receive()
    if request is None:
        return
    kill_with_parent()  # what hangs in an import or a probe must not outlive a test run that was killed
    if sys.platform != "win32":
        signal.alarm(int(float(str(request["seconds"]))) + 5)
    plugin = Plugin(str(request["plugin"]), str(request["value"]), "", "")
    parent.send(_imported(plugin))
    if parent.receive() is None:  # the parent has read what was printed by now
        return
    provider = next(provider for provider in load(plugin) if provider.name == request["provider"])
    parent.send(_asked(provider, request["device"]))
    parent.exit()


def _imported(plugin: Plugin) -> dict[str, object]:
    modules, environment, logs = set(sys.modules), dict(os.environ), _configured()
    importlib.import_module(plugin.value.partition(":")[0])
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    names = {*environment, *os.environ}
    return {
        "loaded": _heavy(modules),
        "environment": sorted(name for name in names if environment.get(name) != os.environ.get(name)),
        "logging": sorted(name for name, state in _configured().items() if logs.get(name) != state),
    }


def _asked(provider: Provider, device: Any) -> dict[str, object]:
    modules = set(sys.modules)
    found: dict[str, object] = {"raised": "", "answer": "", "usable": False, "reason": "", "hint": ""}
    seconds: list[float] = []
    try:
        while len(seconds) < TURNS and min(seconds, default=QUICK_S) >= QUICK_S:
            started = time.perf_counter()
            answer = provider.probe()
            seconds.append(time.perf_counter() - started)
    except BaseException as error:  # noqa: BLE001 - foreign code, and the child's only task
        traceback.print_exc()
        return found | {"raised": f"{type(error).__name__}: {error}", "loaded": []}
    match answer:
        case Usable():
            found |= {"usable": True}
        case Unusable(reason, hint):
            found |= {"reason": str(reason), "hint": str(hint)}
        case _:
            found |= {"answer": repr(answer)}
    found |= {"seconds": min(seconds), "loaded": _heavy(modules)}
    return found | {"fingerprints": [_texts(provider.fingerprint) for _ in range(2)]} | _stale(provider, device)


def _stale(provider: Provider, device: Any) -> dict[str, object]:
    """Ask what makes compiled files stale, as things are and with every version, size and time a little changed."""
    as_is = [_texts(compile_fingerprint, provider, device) for _ in range(2)]
    _change_the_world()
    return {"stale": as_is, "stale_elsewhere": _texts(compile_fingerprint, provider, device)}


def _change_the_world() -> None:
    plain_stat, plain_version = os.stat, importlib.metadata.Distribution.version

    def stat(*arguments: Any, **keys: Any) -> os.stat_result:
        found = plain_stat(*arguments, **keys)
        later = {
            "st_atime_ns": found.st_atime_ns,
            "st_mtime_ns": found.st_mtime_ns + 1,
            "st_ctime_ns": found.st_ctime_ns,
        }
        return os.stat_result((*found[:6], found.st_size + 1, found[7], found[8] + 1, found[9]), later)

    os.stat = stat
    importlib.metadata.Distribution.version = property(  # type: ignore[assignment,method-assign]
        lambda self: f"{plain_version.fget(self)}.1"  # type: ignore[attr-defined]
    )


def _texts(method: Any, *arguments: object) -> list[str] | str:
    """Return what a method lists; as one text, what it did instead."""
    try:
        found = method(*arguments)
        listed = [] if found is None or isinstance(found, str) else list(found)
    except BaseException as error:  # noqa: BLE001 - foreign code, and the child's only task
        return f"raised {type(error).__name__}: {error}"
    if found is None or isinstance(found, str) or not all(isinstance(name, str) for name in listed):
        return f"returned {found!r} where texts belong"
    return listed


def _heavy(before: set[str]) -> list[str]:
    return [name for name in HEAVY if name in sys.modules and name not in before]


def _configured() -> dict[str, tuple[object, ...]]:
    """Describe the loggers that are not as Python makes them; a NullHandler is no configuration."""
    found: dict[str, tuple[object, ...]] = {"all loggers": (logging.root.manager.disable,)}
    for name, logger in {"root": logging.root, **logging.root.manager.loggerDict}.items():
        if isinstance(logger, logging.Logger):
            handlers = tuple(id(handler) for handler in logger.handlers if not isinstance(handler, logging.NullHandler))
            level = logging.WARNING if logger is logging.root else logging.NOTSET
            if handlers or logger.level != level or logger.disabled:
                found[name] = (logger.level, handlers, logger.disabled)
    return found


if __name__ == "__main__":
    main()
