"""Find the plugin library of an installed wheel, and the names of its providers.

The wheels named `onnxruntime-ep-*` have a module with `get_library_path`, `get_ep_name` and `get_ep_names`. Of other
wheels, a file that ONNX Runtime can register is a plugin library, and the devices that it adds have the names.
Importing a module may change the environment, and loading a library may crash, so both are done in a child process:
this module again, as a script.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from epkit import wheels
from epkit._system.process import Child, Parent
from epkit._system.text import describe_error
from epkit.errors import RunError
from epkit.runtime import api

EXPORT = "CreateEpFactories"
"""The function of a plugin library that ONNX Runtime calls."""
SUFFIXES = (".so", ".dll", ".dylib")
SECONDS = 60.0
"""The time limit for importing the module of a wheel, or loading its library."""

_TRIAL = "epkit-trial"


@dataclass(frozen=True, slots=True)
class LibraryFacts:
    """The module of a wheel, the library's file below it, and ONNX Runtime's names of its providers."""

    module: str
    file: str
    ort_names: tuple[str, ...]
    """Empty if only the library's devices have the name, and it lists none here."""
    note: str = ""
    """A note on the names."""


class NotALibrary(Exception):
    """The wheel has no plugin library."""


class NotKnown(Exception):
    """The facts could not be read: the module failed, crashed or hung."""


def module_of(wheel: str) -> str:
    """Return the module of a wheel, from its list of files; guess it from the name if there is none."""
    guessed = wheel.lower().replace("-", "_").replace(".", "_")
    try:
        files = importlib.metadata.files(wheel) or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    modules = {file.parts[0] for file in files if len(file.parts) == 2 and file.name == "__init__.py"}
    return guessed if guessed in modules or not modules else min(modules)


def ask(wheel: str, module: str) -> LibraryFacts:
    """Read the facts in a child process; raises NotALibrary, or NotKnown with the reason."""
    try:
        child = Child("epkit.discovery.wheel_library")
    except RunError as error:
        raise NotKnown(error.message) from error
    with child:
        child.send({"module": module, "files": [str(file) for file in _libraries(wheel, module)]})
        reply = child.receive(SECONDS)
        if reply is None:
            output = child.last_line()
            raise NotKnown(f"asking {module} {child.describe_end()}" + (f": {output}" if output else ""))
    match reply:
        case {"library": str(library), "names": [*names], "note": str(note)}:
            folder = Path(wheels.origin(module)).parent
            file = Path(os.path.relpath(library, folder)).as_posix()
            return LibraryFacts(module, file, tuple(map(str, names)), note)
        case {"lacks": str(function)}:
            raise NotALibrary(f"{module} has no {function}, and no library of the wheel exports {EXPORT}")
        case _:
            raise NotKnown(f"{reply.get('raised')}")


def _libraries(wheel: str, module: str) -> Iterator[Path]:
    """Yield the files of a wheel that may be plugin libraries: those with the name of the exported function."""
    if wheel in wheels.runtimes():
        return  # the libraries of ONNX Runtime have the name too
    try:
        listed = [Path(str(file.locate())) for file in importlib.metadata.files(wheel) or ()]
    except importlib.metadata.PackageNotFoundError:
        listed = []
    listed = listed or sorted(Path(wheels.origin(module)).parent.rglob("*"))
    for file in listed:
        if file.name.endswith(SUFFIXES) and file.is_file() and _holds(file, EXPORT.encode()):
            yield file


def _holds(file: Path, text: bytes) -> bool:
    if not file.stat().st_size:
        return False
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return mapped.find(text) >= 0


def _main() -> None:
    parent = Parent()
    request = parent.receive()
    if request is not None:
        files = request["files"]
        assert isinstance(files, list)
        parent.send(_read_facts(str(request["module"]), [str(file) for file in files]))
        parent.exit()


def _read_facts(name: str, files: list[str]) -> dict[str, object]:
    """Return the facts from the module, or else from registering the wheel's libraries."""
    try:
        module: ModuleType | None = importlib.import_module(name)
        found = _read_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
        module, found = None, {"raised": f"importing {name} raised {type(error).__name__}: {error}"}
    if "library" in found or not files:
        return found
    return _register(files, str(getattr(module, "EP_NAME", "")))


def _read_module(module: ModuleType | None) -> dict[str, object]:
    for function in ("get_library_path", "get_ep_name"):
        if not callable(getattr(module, function, None)):
            return {"lacks": function}
    assert module is not None
    first = str(module.get_ep_name())
    others = [str(ort_name) for ort_name in module.get_ep_names()] if hasattr(module, "get_ep_names") else []
    return {"library": str(module.get_library_path()), "names": list(dict.fromkeys([first, *others])), "note": ""}


def _register(files: list[str], called: str) -> dict[str, object]:
    """Register the first file that ONNX Runtime accepts, and read the names of its devices.

    `called` is the module's name of the provider, for a library that takes the name that it is registered by.
    """
    try:
        runtime = api.load()
    except Exception as error:  # noqa: BLE001 - missing or damaged
        return {"raised": f"to read the names in {files[0]} takes an ONNX Runtime: {error}"}
    faults = []
    before = {device.ep_name for device in runtime.get_ep_devices()}
    for file in files:
        try:
            runtime.register_execution_provider_library(_TRIAL, file)
        except Exception as error:  # noqa: BLE001 - foreign code
            faults.append(f"{Path(file).name} cannot be registered: {describe_error(error)}")
            continue
        names = sorted({device.ep_name.split(".")[0] for device in runtime.get_ep_devices()} - before)
        if names == [_TRIAL]:
            note = "the library takes the name that it is registered by"
            return {"library": file, "names": [called] if called else [], "note": note}
        note = "" if names else "the library lists no device on this machine, so its names cannot be read"
        return {"library": file, "names": [ort_name for ort_name in names if ort_name != _TRIAL], "note": note}
    return {"raised": "; ".join(faults)}


if __name__ == "__main__":
    _main()
