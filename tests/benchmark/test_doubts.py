"""What speaks against a benchmark: each doubt is raised by its cause, and by nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from documents import made_up

from epkit.benchmark.audit.warnings import warnings
from epkit.benchmark.document import Block, Measured
from epkit.benchmark.statistics.verdicts import findings


def raised(measured: Measured) -> tuple[str, ...]:
    return warnings(measured, findings(measured))


@pytest.fixture(scope="module")
def quiet() -> Measured:
    return made_up({"cpu": 0.01, "openvino": 0.008}, batches=(1, 4), sweeps=4).measured


def on(measured: Measured, **facts: object) -> Measured:
    return replace(measured, environment=replace(measured.environment, **facts))


def test_a_quiet_machine_raises_none(quiet):
    assert raised(quiet) == ()
    assert raised(on(quiet, others_cores=0.1, stolen_cores=0.01, governor="performance")) == ()


@pytest.mark.parametrize(
    ("facts", "said", "do"),
    [
        ({"others_cores": 0.9}, "other processes kept 0.9 of 2 CPUs busy", "measure again"),
        ({"stolen_cores": 0.2}, "took 0.2 of 2 CPUs", "another time"),
        ({"governor": "powersave"}, "the CPU saves power", "sudo cpupower frequency-set -g performance"),
        ({"gpus_after": ({}, {"slowed by": "idle, temperature"})}, "GPU 1 ran below its clocks (temperature)", "cool"),
    ],
)
def test_what_the_machine_did_is_said_with_what_to_do(quiet, facts, said, do):
    (one,) = raised(on(quiet, **facts))
    assert said in one
    assert do in one


def test_a_gpu_that_is_idle_afterwards_is_no_doubt(quiet):
    assert raised(on(quiet, gpus_after=({"slowed by": "idle"}, {"name": "one that says nothing"}))) == ()


def test_a_warm_up_that_did_not_end_names_candidate_and_case(quiet):
    place, process = next((at, one) for at, one in enumerate(quiet.processes) if one.candidate == 1 and one.warmups)
    restless = replace(process, warmups=(process.warmups[0], replace(process.warmups[1], steady=False)))
    (said,) = raised(replace(quiet, processes=(*quiet.processes[:place], restless, *quiet.processes[place + 1 :])))
    assert said.startswith("the times of openvino (batch=4) were not steady")


def test_processes_that_differ_for_as_long_as_they_live_are_told():
    lucky = made_up({"cpu": 0.01, "openvino": 0.008}, sweeps=12, luck=0.1).measured
    assert all("longer in one of its processes than in another" in one for one in raised(lucky))
    assert len(raised(lucky)) == 2


def test_noise_is_not_taken_for_processes_that_differ():
    for seed in range(5):
        assert raised(made_up({"cpu": 0.01}, sweeps=12, noise=0.5, luck=0.0, seed=seed).measured) == ()


def test_medians_that_rank_two_the_other_way_than_their_verdict_are_told():
    quiet = made_up({"cpu": 0.01, "openvino": 0.008}, sweeps=8).measured

    # In every other meeting the machine is three times as slow; the pooled median of one of the two comes from those.
    def slowed(one: Block) -> Block:
        slow = one.pair % 2
        often = 5 if quiet.processes[one.process].candidate == slow else 1
        return replace(one, samples_s=tuple((3 if slow else 1) * run for run in one.samples_s * often))

    uneasy = replace(quiet, blocks=tuple(slowed(one) for one in quiet.blocks))
    (said,) = raised(uneasy)
    assert said.startswith("the medians of cpu and openvino contradict their verdict")
    assert [one.verdict for one in findings(uneasy).comparisons] == ["faster"]


def test_files_that_came_from_the_disk_are_told(quiet):
    slow = replace(quiet.processes[0], open_s=9.0)
    (said,) = raised(replace(quiet, processes=(slow, *quiet.processes[1:])))
    assert said.startswith("the first process of cpu opened in 9 s")
