"""What did the person write, and where?

Reads `epkit.toml` (or `[tool.epkit]` in `pyproject.toml`), the environment and the call, and merges them. Every value
keeps the place it came from. What the values mean is decided in `target`.
"""

from __future__ import annotations

import errno
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

from epkit._system import trust
from epkit._system.arguments import type_name
from epkit._system.nesting import is_deeper
from epkit.config.built_in import BUILT_IN
from epkit.errors import ConfigError, UnknownTarget, nearest

MOST_BYTES = 16 << 20
"""How large a config file may be."""
TOP_KEYS = ("default", "automatic", "telemetry", "targets")


@dataclass(frozen=True, slots=True)
class Value:
    """One value, and the place where it was written."""

    value: object
    origin: str


Table: TypeAlias = "dict[str, Value | Table]"
ConfigSource: TypeAlias = "str | os.PathLike[str] | Mapping[str, object] | None"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that was written, merged; nothing of it validated beyond its outer shape."""

    place: str = "no epkit.toml"
    named: bool = True
    ignored: tuple[str, ...] = ()
    """Files that were found and not read, a sentence each: somebody else can have written them."""
    default: Value | None = None
    automatic: Value = Value((), "epkit")
    telemetry: Value = Value(False, "epkit")
    targets: Mapping[str, Table] = field(default_factory=dict)

    def target(self, name: str) -> Table:
        """Return the target `name`, one of the file's or a built-in one, with everything it extends merged in."""
        built_in = {name: table_of(table, f"epkit: target {name!r}") for name, table in BUILT_IN.items()}
        return _extended(name, {**built_in, **self.targets}, ())


def load(
    source: ConfigSource = None, *, environ: Mapping[str, str] | None = None, directory: Path | None = None
) -> Config:
    """Read the configuration: `source` when given, else `EPKIT_CONFIG`, else the file nearest to the directory.

    Raises ConfigError with the file, the key, and line and column where the parser knows them.
    """
    environ = os.environ if environ is None else environ
    ignored: list[str] = []
    written, place, named = _read(source, environ, directory or _working_directory(), ignored)
    strangers = [key for key in (*written, *_keys(written.get("targets"))) if not isinstance(key, str)]
    if strangers:
        raise ConfigError(f"{place}: the key {strangers[0]!r} is not a text", hint="write it in quotes")
    unknown = [key for key in written if key not in TOP_KEYS]
    if unknown:
        raise ConfigError(f"{place} has an unknown key {unknown[0]!r}", hint=nearest(unknown[0], TOP_KEYS))
    default, automatic, targets = written.get("default"), written.get("automatic", []), written.get("targets", {})
    if not (default is None or isinstance(default, str)):
        raise ConfigError(f"{place}: default must be the name of a target, not {default!r}")
    if not (isinstance(automatic, list | tuple) and all(isinstance(name, str) for name in automatic)):
        raise ConfigError(f"{place}: automatic must be a list of provider names, not {automatic!r}")
    telemetry = written.get("telemetry", False)
    if not isinstance(telemetry, bool):
        raise ConfigError(f"{place}: telemetry must be true or false, not {telemetry!r}")
    if not (isinstance(targets, Mapping) and all(isinstance(table, Mapping) for table in targets.values())):
        raise ConfigError(f"{place}: targets must hold tables, as in [targets.gpu]")
    tables = {name: table_of(table, f"{place}: targets.{name}") for name, table in targets.items()}
    environment_default = environ.get("EPKIT_DEFAULT")
    return Config(
        place=place,
        named=named,
        ignored=tuple(ignored),
        default=Value(environment_default, "environment EPKIT_DEFAULT")
        if environment_default
        else (Value(default, f"{place}: default") if default is not None else None),
        automatic=Value(tuple(automatic), f"{place}: automatic"),
        telemetry=Value(telemetry, f"{place}: telemetry"),
        targets=_overridden(tables, environ, place, ignored),
    )


def _working_directory() -> Path | None:
    """Return the working directory; None where it was deleted or may not be read, and so holds no file."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _keys(table: object) -> list[object]:
    return list(table) if isinstance(table, Mapping) else []


def table_of(written: Mapping[str, object], origin: str) -> Table:
    """Mark every value of a nested mapping with where it came from."""
    return {
        str(key): table_of(cast("Mapping[str, object]", value), f"{origin}.{key}")
        if isinstance(value, Mapping)
        else Value(os.fspath(value) if isinstance(value, os.PathLike) else value, f"{origin}.{key}")
        for key, value in written.items()
    }


def merged(below: Table, above: Table) -> Table:
    """Lay one table over another: tables merge, everything else is replaced."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        result[key] = merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return result


