"""What is written replaces a file and nothing else, in one step, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documents import made_up

from epkit._system import files
from epkit.benchmark import storage
from epkit.benchmark.report import formats
from epkit.errors import ConfigError
from epkit.model import array_files

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root makes device nodes and files of other users")
posix = pytest.mark.skipif(os.name != "posix", reason="modes, links and devices as POSIX has them")
STRANGER = 54321


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def node(file: Path, kind: int, major: int, minor: int) -> Path:
    """Make a device node of our own; the machine's are left alone."""
    try:
        os.mknod(file, kind | 0o666, os.makedev(major, minor))
        with file.open("wb") if kind == stat.S_IFCHR else file.open("rb"):
            pass
    except OSError as error:
        pytest.skip(f"no device node can be made here: {error}")
    return file


@pytest.fixture
def small() -> Any:
    return made_up({"cpu": 1.0, "other": 2.0}, batches=(1,))


@as_root
def test_a_device_stays_a_device(tmp_path, small):
    null = node(tmp_path / "null.json", stat.S_IFCHR, 1, 3)
    storage.write(small, null)
    formats.write(small, "markdown", null)
    files.write_atomic(null, "text")
    assert stat.S_ISCHR(null.lstat().st_mode)
    assert names(tmp_path) == ["null.json"]


@as_root
def test_a_device_that_is_full_is_an_error_and_stays_a_device(tmp_path, small):
    full = node(tmp_path / "full.json", stat.S_IFCHR, 1, 7)
    with pytest.raises(ConfigError) as error:
        storage.write(small, full)
    assert error.value.hint
    assert stat.S_ISCHR(full.lstat().st_mode)


@as_root
def test_the_device_of_a_disk_is_refused(tmp_path, small):
    try:
        os.mknod(tmp_path / "disk.json", stat.S_IFBLK | 0o600, os.makedev(7, 250))
    except OSError as error:
        pytest.skip(f"no device node can be made here: {error}")
    with pytest.raises(ConfigError):
        storage.write(small, tmp_path / "disk.json")
    with pytest.raises(ConfigError):
        formats.ready("json", tmp_path / "disk.json")
    assert stat.S_ISBLK((tmp_path / "disk.json").lstat().st_mode)


@as_root
def test_the_command_leaves_a_device_alone(tmp_path, small, command):
    null = node(tmp_path / "null", stat.S_IFCHR, 1, 3)
    storage.write(small, tmp_path / "doc.json")
    assert command("bench", "show", tmp_path / "doc.json", "--json", "--output", null)[0] == 0
    assert stat.S_ISCHR(null.lstat().st_mode)


@posix
def test_a_pipe_that_is_read_gets_the_whole_document_and_stays_a_pipe(tmp_path, small):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    for _ in range(500):  # until the reader has opened it
        try:
            storage.write(small, pipe)
            break
        except ConfigError:
            reader.join(0.02)
    reader.join(20)
    assert json.loads(read[0])["schema"] == small.as_json()["schema"]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


@posix
def test_a_pipe_that_nobody_reads_is_an_error_and_no_hang(tmp_path, small):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError):
        storage.write(small, pipe)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


@posix
def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "a").mkdir()
    target, link, dangling = tmp_path / "a" / "target", tmp_path / "link", tmp_path / "dangling"
    target.write_text("old")
    link.symlink_to(target)
    dangling.symlink_to("a/new")
    files.write_atomic(link, "new")
    files.write_atomic(dangling, "new")
    assert (link.is_symlink(), dangling.is_symlink()) == (True, True)
    assert (target.read_text(), (tmp_path / "a" / "new").read_text()) == ("new", "new")
    assert names(tmp_path / "a") == ["new", "target"]


@posix
@pytest.mark.parametrize("kept", [0o600, 0o640, 0o664, 0o755])
def test_the_mode_stays(kept, tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(kept)
    files.write_atomic(file, "new")
    assert (mode(file), file.read_text()) == (kept, "new")


@posix
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from epkit._system import files\n"
        "os.umask(0o027); files.write_atomic(Path(sys.argv[1]), 'text')\n"
        "os.umask(0); files.write_atomic(Path(sys.argv[2]), 'text', mode=files.PRIVATE_MODE)\n"
        "files.make_private_folder(Path(sys.argv[3]))\n"
    )
    places = [tmp_path / "public", tmp_path / "kept", tmp_path / "one" / "two"]
    subprocess.run([sys.executable, "-c", code, *map(str, places)], check=True)
    assert [mode(place) for place in (*places, tmp_path / "one")] == [0o640, 0o600, 0o700, 0o700]


