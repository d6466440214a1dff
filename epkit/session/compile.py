"""Compile a model ahead of time: into the cache, or to files."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from epkit._system import files as disk
from epkit._system import platform
from epkit.config.file import ConfigSource
from epkit.config.target import Target
from epkit.discovery.registry import Registry, discover
from epkit.errors import ConfigError, ModelError, ProviderDropped
from epkit.model.file import Model
from epkit.runtime import create
from epkit.runtime.create import OpenFault
from epkit.runtime.plugin_calls import hint_for
from epkit.session.opening import open_plan, unsupported_tensor
from epkit.session.plan import Plan
from epkit.session.report import CacheRow
from epkit.session.request import OpenRequest, plan_target
from epkit.session.settings import build_settings

SCHEMA = "epkit.compile/1"


@dataclass(frozen=True, slots=True)
class Compilation:
    """What was compiled, and where it is kept."""

    target: str
    model: str
    cache: tuple[CacheRow, ...]
    """A row for each provider of the chain that compiles; empty when the result went to files."""
    files: Mapping[str, int]
    """The files that were written, with their bytes: an EP-context model, and what it names."""
    seconds: float
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 when something compiled is there to start from."""
        return 0 if self.files or any(row.outcome in ("hit", "built") for row in self.cache) else 1

    def as_json(self) -> dict[str, object]:
        """Return the document of `epkit compile --json`."""
        return {"schema": SCHEMA, **asdict(self)}


def compile(
    model: str | os.PathLike[str] | bytes,
    target: str | None = None,
    *,
    options: Mapping[str, object] | None = None,
    session_options: Mapping[str, object] | None = None,
    config: ConfigSource = None,
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Compilation:
    """Compile a model as opening it would, so that later sessions start from it. Raises as `epkit.open` does.

    With `output`, the compiled model is written to that file instead, as an EP-context model that opens by itself; what
    was there stays unless `force`.
    """
    request, registry = OpenRequest(model, target, options, session_options, config), discover()
    wanted = request.read_target(registry)
    _check_compiles(wanted, registry)
    contents = request.read_model(wanted)
    if contents.compiled_for:
        raise ModelError("the model is compiled already", hint="give the model that it was compiled from")
    planned = plan_target(replace(wanted, cache=True), registry)
    started = time.perf_counter()
    if output is not None:
        files = _written(contents, planned.plan, Path(output), force=force)
        return Compilation(wanted.name, _name(contents), (), files, time.perf_counter() - started, wanted.notes)
    with open_plan(contents, planned.plan, planned.answers) as session:
        report = session.report
    return Compilation(wanted.name, report.model, report.cache, {}, time.perf_counter() - started, report.notes)


def _check_compiles(target: Target, registry: Registry) -> None:
    """Raise ConfigError for a target none of whose providers compiles models."""
    if any(candidate.provider.caching.compiles != "never" for candidate in target.chain):
        return
    names = [name for name, provider in registry.providers.items() if provider.caching.compiles != "never"]
    message = f"target {target.name!r} has no provider that compiles models"
    raise ConfigError(message, hint=f"these compile: {', '.join(sorted(names)) or 'none that is installed'}")


def _written(model: Model, plan: Plan, output: Path, *, force: bool) -> dict[str, int]:
    """Write an EP-context model: in a folder aside under the names that it will have, and then moved into place.

    The names must be the last ones, since the model holds the names of the files beside it.
    """
    if plan.refusal is not None:
        open_plan(model, plan, {})  # raises what there is to say
    compilers = [candidate for candidate in plan.chain if candidate.provider.caching.compiles != "never"]
    if not compilers:
        names = ", ".join(candidate.name for candidate in plan.chain)
        raise ProviderDropped(f"no provider that compiles models is usable here, only {names}", hint="epkit providers")
    for candidate in compilers:
        if (tensor := unsupported_tensor(candidate, model)) is not None:
            message = f"{candidate.name} cannot carry {tensor.dtype} tensors, such as {tensor.name!r} of {_name(model)}"
            raise ProviderDropped(message, hint="epkit inspect MODEL")
    if output.is_dir() or not output.parent.is_dir():
        raise ConfigError(f"{output} cannot be written: it is a folder, or its folder is missing", hint="--output FILE")
    if isinstance(model.source, Path) and output.exists() and output.samefile(model.source):
        raise ConfigError(f"{output} is the model itself", hint="--output another file")
    _check_place(output, force=force)
    source = model.source if isinstance(model.source, bytes) else str(model.source.absolute())
    settings = build_settings(plan.target, platform.core_limit())
    # A whole path: to a relative one, TensorRT-RTX writes the names of its files with the folder before them.
    with tempfile.TemporaryDirectory(prefix=".epkit-", dir=output.parent.absolute()) as folder:
        aside = Path(folder) / output.name
        try:
            create.compile_model(source, plan.chain, settings, aside)
        except OpenFault as fault:
            names = ", ".join(compiler.name for compiler in compilers)
            message = f"{names} cannot compile {_name(model)} to a file: {fault.cause}"
            known = next(filter(None, (hint_for(compiler.provider, fault.cause) for compiler in compilers)), "")
            raise ProviderDropped(message, hint=known or "leave --output out: then it is kept in the cache") from fault
        files = sorted((file for file in Path(folder).iterdir() if file.is_file()), key=lambda file: file == aside)
        places = {file: output.with_name(file.name) for file in files}
        for place in places.values():
            _check_place(place, force=force)
        return _moved(places)


def _check_place(place: Path, *, force: bool) -> None:
    """Refuse what cannot be replaced: the files name each other, so they lie where they are said to."""
    if place.is_symlink():
        message = f"{place} is a link to {place.readlink()}"
        raise ConfigError(message, hint=f"--output {place.resolve()}, whose files then lie beside each other")
    if not place.exists():
        return
    if not place.is_file():
        raise ConfigError(f"{place} is no regular file, and cannot be replaced", hint="--output another file")
    if not force:
        raise ConfigError(f"{place} is there already", hint="--force replaces it")


def _moved(places: Mapping[Path, Path]) -> dict[str, int]:
    """Move files into place, the model last: where there is one, the files that it names are its own."""
    try:
        for file, place in places.items():
            disk.copy_owner_and_mode(file, place)
        [*places.values()][-1].unlink(missing_ok=True)
        for file, place in places.items():
            file.replace(place)
    except OSError as error:
        message = f"the compiled model cannot be written: {error.strerror or error}"
        raise ConfigError(message, hint="--output FILE in another folder") from error
    return {str(place): place.stat().st_size for place in places.values()}


def _name(model: Model) -> str:
    return f"{len(model.source)} bytes" if isinstance(model.source, bytes) else str(model.source)