def plain(table: Table) -> dict[str, object]:
    """Return the values without their origins."""
    return {key: plain(value) if isinstance(value, dict) else value.value for key, value in table.items()}


def origin_of(table: Table, path: Iterable[object]) -> str:
    """Return where the value at `path`, or the nearest value around or below it, was written; empty when unknown."""
    at: Value | Table = table
    for key in path:
        if isinstance(at, Value) or str(key) not in at:
            break
        at = at[str(key)]
    return next((value.origin for _, value in leaves(at)), "")


def leaves(table: Value | Table, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Value]]:
    """Walk over every value, in the order written."""
    if isinstance(table, Value):
        yield path, table
        return
    for key, value in table.items():
        yield from leaves(value, (*path, key))


def _read(
    source: ConfigSource, environ: Mapping[str, str], start: Path | None, ignored: list[str]
) -> tuple[Mapping[str, object], str, bool]:
    if isinstance(source, Mapping):
        return source, "call", True
    if not (source is None or isinstance(source, str | os.PathLike)) or "\0" in os.fspath(source or ""):
        raise ConfigError(f"config is {type_name(source)}, which names no file", hint="give a path, or a mapping")
    if source == "":
        raise ConfigError("the config file has an empty name", hint="--config FILE")
    named = source if source is not None else environ.get("EPKIT_CONFIG")
    if named:
        path = Path(os.path.expanduser(named))  # noqa: PTH111
        if path.name == "pyproject.toml":
            return _tool_table(path, start), _place(path, start), True
        return _parse(path, start), _place(path, start), True
    for folder in _search_path(start):
        for file in (folder / "epkit.toml", folder / "pyproject.toml"):
            if not _is_config(file):
                continue
            place = _place(file, start)
            if told := _distrust(file):
                ignored.append(f"{place} was not read: {told}; name it to have it read: --config {place}")
                continue
            return (_parse if file.name == "epkit.toml" else _tool_table)(file, start, trust.read), place, False
    return {}, "no epkit.toml", True


def _is_config(file: Path) -> bool:
    # Path.is_file raises where a folder may not be looked into; what may not be looked at is no config.
    if file.name == "epkit.toml" or not os.path.isfile(file):  # noqa: PTH113
        return os.path.isfile(file)  # noqa: PTH113
    try:
        return b"tool.epkit" in file.read_bytes()
    except OSError:
        return False


def _distrust(file: Path) -> str:
    """Say why a file that was found, not named, is not believed; empty when only this user or root can have written it.

    What matters is the file and the folder that it lies in: it is read here and now, not loaded by its name later.
    """
    try:
        return trust.distrust(file, above=False)
    except OSError as error:
        return f"it cannot be looked at: {error.strerror or error}"


