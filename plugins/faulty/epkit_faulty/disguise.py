"""How does ONNX Runtime's CPU pose as another provider?"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

CPU = "CPUExecutionProvider"
_NO_CPU = "session.disable_cpu_ep_fallback"
# Entries of a session's own options, which ONNX Runtime keeps without reading them.
_NO_CPU_WAS = "epkit_faulty.no_cpu"
_ORT = b"ORTM"  # where a model in ORT format has them: its bytes 4 to 8
OWNER = "epkit_faulty.owner"
"""Whose the nodes on the CPU are, where a fault stands over it."""
HEIR = "epkit_faulty.heir"
"""What ONNX Runtime would call the next provider in disguise, which takes what the owner leaves over."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of ONNX Runtime's record of who took which nodes, with another name or other nodes."""

    ep_name: str
    nodes: Sequence[Any]

    def get_nodes(self) -> Sequence[Any]:
        """Return the nodes."""
        return self.nodes


def rename(session: Any, ort_name: str) -> None:
    """Let a session say that the nodes of the CPU are those of the provider `ort_name`."""
    told = _record(session)
    # In place, not wrapped: a wrapper would cost each run a little, and make comparisons unfair.
    session.get_provider_graph_assignment_info = lambda: [
        _Part(ort_name, part.get_nodes()) if part.ep_name == CPU else part for part in told()
    ]


def refuse(session: Any, ort_name: str, operators: Sequence[str]) -> bool:
    """Let a session say that `ort_name` left these operators to the next provider; return whether it has any of them.

    The next one is the heir among those in disguise, else the CPU.
    """
    told = _record(session)
    heir = entry(session.get_session_options(), HEIR) or CPU

    def split() -> list[Any]:
        parts: list[Any] = []
        for part in told():
            if part.ep_name == ort_name:
                nodes = [(_operator(node) in operators, node) for node in part.get_nodes()]
                parts.append(_Part(ort_name, [node for refused, node in nodes if not refused]))
                parts.append(_Part(heir, [node for refused, node in nodes if refused]))
            else:
                parts.append(part)
        return [part for part in parts if part.get_nodes()]

    session.get_provider_graph_assignment_info = split
    return any(_operator(node) in operators for part in told() for node in part.get_nodes())


def _record(session: Any) -> Callable[[], Any]:
    """Return what tells who took which nodes.

    Without holding the session: one that holds itself keeps its memory until Python looks for such circles.
    """
    told: Callable[[], Any] = session.get_provider_graph_assignment_info
    if not isinstance(told, MethodType):
        return told
    weak = weakref.WeakMethod(told)
    return lambda: weak()()  # type: ignore[misc]


def _operator(node: Any) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)


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


def cpu_forbidden(session_options: Any) -> bool:
    """Whether no node may run on the CPU itself, and nobody in disguise takes what is left over."""
    forbidden = was_forbidden(session_options) or entry(session_options, _NO_CPU) == "1"
    return forbidden and not entry(session_options, HEIR)


def entry(session_options: Any, key: str) -> str:
    """Return a config entry; empty when there is none."""
    try:
        return str(session_options.get_session_config_entry(key))
    except RuntimeError:
        return ""