@as_root
def test_the_owner_stays(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    os.chown(file, STRANGER, STRANGER)
    file.chmod(0o640)
    files.write_atomic(file, "new")
    assert (file.stat().st_uid, file.stat().st_gid, mode(file)) == (STRANGER, STRANGER, 0o640)


@as_root
def test_a_link_that_another_user_put_where_all_may_write_is_not_followed(tmp_path):
    shared, victim = tmp_path / "shared", tmp_path / "victim"
    shared.mkdir()
    shared.chmod(0o1777)
    victim.write_text("precious")
    link, folder = shared / "out.json", shared / "folder"
    link.symlink_to(victim)
    folder.symlink_to(tmp_path)
    for one in (link, folder):
        os.lchown(one, STRANGER, STRANGER)
    for planted in (link, folder / "victim"):
        with pytest.raises(PermissionError):
            files.write_atomic(planted, "text")
    assert victim.read_text() == "precious"


@as_root
def test_a_file_that_may_not_be_written_is_not_replaced():
    code = (
        "import os, sys; from pathlib import Path; from epkit._system import files\n"
        f"os.chown(sys.argv[1], {STRANGER}, {STRANGER}); os.chmod(Path(sys.argv[1]).parent, 0o777)\n"
        f"os.setegid({STRANGER}); os.seteuid({STRANGER})\n"
        "try: files.write_atomic(Path(sys.argv[1]), 'new')\n"
        "except PermissionError: print('refused')\n"
    )
    with tempfile.TemporaryDirectory() as reachable:  # pytest's own folders cannot be entered by other users
        there = Path(reachable) / "file"
        there.write_text("old")
        there.chmod(0o444)
        done = subprocess.run([sys.executable, "-c", code, str(there)], check=True, capture_output=True, text=True)
        assert (done.stdout, there.read_text()) == ("refused\n", "old")


def test_what_fails_midway_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")

    def write_half() -> None:
        with files.open_atomic(file) as new:
            new.write(b"half")
            raise MemoryError

    with pytest.raises(MemoryError):
        write_half()
    assert (names(tmp_path), file.read_text()) == (["file"], "old")


@posix
def test_a_disk_that_fills_up_leaves_the_old_document_and_nothing_beside_it(tmp_path, small):
    """A limit on the size of files stands for the disk: the system refuses to write on, midway."""
    file = tmp_path / "doc.json"
    file.write_text("old")
    code = (
        "import json, resource, signal, sys; from pathlib import Path; from epkit._system import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: files.write_atomic(Path(sys.argv[1]), 'x' * 100_000)\n"
        "except OSError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], check=True, capture_output=True, text=True)
    assert done.stdout == "refused\n"
    assert (names(tmp_path), file.read_text()) == (["doc.json"], "old")


@posix
def test_what_goes_to_a_stream_by_its_path_is_added_to_it(tmp_path):
    """`>>` of a shell: the file behind /dev/stdout is a log of other things too."""
    log = tmp_path / "log"
    log.write_text("before\n")
    code = (
        "from pathlib import Path; from epkit._system import files; files.write_atomic(Path('/dev/stdout'), 'now\\n')"
    )
    with log.open("ab") as out:
        subprocess.run([sys.executable, "-c", code], check=True, stdout=out)
    assert log.read_text() == "before\nnow\n"


@pytest.mark.parametrize("length", [200, 251, 252, 255, 1000])
def test_outputs_with_long_names_are_all_written(length, tmp_path):
    long = ["o" * length, "o" * length + "x", "o" * (length - 1) + "/", "o" * (length - 1) + "_", "é" * length]
    outputs: dict[str, Any] = {name: np.full(2, number, np.float32) for number, name in enumerate(long)}
    written = array_files.save_outputs(outputs, tmp_path / "out")
    assert [np.load(written[name])[0] for name in long] == [0, 1, 2, 3, 4]
    assert len([*(tmp_path / "out").iterdir()]) == len(outputs)


def test_names_of_outputs_that_fit_stay_as_they_are(tmp_path):
    assert array_files.save_outputs({"o" * 200: np.zeros(1)}, tmp_path)["o" * 200].name == "o" * 200 + ".npy"


def test_an_output_that_cannot_be_written_whole_leaves_no_half_of_it(tmp_path):
    (tmp_path / "b.npy").mkdir()
    with pytest.raises(ConfigError):
        array_files.save_outputs({"a": np.zeros(4), "b": np.zeros(4)}, tmp_path)
    assert names(tmp_path) == ["a.npy", "b.npy"]


@posix
def test_outputs_go_through_links_and_keep_modes(tmp_path):
    (tmp_path / "real.npy").write_bytes(b"old")
    (tmp_path / "real.npy").chmod(0o600)
    (tmp_path / "y.npy").symlink_to("real.npy")
    array_files.save_outputs({"y": np.ones(3)}, tmp_path)
    assert (tmp_path / "y.npy").is_symlink()
    assert np.load(tmp_path / "real.npy").tolist() == [1, 1, 1]
    assert mode(tmp_path / "real.npy") == 0o600


def test_the_document_of_a_model_with_a_long_name_can_be_written(tmp_path, monkeypatch, small):
    monkeypatch.setenv("EPKIT_BENCH_DIR", str(tmp_path))
    for model in ("m" * 250 + ".onnx", "é" * 120 + ".onnx"):
        storage.write(small, storage.new_file(model))
    assert len(names(tmp_path)) == 2