def _search_path(start: Path | None) -> Iterator[Path]:
    """Yield the directory and its parents, up to the project's root or the home directory."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - a process may have no home, which is no error here
    for folder in () if start is None else (start, *start.parents):
        yield folder
        # Path.exists raises too.
        if folder == home or any(os.path.exists(folder / name) for name in (".git", "pyproject.toml")):  # noqa: PTH110
            return


def _place(path: Path, start: Path | None) -> str:
    return str(path.relative_to(start)) if start is not None and path.is_relative_to(start) else str(path)


Reader: TypeAlias = Callable[[Path], bytes]


def _parse(path: Path, start: Path | None, read: Reader | None = None) -> dict[str, object]:
    place = _place(path, start)
    try:
        return _tables(read(path) if read else _contents(path))
    except FileNotFoundError:
        raise ConfigError(f"the config file {place} does not exist", hint="check --config and EPKIT_CONFIG") from None
    except OSError as error:
        raise ConfigError(f"the config file {place} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the config file {place} is not UTF-8 text (byte {error.start})") from error
    except RecursionError as error:
        raise ConfigError(f"the config file {place} is nested too deep", hint="[targets.NAME]") from error
    except tomllib.TOMLDecodeError as error:
        what = re.sub(r" \(at (line \d+, column \d+|end of document)\)$", "", str(error))
        where = re.search(r"\(at (line \d+, column \d+|end of document)\)$", str(error))
        spot = f", {where[1]}" if where else ""
        raise ConfigError(f"{place}{spot}: not valid TOML: {what}") from error
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"{place}: not valid TOML: {error}") from error


def _contents(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def _tables(contents: bytes) -> dict[str, object]:
    """Parse TOML; raises TOMLDecodeError, and RecursionError for what is nested too deep to be walked over."""
    if len(contents) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MOST_BYTES:,} bytes")
    found = tomllib.loads(contents.decode().replace("\r\n", "\n"))
    if is_deeper(found):
        raise RecursionError
    return found


def _tool_table(path: Path, start: Path | None, read: Reader | None = None) -> Mapping[str, object]:
    tool = _parse(path, start, read).get("tool")
    table = tool.get("epkit", {}) if isinstance(tool, Mapping) else {}
    if not isinstance(table, Mapping):
        raise ConfigError(f"{_place(path, start)}: tool.epkit must be a table")
    return table


def _overridden(
    tables: Mapping[str, Table], environ: Mapping[str, str], place: str, ignored: Sequence[str]
) -> dict[str, Table]:
    """Lay `EPKIT_TARGETS__<target>__<key>...=value` over the targets; a value is TOML, or else text."""
    result = dict(tables)
    folded = {_folded(name): name for name in tables}
    for variable in sorted(environ):
        if not variable.upper().startswith("EPKIT_TARGETS__"):
            continue
        parts = variable.split("__")[1:]
        if len(parts) < 2 or not all(parts):
            raise ConfigError(f"{variable} names no key", hint="write EPKIT_TARGETS__<target>__<key>=value")
        name = folded.get(_folded(parts[0]))
        if name is None:
            known = "; ".join((nearest(parts[0], tables, what="targets"), *ignored))
            where = f" in {place}" if tables else ""
            raise UnknownTarget(f"{variable} is set, but there is no target {parts[0].lower()!r}{where}", hint=known)
        # Keys of a target are lower-case; the options below them are spelt as ONNX Runtime spells them.
        value: object = _toml_value(environ[variable])
        for key in reversed((parts[1].lower(), *parts[2:])):
            value = {key: value}
        above = table_of(cast("Mapping[str, object]", value), "")
        result[name] = merged(result[name], _with_origin(above, f"environment {variable}"))
    return result


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _toml_value(text: str) -> object:
    try:
        return _tables(f"value = {text}".encode())["value"]
    except (ValueError, RecursionError):
        return text


def _with_origin(table: Table, origin: str) -> Table:
    return {
        key: _with_origin(value, origin) if isinstance(value, dict) else Value(value.value, origin)
        for key, value in table.items()
    }


def _extended(name: str, targets: Mapping[str, Table], seen: Sequence[str]) -> Table:
    table = targets[name]
    parent = table.get("extends")
    if parent is None:
        return table
    path = (*seen, name)
    if isinstance(parent, dict) or not isinstance(parent.value, str):
        raise ConfigError(f"target {name!r}: extends must be the name of a target")
    if parent.value in path:
        raise ConfigError(f"targets extend each other in a circle: {' -> '.join((*path, parent.value))}")
    if parent.value not in targets:
        hint = nearest(parent.value, targets, what="targets")
        raise UnknownTarget(f"target {name!r} extends {parent.value!r}, which does not exist", hint=hint)
    below = _extended(parent.value, targets, path)
    own = {key: value for key, value in table.items() if key != "extends"}
    # Options belong to one provider; a target with another provider does not take them over.
    if "provider" in own and _value(own["provider"]) != _value(below.get("provider")):
        below = {key: value for key, value in below.items() if key not in ("options", "device")}
    both = merged(below, own)
    # Options for a provider that the chain has lost go with it; those that the target writes itself are judged later.
    kept = {*_listed(both.get("fallback")), "cpu"} - {_value(both.get("provider"))} | set(_keys(own.get("options_for")))
    inherited = both.get("options_for")
    if isinstance(inherited, dict):
        both["options_for"] = {key: value for key, value in inherited.items() if key in kept}
    return both


def _listed(value: Value | Table | None) -> list[object]:
    plain_value = _value(value)
    return list(plain_value) if isinstance(plain_value, list | tuple) else []


def _value(value: Value | Table | None) -> object:
    return value.value if isinstance(value, Value) else None
