"""What errors say, in one place: a test asks for the class, the words are in `texts/`, to be read and improved there.

    with says(InputError):
        session.run({"x": wrong})

After a change of words, `uv run pytest -m "" --update-texts` writes them anew, and the difference is reviewed.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from epkit.errors import EpkitError

FOLDER = Path(__file__).parent / "texts"

_Kind = TypeVar("_Kind", bound=EpkitError)
_TEMPORARY = re.compile(rf"{re.escape(tempfile.gettempdir())}/[^\s'\":,;)]*/")
_ENTRY = re.compile(r"^=== (.+)\n", re.MULTILINE)

_updated: dict[str, dict[str, str]] | None = None
_counts: collections.Counter[str] = collections.Counter()


@contextlib.contextmanager
def says(kind: type[_Kind], match: str | None = None) -> Iterator[pytest.ExceptionInfo[_Kind]]:
    """Expect an error of this class with the words that are kept for this place of this test."""
    with pytest.raises(kind, match=match) as error:
        yield error
    assert error.value.exit_code == kind.exit_code
    check(f"{type(error.value).__name__}: {error.value}")


def check(text: str) -> None:
    """Compare a text with what is kept for this place of the test that runs, or keep it."""
    module, name = _place()
    _counts[f"{module} {name}"] += 1
    key = f"{name} {_counts[f'{module} {name}']}"
    text = _TEMPORARY.sub("<folder>/", text).strip()
    if _updated is not None:
        _updated.setdefault(module, {})[key] = text
        return
    assert text == kept(module).get(key, "nothing: --update-texts"), f"tests/texts/{module}.txt: {key}"


def _place() -> tuple[str, str]:
    """Return the module and the name of the test that runs."""
    place = os.environ["PYTEST_CURRENT_TEST"].rpartition(" (")[0]
    file, _, name = place.partition("::")
    return Path(file).stem, name


def kept(module: str) -> dict[str, str]:
    """Return the texts of a module of tests."""
    file = FOLDER / f"{module}.txt"
    if not file.is_file():
        return {}
    _, *parts = _ENTRY.split(file.read_text(encoding="utf-8"))
    return {key: text.strip() for key, text in zip(parts[::2], parts[1::2], strict=True)}


def start_update() -> None:
    """Keep what is said from now on, instead of comparing it."""
    global _updated
    _updated = {}


def finish_update() -> None:
    """Write what was said; what was not asked this time stays."""
    FOLDER.mkdir(exist_ok=True)
    for module, found in (_updated or {}).items():
        asked = {key.rpartition(" ")[0] for key in found}
        rest = {key: text for key, text in kept(module).items() if key.rpartition(" ")[0] not in asked}
        lines = [f"=== {key}\n{text}\n" for key, text in sorted((rest | found).items())]
        (FOLDER / f"{module}.txt").write_text("\n".join(lines), encoding="utf-8")
