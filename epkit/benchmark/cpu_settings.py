"""Compare ONNX Runtime's CPU with itself under other settings, where nothing else can be measured."""

from __future__ import annotations

from collections.abc import Sequence

from epkit._system import platform
from epkit.benchmark.candidate_run import CandidateRun
from epkit.benchmark.run import BenchmarkRun
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


def add_cpu_settings(run: BenchmarkRun, settings: Sequence[CandidateRun]) -> bool:
    """Add the settings to the candidates where `cpu` is the only one that can be measured, with a note."""
    if not settings or [candidate.name for candidate in run.active] != [CPU]:
        return False
    run.candidates.extend(settings)
    described = ", ".join(f"{each.name} ({describe(each.name)})" for each in settings)
    run.notes.append(
        f"no other provider can be measured here, so cpu is compared with itself under other settings: {described}; "
        "epkit providers lists what to install for a second engine"
    )
    return True
