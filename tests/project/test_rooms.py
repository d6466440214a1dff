"""Is the map of the code in CONTRIBUTING.md true?"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "epkit"
TESTS = ROOT / "tests"
MOST_LINES = 375
OUTSIDE_THE_LAYERS = ("__init__", "_version")
EVERYTHING_BELOW = "everything below"
_ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", re.MULTILINE)
_NAMED = re.compile(r"`(epkit/[\w/.]+)`")


def rows() -> dict[str, tuple[str, str]]:
    """Return the rows of the map: of each room what it does, and what it may import."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(r"^## Where things are\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert section
    return {name: (does, imports) for name, does, imports in _ROW.findall(section[1])}


def entries() -> list[str]:
    """Return the modules and packages at the top of epkit."""
    return [place.stem for place in PACKAGE.iterdir() if place.suffix == ".py" or (place / "__init__.py").is_file()]


def layers() -> list[str]:
    """Return the layers of the import contract, from the top."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(one for one in project["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    names = [name.strip() for layer in contract["layers"] for name in re.split(r"[|:]", layer)]
    return [name.removeprefix("epkit.") for name in names]


def imported() -> dict[str, set[str]]:
    """Return which other rooms and libraries each room imports, those for annotations alone left out."""
    graph = grimp.build_graph(
        "epkit", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    found: dict[str, set[str]] = {name: set() for name in entries()}
    for module in graph.modules:
        if module.partition(".")[0] == "epkit":
            importer = _room(module)
            found[importer] |= {_room(name) for name in graph.find_modules_directly_imported_by(module)} - {importer}
    return {name: {one for one in names if one not in sys.stdlib_module_names} for name, names in found.items()}


def _room(module: str) -> str:
    first, _, rest = module.partition(".")
    return (rest.partition(".")[0] or "__init__") if first == "epkit" else first


def test_the_map_has_every_entry_at_the_top_and_no_other():
    assert sorted(rows()) == sorted(entries())


def test_the_tests_have_a_folder_for_each_room_and_one_for_the_project():
    rooms = {name.removeprefix("_") for name in entries() if (PACKAGE / name).is_dir()}
    assert {file.parent.relative_to(TESTS).as_posix() for file in TESTS.rglob("test_*.py")} == rooms | {"project"}


def test_the_layers_of_the_linter_are_in_the_order_of_the_map():
    assert layers() == [name for name in rows() if name not in OUTSIDE_THE_LAYERS]


def test_the_map_says_of_each_room_what_its_docstring_says():
    for name, (does, _) in rows().items():
        if (PACKAGE / name).is_dir():
            source = (PACKAGE / name / "__init__.py").read_text(encoding="utf-8")
            assert (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0] == does, name


def test_each_room_imports_what_the_map_allows():
    names = list(rows())
    for name, found in imported().items():
        told = rows()[name][1]
        allowed = set(re.findall(r"`(\w+)`", told))
        if EVERYTHING_BELOW in told:
            allowed |= set(names[names.index(name) + 1 :])
        assert found <= allowed, f"{name} imports {sorted(found - allowed)}, which its line in CONTRIBUTING.md has not"


def test_the_map_allows_no_import_upwards():
    names = list(rows())
    for at, name in enumerate(names):
        allowed = re.findall(r"`(\w+)`", rows()[name][1])
        assert [one for one in allowed if one in names[:at]] == [], name


def test_the_plugins_that_epkit_brings_import_what_is_listed_for_authors_and_nothing_else():
    page = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
    public = set(re.findall(r"^\| `(epkit[\w.]*)` \|", page, re.MULTILINE))
    found: dict[str, set[str]] = {}
    for file in ROOT.glob("plugins/*/epkit_*/*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "epkit":
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    found.setdefault(whole if whole in public else str(node.module), set()).add(file.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.partition(".")[0] == "epkit":
                        found.setdefault(alias.name, set()).add(file.name)
    assert "epkit.provider" in found
    assert set(found) <= public, {name: files for name, files in found.items() if name not in public}


def test_no_module_is_longer_than_a_reader_holds_in_mind():
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in PACKAGE.rglob("*.py")}
    long = {str(file.relative_to(ROOT)): lines for file, lines in lengths.items() if lines > MOST_LINES}
    assert not long, f"more than {MOST_LINES} lines: it answers two questions"


@pytest.mark.parametrize(
    "page",
    [ROOT / "CONTRIBUTING.md", ROOT / "docs/how-epkit-decides.md", *sorted((ROOT / "docs/decisions").glob("*.md"))],
    ids=lambda page: page.name,
)
def test_every_module_that_a_page_names_is_there(page):
    named = _NAMED.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []
