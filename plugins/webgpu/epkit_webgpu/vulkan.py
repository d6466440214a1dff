"""Which devices does Vulkan offer on this machine, and which drivers would its loader read?"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOADER = "libvulkan.so.1"
CHOICE = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES")
"""Variables that name the manifests of drivers, instead of the folders or beside them."""
FOLDERS = tuple(Path(root) / "vulkan" / "icd.d" for root in ("/etc", "/usr/local/share", "/usr/share"))
"""Where distributions put the manifests of Vulkan drivers."""

_SUCCESS = 0
_CREATE_INSTANCE = 1
_CPU = 4
# Of VkPhysicalDeviceProperties: the versions of API and driver, the ids of vendor and device, the type, the name.
_PROPERTIES = struct.Struct("<5I256s")
_PROPERTIES_ROOM = 4096


@dataclass(frozen=True, slots=True)
class VulkanDevice:
    """One device that a Vulkan driver offers; `software` when it computes on the CPU."""

    name: str
    software: bool

    def __str__(self) -> str:
        return f"{self.name} (software)" if self.software else self.name


class _InstanceCreateInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.c_void_p),
        ("layer_count", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("extension_count", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    )


def devices() -> tuple[VulkanDevice, ...]:
    """Ask Vulkan for its devices; none where it has no driver. Raises OSError where its loader is not installed."""
    vulkan = ctypes.CDLL(LOADER)
    instance, count = ctypes.c_void_p(), ctypes.c_uint32()
    info = _InstanceCreateInfo(type=_CREATE_INSTANCE)
    if vulkan.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance)) != _SUCCESS:
        return ()
    try:
        if vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None) != _SUCCESS:
            return ()
        handles = (ctypes.c_void_p * count.value)()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
        return tuple(_describe(vulkan, handle) for handle in handles)
    finally:
        vulkan.vkDestroyInstance(instance, None)


def missing() -> str:
    """Return what the system says against loading Vulkan's loader; empty when it loads."""
    try:
        ctypes.CDLL(LOADER)
    except OSError as error:
        return str(error).removesuffix(": No such file or directory")
    return ""


def manifests() -> list[Path]:
    """List the files that tell Vulkan's loader of drivers: those that variables name, and those in its folders."""
    named = [Path(part) for name in CHOICE for part in os.environ.get(name, "").split(os.pathsep) if part]
    return [path for path in (*named, *_found()) if path.is_file()]


def _found() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted(folder.glob("*.json"))


def _describe(vulkan: ctypes.CDLL, handle: int | None) -> VulkanDevice:
    room = ctypes.create_string_buffer(_PROPERTIES_ROOM)
    vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(handle), room)
    *_, kind, name = _PROPERTIES.unpack_from(room)
    return VulkanDevice(name.split(b"\0")[0].decode(errors="replace"), kind == _CPU)
