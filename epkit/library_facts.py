"""What does an installed wheel say about the plugin library that it brings?

The wheels named `onnxruntime-ep-*` have a module with `get_library_path`, `get_ep_name` and `get_ep_names`. To import
one may load libraries and change the environment, so it is done in a child process: this module again, as a script.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path

from epkit import wheels
from epkit._child import Child, Parent
from epkit.errors import RunError

SECONDS = 60.0
"""How long the module of a wheel may take to be imported."""


@dataclass(frozen=True, slots=True)
class LibraryFacts:
    """What a wheel says of itself: its module, the library's file below that, and ONNX Runtime's names for it."""

    module: str
    file: str
    ort_names: tuple[str, ...]


class NotALibrary(Exception):
    """The module was imported, and is not that of a plugin library."""


class NotKnown(Exception):
    """The module could not be asked: it failed, crashed or hung."""


def module_of(wheel: str) -> str:
    """Return the module that a wheel brings, from its list of files; guessed from its name when there is none."""
    guessed = wheel.lower().replace("-", "_").replace(".", "_")
    try:
        files = importlib.metadata.files(wheel) or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    modules = {file.parts[0] for file in files if len(file.parts) == 2 and file.name == "__init__.py"}
    return guessed if guessed in modules or not modules else min(modules)


def ask(module: str) -> LibraryFacts:
    """Import the module in a child process and ask it; raises NotALibrary, or NotKnown with what went wrong."""
    try:
        child = Child("epkit.library_facts")
    except RunError as error:
        raise NotKnown(error.message) from error
    with child:
        child.send({"module": module})
        reply = child.receive(SECONDS)
        if reply is None:
            said = child.last_words()
            raise NotKnown(f"importing {module} {child.ending()}" + (f": {said}" if said else ""))
    match reply:
        case {"library": str(library), "names": [*names]}:
            folder = Path(wheels.origin(module)).parent
            return LibraryFacts(module, Path(os.path.relpath(library, folder)).as_posix(), tuple(map(str, names)))
        case {"lacks": str(function)}:
            raise NotALibrary(f"{module} has no {function}")
        case _:
            raise NotKnown(f"importing {module} raised {reply.get('raised')}")


def _main() -> None:
    parent = Parent()
    request = parent.receive()
    if request is not None:
        parent.send(_told(str(request["module"])))


def _told(name: str) -> dict[str, object]:
    try:
        module = importlib.import_module(name)
        for function in ("get_library_path", "get_ep_name"):
            if not callable(getattr(module, function, None)):
                return {"lacks": function}
        first = str(module.get_ep_name())
        others = [str(one) for one in module.get_ep_names()] if hasattr(module, "get_ep_names") else []
        return {"library": str(module.get_library_path()), "names": list(dict.fromkeys([first, *others]))}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
        return {"raised": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    _main()
