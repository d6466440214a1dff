"""Decide whether OpenVINO's library is registered through epkit's adapter, which shows it CPUs that are not Intel's.

OpenVINO runs on every x86-64 CPU; its plugin library lists only those that ONNX Runtime records as Intel's. What the
adapter does about it stands at the head of adapter.c. It changes nothing where the library lists a CPU by itself.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from epkit_openvino import processor

VARIABLE = "EPKIT_OPENVINO_ADAPTER"
"""`auto` (the default) uses the adapter where the CPU is not Intel's, `on` always, `off` never."""
MODES = ("auto", "on", "off")
OLDEST_RUNTIME = (1, 24)
"""The ONNX Runtime from which on a library may make device records."""
LIBRARY = Path(__file__).with_name("libepkit_openvino_adapter.so")


def mode() -> str:
    """Return what the environment asks for."""
    return os.environ.get(VARIABLE) or "auto"


def supported() -> bool:
    """Whether there is an adapter for this system."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def used() -> bool:
    """Whether OpenVINO's library is registered through the adapter."""
    return supported() and (mode() == "on" or (mode() == "auto" and processor.maker() != processor.INTEL))
