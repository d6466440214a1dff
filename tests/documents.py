"""Documents of benchmarks that nobody has run: made up from a seed, for what reads and draws them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from epkit.benchmark.document import (
    Benchmark,
    Block,
    Candidate,
    Case,
    Measured,
    Process,
    Request,
    Warmup,
)
from epkit.benchmark.environment.environment import Environment
from epkit.benchmark.statistics.verdicts import findings
from epkit.parity.agreement import Agreement, Judged
from epkit.parity.metrics import Metrics

ENVIRONMENT = Environment(
    at="2026-11-21T12:00:00Z",
    versions={"epkit": "0.1.0", "python": "3.11.7", "onnxruntime-gpu": "1.31.0", "numpy": "2.3.0"},
    system="Linux",
    cpu="a made-up processor",
    cores=2,
    logical_cpus=2,
    limit="",
    memory_limit_bytes=None,
    governor="",
    load_before=(0.5, 0.5, 0.5),
)


def made_up(
    times: Mapping[str, float],
    *,
    batches: Sequence[int] = (),
    processes: int = 8,
    sweeps: int = 12,
    runs: int = 5,
    noise: float = 0.01,
    luck: float = 0.003,
    seed: int = 0,
) -> Benchmark:
    """Make up a benchmark of targets whose typical runs take so many seconds, with independent noise."""
    chance = random.Random(seed)
    names = list(times)
    cases = tuple(Case(f"batch={size}", {"batch": size}) for size in batches) or (Case("", {}),)
    cases = tuple(
        replace(
            case,
            inputs=(
                {"name": "x", "dtype": "float32", "shape": [case.dimensions.get("batch", 1), 64], "origin": "made up"},
            ),
            inputs_sha256=f"{place:064x}",
        )
        for place, case in enumerate(cases)
    )
    candidates = tuple(
        Candidate(
            name,
            name,
            "ok",
            summary=f"{name} takes 100 % of 56 nodes",
            placement={name: {"nodes": 56, "share": 1.0}},
            agreements=tuple(_agreement(names[0]) if place else None for _ in cases),
            effective=({"key": "provider", "value": name, "origin": "target"},),
        )
        for place, name in enumerate(names)
    )
    found, lucks = [], []
    for place, name in enumerate(names):
        for number in range(processes + 1):
            found.append(
                Process(
                    place,
                    round=min(number, 1),
                    cache="none",
                    import_s=0.7 * chance.uniform(1, 1.1),
                    open_s=0.05 * (place + 1) * chance.uniform(1, 1.1),
                    first_run_s=tuple(times[name] * 3 * chance.uniform(1, 1.1) for _ in cases),
                    warmups=tuple(Warmup(40, 0.3, True) for _ in cases) if number else (),
                    peak_rss_bytes=(80 + 60 * place) << 20,
                )
            )
            lucks.append(chance.gauss(1, luck))
    blocks = []
    meeting = 0
    for sweep in range(sweeps):
        for at, case in enumerate(cases):
            partners = [chance.sample(range(1, processes + 1), processes) for _ in names]
            for each in zip(*partners, strict=True):
                drift = chance.uniform(1, 1.1)
                for place, number in chance.sample(list(enumerate(each)), len(each)):
                    process = place * (processes + 1) + number
                    typical = times[names[place]] * lucks[process] * drift * case.dimensions.get("batch", 1)
                    samples = tuple(typical * chance.lognormvariate(0, noise) for _ in range(runs))
                    blocks.append(Block(1, sweep, meeting, at, process, None, 0, sum(samples), samples))
                meeting += 1
    request = Request("model.onnx", "ab" * 32, 123456, True, 90.0, 0.02, "auto", False, 1, seed)
    measured = Measured(
        True, request, ENVIRONMENT, cases, candidates, tuple(found), tuple(blocks), ("assumed batch = 1",), {}
    )
    return Benchmark(measured, findings(measured))


def _agreement(reference: str) -> Agreement:
    share = 7e-7 / 3.2
    metrics = Metrics("scores", "float32", "float32", (1, 100), (1, 100), 90, 0, 3.2, 7e-7, 1e-7, 1e-5, 1e-6, share, 9)
    told = "scores is off by 7e-07, 2.2e-07 of its largest magnitude (0.1 % allowed)"
    judged = Judged(metrics, True, told, 1e-3)
    return Agreement(reference, True, f"agrees with {reference}: {told}", 7e-7, share, (judged,))
