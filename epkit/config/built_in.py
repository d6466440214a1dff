"""Define the targets that epkit brings: ONNX Runtime's CPU under settings that people argue about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

BUILT_IN: Mapping[str, Mapping[str, object]] = {
    "cpu-one-thread": {"provider": "cpu", "session_options": {"intra_op_num_threads": 1}},
    "cpu-no-spinning": {
        "provider": "cpu",
        "session_options": {"config": {"session.intra_op.allow_spinning": False}},
    },
    "cpu-basic-optimization": {
        "provider": "cpu",
        "session_options": {"graph_optimization_level": "ORT_ENABLE_BASIC"},
    },
    "cpu-no-arena": {"provider": "cpu", "session_options": {"enable_cpu_mem_arena": False}},
}
"""By name, each as a table of `epkit.toml`. A target or a provider of the same name takes its place."""


def choose(cores: int) -> Sequence[str]:
    """Choose what to compare `cpu` with where it is the only provider.

    On one core ONNX Runtime has no threads that could spin, so what is left to argue about is the graph and the memory.
    """
    if cores > 1:
        return "cpu-one-thread", "cpu-no-spinning"
    return "cpu-basic-optimization", "cpu-no-arena"


def describe(name: str) -> str:
    """Describe what sets a built-in target apart from `cpu`: "intra_op_num_threads = 1"."""
    return ", ".join(_assignments(BUILT_IN[name]["session_options"]))


def _assignments(table: object) -> Sequence[str]:
    found: list[str] = []
    for key, value in table.items() if isinstance(table, Mapping) else ():
        if isinstance(value, Mapping):
            found += _assignments(value)
        else:
            found.append(f"{key} = {str(value).lower() if isinstance(value, bool) else value}")
    return found
