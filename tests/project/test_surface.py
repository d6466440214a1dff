"""What programs rely on stays: public names, commands, exit codes and JSON documents, as recorded in surface.txt.

The contract of plugins is recorded in contract.txt (test_contract.py). `python tests/project/test_surface.py` records
this one, for a reviewer to see what has changed.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import click
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # what tests share, for the script

from documents import made_up
from tiers import slow_but

import epkit
from epkit import errors
from epkit.cli import app, main
from epkit.model import sample
from epkit.parity.agreement import incomparable
from epkit.prepare.export.proof import Trial
from epkit.prepare.export.result import Exported
from epkit.session.compile import Compilation

RECORDED = Path(__file__).with_name("surface.txt")
ON_PURPOSE = "programs rely on these; after a change on purpose, python tests/project/test_surface.py records them"
KEPT_FILES = {"epkit.compiled/1"}
"""Schemas of what epkit keeps for itself: no command prints them."""
OLDER_SCHEMAS = {"epkit.bench/2"}
"""What is read, and not written any more."""
MADE_BY_USERS = ("RunOptions", "EpkitError")
"""The classes whose parameters are a promise; epkit makes the others."""
COMMANDS = (
    "providers",
    "providers cpu",
    "doctor",
    "inspect model.onnx",
    "explain model.onnx -t cpu",
    "run model.onnx -t cpu",
    "run model.onnx -t none",
    "compare model.onnx -t cpu -t cpu",
    "cache list",
    "new-plugin acme --output-dir acme",
    "bench show document.json",
    "bench verify document.json",
    "bench diff document.json document.json",
)
QUICK = [words for words in COMMANDS if not words.startswith("compare ")]
_SCHEMA = re.compile(r'"(epkit\.[\w.-]+/\d+)"')


def promises() -> dict[str, str]:
    """Return each promise of epkit's code with what it says, by a name of its own."""
    return {**names(), **commands(), **exit_codes()}


def names() -> dict[str, str]:
    """Return the public names with their parameters; of a class, those of its public members too."""
    found = {}
    for name in epkit.__all__:
        value = getattr(epkit, name)
        if isinstance(value, type) and name not in MADE_BY_USERS:
            found[f"epkit.{name}"] = "class"
        else:
            found[f"epkit.{name}"] = _parameters(value)
        if isinstance(value, type):
            own = {*dir(value), *value.__annotations__} - {*dir(Exception)}
            members = {member for member in own if member[0] != "_"}
            found |= {f"epkit.{name}.{member}": _parameters(getattr(value, member, None)) for member in members}
    with epkit.open(sample.path(), "cpu") as session:
        attributes = [name for name in vars(session) if name[0] != "_"]
        found |= {f"epkit.Session.{name}": "value" for name in attributes}
        found["epkit.Session.report"] = " ".join(sorted(field.name for field in fields(session.report)))
    return found


def _parameters(value: object) -> str:
    """Return the parameters of what can be called, without annotations: types are what mypy checks."""
    if not callable(value):
        return "module" if inspect.ismodule(value) else "value"
    signature = inspect.signature(value)
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


def commands() -> dict[str, str]:
    """Return each command with its arguments and options."""
    return {f"${name}": told for name, told in _commands("epkit", app)}


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, str]]:
    # What `epkit bench` takes when no subcommand is named is a command of its own.
    own = getattr(command, "measure", command)
    yield f" {name}", " ".join(_option(option) for option in own.params) or "nothing"
    if isinstance(command, click.Group):
        for below, one in command.commands.items():
            yield from _commands(f"{name} {below}", one)


def _option(option: click.Parameter) -> str:
    told = "/".join([*option.opts, *option.secondary_opts])
    if isinstance(option, click.Argument):
        told = told.upper()
    elif not getattr(option, "is_flag", False):
        told += f"={option.type.name}"
    if option.multiple or option.nargs < 0:
        told += "..."
    return told if option.required else f"[{told}]"


