"""Does what the documentation shows work?

A page is one story: its blocks run in order, in one folder that holds `model.onnx` (the sample network).

- `python` runs, the blocks of a page in one namespace; with a first line `# name.py` it becomes that file instead.
- `toml` becomes `epkit.toml`, and every target in it is read; with a first line `# pyproject.toml` it becomes that
  file, and the plugin that it declares is installed.
- `console` runs each line `$ epkit ...`, which must exit with 0, or as its comment `# exit 3` says. Lines below that
  show an error or its hint must be what was said, `...` standing for anything.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from epkit import (
    catalogue,
    checkup,
    compilation,
    compiled,
    errors,
    explanation,
    faults,
    inspection,
    placement,
    report,
    sample,
    upkeep,
)
from epkit.benchmark import environment, result
from epkit.cli import main
from epkit.config import load
from epkit.effective import Setting
from epkit.parity import agreement, conditioning, metrics, tolerance, tracing
from epkit.parity import result as compared
from epkit.provider import Provider
from epkit.registry import discover
from epkit.target import read
from epkit.warmup import PlannedRun

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")), *ROOT.glob("plugins/*/README.md")]
_BLOCK = re.compile(r"^```(python|toml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+\.(?:py|toml))\n")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if _BLOCK.search(page.read_text())], ids=_name)
def test_the_examples_of_a_page_work_one_after_the_other(page, empty, monkeypatch, capfd):
    shutil.copy(sample.path(), empty / "model.onnx")
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "example"}
    for block in _BLOCK.finditer(text):
        kind, code = block[1], block[2]
        named = _FILE.match(code)
        where = f"{page}, line {text.count(chr(10), 0, block.start()) + 1}"
        if kind == "console":
            _commands(code, where, monkeypatch, capfd)
        elif kind == "python" and not named:
            exec(compile("\n" * text.count("\n", 0, block.start(2)) + code, page, "exec"), namespace)
        else:
            file = empty / (named[1] if named else "epkit.toml")
            file.write_text(code, encoding="utf-8")
            if file.suffix == ".py":
                sys.modules.pop(file.stem, None)
            _use(file, monkeypatch)


def _use(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read every target of a config file; install the plugin of a pyproject.toml."""
    if file.name == "epkit.toml":
        config, registry = load(file), discover()
        for target in config.targets:
            read(target, config, registry)
    elif file.name == "pyproject.toml":
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        information = file.parent / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
        points = "".join(f"{name} = {value}\n" for name, value in project["entry-points"]["epkit"].items())
        (information / "entry_points.txt").write_text(f"[epkit]\n{points}")
        monkeypatch.syspath_prepend(file.parent)


def _commands(code: str, where: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    err = ""
    for line in code.splitlines():
        words = shlex.split(line, comments=True) if line.startswith("$ ") else []
        settings = [word.partition("=") for word in words[1:] if re.match(r"EPKIT_\w+=", word)]
        words = words[1 + len(settings) :]
        if words[:1] == ["epkit"]:
            expected = re.search(r"# exit (\d)$", line)
            with monkeypatch.context() as patch:
                for name, _, value in settings:
                    patch.setenv(name, value)
                patch.setattr(sys, "argv", words)
                with pytest.raises(SystemExit) as left:
                    main()
            err = capfd.readouterr().err
            assert left.value.code == (int(expected[1]) if expected else 0), f"{where}: {line}\n{err}"
        elif line.startswith(("epkit: ", "  hint: ")):
            pattern = re.escape(line).replace(r"\.\.\.", ".*")
            assert re.search(f"^{pattern}$", err, re.MULTILINE), f"{where}: shown is\n{line}\nsaid was\n{err}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_leads_to_a_file(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_the_generated_tables_are_those_of_the_models():
    generate = runpy.run_path(str(DOCS / "generate.py"))
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        assert generate["regenerated"](text) == text, f"{page} is out of date: python docs/generate.py"


def test_every_provider_has_a_page_with_its_options():
    for entry in discover().entries:
        if entry.plugin.distribution in ("epkit", "epkit-openvino", "epkit-webgpu"):
            page = DOCS / "providers" / f"{entry.name}.md"
            assert f"<!-- facts of {entry.name}: generated" in page.read_text(encoding="utf-8")


def test_every_part_of_the_contract_is_documented():
    page = (DOCS / "plugins.md").read_text(encoding="utf-8")
    parts = [name for name in {**vars(Provider), **Provider.__annotations__} if not name.startswith("_")]
    assert [name for name in parts if f"`{name}" not in page] == []


def test_every_error_is_documented():
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert [name for name in kinds if f"`{name}`" not in page] == []


def test_every_key_of_the_json_documents_is_documented():
    page = (DOCS / "how-epkit-decides.md").read_text(encoding="utf-8")
    shapes = (
        *(catalogue.Row, checkup.Finding, inspection.Memory, inspection.Measured, inspection.BatchSize),
        *(explanation.Explanation, explanation.PlanRow, PlannedRun, Setting),
        *(compiled.Cached, compilation.Compilation, upkeep.Kept, upkeep.KeptRow),
        *(report.Report, report.Tried, report.WarmedUp, placement.Share),
        *(result.Benchmark, result.Row, result.Comparison, environment.Environment),
        *(compared.Comparison, compared.Row, compared.Judgement, faults.Fault),
        *(agreement.Agreement, metrics.Metrics, tolerance.Tolerance, tolerance.Judged),
        *(tracing.Divergence, conditioning.Conditioning),
    )
    assert [(kind.__name__, one.name) for kind in shapes for one in fields(kind) if f"`{one.name}`" not in page] == []


def test_every_environment_variable_is_documented():
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "epkit").rglob("*.py"))
    assert [name for name in set(re.findall(r"\bEPKIT_[A-Z]+(?:_[A-Z]+)*\b", sources)) if name not in page] == []
