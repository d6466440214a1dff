"""Load what is exported from the files that a command names: `net.py:make`, `net.py:example`, `model.pt2`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from epkit.errors import ConfigError, ModelError, nearest
from epkit.prepare.export.user_code import describe_place

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")


def read_program(file: Path) -> Any:
    """Return the program in a .pt2 file; raises ConfigError, ModelError."""
    import torch

    if file.suffix in _PICKLES:
        raise ConfigError(
            f"{file} may hold a pickle, which runs code when it is loaded, or weights without a graph",
            hint="torch.export.save(torch.export.export(module, args), 'model.pt2'), or name a factory: net.py:make",
        )
    if not file.is_file():
        raise ModelError(f"no file is named '{file}'", hint="give a .pt2 file, or a factory as net.py:make")
    try:
        return torch.export.load(file)
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{file} cannot be read as a .pt2 file: {first}", hint="torch.export.save wrote it?"
        ) from error


def load_attribute(reference: str) -> Any:
    """Return what `file.py:name` names: the attribute, or what it returns where it is a function without arguments.

    Raises ConfigError; ModelError where the user's file fails, with the line.
    """
    file, colon, name = reference.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise ConfigError(f"{reference!r} names no attribute of a Python file", hint="write it as net.py:make")
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"no file is named '{file}'", hint="write it as net.py:make")
    module = _import_file(path)
    if not hasattr(module, name):
        names = [known for known in vars(module) if not known.startswith("_")]
        raise ConfigError(f"{file} has no {name!r}", hint=nearest(name, names, "names"))
    found = getattr(module, name)
    if isinstance(found, type) or (callable(found) and not hasattr(found, "named_modules")):
        try:
            return found()
        except Exception as error:
            told = f"{reference} fails: {type(error).__name__}: {error}{describe_place(error)}"
            raise ModelError(told, hint="it is called without arguments") from error
    return found


def _import_file(path: Path) -> Any:
    """Run a Python file as a module, with its folder first on the path, as `python net.py` would."""
    found = sys.modules.get(path.stem)
    if found is not None and getattr(found, "__file__", None) == str(path.resolve()):
        return found
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        told = f"{path} cannot be imported: {type(error).__name__}: {error}{describe_place(error)}"
        raise ModelError(told, hint=f"python {path}") from error
    return module
