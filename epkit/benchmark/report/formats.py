"""Write a benchmark in one of its formats."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from epkit._system import files
from epkit.benchmark import storage
from epkit.benchmark.document import Benchmark
from epkit.errors import ConfigError

Format: TypeAlias = Literal["json", "html", "markdown", "pytest-benchmark"]

BY_SUFFIX: Mapping[str, Format] = {".json": "json", ".html": "html", ".md": "markdown"}


def of(file: Path) -> Format:
    """Return the format of a file, by its suffix. Raises ConfigError."""
    if file.suffix.lower() not in BY_SUFFIX:
        raise ConfigError(f"{file} does not say what to write", hint=f"end it in {', '.join(BY_SUFFIX)}")
    return BY_SUFFIX[file.suffix.lower()]


def named(name: str) -> Format:
    """Return the format of that name. Raises ConfigError."""
    known: tuple[Format, ...] = get_args(Format)
    for each in known:
        if each == name:
            return each
    raise ConfigError(f"no format is named {name!r}", hint=f"formats: {', '.join(known)}")


def ready(wanted: Format, file: Path | None = None) -> Format:
    """Return the format if it can be written there, which is checked before measuring. Raises ConfigError."""
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if wanted == "html" and missing:
        reason = f"the page needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise ConfigError(reason, hint='pip install "epkit[report]"')
    if file is not None and not file.resolve().parent.is_dir():
        raise ConfigError(f"{file} cannot be written: its folder is not there", hint=f"mkdir -p {file.parent}")
    if file is not None:
        storage.is_replaced(file)
    return wanted


def text(found: Benchmark, wanted: Format) -> str:
    """Return the whole document in a format."""
    match wanted:
        case "json":
            return json.dumps(found.as_json(), indent=2, allow_nan=False) + "\n"
        case "markdown":
            from epkit.benchmark.report.markdown import markdown

            return markdown(found)
        case "html":
            from epkit.benchmark.report.html import page

            return page(found)
        case "pytest-benchmark":
            from epkit.benchmark.report.pytest_benchmark import as_pytest_benchmark

            return json.dumps(as_pytest_benchmark(found), indent=2, allow_nan=False) + "\n"


def write(found: Benchmark, wanted: Format, file: Path) -> None:
    """Write the document in a format. Raises ConfigError."""
    if wanted == "json":
        storage.write(found, file)
        return
    try:
        files.write_atomic(file, text(found, wanted))
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}", hint="--output FILE") from error
