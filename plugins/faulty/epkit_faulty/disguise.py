"""How does ONNX Runtime's CPU pose as another provider?"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU = "CPUExecutionProvider"
_NO_CPU = "session.disable_cpu_ep_fallback"
# Entries of a session's own options, which ONNX Runtime keeps without reading them.
_NO_CPU_WAS = "epkit_faulty.no_cpu"
_ORT = b"ORTM"  # where a model in ORT format has them: its bytes 4 to 8
OWNER = "epkit_faulty.owner"
"""Whose the nodes on the CPU are, where a fault stands over it."""


@dataclass(frozen=True, slots=True)
class _Renamed:
    """A part of ONNX Runtime's record of who took which nodes, with another name."""

    ep_name: str
    part: Any

    def get_nodes(self) -> Any:
        """Return the nodes."""
        return self.part.get_nodes()


def rename(session: Any, ort_name: str) -> None:
    """Let a session say that the nodes of the CPU are those of the provider `ort_name`."""
    # Weak, since a session that holds itself keeps its memory until Python looks for such circles.
    told = weakref.WeakMethod(session.get_provider_graph_assignment_info)
    # In place, not wrapped: a wrapper would cost each run a little, and make comparisons unfair.
    session.get_provider_graph_assignment_info = lambda: [
        _Renamed(ort_name, part) if part.ep_name == CPU else part
        for part in told()()  # type: ignore[misc]
    ]


def takers(session: Any) -> set[str]:
    """Return what ONNX Runtime calls the providers that took nodes."""
    return {part.ep_name for part in session.get_provider_graph_assignment_info()}


def took_node(session: Any, ort_name: str, model: str | bytes) -> bool:
    """Whether a provider took a node, or may have: of a model in ORT format, ONNX Runtime records none."""
    if isinstance(model, bytes):
        return ort_name in takers(session) or model[4:8] == _ORT
    with Path(model).open("rb") as file:
        return ort_name in takers(session) or file.read(8)[4:] == _ORT


def allow_cpu(session_options: Any) -> None:
    """Lift the rule that no node may run on the CPU, which would hit one that poses as an accelerator as well."""
    if entry(session_options, _NO_CPU) == "1":
        session_options.add_session_config_entry(_NO_CPU, "0")
        session_options.add_session_config_entry(_NO_CPU_WAS, "1")


def was_forbidden(session_options: Any) -> bool:
    """Whether no node may run on the CPU, but for the disguise."""
    return bool(entry(session_options, _NO_CPU_WAS))


def entry(session_options: Any, key: str) -> str:
    """Return a config entry; empty when there is none."""
    try:
        return str(session_options.get_session_config_entry(key))
    except RuntimeError:
        return ""
