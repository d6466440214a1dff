"""How is a figure written for people?"""

from __future__ import annotations


def seconds(value: float | None) -> str:
    """Write a time with three digits and its unit."""
    if value is None:
        return ""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if value < limit:
            return f"{value * factor:.3g} {unit}" if value * factor < 999.5 else f"{value * factor:.0f} {unit}"
    return f"{value:.3g} s" if value < 999.5 else f"{value:.0f} s"


def size(value: float | None) -> str:
    """Write a number of bytes with its unit."""
    if value is None:
        return ""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"


def percent(share: float) -> str:
    """Write a share: 0.022 is "2.2 %"."""
    value = share * 100
    return f"{value:.2g} %" if abs(value) < 99.5 else f"{value:.0f} %"
