"""Build the adapter library from its source, or check that the one that is kept is what its source gives.

    uv run --with ziglang==0.13.0 python plugins/openvino/build_adapter.py [--check]

The compiler comes as a Python package and brings its own C library for linking, so the bytes are the same on every
machine, and a machine that only uses the library needs no compiler.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).parent / "epkit_openvino"
SOURCE = PACKAGE / "adapter.c"
LIBRARY = PACKAGE / "libepkit_openvino_adapter.so"
FLAGS = (
    *("-target", "x86_64-linux-gnu.2.17", "-mcpu=x86_64", "-shared", "-fPIC", "-std=c11", "-Os", "-s"),
    *("-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none"),
)


def build(library: Path) -> None:
    """Compile the source into `library`."""
    with tempfile.TemporaryDirectory() as folder:
        # Under a name without a folder: a path may find its way into what is built.
        (Path(folder) / SOURCE.name).write_bytes(SOURCE.read_bytes())
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, SOURCE.name, "-o", LIBRARY.name]
        subprocess.run(command, cwd=folder, check=True)
        library.write_bytes((Path(folder) / LIBRARY.name).read_bytes())


def main() -> None:
    """Build it, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 unless the kept library is what the source gives")
    if not parser.parse_args().check:
        build(LIBRARY)
        return
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / LIBRARY.name
        build(built)
        if built.read_bytes() != LIBRARY.read_bytes():
            sys.exit(f"{LIBRARY.name} is not what {SOURCE.name} gives: run this without --check, and commit it")
    print(f"{LIBRARY.name} is what {SOURCE.name} gives: {LIBRARY.stat().st_size} bytes")  # noqa: T201


if __name__ == "__main__":
    main()
