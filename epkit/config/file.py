"""Find and read the configuration: `epkit.toml` or `[tool.epkit]` in `pyproject.toml`, and the environment.

Every value keeps the place it came from (`layers`). Its meaning is decided in `target`.
"""

from __future__ import annotations

import errno
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

from epkit._system import trust
from epkit._system.arguments import type_name
from epkit._system.nesting import is_deeper
from epkit.config.built_in import BUILT_IN
from epkit.config.layers import Table, Value, keys_of, merge, resolve_extends, table_of, with_origin
from epkit.errors import ConfigError, UnknownTarget, nearest

MOST_BYTES = 16 << 20
"""The largest config file that is read."""
TOP_KEYS = ("default", "automatic", "telemetry", "targets")
_NO_PROVIDERS, _OFF = Value((), "epkit"), Value(False, "epkit")

ConfigSource: TypeAlias = "str | os.PathLike[str] | Mapping[str, object] | None"


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration, merged; only its outer shape is validated."""

    place: str = "no epkit.toml"
    named: bool = True
    ignored: tuple[str, ...] = ()
    """One sentence for each file that was found but not read, because another user may have written it."""
    default: Value | None = None
    automatic: Value = _NO_PROVIDERS
    telemetry: Value = _OFF
    targets: Mapping[str, Table] = field(default_factory=dict)

    def target(self, name: str) -> Table:
        """Return the target `name`, one of the file's or a built-in one, with everything it extends merged in."""
        built_in = {name: table_of(table, f"epkit: target {name!r}") for name, table in BUILT_IN.items()}
        return resolve_extends(name, {**built_in, **self.targets})


def load(
    source: ConfigSource = None, *, environ: Mapping[str, str] | None = None, directory: Path | None = None
) -> Config:
    """Read the configuration: `source` when given, else `EPKIT_CONFIG`, else the file nearest to the directory.

    Raises ConfigError with the file, the key, and line and column where the parser knows them.
    """
    environ = os.environ if environ is None else environ
    ignored: list[str] = []
    table, place, named = _read(source, environ, directory or _working_directory(), ignored)
    not_texts = [key for key in (*table, *keys_of(table.get("targets"))) if not isinstance(key, str)]
    if not_texts:
        raise ConfigError(f"{place}: the key {not_texts[0]!r} is not a text", hint="write it in quotes")
    unknown = [key for key in table if key not in TOP_KEYS]
    if unknown:
        raise ConfigError(f"{place} has an unknown key {unknown[0]!r}", hint=nearest(unknown[0], TOP_KEYS))
    default, automatic, targets = table.get("default"), table.get("automatic", []), table.get("targets", {})
    if not (default is None or isinstance(default, str)):
        raise ConfigError(f"{place}: default must be the name of a target, not {default!r}")
    if not (isinstance(automatic, list | tuple) and all(isinstance(name, str) for name in automatic)):
        raise ConfigError(f"{place}: automatic must be a list of provider names, not {automatic!r}")
    telemetry = table.get("telemetry", False)
    if not isinstance(telemetry, bool):
        raise ConfigError(f"{place}: telemetry must be true or false, not {telemetry!r}")
    if not (isinstance(targets, Mapping) and all(isinstance(target, Mapping) for target in targets.values())):
        raise ConfigError(f"{place}: targets must hold tables, as in [targets.gpu]")
    tables = {name: table_of(target, f"{place}: targets.{name}") for name, target in targets.items()}
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
        targets=_override(tables, environ, place, ignored),
    )


def _working_directory() -> Path | None:
    """Return the working directory; None if it was deleted or cannot be read."""
    try:
        return Path.cwd()
    except OSError:
        return None


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
            if reason := _distrust(file):
                ignored.append(f"{place} was not read: {reason}; name it to have it read: --config {place}")
                continue
            return (_parse if file.name == "epkit.toml" else _tool_table)(file, start, trust.read), place, False
    return {}, "no epkit.toml", True


def _is_config(file: Path) -> bool:
    # Path.is_file raises if the folder is not readable; then there is no config.
    if file.name == "epkit.toml" or not os.path.isfile(file):  # noqa: PTH113
        return os.path.isfile(file)  # noqa: PTH113
    try:
        return b"tool.epkit" in file.read_bytes()
    except OSError:
        return False


def _distrust(file: Path) -> str:
    """Return why a file that was found, not named, is not trusted; "" if only this user or root can have written it.

    The file and its folder are checked, not the folders above: it is read at once, not loaded by its name later.
    """
    try:
        return trust.distrust(file, above=False)
    except OSError as error:
        return f"it cannot be looked at: {error.strerror or error}"


def _search_path(start: Path | None) -> Iterator[Path]:
    """Yield the directory and its parents, up to the root of the project or the home directory."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - a process may have no home, which is no error here
    for folder in () if start is None else (start, *start.parents):
        yield folder
        # Path.exists raises too if a folder is not readable.
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
    """Parse TOML; raises TOMLDecodeError, and RecursionError if the tables are nested too deep."""
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


def _override(
    tables: Mapping[str, Table], environ: Mapping[str, str], place: str, ignored: Sequence[str]
) -> dict[str, Table]:
    """Override the targets by `EPKIT_TARGETS__<target>__<key>...=value`; a value is TOML, or else text."""
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
        result[name] = merge(result[name], with_origin(above, f"environment {variable}"))
    return result


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _toml_value(text: str) -> object:
    try:
        return _tables(f"value = {text}".encode())["value"]
    except (ValueError, RecursionError):
        return text
