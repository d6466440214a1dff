"""Compare ONNX Runtime's CPU with itself under other settings, where nothing else can be measured."""

from __future__ import annotations

from collections.abc import Sequence

from epkit._system import platform
from epkit.benchmark.candidate_run import Contender
from epkit.benchmark.contest import Contest
from epkit.config.built_in import choose, describe
from epkit.config.file import Config
from epkit.config.target import Target
from epkit.discovery.registry import Registry
from epkit.runtime.configured import CPU
from epkit.session.request import read_candidates


def cpu_settings(config: Config, registry: Registry) -> list[Target]:
    """Return the built-in targets for this machine's cores; none whose name means something else here."""
    taken = {*config.targets, *(entry.name for entry in registry.entries)}
    names = [name for name in choose(platform.usable_cores()) if name not in taken]
    return read_candidates(names, config, registry) if names and CPU in registry.providers else []


def let_settings_take_part(contest: Contest, others: Sequence[Contender]) -> bool:
    """Let the settings take part where `cpu` is the only candidate that can be measured, and say so in the record."""
    if not others or [one.name for one in contest.taking_part] != [CPU]:
        return False
    contest.contenders.extend(others)
    told = ", ".join(f"{one.name} ({describe(one.name)})" for one in others)
    contest.record.notes.append(
        f"no other provider can be measured here, so cpu is compared with itself under other settings: {told}; "
        "epkit providers says what would bring a second engine"
    )
    return True
