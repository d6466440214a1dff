"""Does what the documentation shows work?

A page is one story: its blocks run in order, in one folder that holds `model.onnx` (the sample network).

- `python` runs, the blocks of a page in one namespace; with a first line `# name.py` it becomes that file instead.
- `toml` becomes `epkit.toml`, and every target in it is read; with a first line `# pyproject.toml` it becomes that
  file, and the plugin that it declares is installed.
  A first line `# in name.py` marks a part of a file of the tutorial's plugin, which is run where that is installed.
- `console` runs each line `$ epkit ...`, which must exit with 0, or as its comment `# exit 3` says; a `--budget` is cut
  to 10 seconds, since what a page says of a command holds with any. Lines below that show an error or its hint must be
  what was said, `...` standing for anything. `$ pip install --editable DIRECTORY` makes a plugin importable and found,
  and `$ pytest DIRECTORY` must pass. `$ export EPKIT_...` holds for the rest.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import warm
from capabilities import SECOND, needs

from epkit import errors
from epkit.benchmark import document
from epkit.benchmark.audit import comparability, consistency, diff, verify
from epkit.benchmark.environment import environment
from epkit.benchmark.operators import profile
from epkit.cli import main
from epkit.config.file import load
from epkit.config.target import read
from epkit.discovery import listing, scaffold
from epkit.discovery.registry import discover
from epkit.model import inspect, sample
from epkit.parity import agreement, conditioning, divergence, metrics, tolerance
from epkit.parity import result as compared
from epkit.provider import Provider
from epkit.runtime import placement
from epkit.session import compile as compilation
from epkit.session import doctor, explain, fault, report
from epkit.session.cache import manage
from epkit.session.settings import Setting
from epkit.session.warmup import PlannedRun

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")), *ROOT.glob("plugins/*/README.md")]
WITH_A_SECOND_ENGINE = (
    "README.md",
    *(f"docs/{page}.md" for page in ("benchmarking", "caches", "comparing", "rehearsing-failures", "writing-a-plugin")),
)
WITH_THE_PLUGIN = ("docs/configuration.md", "docs/how-epkit-decides.md", "docs/providers/openvino.md")
SLOW = (
    "docs/benchmarking.md",
    "docs/rehearsing-failures.md",
    "docs/comparing.md",
    "docs/warmup-and-memory.md",
    "docs/exporting.md",
)
_BLOCK = re.compile(r"^```(python|toml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+\.(?:py|toml))\n")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _shown(page: Path) -> Any:
    """Return the page as a parameter; what its examples run on is needed."""
    marks = [needs(SECOND)] if _name(page) in WITH_A_SECOND_ENGINE else []
    marks += [needs("plugin openvino")] if _name(page) in WITH_THE_PLUGIN else []
    marks += [needs("an Intel CPU")] if _name(page) == "docs/writing-a-plugin.md" else []  # its library looks for one
    marks += [needs("torch")] if _name(page) == "docs/exporting.md" else []
    marks += [pytest.mark.slow] if _name(page) in SLOW else []
    return pytest.param(page, marks=marks, id=_name(page))


@pytest.mark.parametrize("page", [_shown(page) for page in PAGES if _BLOCK.search(page.read_text())])
def test_the_examples_of_a_page_work_one_after_the_other(page, empty, monkeypatch, capfd):
    shutil.copy(sample.path(), empty / "model.onnx")
    if "tensorrt-rtx" in str(page):  # the one plugin that is not installed for development
        monkeypatch.setenv("EPKIT_PLUGINS", "epkit_tensorrt_rtx")
    _forget("epkit_acme")
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "example"}
    for block in _BLOCK.finditer(text):
        kind, code = block[1], block[2]
        named = _FILE.match(code)
        where = f"{page}, line {text.count(chr(10), 0, block.start()) + 1}"
        if kind == "console":
            _commands(code, where, monkeypatch, capfd)
        elif code.startswith("# in "):
            continue
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
        site = Path.cwd().parent / "site"
        information = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        shutil.rmtree(information, ignore_errors=True)
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
        points = project["entry-points"]["epkit"]
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (information / "entry_points.txt").write_text(f"[epkit]\n{lines}")
        monkeypatch.syspath_prepend(site)
        monkeypatch.syspath_prepend(file.parent)
        _forget(*points.values())


def _forget(*packages: str) -> None:
    """Let what another page has installed under the same name not be found here."""
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def _commands(code: str, where: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    err = ""
    for line in code.splitlines():
        words = shlex.split(line, comments=True) if line.startswith("$ ") else []
        if words[1:2] == ["export"]:
            for name, _, value in (word.partition("=") for word in words[2:]):
                monkeypatch.setenv(name, value)
        settings = [word.partition("=") for word in words[1:] if re.match(r"EPKIT_\w+=", word)]
        words = words[1 + len(settings) :]
        if words[:1] == ["epkit"]:
            expected = re.search(r"# exit (\d)$", line)
            with monkeypatch.context() as patch:
                for name, _, value in settings:
                    patch.setenv(name, value)
                patch.setattr(sys, "argv", _cut(words))
                with pytest.raises(SystemExit) as left:
                    main()
            out, err = capfd.readouterr()
            assert left.value.code == (int(expected[1]) if expected else 0), f"{where}: {line}\n{out}{err}"
        elif words[:2] == ["pip", "install"] and words[2] == "--editable":
            directory = words[3]
            _use((ROOT if directory.startswith("docs/") else Path.cwd()) / directory / "pyproject.toml", monkeypatch)
        elif words[:1] == ["pytest"]:
            _pytest(ROOT / words[1] if words[1].startswith("docs/") else Path.cwd() / words[1], where)
        elif line.startswith(("epkit: ", "  hint: ")):
            pattern = re.escape(line).replace(r"\.\.\.", ".*")
            assert re.search(f"^{pattern}$", err, re.MULTILINE), f"{where}: shown is\n{line}\nsaid was\n{err}"


def _cut(words: list[str]) -> list[str]:
    pairs = zip(["", *words[:-1]], words, strict=True)
    return [str(min(10.0, float(word))) if before == "--budget" else word for before, word in pairs]


def _pytest(directory: Path, where: str) -> None:
    path = os.pathsep.join(filter(None, sys.path))
    command = [warm.PYTHON, "-m", "pytest", "-p", "no:cacheprovider", str(directory)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{where}: pytest {directory}\n{done.stdout}"


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
    own = ("epkit", "epkit-openvino", "epkit-tensorrt-rtx", "epkit-webgpu", "EPKIT_PLUGINS")
    for entry in discover(environ={"EPKIT_PLUGINS": "epkit_tensorrt_rtx"}).entries:
        # Named and installed too, it is a broken row beside its own.
        if entry.provider is not None and entry.plugin.distribution in own:
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
        *(listing.ProviderRow, doctor.Finding, inspect.MemoryEstimate, inspect.MeasuredMemory, inspect.BatchSize),
        *(explain.Explanation, explain.PlanRow, PlannedRun, Setting),
        *(report.CacheRow, compilation.Compilation, scaffold.NewPlugin, manage.Kept, manage.KeptRow),
        *(report.Report, report.Tried, report.WarmupRow, placement.Share),
        *(compared.Comparison, compared.Row, compared.Judgement, fault.WorkerFault),
        *(agreement.Agreement, metrics.Metrics, tolerance.Tolerance, tolerance.Judged),
        *(divergence.Divergence, conditioning.Conditioning),
        *(verify.Verification, consistency.Fault, comparability.Mismatch),
        *(diff.Changes, diff.Change, diff.Times, diff.Typical),
    )
    assert [(kind.__name__, one.name) for kind in shapes for one in fields(kind) if f"`{one.name}`" not in page] == []


def test_every_key_of_the_document_of_a_benchmark_is_documented():
    page = (DOCS / "benchmark-document.md").read_text(encoding="utf-8")
    kinds = [
        (name, kind)
        for module in (document, environment, profile)
        for name, kind in vars(module).items()
        if is_dataclass(kind) and kind.__module__ == module.__name__ and name != "Before" and name[0] != "_"
    ]
    for name, kind in kinds:
        table = page.partition(f"<!-- fields of {name}: ")[2].partition("<!-- end -->")[0]
        assert [one.name for one in fields(kind) if f"| `{one.name}` | " not in table] == [], name
    assert "|  |" not in page, "a key without a meaning"


def test_every_environment_variable_is_documented():
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "epkit").rglob("*.py"))
    assert [name for name in set(re.findall(r"\bEPKIT_[A-Z]+(?:_[A-Z]+)*\b", sources)) if name not in page] == []
