"""What a benchmark looks like, from its document alone: on a terminal, in Markdown, as a page, for pytest-benchmark."""

from __future__ import annotations

import html.parser
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import groupby
from xml.etree import ElementTree

import pytest
from documents import made_up
from hypothesis import given
from hypothesis import strategies as st

from epkit.benchmark import storage
from epkit.benchmark.document import Benchmark, Comparison, Estimate, Request
from epkit.benchmark.operators.profile import Node, Operators
from epkit.benchmark.report import formats, histogram, sentences
from epkit.benchmark.report import tables as sections
from epkit.benchmark.report.html import page, plots
from epkit.benchmark.report.table import Table
from epkit.benchmark.statistics.verdicts import findings
from epkit.cli._bench_table import parts

HOSTILE = "<script>alert(1)</script>|`*_$x$\n\x1b[31m# [a](http://example.com)"
FORMATS = ("markdown", "html", "json", "pytest-benchmark")


@pytest.fixture(scope="module")
def two() -> Benchmark:
    return made_up({"cpu": 4e-3, "openvino": 3e-3}, noise=0.05, runs=12)


@pytest.fixture(scope="module")
def many() -> Benchmark:
    """Two cases; of five candidates one is unusable, one crashed, and one has other outputs."""
    names = ("cpu", "openvino", "cuda", "webgpu", "wrong")
    found = made_up(dict(zip(names, (4e-3, 3e-3, 1e-3, 2.9e-3, 1e-3), strict=True)), batches=[1, 8])
    candidates = list(found.candidates)
    reason = "libcublas.so.13: cannot open shared object file"
    candidates[2] = replace(candidates[2], status="unusable", reason=reason, hint='pip install "onnxruntime-gpu[cuda]"')
    candidates[3] = replace(candidates[3], status="failed", reason="its process was killed by SIGSEGV")
    wrong = tuple(
        None if one is None else replace(one, agree=False, told="differs from cpu: scores is off by 3.2")
        for one in candidates[4].agreements
    )
    candidates[4] = replace(candidates[4], status="differs", agreements=wrong)
    return _with(found, candidates)


@pytest.fixture(scope="module")
def hostile() -> Benchmark:
    found = made_up({"cpu": 4e-3, HOSTILE: 3e-3, "cuda": 1e-3})
    candidates = list(found.candidates)
    bad = {"key": HOSTILE, "value": HOSTILE, "origin": HOSTILE}
    candidates[1] = replace(candidates[1], notes=(HOSTILE,), summary=HOSTILE, effective=(bad,))
    candidates[2] = replace(candidates[2], status="failed", reason=HOSTILE, hint=HOSTILE)
    found = _with(found, candidates)
    measured = found.measured
    case = replace(measured.cases[0], name=HOSTILE, inputs=({"name": HOSTILE, "dtype": "float32"},))
    request = replace(measured.request, model=HOSTILE)
    return replace(
        found,
        measured=replace(measured, cases=(case,), request=request, notes=(HOSTILE,), rules={HOSTILE: HOSTILE}),
    )


def _with(found: Benchmark, candidates) -> Benchmark:
    measured = replace(found.measured, candidates=tuple(candidates))
    return Benchmark(measured, findings(measured))


@pytest.fixture
def epkit(command, monkeypatch, tmp_path):
    monkeypatch.setenv("EPKIT_BENCH_DIR", str(tmp_path / "kept"))
    return command


def test_the_verdict_stands_before_the_figures(epkit, two, tmp_path):
    storage.write(two, tmp_path / "two.json")
    code, out, err = epkit("bench", "show", tmp_path / "two.json")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    verdict = next(
        place for place, line in enumerate(lines) if re.match(r"openvino is 1\.3\dx faster than cpu, 1\.", line)
    )
    header = next(place for place, line in enumerate(lines) if line.startswith("candidate"))
    assert verdict < header
    assert re.search(r"median +interval +p90 +p99 +runs/s +CPU +first run", lines[header])
    assert any(block in lines[header + 1] for block in histogram.BLOCKS)
    assert "minimum detectable difference: " in out
    assert "timing: session.run, host to host, checks and copies included; 1 caller, closed loop" in out
    assert "agrees with cpu" in out
    assert lines[-1] == str(tmp_path / "two.json")


