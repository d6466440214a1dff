"""What the operating system calls things, and what it lets a process use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from elf import elf
from hypothesis import given
from hypothesis import strategies as st

from epkit._system import libraries, platform

LINUX = "/sys/fs/cgroup"


@given(st.lists(st.from_regex(r"\Alib[a-z]{1,20}\.so\.[0-9]{1,2}\Z"), max_size=8))
def test_a_library_says_what_it_needs(tmp_path_factory: pytest.TempPathFactory, names: list[str]):
    path = tmp_path_factory.mktemp("elf") / "lib.so"
    path.write_bytes(elf(names))
    assert libraries.read_needed_libraries(path) == tuple(names)


@given(st.binary(max_size=300), st.booleans())
def test_any_other_file_needs_nothing(tmp_path_factory: pytest.TempPathFactory, content: bytes, marked: bool):
    path = tmp_path_factory.mktemp("elf") / "lib.so"
    path.write_bytes((b"\x7fELF\x02\x01" if marked else b"") + content)
    assert libraries.read_needed_libraries(path) == ()


def test_a_file_that_is_not_there_needs_nothing(tmp_path: Path):
    assert libraries.read_needed_libraries(tmp_path / "absent.so") == ()


def test_a_library_is_found_where_one_says_before_the_system_is_asked(tmp_path: Path):
    (tmp_path / "libm.so.6").touch()
    assert libraries.find_library("libm.so.6", [tmp_path]) == tmp_path / "libm.so.6"
    assert libraries.find_library("libepkit-absent.so.1", [tmp_path]) is None


def test_a_library_of_the_system_is_found_and_loads():
    path = libraries.find_library("libc.so.6")
    assert path is not None
    assert path.is_file()
    assert libraries.try_load("libc.so.6") == ""


def test_a_library_that_does_not_load_says_why():
    assert libraries.try_load("libepkit-absent.so.1") == "libepkit-absent.so.1: cannot open shared object file"


def test_other_major_versions_of_a_library_are_told(tmp_path: Path):
    for name in ("libepkit-x.so.12", "libepkit-x.so.12.8.1", "libepkit-x.so", "libepkit-xy.so.11"):
        (tmp_path / name).touch()
    assert libraries.find_other_versions("libepkit-x.so.13", [tmp_path]) == ("libepkit-x.so.12",)
    assert libraries.find_other_versions("libepkit-x.so.12", [tmp_path]) == ()
    assert libraries.find_other_versions("epkit-x.dll", [tmp_path]) == ()


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("max 100000", None),
        ("150000 100000", 1.5),
        ("200000 100000\n", 2.0),
        ("-1 100000", None),
        ("", None),
        (" ", None),
        ("5000", None),
    ],
)
def test_a_cpu_quota_is_read(text: str, cpus: float | None):
    assert platform.parse_cpu_quota(text) == cpus


@pytest.mark.parametrize(("text", "size"), [("max", None), ("", None), ("1048576\n", 1048576)])
def test_a_memory_limit_is_read(text: str, size: int | None):
    assert platform.parse_memory_limit(text) == size


def test_limits_of_the_second_kind_hold_from_the_group_up_to_the_root():
    found = [directory for version, directory in platform.list_cgroup_directories("0::/a/b\n", "cpu") if version == 2]
    assert found[:3] == [Path(f"{LINUX}/a/b"), Path(f"{LINUX}/a"), Path(LINUX)]


def test_limits_of_the_first_kind_lie_with_their_controller():
    text = "12:memory:/m\n3:cpu,cpuacct:/docker/1f\n1:name=systemd:/x\n"
    found = platform.list_cgroup_directories(text, "cpu")
    assert found == [(1, Path(f"{LINUX}/cpu{rest}")) for rest in ("/docker/1f", "/docker", "")]
    assert platform.list_cgroup_directories(text, "memory")[0] == (1, Path(f"{LINUX}/memory/m"))


def test_a_process_that_may_use_the_whole_machine_has_no_limit():
    assert platform.tightest_limit(cpus=4, cores=2, allowed={0, 1, 2, 3}, allowed_cores=2, quota=None) is None
    assert platform.tightest_limit(cpus=4, cores=2, allowed={0, 1, 2, 3}, allowed_cores=2, quota=3.0) is None


def test_an_affinity_is_a_limit():
    limit = platform.tightest_limit(cpus=16, cores=8, allowed={0, 1, 2, 9}, allowed_cores=4, quota=None)
    assert limit == (4, "affinity 0-2,9")


def test_a_quota_is_a_limit_and_is_rounded_up():
    assert platform.tightest_limit(cpus=2, cores=2, allowed={0, 1}, allowed_cores=2, quota=0.2) == (
        1,
        "cgroup quota 0.2 CPUs",
    )
    limit = platform.tightest_limit(cpus=16, cores=8, allowed=range(16), allowed_cores=8, quota=1.5)
    assert limit == (2, "cgroup quota 1.5 CPUs")


def test_of_two_limits_the_tighter_counts():
    limit = platform.tightest_limit(cpus=16, cores=8, allowed={0, 1}, allowed_cores=2, quota=4.0)
    assert limit == (2, "affinity 0-1")
    limit = platform.tightest_limit(cpus=16, cores=8, allowed=range(8), allowed_cores=8, quota=4.0)
    assert limit == (4, "cgroup quota 4 CPUs")


@given(st.sets(st.integers(0, 300), min_size=1))
def test_ranges_of_cpus_read_back_as_the_same_cpus(cpus: set[int]):
    read: set[int] = set()
    for part in platform.format_cpus(cpus).split(","):
        first, _, last = part.partition("-")
        read |= set(range(int(first), int(last or first) + 1))
    assert read == cpus


def test_a_process_bound_to_one_cpu_may_use_one_core():
    cpu = min(os.sched_getaffinity(0))
    script = (
        f"import os; os.sched_setaffinity(0, {{{cpu}}}); from epkit._system import platform as p; print(p.core_limit())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str((1, f"affinity {cpu}") if (os.cpu_count() or 1) > 1 else None)


def test_this_machine_has_cores_and_uses_no_more_than_them():
    assert 1 <= platform.usable_cores() <= platform.count_physical_cores() <= (os.cpu_count() or 1)
    limit = platform.memory_limit()
    assert limit is None or limit > 0
