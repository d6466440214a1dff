"""What a benchmark records of the machine: from recorded texts, and of the machine at hand."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from epkit._system.process import run_program
from epkit.benchmark.environment import cpu_load, nvidia_smi
from epkit.benchmark.environment.environment import Environment, environment, look, turbo, variables
from epkit.discovery.registry import discover

# In the format that NVIDIA documents for `--format=csv,noheader`; made up, not recorded on a GPU.
TWO_GPUS = """\
NVIDIA H100 80GB HBM3, 570.86.15, P0, 1980 MHz, 1980 MHz, 2619 MHz, 118.35 W, 700.00 W, 34, 0 %, 529 MiB, 81559 MiB, \
0x0000000000000000
NVIDIA GeForce RTX 3060, 570.86.15, P2, 1402 MHz, 2100 MHz, 7300 MHz, [N/A], [Not Supported], 83, 97 %, 2 MiB, \
12288 MiB, 0x0000000000000024
"""
APPS = "4711, 1012 MiB\n4712, [N/A]\n4711, 20 MiB\n"


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a program called nvidia-smi before all others, and none of its kind after it."""

    def _smi(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return _smi


# GPUs


def test_the_state_of_each_gpu_is_read_and_what_it_does_not_tell_left_out():
    first, second = nvidia_smi.parse_gpus(TWO_GPUS)
    assert first["name"] == "NVIDIA H100 80GB HBM3"
    assert first["clocks.sm"] == "1980 MHz"
    assert first["power.limit"] == "700.00 W"
    assert "slowed by" not in first
    assert second["slowed by"] == "power limit, temperature"
    assert not {"power.draw", "power.limit"} & set(second)


@given(st.text(max_size=60))
def test_whatever_nvidia_smi_prints_instead_is_no_gpu(text):
    assert nvidia_smi.parse_gpus(text) == ()
    assert all(size >= 0 for size in nvidia_smi.parse_apps(text).values())


@given(st.sets(st.sampled_from([2**bit for bit in range(9)])))
def test_every_reason_for_lower_clocks_has_words(bits):
    told = nvidia_smi.slowed_by(f"0x{sum(bits):016x}")
    assert len(told.split(", ")) == len(bits) if bits else told == ""


def test_a_reason_that_is_new_is_told_by_its_number():
    assert nvidia_smi.slowed_by("0x0000000000001001") == "idle, 0x1000"
    assert nvidia_smi.slowed_by("[N/A]") == ""


def test_the_memory_of_a_process_is_added_up_over_gpus():
    assert nvidia_smi.parse_apps(APPS) == {4711: 1032 * 2**20}


def test_a_driver_that_knows_only_the_older_name_is_asked_again(smi):
    smi(f'case "$1" in *clocks_event*) exit 2;; *) cat <<EOF\n{TWO_GPUS}EOF\n;; esac')
    assert len(nvidia_smi.gpus()) == 2


def test_an_nvidia_smi_that_hangs_is_not_waited_for(smi, monkeypatch):
    monkeypatch.setattr(nvidia_smi, "LIMIT_S", 0.2)
    smi("exec sleep 60")
    started = time.monotonic()
    assert nvidia_smi.gpus() == ()
    assert time.monotonic() - started < 10


def test_a_process_has_the_memory_that_the_driver_tells_of_unless_its_ids_are_others(smi, monkeypatch):
    smi(f"cat <<EOF\n{APPS}EOF")
    monkeypatch.setattr(nvidia_smi, "sees_all_processes", lambda: True)
    assert nvidia_smi.device_bytes(4711) == 1032 * 2**20
    assert nvidia_smi.device_bytes(1) is None
    monkeypatch.setattr(nvidia_smi, "sees_all_processes", lambda: False)
    assert nvidia_smi.device_bytes(4711) is None


def test_without_nvidia_smi_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_smi.gpus() == ()
    assert nvidia_smi.device_bytes(os.getpid()) is None


# Programs


def test_a_program_that_is_absent_or_fails_answers_nothing():
    assert run_program(["no-such-program-anywhere"], 1.0) is None
    assert run_program(["false"], 5.0) is None
    assert run_program(["echo", "hello"], 5.0) == "hello\n"


# Others on the machine

STAT = "cpu  3000 100 500 9000 50 10 40 300 70 0\ncpu0 1 2 3\n"


def test_what_others_take_is_all_that_was_busy_without_one_s_own():
    first = cpu_load.parse_stat(STAT, 100, own_s=5.0)
    assert first is not None
    assert (first.busy_s, first.stolen_s) == (36.5, 3.0)
    second = cpu_load.Clock(first.at + 10, first.busy_s + 12, first.own_s + 9, first.stolen_s + 1)
    assert cpu_load.between(first, second) == cpu_load.CpuLoad(others=0.3, stolen=0.1)


def test_one_s_own_time_is_never_called_the_others():
    first = cpu_load.Clock(0.0, 100.0, 0.0, 0.0)
    assert cpu_load.between(first, cpu_load.Clock(1.0, 100.9, 1.0, 0.0)) == cpu_load.CpuLoad(0.0, 0.0)


@pytest.mark.parametrize("text", ["", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8\n", "cpu a b c d e f g h\n"])
def test_another_kind_of_text_tells_nothing(text):
    assert cpu_load.parse_stat(text, 100, 0.0) is None
    assert cpu_load.between(None, cpu_load.clock()) is None


# The whole


def test_the_switches_for_the_turbo_are_read():
    assert [turbo("0\n", ""), turbo("1\n", "1\n"), turbo("", "1\n"), turbo("", "0"), turbo("", "")] == [
        "on",
        "off",
        "on",
        "off",
        "",
    ]


def test_only_variables_that_matter_are_recorded_and_no_secret_is():
    given = {
        "OMP_NUM_THREADS": "2",
        "ORT_CUDA_MAX_THREADS": "8",
        "EPKIT_DEFAULT": "gpu",
        "EPKIT_SOMETHING_ELSE": "1",
        "HOME": "/home/ada",
        "ORT_CUDA_API_KEY": "hunter2",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
    }
    assert variables(given, discover()) == {
        "EPKIT_DEFAULT": "gpu",
        "OMP_NUM_THREADS": "2",
        "ORT_CUDA_MAX_THREADS": "8",
    }


def git(*command: str) -> str:
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *command], check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_recorded_and_whether_files_were_changed_since(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    registry = discover()
    none = environment(look(), registry)
    assert (none.git_commit, none.git_changed) == ("", None)
    git("init", "-q")
    Path("model.txt").write_text("one")
    git("add", ".")
    git("commit", "-qm", "one")
    clean = environment(look(), registry)
    assert (clean.git_commit, clean.git_changed) == (git("rev-parse", "HEAD"), False)
    Path("notes.txt").write_text("not in the repository")
    assert environment(look(), registry).git_changed is False
    Path("model.txt").write_text("two")
    assert environment(look(), registry).git_changed is True


def test_the_machine_at_hand_is_described_in_values_that_can_be_written_and_read():
    before = look()
    found = environment(before, discover())
    assert found.versions["onnxruntime-gpu" if "onnxruntime-gpu" in found.versions else "onnxruntime"]
    assert (found.others_cores is None) == (before.clock is None)
    if hasattr(os, "sched_getaffinity"):
        assert found.allowed_cpus
    kind = TypeAdapter(Environment)
    assert kind.validate_json(kind.dump_json(found)) == found


def test_the_memory_of_the_fullest_gpu_is_what_is_free() -> None:
    found = [
        {"memory.used": "1024 MiB", "memory.total": "8192 MiB"},
        {"memory.used": "6144 MiB", "memory.total": "8192 MiB"},
        {"name": "one that does not tell"},
    ]
    assert nvidia_smi.used_and_free(found) == (7168 << 20, 2048 << 20)
    assert nvidia_smi.used_and_free(found[2:]) is None