def test_what_has_no_figures_is_a_row_with_its_reason(epkit, many, tmp_path):
    storage.write(many, tmp_path / "many.json")
    _, out, _ = epkit("bench", "show", tmp_path / "many.json")
    assert re.search(r"^cuda +unusable +libcublas", out, re.MULTILINE)
    assert re.search(r"^webgpu +failed +its process was killed", out, re.MULTILINE)
    assert re.search(
        r"^wrong +differs +at batch=1, differs from cpu: scores is off by 3.2; at batch=8", out, re.MULTILINE
    )
    assert 'cuda: pip install "onnxruntime-gpu[cuda]"' in out
    assert "openvino is the fastest at batch=1 and batch=8" in out


def test_the_benchmark_that_was_measured_last_is_shown(epkit, two, many, tmp_path):
    code, _, err = epkit("bench", "show")
    assert code == 2
    assert "hint: epkit bench" in err
    (tmp_path / "kept").mkdir()
    storage.write(many, tmp_path / "kept" / "20260101T000000-1-model.json")
    storage.write(two, tmp_path / "kept" / "20260102T000000-1-model.json")
    assert "webgpu" not in epkit("bench", "show")[1]


def test_a_document_survives_being_written_in_every_way(epkit, two, tmp_path):
    storage.write(two, tmp_path / "two.json")
    assert json.loads(epkit("bench", "show", tmp_path / "two.json", "--json")[1]) == two.as_json()
    for suffix, start in ((".md", "### "), (".html", "<!doctype html>"), (".json", '{"schema"')):
        code, out, err = epkit("bench", "show", tmp_path / "two.json", "--output", tmp_path / f"out{suffix}")
        assert (code, out.strip(), err) == (0, str(tmp_path / f"out{suffix}"), "")
        assert (tmp_path / f"out{suffix}").read_text(encoding="utf-8").startswith(start)