def exit_codes() -> dict[str, str]:
    """Return the exit code of each error, and the classes that it is one of."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EpkitError)]
    return {
        f"epkit.errors.{kind.__name__}": f"exit {kind.exit_code}; {', '.join(one.__name__ for one in kind.__bases__)}"
        for kind in kinds
    }


def documents(commands: Sequence[str] = COMMANDS) -> dict[str, str]:
    """Run commands with `--json` in a folder of their own; return the keys of each document, by command."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path(".git").mkdir()
        Path("model.onnx").write_bytes(sample.path().read_bytes())
        document = made_up({"cpu": 0.01, "openvino": 0.02}).as_json()
        Path("document.json").write_text(json.dumps(document), encoding="utf-8")
        return {f"$ epkit {words} --json": _keys(_document(words)) for words in commands}


def compiled() -> dict[str, str]:
    """Return the keys of the document of `epkit compile`, for which not every machine has a provider."""
    return {"$ epkit compile model.onnx --json": _keys(Compilation("gpu", "model.onnx", (), {}, 0.0, ()).as_json())}


def exported() -> dict[str, str]:
    """Return the keys of the document of `epkit export`, for which not every machine has PyTorch."""
    trials = (Trial({}, 0, incomparable("PyTorch", "nothing ran")),)
    document = Exported(None, 0, (), (), 20, None, "dynamo", {}, trials, "", (), 0.0).as_json()
    return {"$ epkit export net.py:make --json": _keys(document)}


def _document(words: str) -> Mapping[str, object]:
    said, before = io.StringIO(), sys.argv
    sys.argv = ["epkit", *words.split(), "--json"]
    try:
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.suppress(SystemExit),
        ):
            main()
    finally:
        sys.argv = before
    found = json.loads(said.getvalue())
    assert isinstance(found, dict)
    return found


def _keys(document: Mapping[str, object]) -> str:
    return f"{document['schema']}: {' '.join(sorted(set(document) - {'schema'}))}"


def _recorded() -> dict[str, str]:
    return dict(line.split(" | ", 1) for line in RECORDED.read_text(encoding="utf-8").splitlines())


def _changed(found: Mapping[str, str], recorded: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return what was recorded and what is found now, where the two differ."""
    both = {name: (recorded.get(name, "not recorded"), found.get(name, "gone")) for name in {**recorded, **found}}
    return {name: (before, now) for name, (before, now) in both.items() if before != now}


def _is_document(name: str) -> bool:
    return name.endswith(" --json")


def test_public_names_commands_and_exit_codes_are_those_recorded():
    recorded = {name: told for name, told in _recorded().items() if not _is_document(name)}
    assert _changed(promises(), recorded) == {}, ON_PURPOSE


@pytest.mark.parametrize("words", slow_but(COMMANDS, *QUICK))
def test_the_keys_of_a_json_document_are_those_recorded(words):
    found = documents([words])
    assert found == {name: _recorded().get(name) for name in found}, ON_PURPOSE


def test_the_keys_of_the_document_of_a_compilation_are_those_recorded():
    assert (compiled() | exported()).items() <= _recorded().items(), ON_PURPOSE


def test_nothing_is_recorded_that_is_gone():
    names = {f"$ epkit {words} --json" for words in COMMANDS}
    assert {name for name in _recorded() if _is_document(name)} == names | {*compiled(), *exported()}


def test_every_json_document_is_recorded():
    sources = Path(epkit.__file__).parent.rglob("*.py")
    written = {schema for file in sources for schema in _SCHEMA.findall(file.read_text(encoding="utf-8"))}
    recorded = {told.partition(":")[0] for name, told in _recorded().items() if _is_document(name)}
    assert written - recorded == KEPT_FILES | OLDER_SCHEMAS


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EPKIT_CACHE_DIR"] = cache
        found = promises() | documents() | compiled() | exported()
        lines = [f"{name} | {told}\n" for name, told in sorted(found.items())]
    RECORDED.write_text("".join(lines), encoding="utf-8")
