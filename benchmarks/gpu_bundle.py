"""How does epkit get to a GPU machine that has no package index and takes only small transfers?

    python benchmarks/gpu_bundle.py                  wheels for Python 3.12 on Linux x86-64, in pieces under .gpu/
    python benchmarks/gpu_bundle.py --python 3.11    the same for another Python: to rehearse it without a GPU

The pieces hold ONNX Runtime, epkit and its plugins as wheels (a checkout has no entry points, so no provider would be
found), what they import, the tests and the benchmarks. Versions are those that are installed here. What such a machine
brings itself is left out: NumPy, which has to fit its PyTorch, and CUDA's libraries. The commands for the machine are
printed at the end, and stand in `.gpu/COMMANDS`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".gpu"
THERE = "/var/tmp/epkit"  # on the machine, whose checkout is replaced at each transfer
PIECE = 50 * 2**20
# What the tests and benchmarks import, beside epkit.
TOOLS = ("pytest", "hypothesis", "onnx")
BROUGHT_BY_THE_MACHINE = ("numpy", "protobuf", "ml-dtypes")
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)), "manylinux2014_x86_64")
CHECKOUT = ("tests", "benchmarks", "pyproject.toml", "plugins/*/tests")

JOIN = """\
# Joins the pieces and installs the wheels into a folder of their own. Usage: bash join.sh [OUT]
# PYTHON names another interpreter than python3.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/out}
python=${PYTHON:-python3}
mkdir -p "$out"
cd "$here"
cat piece.* > bundle.tar.xz
echo "SHA256  bundle.tar.xz" | sha256sum --check --quiet
rm -rf site wheels checkout
"$python" -c 'import tarfile; tarfile.open("bundle.tar.xz").extractall(".", filter="data")'
rm bundle.tar.xz
"$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check \\
    --target site wheels/*.whl
export PYTHONPATH="$here/site" EPKIT_CACHE_DIR="$here/cache"
# The machine may have an ONNX Runtime of its own.
"$python" -P -c 'import onnxruntime, sys; print(onnxruntime.__file__)
sys.exit(not onnxruntime.__file__.startswith(sys.argv[1]))' "$here/site"
"$python" -P -m epkit providers | tee "$out/providers.txt"
"""
SUITE = """\
# Runs the tests, or measures. Usage: bash suite.sh test [OUT], or bash suite.sh measure [OUT] [ARGUMENTS of gpu.py]
set -u
what=$1
here=$(cd "$(dirname "$0")" && pwd)
out=${2:-$here/out}
python=${PYTHON:-python3}
mkdir -p "$out"
out=$(cd "$out" && pwd)
shift; shift || true
export PYTHONPATH="$here/site" EPKIT_CACHE_DIR="$here/cache" PYTHONUNBUFFERED=1
cd "$here/checkout"
set -o pipefail
if [ "$what" = test ]; then
    # The machine's pytest may have other plugins; -o addopts since no benchmarks are run here.
    PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 "$python" -P -m pytest -o addopts=--import-mode=importlib -p no:cacheprovider \\
        -p epkit.testing.plugin -m gpu -v -rs --tb=short \\
        tests/runtime/test_gpu.py tests/testing/test_conformance.py "$@" 2>&1 | tee "$out/tests.log"
else
    "$python" -P benchmarks/gpu.py --out "$out/gpu.json" "$@" 2>&1 | tee "$out/measure.log"
fi
"""


def names(start: Iterable[str], python: str) -> dict[str, str]:
    """Return the distributions that these need, and their versions, as they are installed here."""
    found: dict[str, str] = {}
    wanted = [Requirement(one) for one in start]
    asked = {canonicalize_name(one.name) for one in wanted}
    while wanted:
        one = wanted.pop()
        name = canonicalize_name(one.name)
        if name in found or (name in BROUGHT_BY_THE_MACHINE and name not in asked):
            continue
        distribution = importlib.metadata.distribution(name)
        found[name] = distribution.version
        environment = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": "x86_64"}
        environment |= {"sys_platform": "linux", "platform_system": "Linux"}
        for text in distribution.requires or ():
            other = Requirement(text)
            extras = ({"extra": extra} for extra in ("", *one.extras))
            if other.marker is None or any(other.marker.evaluate({**environment, **extra}) for extra in extras):
                wanted.append(other)
    return found


def download(wanted: dict[str, str], python: str, to: Path) -> None:
    pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["uvx", "pip"]
    command = [*pip, "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", python]
    command += ["--implementation", "cp", *(f"--platform={one}" for one in PLATFORMS), "--dest", str(to)]
    run([*command, *(f"{name}=={version}" for name, version in sorted(wanted.items()))])


def build(to: Path) -> None:
    uv = [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else ["uv"]
    run([*uv, "build", "--quiet", "--all-packages", "--wheel", "--out-dir", str(to)])
    (to / ".gitignore").unlink(missing_ok=True)


def store(wheel: Path) -> None:
    """Write a wheel anew without compression: the bundle is compressed as a whole, and better."""
    stored = wheel.with_suffix(".stored")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            with source.open(entry) as contents, target.open(entry.filename, "w", force_zip64=True) as copy:
                shutil.copyfileobj(contents, copy, 2**20)
    stored.replace(wheel)


def checkout(to: Path) -> None:
    command = ["git", "ls-files", "-co", "--exclude-standard", *CHECKOUT]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        if not line.startswith("benchmarks/results/") and (ROOT / line).is_file():
            (to / line).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / line, to / line)


def pack(stage: Path, to: Path) -> str:
    """Pack a folder and return the SHA-256 of the result."""
    if shutil.which("xz"):
        run(["bash", "-c", f"tar cf - -C {shlex.quote(str(stage))} . | xz -T0 -3 > {shlex.quote(str(to))}"])
    else:
        with tarfile.open(to, "w:xz", preset=3) as archive:
            archive.add(stage, ".")
    with to.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def split(archive: Path, folder: Path) -> list[Path]:
    """Cut a file into pieces, each in a folder of its own."""
    pieces = []
    with archive.open("rb") as file:
        while part := file.read(PIECE):
            piece = folder / f"{len(pieces):02}" / f"piece.{len(pieces):02}"
            piece.parent.mkdir()
            piece.write_bytes(part)
            pieces.append(piece)
    return pieces


def commands(pieces: Sequence[Path]) -> str:
    last = len(pieces) - 1
    aside = f"mkdir -p {THERE} && cp .gpu/*/* {THERE}/"
    return (
        f"With each of the folders .gpu/00 to .gpu/{last - 1:02}, in the root of the checkout:\n    {aside}\n"
        f"With .gpu/{last:02}, at once after them:\n"
        f"    {aside} && bash {THERE}/join.sh $OUT && bash {THERE}/suite.sh test $OUT\n"
        f"And then:\n    bash {THERE}/suite.sh measure $OUT --budget 400\n"
    )


