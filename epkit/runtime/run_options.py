"""Set the log level and LoRA adapters of single runs, and cancel them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from epkit._system import fork
from epkit._system.text import describe_error
from epkit.errors import ConfigError, RunCancelled, RunError

LOUDEST, QUIETEST = 0, 4
"""ONNX Runtime's severities: 0 is verbose, 1 info, 2 warning, 3 error, 4 fatal."""


class RunOptions:
    """Options of single runs, named as ONNX Runtime names them. May be used for many runs, and by many threads.

    `log_severity_level` (0 verbose to 4 fatal), `log_verbosity_level` and `logid`, a tag in each line of the log, are
    for ONNX Runtime's log of these runs. `adapters` are files of LoRA weights in ONNX Runtime's format
    (`.onnx_adapter`), for a model that takes some. Raises ConfigError for a severity or a file that makes no sense.
    """

    def __init__(
        self,
        *,
        log_severity_level: int | None = None,
        log_verbosity_level: int | None = None,
        logid: str | None = None,
        adapters: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        if log_severity_level is not None and not _is_severity(log_severity_level):
            raise ConfigError(
                f"log_severity_level is {log_severity_level!r}", hint="0 verbose, 1 info, 2 warning, 3 error, 4 fatal"
            )
        named = {
            "log_severity_level": log_severity_level,
            "log_verbosity_level": log_verbosity_level,
            "logid": logid,
        }
        self._properties = {name: value for name, value in named.items() if value is not None}
        self._files = [Path(file) for file in ((adapters,) if isinstance(adapters, str | os.PathLike) else adapters)]
        for file in self._files:
            if not file.is_file():
                raise ConfigError(f"the adapter '{file}' is not a file", hint="check the path")
        self._adapters: list[Any] = []
        self._lock = fork.make_lock()  # `cancel` may come in a signal handler, in the middle of this
        self._active_runs: list[Any] = []
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Stop the runs that have these options, from any thread; they raise RunCancelled, and so do later ones.

        ONNX Runtime stops between two nodes: where the provider made one node of the model (OpenVINO, TensorRT), the
        run goes on to its end.
        """
        with self._lock:
            self._cancelled = True
            for options in self._active_runs:
                options.terminate = True

    @contextmanager
    def applied(self, options: Any, runtime: Any) -> Iterator[None]:
        """Set these on ONNX Runtime's RunOptions of a run, inside a `with` block around it; raises RunCancelled."""
        for name, value in self._properties.items():
            setattr(options, name, value)
        for adapter in self._load_adapters(runtime):
            options.add_active_adapter(adapter)
        with self._lock:
            if self._cancelled:
                raise _cancelled_error()
            self._active_runs.append(options)
        try:
            yield
        except RunError as error:
            if self._cancelled:  # also where it waited for others, and did not begin
                raise _cancelled_error() from error
            raise
        finally:
            with self._lock:
                self._active_runs = [active for active in self._active_runs if active is not options]

    def _load_adapters(self, runtime: Any) -> list[Any]:
        with self._lock:
            for file in self._files[len(self._adapters) :]:
                self._adapters.append(_load_adapter(file, runtime.LoraAdapter))
            return self._adapters


def _load_adapter(file: Path, new: Callable[[], Any]) -> Any:
    adapter = new()
    try:
        adapter.Load(str(file))
    except Exception as error:
        hint = "write it with onnxruntime.AdapterFormat, or export it with Olive"
        raise ConfigError(
            f"'{file}' is no adapter that ONNX Runtime can load: {describe_error(error)}", hint=hint
        ) from error
    return adapter


def _is_severity(level: object) -> bool:
    return isinstance(level, int) and not isinstance(level, bool) and LOUDEST <= level <= QUIETEST


def _cancelled_error() -> RunCancelled:
    return RunCancelled("the run was cancelled", hint="make a new RunOptions for the next run")
