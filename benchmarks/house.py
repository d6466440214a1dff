"""Measure how much of epkit one reads to follow a call: `python benchmarks/house.py [ROOT...]`.

For each checkout (this one by default; others side by side, such as a worktree of an older commit), count the files and
functions of `epkit/` that `epkit.open(MODEL, "cpu")` and `epkit.bench(MODEL, ["cpu", "cpu"])` enter, how deep they
call, and what a newcomer meets: entries, import layers, the README up to its first Python block, members of `Provider`.

Counted is what runs in one process, in all of its threads: functions of `epkit/` alone, each once however often it is
called, with comprehensions and lambdas as part of their function. What runs while a module is imported is not counted,
nor is what the worker processes of a benchmark do. Depth is the number of such functions on the stack. Each call is
made once before it is counted, in another process, so that answers of probes are in the cache.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

HERE = Path(__file__).resolve().parents[1]
CALLS = {"open": 'epkit.open(MODEL, "cpu")', "bench": 'epkit.bench(MODEL, ["cpu", "cpu"])'}
BUDGET_S = 30.0


class Profile:
    """The code of one package that is entered while it is installed, and how deep the calls go."""

    def __init__(self, package: Path) -> None:
        self.prefix = f"{package}{os.sep}"
        self.entered: set[CodeType] = set()
        self.depth = 0
        self._local = threading.local()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:  # noqa: ARG002 - what Python passes
        """Take one event of Python's profiler."""
        code, local = frame.f_code, self._local
        step = {"call": 1, "return": -1}.get(event, 0)
        if code.co_name == "<module>":
            local.imports = getattr(local, "imports", 0) + step
        if not step or getattr(local, "imports", 0) or code.co_name[0] == "<":
            return
        if code.co_filename.startswith(self.prefix):
            local.depth = getattr(local, "depth", 0) + step
            if step > 0:
                self.depth = max(self.depth, local.depth)
                self.entered.add(code)

    def measure(self, call: Callable[[], object]) -> dict[str, int]:
        """Count what a call enters, in every thread that it starts."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            call()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        files = {code.co_filename for code in self.entered}
        return {"files": len(files), "functions": len(self.entered), "depth": self.depth}


def counted(name: str, root: Path) -> dict[str, int]:
    """Make a call in this process, which imports epkit from `root`, and count what it enters."""
    import epkit

    package = Path(str(epkit.__file__)).parent
    if package != root / "epkit":
        raise RuntimeError(f"{package} was imported, not {root / 'epkit'}")
    model = next(package.rglob("sample.onnx"))
    if name == "bench":
        return Profile(package).measure(lambda: epkit.bench(model, ["cpu", "cpu"], budget=BUDGET_S, seed=1))
    return Profile(package).measure(lambda: epkit.open(model, "cpu").close())


def measured(root: Path) -> dict[str, object]:
    """Measure one checkout, the calls in processes of their own."""
    places = [root, *sorted(place for place in (root / "plugins").iterdir() if place.is_dir())]
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as cache:
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), "EPKIT_CACHE_DIR": cache}
        environ |= {"EPKIT_BENCH_DIR": cache, "ORT_DISABLE_TELEMETRY": "1"}
        for name, shown in CALLS.items():
            command = [sys.executable, __file__, "--count", name, str(root)]
            for _ in ("to fill the cache", "to count"):
                done = subprocess.run(command, env=environ, cwd=cache, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"{shown} of {root} failed:\n{done.stderr}")
            counts = json.loads(done.stdout)
            found[f"`{shown}`"] = "{files} files, {functions} functions, call depth {depth}".format(**counts)
    return found | written(root)


def written(root: Path) -> dict[str, object]:
    """Count what a newcomer meets in the files of one checkout."""
    package = root / "epkit"
    entries = [place for place in package.iterdir() if place.suffix == ".py" or any(place.rglob("*.py"))]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    readme = (root / "README.md").read_text(encoding="utf-8").splitlines()
    return {
        "entries at the top of `epkit/`, modules and packages": len(entries),
        "import layers in the linter": sum(len(contract.get("layers", ())) for contract in contracts),
        "lines of the README up to its first Python block": readme.index("```python") + 1,
        "members of `Provider`, of which each group is one": len(_members(package / "provider.py")),
    }


def _members(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    provider = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Provider")
    names: set[str] = set()
    for node in provider.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def main() -> None:
    """Print a Markdown table with a column for each checkout, or count one call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="*", type=Path, default=[HERE], help="checkouts of epkit; this one by default")
    parser.add_argument("--count", choices=CALLS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    roots = [root.resolve() for root in arguments.roots]
    if arguments.count:
        print(json.dumps(counted(arguments.count, roots[0])))
        return
    columns = [measured(root) for root in roots]
    print("|".join(["", " measured ", *(f" {root.name} " for root in roots), ""]))
    print("| --- " * (len(columns) + 1) + "|")
    for name in columns[0]:
        print("|".join(["", f" {name} ", *(f" {column[name]} " for column in columns), ""]))


if __name__ == "__main__":
    main()