def run(command: Sequence[str]) -> None:
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12", help="the machine's Python (3.12)")
    parser.add_argument(
        "--with",
        dest="others",
        nargs="*",
        default=[],
        help="more distributions that are installed here, such as onnxruntime-ep-nv-tensorrt-rtx",
    )
    given = parser.parse_args()
    started = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    stage = FOLDER / "stage"
    wheels = stage / "wheels"
    wheels.mkdir(parents=True)
    wanted = names(["epkit[gpu]", *TOOLS, *given.others], given.python)
    wanted.pop("epkit")
    download(wanted, given.python, wheels)
    print(f"{time.monotonic() - started:5.0f} s  downloaded {len(wanted)} wheels: {', '.join(sorted(wanted))}")
    build(wheels)
    for wheel in wheels.glob("*.whl"):
        store(wheel)
    checkout(stage / "checkout")
    print(f"{time.monotonic() - started:5.0f} s  built epkit and its plugins")
    archive = FOLDER / "bundle.tar.xz"
    digest = pack(stage, archive)
    pieces = split(archive, FOLDER)
    size = archive.stat().st_size
    archive.unlink()
    shutil.rmtree(stage)
    for name, script in (("join.sh", JOIN.replace("SHA256", digest)), ("suite.sh", SUITE)):
        (pieces[-1].parent / name).write_text(script, encoding="utf-8")
    (FOLDER / "COMMANDS").write_text(commands(pieces), encoding="utf-8")
    print(f"{time.monotonic() - started:5.0f} s  {size / 2**20:.0f} MiB in {len(pieces)} pieces")
    print(commands(pieces), end="")


if __name__ == "__main__":
    main()
