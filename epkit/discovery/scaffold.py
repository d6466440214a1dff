"""Write the files of a new plugin.

They are a complete distribution: the entry point, a provider and its options, tests with the conformance kit. The
templates are in `epkit/discovery/templates`, with fields such as `$name`.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import keyword
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from string import Template

from epkit import wheels
from epkit._version import __version__
from epkit.discovery import wheel_library
from epkit.discovery.registry import discover
from epkit.errors import ConfigError, RuntimeMissing
from epkit.runtime import api

SCHEMA = "epkit.new-plugin/1"

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40
_VALID_NAME = f"lower-case letters, digits and single dashes, a letter first, {_LONGEST} characters at most"
_WHEEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_SUFFIX = "ExecutionProvider"


@dataclass(frozen=True, slots=True)
class NewPlugin:
    """The written files, notes on what is a guess, and the next command."""

    name: str
    directory: str
    files: tuple[str, ...]
    ort_name: str
    library: str | None
    notes: tuple[str, ...]
    next: str

    def as_json(self) -> dict[str, object]:
        """Return the document of `epkit new-plugin --json`."""
        return {"schema": SCHEMA} | asdict(self)


@dataclass(frozen=True, slots=True)
class _Kind:
    """The template of one kind of provider, and its fields."""

    template: str
    ort_name: str
    origin: str
    fields: dict[str, str]
    dependency: str = ""
    notes: tuple[str, ...] = ()


def new_plugin(name: str, *, library: str | None = None, output_dir: str | Path | None = None) -> NewPlugin:
    """Write a distribution with a provider named `name`, in `output_dir`, else in `epkit-NAME`.

    The provider is built into ONNX Runtime, or with `library` comes from that wheel, whose facts are read if it is
    installed. Raises ConfigError if the name is invalid or the directory exists.
    """
    _check(name)
    kind = _describe_built_in(name) if library is None else _describe_library(library)
    directory = Path(output_dir) if output_dir is not None else Path(f"epkit-{name}")
    notes = (*_name_notes(name), *kind.notes)
    files = _render(name, kind)
    _write(directory, files)
    place = shlex.quote(str(directory))
    command = f"pip install --editable {place} && epkit providers {name} && pytest {place}"
    return NewPlugin(name, str(directory), tuple(files), kind.ort_name, library, notes, command)


def _check(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        better = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")[:_LONGEST].strip("-")
        hint = f"epkit new-plugin {better}" if better else "epkit new-plugin acme"
        raise ConfigError(f"{name!r} cannot be the name of a provider: it must be {_VALID_NAME}", hint=hint)
    package, owner = _package(name), f"epkit-{name}"
    if wheels.origin(package) and not wheels.version(owner):
        message = f"the package of {name!r} would be {package}, and there is one already: {wheels.origin(package)}"
        raise ConfigError(message, hint="take another name: the two would overwrite each other's files")


def _package(name: str) -> str:
    return f"epkit_{name.replace('-', '_')}"


def _name_notes(name: str) -> tuple[str, ...]:
    """Return a note if a provider of that name is installed."""
    entries = [entry for entry in discover().entries if name in (entry.name, entry.plugin.name)]
    if not entries:
        return ()
    owner = entries[0].plugin.distribution
    if owner == f"epkit-{name}":
        return (f"{owner} is installed already: the new one will take its place",)
    return (f"{name!r} is a provider of {owner} here: of the two, one will be listed as broken",)


def _describe_built_in(name: str) -> _Kind:
    """Describe a provider that is built into ONNX Runtime; guess what ONNX Runtime does not know."""
    known = _known_name(name)
    ort_name, driver = known or _guess_name(name), f"lib{name.replace('-', '_')}.so.1"
    here = next(iter(wheels.runtimes()), "onnxruntime") if known in _built_in() else ""
    runtime = here or f"onnxruntime-{name}"
    guesses = ([] if known else [ort_name, driver]) + ([] if here else [runtime])
    guessed = f"; guessed: {', '.join(guesses)}" if guesses else ""
    todo = f"fill in {_package(name)}/provider.py: which ONNX Runtime has it, what its driver brings{guessed}"
    fields = {"runtime": runtime, "libraries": "" if known else f'"{driver}",'}
    return _Kind("builtin", ort_name, "built into ONNX Runtime", fields, notes=(todo,))


def _describe_library(wheel: str) -> _Kind:
    """Describe a provider from a plugin library: by its wheel if installed, else by guesses."""
    if not _WHEEL.fullmatch(wheel):
        raise ConfigError(f"--library is the name of a wheel, not {wheel!r}", hint="--library onnxruntime-ep-openvino")
    module, version = wheel_library.module_of(wheel), wheels.version(wheel)
    notes: list[str] = []
    try:
        if not wheels.origin(module):
            raise wheel_library.NotKnown(f"{wheel} is not installed")
        facts = wheel_library.ask(wheel, module)
        file, known, others = facts.file, facts.ort_names[:1], facts.ort_names[1:]
        ort_name = known[0] if known else _guess_library_name(wheel)
        notes += [f"{wheel}: {facts.note}"] if facts.note else []
        notes += [] if known else [f"{ort_name} is a guess"]
        notes += [f"{wheel} has {other} too: return a provider for it as well, or leave it out" for other in others]
    except wheel_library.NotALibrary as error:
        message = f"{wheel} brings no plugin library of ONNX Runtime: {error}"
        raise ConfigError(message, hint="leave --library out for a provider that is built into ONNX Runtime") from error
    except wheel_library.NotKnown as error:
        stem = _stem(wheel)
        file = wheels.shared_library(f"onnxruntime_providers_{stem.replace('-', '_').replace('.', '_')}")
        ort_name = _guess_library_name(wheel)
        notes.append(f"{error}: module {module}, library {file} and {ort_name} are guesses")
    # Of a pre-release itself: 0.1.0.dev6 is older than 0.1.
    early = re.search(r"[a-z]", version.partition("+")[0].replace(".post", ""))
    oldest = f">={version if early else '.'.join(map(str, wheels.numbers(version)[:2]))}" if version else ""
    fields = {"wheel": wheel, "module": module, "file": _as_code(file)}
    return _Kind("library", ort_name, f"from the plugin library in {wheel}", fields, wheel + oldest, tuple(notes))


def _known_name(name: str) -> str:
    """Return ONNX Runtime's name of the provider, if it knows one of that spelling; else ""."""
    wanted = name.replace("-", "").lower()
    try:
        names = [str(provider) for provider in api.load().get_all_providers()]
    except RuntimeMissing:
        return ""
    return next((known for known in names if known.removesuffix(_SUFFIX).lower() == wanted), "")


