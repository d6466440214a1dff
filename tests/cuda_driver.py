"""What NVIDIA's driver answers, for tests on machines without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class CudaDriver:
    """The calls of `libcuda.so.1` that ask for the version and the GPUs; `code` is what the first of them returns."""

    def __init__(self, names: Sequence[str] = (), *, version: int = 13000, code: int = 0) -> None:
        self.names, self.version, self.code = names, version, code

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802 - the driver's spelling
        version._obj.value = self.version
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.code

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.names)
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        device._obj.value = ordinal
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = self.names[device.value].encode()
        return 0