@pytest.mark.parametrize(
    ("part", "key"),
    [("blocks", "process"), ("blocks", "case"), ("processes", "candidate"), ("figures", "case"), ("comparisons", "b")],
)
def test_a_document_that_refers_to_what_is_not_in_it_is_damaged(epkit, two, tmp_path, part, key):
    document = two.as_json()
    half = document["findings"] if part in document["findings"] else document["measured"]
    half[part][0][key] = 99
    (tmp_path / "bad.json").write_text(json.dumps(document))
    code, _, err = epkit("bench", "show", tmp_path / "bad.json")
    assert code == 2
    assert "is damaged" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--output", "out.txt"), "does not say what to write"),
        (("--output", "no/such/out.md"), "its folder is not there"),
        (("--format", "table", "--output", "out.md"), "printed, not written"),
        (("--format", "html", "--json"), "two formats"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(epkit, two, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    storage.write(two, tmp_path / "two.json")
    code, _, err = epkit("bench", "show", "two.json", *words)
    assert code == 2
    assert said in err
    assert "hint:" in err


def test_nobody_measures_in_vain_for_a_file_that_cannot_be_written(epkit, tmp_path):
    code, _, err = epkit("bench", "no-such-model.onnx", "--output", tmp_path / "out.txt")
    assert code == 2
    assert ".html" in err


def test_a_page_without_the_extra_is_one_sentence(epkit, two, tmp_path, monkeypatch):
    storage.write(two, tmp_path / "two.json")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = epkit("bench", "show", tmp_path / "two.json", "--format", "html")
    assert code == 2
    assert "the page needs jinja2 and matplotlib, which are not installed" in err
    assert 'pip install "epkit[report]"' in err


def test_the_first_word_is_a_command_or_the_model(epkit, empty):
    assert epkit("bench", "show")[0] == 2  # nothing was measured yet
    for words in (("./show",), ("no.onnx", "show"), ("--", "show"), ("-t", "cpu", "show")):
        code, _, err = epkit("bench", *words)
        assert code in (2, 4)
        assert "there is no benchmark" not in err
    for words in (("--help",), ("model.onnx", "-h")):
        code, out, _ = epkit("bench", *words)
        assert code == 0
        assert "epkit bench [MODEL] [OPTIONS]\n" in out
        assert "--smallest-effect" in out
        assert re.search(r"Commands:\n +.*show", out, re.DOTALL)
    code, _, err = epkit("bench", "m.onnx", "--batch", "1,x")
    assert code == 2
    assert "1,4,16" in err
    assert epkit("bench", "m.onnx", "--dim", "1,2")[0] == 2


def test_the_page_is_the_same_from_another_process(two, pages, tmp_path):
    storage.write(two, tmp_path / "two.json")
    code = (
        "import sys; from epkit.benchmark import storage as stored; from epkit.benchmark.report import formats; "
        "sys.stdout.reconfigure(encoding='utf-8', newline=''); "
        "sys.stdout.write(formats.text(stored.read(sys.argv[1]), 'html'))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "two.json")], capture_output=True, check=True)
    assert done.stdout.decode() == pages["two"]


class _Reader(html.parser.HTMLParser):
    """Collects what a page would load or run, its text, and its ids."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.asked: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.asked.append(value or "")
            elif name.startswith("on"):
                self.asked.append(f"{name}={value}")

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def pages(two, many, hostile) -> dict[str, str]:
    return {"two": page(two), "many": page(many), "hostile": page(hostile)}


@pytest.mark.parametrize("name", ["two", "many", "hostile"])
def test_the_page_asks_nothing_of_any_network_and_runs_nothing(pages, name):
    text = pages[name]
    reader = _Reader()
    reader.feed(text)
    assert "svg" in reader.tags
    assert not reader.tags & {"script", "link", "iframe", "img", "object", "embed", "image", "base"}
    assert all(one.startswith("#") for one in reader.asked)
    assert all(one.startswith("#") for one in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text
    assert len(reader.ids) == len(set(reader.ids))
    assert {one.removeprefix("#") for one in reader.asked} <= set(reader.ids)
    assert {one.removeprefix("#") for one in re.findall(r"url\(([^)]*)\)", text)} <= set(reader.ids)


def test_the_plots_follow_the_colours_of_the_page(pages):
    for svg in re.findall(r"<svg.*?</svg>", pages["many"], re.DOTALL):
        ElementTree.fromstring(svg)
        assert "var(--" in svg
        assert not re.search(r"#0[12]0[12]0", svg)
        assert "<text" in svg
        assert "<dc:" not in svg


def test_a_plot_is_there_for_everything_that_was_measured(many):
    runs = sections.runs(many)
    drawn = (plots.distributions(many, 0, runs), plots.forest(many, 0), plots.throughput(many))
    drawn += (plots.starts(many), plots.memory(many), plots.placement(many))
    assert all(drawn)
    assert "rows/s" in (drawn[2].svg if drawn[2] else "")
    assert plots.throughput(made_up({"cpu": 1e-3})) is None
    assert plots.forest(made_up({"cpu": 1e-3}), 0) is None


def test_hostile_names_do_no_harm_in_markdown(hostile):
    text = formats.text(hostile, "markdown")
    outside_of_code = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", re.sub(r"\\`", "", text))
    assert "<script" not in outside_of_code
    assert "\x1b" not in text
    tables = [
        list(lines) for is_table, lines in groupby(text.splitlines(), lambda one: one.startswith("|")) if is_table
    ]
    assert tables
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table}) == 1


def test_hostile_names_do_no_harm_in_the_page(pages):
    reader = _Reader()
    reader.feed(pages["hostile"])
    assert "alert(1)" in reader.text
    assert "\x1b" not in pages["hostile"]


def test_hostile_names_do_no_harm_on_a_terminal(epkit, hostile, tmp_path):
    storage.write(hostile, tmp_path / "h.json")
    _, out, _ = epkit("bench", "show", tmp_path / "h.json")
    assert "alert(1)" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("status", ["unusable", "failed"])
@pytest.mark.parametrize("wanted", FORMATS)
def test_a_benchmark_in_which_nobody_has_figures_can_be_shown(two, wanted, status):
    gone = [replace(one, status=status, reason="gone", placement=None) for one in two.candidates]
    nobody = _with(replace(two, measured=replace(two.measured, processes=(), blocks=())), gone)
    assert "gone" in formats.text(nobody, wanted) or wanted == "pytest-benchmark"


@pytest.mark.parametrize("wanted", FORMATS)
def test_one_candidate_alone_can_be_shown(wanted):
    assert "cpu" in formats.text(made_up({"cpu": 3e-3}), wanted)


@pytest.mark.parametrize("wanted", FORMATS)
def test_a_benchmark_that_was_ended_early_can_be_shown(two, wanted):
    measured = replace(two.measured, complete=False, blocks=two.measured.blocks[:3])
    found = Benchmark(measured, findings(measured))
    text = formats.text(found, wanted)
    if wanted in ("markdown", "html"):
        assert "it was interrupted" in text
        assert "have too few pairs of blocks; more time would help" in text


def test_pytest_benchmark_compares_what_epkit_measured(epkit, two, many, tmp_path):
    for name, found in (("two", two), ("many", many)):
        storage.write(found, tmp_path / f"{name}.json")
        out = tmp_path / f"{name}-pytest.json"
        assert (
            epkit("bench", "show", tmp_path / f"{name}.json", "--format", "pytest-benchmark", "--output", out)[0] == 0
        )
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", "two-pytest.json", "many-pytest.json", "--csv=all.csv"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "openvino[batch=8]" in done.stdout
    rows = (tmp_path / "all.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 + 4
    median = next(
        one for one in json.loads((tmp_path / "two-pytest.json").read_text())["benchmarks"] if one["name"] == "cpu"
    )
    figure = next(one for one in two.findings.figures if one.candidate == 0)
    assert median["stats"]["median"] == pytest.approx(figure.median.value_s, rel=1e-2)


REQUEST = Request("m.onnx", "", 0, True, 90.0, 0.02, "auto", False, 1, 0)


@pytest.mark.parametrize(
    ("ratio", "low", "high", "verdict", "floor", "said"),
    [
        (0.763, 0.735, 0.787, "faster", 0.011, "b is 1.31x faster than a, 1.27 to 1.36"),
        (1.31, 1.27, 1.36, "slower", 0.011, "a is 1.31x faster than b, 1.27 to 1.36"),
        (0.998, 0.993, 1.004, "same", 0.008, "a and b take the same time (0.998, 0.993 to 1.004)"),
        (
            1.018,
            1.01,
            1.026,
            "undecided",
            0.012,
            "undecided: b takes 1.018 times the time of a, 1.010 to 1.026; that is ",
        ),
        (
            1.02,
            0.98,
            1.07,
            "undecided",
            0.06,
            "undecided: b takes 1.020 times the time of a, 0.980 to 1.070; minimum detectable difference: 6 %",
        ),
        (12.3, 11.9, 12.7, "slower", 0.06, "a is 12.3x faster than b, 11.9 to 12.7"),
    ],
)
def test_a_verdict_is_a_sentence(ratio, low, high, verdict, floor, said):
    found = made_up({"a": 1e-3, "b": 1e-3}, sweeps=2)
    told = sentences.verdict(found, Comparison(0, 0, 1, Estimate(ratio, low, high), None, floor, verdict, 8, 80))
    assert told.startswith(said)


def test_what_would_help_is_said():
    noisy = Comparison(0, 0, 1, Estimate(1.02, 0.98, 1.07), None, 0.06, "undecided", 8, 80)
    assert sentences.would_help(REQUEST, noisy).endswith("--budget 180")
    assert "--smallest-effect 1 " in sentences.would_help(REQUEST, replace(noisy, floor=0.012))


def test_slow_runs_that_say_otherwise_are_pointed_out():
    found = made_up({"a": 1e-3, "b": 1e-3}, sweeps=2)
    one = Comparison(0, 0, 1, Estimate(0.8, 0.79, 0.81), Estimate(1.5, 1.2, 1.9), 0.01, "faster", 8, 80)
    assert sentences.verdict(found, one).endswith("a slow run (p99) of b takes 1.50, 1.20 to 1.90 times that of a")
    assert "slow run" not in sentences.verdict(found, replace(one, p99=Estimate(0.8, 0.7, 0.9)))


def test_two_candidates_of_one_name_can_be_told_apart():
    found = made_up({"cpu": 1e-3, "other": 1e-3}, sweeps=3)
    found = _with(found, [replace(one, target="cpu") for one in found.candidates])
    assert [sentences.label(found, place) for place in (0, 1)] == ["cpu", "cpu (2)"]


def test_what_the_operators_take_is_shown_where_it_was_asked_for(epkit, two, tmp_path):
    nodes = (
        Node("conv", "Conv", "openvino", 0.002, 1),
        Node(HOSTILE, "NonMaxSuppression", "cpu", 0.001, 1),
        Node("back", "MemcpyToHost", "openvino", 0.0005, 1, 4096),
    )
    seen = Operators(20, "openvino", 0.0035, 1.2, nodes, crossings=2.0)
    found = _with(two, [two.candidates[0], replace(two.candidates[1], operators=seen)])
    storage.write(found, tmp_path / "two.json")
    told = [formats.text(found, one) for one in ("markdown", "html")]
    for text in (*told, epkit("bench", "show", tmp_path / "two.json")[1]):
        assert "openvino: operators" in text
        assert "openvino: fell back from openvino" in text
        assert "NonMaxSuppression" in text
        assert "1 node fell back from openvino and took 28.6 % of the time" in text
        assert "\x1b" not in text


runs = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200).map(sorted)


@given(st.lists(runs, min_size=1, max_size=4), st.integers(2, 80))
def test_a_histogram_shows_every_run_on_the_common_scale(everyone, columns):
    scale = histogram.scale(everyone)
    assert scale is not None
    for its in everyone:
        assert sum(histogram.counts(its, scale, columns)) == len(its)
        drawn = histogram.draw(its, scale, columns)
        assert len(drawn) == columns
        assert histogram.BLOCKS[-1] in drawn


@given(st.integers(20, 200))
def test_no_table_is_wider_than_the_terminal(width):
    table = Table(("candidate", "a", "b", "c"), (("some name", "1.23 ms", "1 to 2 ms", "x" * 10),), ("a", "b", "c"))
    found = parts(table, width)
    assert [name for part in found for name in part.columns[1:]] == ["a", "b", "c"]
    for part in found:
        wide = sum(max(map(len, column)) + 3 for column in zip(part.columns, *part.rows, strict=True))
        assert wide <= width or len(part.columns) == 2


def test_the_command_line_does_not_wait_for_what_only_a_page_needs():
    code = "import sys, epkit.cli; assert not {'matplotlib', 'jinja2', 'numpy', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_the_page_needs_the_extra():
    code = (
        "import sys; sys.modules.update(matplotlib=None, jinja2=None, markupsafe=None)\n"
        "from documents import made_up; from epkit.benchmark.report import formats\n"
        "found = made_up({'cpu': 1e-3, 'other': 1e-3}, sweeps=3)\n"
        "assert formats.text(found, 'markdown') and formats.text(found, 'pytest-benchmark')"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
