"""Name this machine's processor: its maker, its model, and the vector instructions that kernels are compiled for."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from pathlib import Path

INTEL = "GenuineIntel"
CPUINFO = Path("/proc/cpuinfo")
"""What Linux says of the processors."""
_NAMES = {INTEL: "Intel", "AuthenticAMD": "AMD", "HygonGenuine": "Hygon", "CentaurHauls": "Zhaoxin"}
_VECTORS = re.compile("avx|amx|sse4|fma|f16c")


def maker() -> str:
    """Return the maker as the processor itself spells it, such as `GenuineIntel`; empty where nothing tells it."""
    return _facts().get("vendor_id", "")


def maker_name() -> str:
    """Return the maker as people spell it: `AMD`."""
    return _NAMES.get(maker(), maker()) or "an unknown maker"


def model() -> str:
    """Return the processor's model name: `AMD EPYC 9B14`."""
    return _facts().get("model name", "") or platform.processor()


def instructions() -> str:
    """Return the maker and the vector instructions, which decide what kernels are compiled."""
    flags = sorted(flag for flag in _facts().get("flags", "").split() if _VECTORS.match(flag))
    return " ".join([*maker().split(), *flags]) if flags else platform.processor()


def _facts() -> Mapping[str, str]:
    """Read the facts of the last processor: they are all of one kind."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
