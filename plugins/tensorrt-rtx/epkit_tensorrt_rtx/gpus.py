"""Which NVIDIA GPUs does the driver show, and which of them does TensorRT-RTX run on?"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
MANAGEMENT = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
"""NVIDIA's management library, which the plugin library cannot be loaded without."""

RUNS_ON = "compute capability 8.6, 8.9, and 12.0 or newer"

_NO_DEVICE = 100
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, its name, and its compute capability: (8, 9)."""

    name: str
    capability: tuple[int, int]

    @property
    def supported(self) -> bool:
        """Whether the library takes it: read from the header in the wheel of version 0.5."""
        return self.capability in ((8, 6), (8, 9)) or self.capability >= (12, 0)

    def __str__(self) -> str:
        return f"{self.name} ({self.capability[0]}.{self.capability[1]})"


@dataclass(frozen=True, slots=True)
class Driver:
    """What the driver answers: the newest CUDA that it supports, its GPUs, or the CUDA error that it starts with."""

    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...] = ()
    error: int = 0


def ask(load: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> Driver:
    """Ask the driver; OSError when one of its two libraries cannot be loaded."""
    driver = load(DRIVER)
    load(MANAGEMENT)
    version, count, device = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    name = ctypes.create_string_buffer(256)
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda = (version.value // 1000, version.value % 1000 // 10)
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or (0 if count.value else _NO_DEVICE)
    if code:
        return Driver(cuda, error=code)
    found = []
    for ordinal in range(count.value):
        driver.cuDeviceGet(ctypes.byref(device), ordinal)
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
        found.append(Gpu(name.value.decode(errors="replace"), (major.value, minor.value)))
    return Driver(cuda, tuple(found))
