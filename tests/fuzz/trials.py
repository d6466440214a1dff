"""Make the trials: each follows from the seed and its number alone."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from documents import made_up
from hostile import NAMES, TEXTS, changed, damaged, value
from models_of_all_kinds import MODELS, altered
from process import Trial, can_mount


def _split(text: str) -> list[str]:
    return text.split()


GOOD: Mapping[str, tuple[Any, ...]] = {
    "provider": ("cpu", "faulty-wrong", "cuda"),
    "fallback": ([], ["cpu"]),
    "cpu": (True, False),
    "strict": (True, False),
    "min_placement": (0.5, 1.0),
    "device": (0, "CPU"),
    "options": ({},),
    "options_for": ({}, {"cpu": {}}),
    "extends": ("t",),
    "cache": (True, False),
    "session_options": ({"intra_op_num_threads": 1}, {"execution_mode": "ORT_PARALLEL"}, {"log_severity_level": 4}),
    "warmup": ({"runs": 0}, {"batches": [1, 2]}, {"dimensions": {"batch": 3}}, {"shapes": [{"x": [2, 16]}]}),
    "cast": (True, False),
    "shrink_above": ("64 MiB", 1024),
    "cuda_graph": (False, True),
}
"""Keys of a target, and what may stand there."""
VARIABLES = _split(
    "EPKIT_TARGETS__t__provider EPKIT_TARGETS__t EPKIT_TARGETS__t__warmup__runs EPKIT_CONFIG EPKIT_DEFAULT EPKIT_PROBE "
    "EPKIT_CACHE_LIMIT EPKIT_EVENTS EPKIT_DISABLE_PLUGINS EPKIT_BENCH_DIR"
)
COMMANDS = _split("run inspect explain compare compile bench providers doctor cache new-plugin")
OPTIONS = _split(
    "-t --target --config --input --output-dir --batch --json --refresh --seeds --tolerance --timeout --output --force "
    "--library --help --version list verify show diff m.onnx"
)
LIMITED = ("run", "explain", "compare")
WAYS = (
    ("verify",), ("verify", "--json"), ("show",), ("show", "--json"), ("show", "--format", "markdown"),
    ("show", "--format", "html"), ("show", "--format", "pytest-benchmark"), ("diff",), ("diff", "--json"),
)  # fmt: skip


def trial(seed: int, number: int, folder: Path, kind: str | None = None) -> Trial:
    """Make a trial, and write the files that it needs into the folder."""
    chance = random.Random(f"{seed}/{number}/{kind}")
    kind = kind or chance.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    rest = KINDS[kind][0](chance, folder)
    words = tuple(rest.pop("words"))
    if words and words[0] in LIMITED:
        words = (*words, "--timeout", "20")
    if rest.setdefault("anew", chance.random() < 0.04):
        words = tuple(word.replace("\x00", "") for word in words)
    return Trial(kind, number, words, **rest)


def _model(chance: random.Random, folder: Path) -> dict[str, Any]:
    contents = chance.choice(list(MODELS.values()))()
    if chance.random() < 0.5:
        contents = altered(contents, chance)
    if chance.random() < 0.6:
        contents = damaged(contents, chance)
    (folder / "m.onnx").write_bytes(contents)
    words = chance.choice(
        (
            ("run", "m.onnx", "-t", "cpu"), ("run", "m.onnx", "-t", "cpu", "--output-dir", "out"),
            ("inspect", "m.onnx"), ("inspect", "m.onnx", "--batch", "1,3"), ("explain", "m.onnx", "-t", "cpu"),
            ("compile", "m.onnx", "-t", "cpu"), ("run", "m.onnx", "-t", "faulty-wrong"),
        )
    )  # fmt: skip
    if chance.random() < 0.03:
        words = ("compare", "m.onnx", "-t", "cpu", "-t", "cpu", "--seeds", "1")
    return {"words": _maybe_json(words, chance)}


@lru_cache(maxsize=1)
def _document_text() -> str:
    found = made_up({"cpu": 0.01, "openvino": 0.0076}, batches=(1, 4), processes=3, sweeps=3, runs=3)
    return json.dumps(found.as_json())


def _document(chance: random.Random, folder: Path) -> dict[str, Any]:
    text = _document_text()
    (folder / "good.json").write_text(text)
    document = json.loads(text)
    for _ in range(chance.choice((0, 1, 1, 3))):
        changed(document, chance)
    contents = json.dumps(document).encode()
    if chance.random() < 0.3:
        contents = damaged(contents, chance)
    (folder / "d.json").write_bytes(contents)
    way = chance.choice(WAYS)
    files = (
        (("good.json", "d.json") if chance.random() < 0.5 else ("d.json", "d.json"))
        if way[0] == "diff"
        else ("d.json",)
    )
    return {"words": ("bench", way[0], *files, *way[1:])}


def _config(chance: random.Random, folder: Path) -> dict[str, Any]:
    (folder / "m.onnx").write_bytes(MODELS["mlp"]())
    keys = (*GOOD, chance.choice(NAMES))
    table = {"provider": "cpu"} if chance.random() < 0.8 else {}
    for key in chance.sample(keys, chance.choice((1, 1, 2, 4))):
        table[key] = chance.choice(GOOD[key]) if key in GOOD and chance.random() < 0.8 else value(chance)
    if chance.random() < 0.2:
        inner = chance.choice(("batches", "shapes", "dimensions", "runs", "timeout", "x"))
        table["warmup"] = {inner: value(chance)}
    if chance.random() < 0.1:
        inner = chance.choice(("intra_op_num_threads", "config", "log_severity_level", "enable_profiling", "x"))
        table["session_options"] = {inner: value(chance)}
    name = chance.choice(("t", "t", "t", chance.choice(NAMES)))
    text = _toml({"default": "t", "targets": {name: table}})
    contents = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.15:
        contents = damaged(contents, chance)
    (folder / "epkit.toml").write_bytes(contents)
    words = chance.choice((("explain", "m.onnx"), ("explain", "m.onnx", "-t", "t"), ("run", "m.onnx", "-t", "t")))
    environ = {}
    if chance.random() < 0.2:
        variable = chance.choice(VARIABLES)
        environ[variable] = chance.choice((*NAMES, *TEXTS))
    return {"words": _maybe_json(words, chance), "environ": environ, "logs": "log_severity_level" in text}


def _toml(found: Any) -> str:
    if isinstance(found, dict) and "targets" in found:
        targets = found["targets"].items()
        return f"default = {_toml(found['default'])}\n" + "".join(
            f"[targets.{_key(name)}]\n{_pairs(table)}" for name, table in targets
        )
    match found:
        case bool():
            return str(found).lower()
        case dict():
            return "{" + ", ".join(f"{_key(key)} = {_toml(part)}" for key, part in found.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml, found)) + "]"
        case int() | float():
            return repr(found)
        case None:
            return '""'
    return json.dumps(found, ensure_ascii=True)


def _key(name: str) -> str:
    return json.dumps(name)


def _pairs(table: Mapping[str, Any]) -> str:
    return "".join(f"{_key(key)} = {_toml(part)}\n" for key, part in table.items())


def _argument(chance: random.Random, folder: Path) -> dict[str, Any]:
    (folder / "m.onnx").write_bytes(MODELS[chance.choice(("mlp", "many types"))]())
    np.save(folder / "x.npy", np.ones((2, 16), np.float32))
    (folder / "bad.npy").write_bytes(damaged((folder / "x.npy").read_bytes(), chance))
    command = chance.choice((*COMMANDS, "", chance.choice(NAMES)))
    options = (*OPTIONS, chance.choice(NAMES))
    values = (*NAMES, *TEXTS, "m.onnx", "x=x.npy", "x=bad.npy", "bad.npy", "cpu", "faulty-wrong", "out", "x=", "=x.npy")
    words = [command, *(["m.onnx"] if chance.random() < 0.6 else [])]
    for _ in range(chance.randrange(5)):
        words.append(chance.choice(options))
        if chance.random() < 0.6:
            words.append(chance.choice(values))
    if command == "bench" and not {"show", "verify", "diff"} & set(words[1:2]):
        words = ["bench", "verify", *words[1:]]  # measuring takes too long
    if command == "compare" and chance.random() < 0.8:
        words = ["compare", "--help", *words[1:]]  # and so does comparing
    return {"words": tuple(word for word in words if word)}


def _environment(chance: random.Random, folder: Path) -> dict[str, Any]:
    name = chance.choice(("m.onnx", "m\u2603d\xe8l.onnx", "m\udce8.onnx"))
    file = folder / name
    file.write_bytes(MODELS["mlp"]())
    (folder / "file").write_text("")
    (folder / "d.json").write_text(_document_text())
    words = chance.choice(
        (
            ("run", str(file), "-t", "cpu"), ("inspect", str(file)), ("explain", str(file), "-t", "cpu"),
            ("providers",),
            ("--help",), ("bench", "show", str(folder / "d.json")), ("bench", "verify", str(folder / "d.json")),
            ("cache", "list"), ("run", str(folder / "missing.onnx")),
        )
    )  # fmt: skip
    words = _maybe_json(words, chance) if words[0] not in ("--help",) else words
    homes = ("/dev/null", "", "relative", "/nonexistent", str(folder / "file"), "/proc", "\udce8")
    environ: dict[str, str] = {}
    without: tuple[str, ...] = ()
    for variable in ("HOME", "TMPDIR", "EPKIT_CACHE_DIR", "EPKIT_BENCH_DIR", "XDG_CACHE_HOME"):
        if chance.random() < 0.3:
            environ[variable] = chance.choice(homes)
    if chance.random() < 0.15:
        without = ("HOME", "USER", "LOGNAME")
    if chance.random() < 0.15:
        environ["EPKIT_EVENTS"] = chance.choice(
            ("/dev/full", str(folder), str(folder / "events.jsonl"), "/nonexistent/x")
        )
    if chance.random() < 0.5:
        environ |= {
            "LC_ALL": chance.choice(("C", "POSIX", "xx_YY", "C.UTF-8", "")),
            "PYTHONUTF8": chance.choice(("0", "1")),
        }
    streams = ("file",) * 6 + ("full", "closed", "gone", "null")
    stdout, stderr = chance.choice(streams), chance.choice(streams)
    told = {
        "words": words,
        "environ": environ,
        "without": without,
        "stdin": chance.choice(("null", "closed")),
        "stdout": stdout,
        "stderr": stderr,
        "encoding": chance.choice(("utf-8", "latin-1", "ascii", "cp1252")),
        "directory": chance.choice(("there", "there", "deleted")),
        "root": "read-only" if chance.random() < 0.25 and _mounts() else "as it is",
        "anew": chance.random() < 0.15,
    }
    events_refused = "EPKIT_EVENTS" in environ and "full" not in environ["EPKIT_EVENTS"]
    answered = stdout in ("file", "null") and not events_refused
    if answered and str(folder / "missing.onnx") not in words:
        # Whatever the rest is like, it is in nobody's way.
        told["expected"] = (0,)
    elif stdout in ("full", "closed"):
        told["expected"] = (2, 4)
    return told


@lru_cache(maxsize=1)
def _mounts() -> bool:
    return can_mount()


def _maybe_json(words: tuple[str, ...], chance: random.Random) -> tuple[str, ...]:
    return (*words, "--json") if chance.random() < 0.4 else words


KINDS: dict[str, tuple[Callable[[random.Random, Path], dict[str, Any]], int]] = {
    "models": (_model, 5),
    "documents": (_document, 4),
    "configs": (_config, 4),
    "arguments": (_argument, 3),
    "environments": (_environment, 5),
}
"""What makes the trials of each kind, and how often they are tried."""
assert os.name == "posix", "it forks"