def _built_in() -> list[str]:
    """List the providers that the installed ONNX Runtime was built with."""
    try:
        return [str(provider) for provider in api.load().get_available_providers()]
    except RuntimeMissing:
        return []


def _stem(wheel: str) -> str:
    """Return the part of a wheel's name that is the provider's."""
    return wheel.lower().removeprefix("onnxruntime-").removeprefix("ep-")


def _guess_library_name(wheel: str) -> str:
    """Return the likely name of a wheel's provider in ONNX Runtime."""
    return _known_name(_stem(wheel)) or _guess_name(_stem(wheel))


def _guess_name(name: str) -> str:
    return "".join(part.capitalize() for part in re.split("[^a-z0-9]", name)) + _SUFFIX


def _as_code(file: str) -> str:
    """Return the file's name as code; it holds on every system if the name has this system's usual form."""
    path = PurePosixPath(file)
    stem = path.stem.removeprefix("lib")
    if wheels.shared_library(stem) != path.name:
        return f'"{file}"'
    folder = "" if path.parent == PurePosixPath() else f'"{path.parent}/" + '
    return f'{folder}wheels.shared_library("{stem}")'


def _render(name: str, kind: _Kind) -> dict[str, str]:
    """Return the files by their paths."""
    package, here = _package(name), importlib.resources.files("epkit.discovery") / "templates"
    major, minor = wheels.numbers(__version__)[:2]
    dependencies = filter(None, (f"epkit>={major}.{minor},<{major}.{minor + 1}", kind.dependency))
    places = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{package}/__init__.py": "package/__init__.py",
        f"{package}/options.py": "package/options.py",
        f"{package}/provider.py": f"package/{kind.template}.py",
        f"{package}/py.typed": "package/py.typed",
        f"tests/test_{name.replace('-', '_')}.py": "tests/test_provider.py",
    }
    texts = {place: (here / f"{source}.template").read_text(encoding="utf-8") for place, source in places.items()}
    fields = {
        "name": name,
        "package": package,
        "title": _title(name, "".join(texts.values())),
        "ort_name": kind.ort_name,
        "origin": kind.origin,
        "dependencies": ", ".join(f'"{dependency}"' for dependency in dependencies),
    }
    return {place: Template(text).substitute(fields | kind.fields) for place, text in texts.items()}


def _title(name: str, text: str) -> str:
    """Return the name of the class, with a suffix if the files use it for something else."""
    title = "".join(part.capitalize() for part in name.split("-"))
    return f"{title}Provider" if keyword.iskeyword(title) or re.search(rf"\b{title}\b", text) else title


def _write(directory: Path, files: Mapping[str, str]) -> None:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir()
        with contextlib.ExitStack() as unfinished:
            unfinished.callback(shutil.rmtree, directory, ignore_errors=True)
            for place, text in files.items():
                (directory / place).parent.mkdir(exist_ok=True)
                (directory / place).write_text(text, encoding="utf-8")
            unfinished.pop_all()
    except FileExistsError as error:
        message = f"{error.filename} is there already, so nothing was written"
        raise ConfigError(message, hint=f"--output-dir {directory}-2, or move it away") from error
    except OSError as error:
        message = f"{directory} cannot be written: {error.strerror or error}"
        raise ConfigError(message, hint="--output-dir DIR writes elsewhere") from error
