"""What errors say, in one place: a test asks for the class, the words are in `texts/`, to be read and improved there.

    with says(InputError):
        session.run({"x": wrong})

After a change of words, `uv run pytest -m "" --update-texts` writes them anew, and the difference is reviewed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from epkit.errors import EpkitError

FOLDER = Path(__file__).parent / "texts"

_Kind = TypeVar("_Kind", bound=EpkitError)
_PLACES = {str(Path(__file__).parents[1]): "<checkout>", sys.prefix: "<python>"}
_TEMPORARY = re.compile(rf"{re.escape(tempfile.gettempdir())}/[^\s'\":,;)]*/")

_LONG = re.compile(r"\d{12,}")
_INSTALLED = re.compile(r"(known here|known|installed|these compile): .*")
_FREE = re.compile(r"\S+ [KMGT]iB of memory(?= (is|are) free)")

_updated: dict[str, dict[str, set[str]]] | None = None


@contextlib.contextmanager
def says(kind: type[_Kind]) -> Iterator[pytest.ExceptionInfo[_Kind]]:
    """Expect an error of this class, with words that are kept for the test that runs."""
    with pytest.raises(kind) as error:
        yield error
    check(f"{type(error.value).__name__}: {error.value}")


def check(text: str) -> None:
    """Look for a text among those that are kept for the test that runs, or keep it."""
    module, name = _place()
    text = _plain(text)
    if _updated is not None:
        _updated.setdefault(module, {}).setdefault(name, set()).add(text)
        return
    assert text in kept(module).get(name, ()), f"tests/texts/{module}.txt has other words for {name}: {text}"


def _plain(text: str) -> str:
    """Leave out what is another in each run or on each machine, and what an editor would spoil."""
    for place in sorted(_PLACES, key=len, reverse=True):
        text = text.replace(place, _PLACES[place])
    text = _FREE.sub("some memory", _LONG.sub("<number>", _TEMPORARY.sub("<folder>/", text)))
    text = re.sub(r"\n\s*\n", "\n", _INSTALLED.sub(r"\1: ...", text))
    return "".join(
        letter if letter.isprintable() or letter == "\n" else f"\\x{ord(letter):02x}" for letter in text
    ).strip()


def _place() -> tuple[str, str]:
    """Return the module and the name of the test that runs."""
    file, _, name = os.environ["PYTEST_CURRENT_TEST"].partition("::")
    return Path(file).stem, name.partition("[")[0].rpartition(" (")[0] or name.partition("[")[0]


@functools.cache
def kept(module: str) -> dict[str, set[str]]:
    """Return the texts of a module, by test: each stands once, however many cases say it."""
    file = FOLDER / f"{module}.txt"
    if not file.is_file():
        return {}
    _, *parts = re.split(r"^=== (.+)\n", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        name: {one.strip() for one in texts.split("\n\n")} for name, texts in zip(parts[::2], parts[1::2], strict=True)
    }


def start_update() -> None:
    """Keep what is said from now on, instead of comparing it."""
    global _updated
    _updated = {}


def finish_update() -> None:
    """Write what was said; tests that did not run keep their texts."""
    FOLDER.mkdir(exist_ok=True)
    for module, said in (_updated or {}).items():
        parts = [
            f"=== {name}\n" + "\n\n".join(sorted(texts)) + "\n" for name, texts in sorted((kept(module) | said).items())
        ]
        (FOLDER / f"{module}.txt").write_text("\n".join(parts), encoding="utf-8")
