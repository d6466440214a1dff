"""What has been measured so far, and where is it kept?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epkit.benchmark import storage
from epkit.benchmark.candidate_run import Contender
from epkit.benchmark.document import Benchmark, Block, Case, Measured, Process, Request
from epkit.benchmark.environment.environment import Before, environment
from epkit.benchmark.statistics.verdicts import findings
from epkit.discovery.registry import Registry
from epkit.errors import ConfigError

KEEP_EVERY_S = 5.0


class Record:
    """Grows while it is measured, and is written to a file from time to time, if there is one."""

    def __init__(
        self,
        request: Request,
        cases: Sequence[Case],
        contenders: Sequence[Contender],
        rules: Mapping[str, Any],
        before: Before,
        registry: Registry,
        file: Path | None,
    ) -> None:
        self.cases = list(cases)
        self.processes: list[Process] = []
        self.blocks: list[Block] = []
        self.notes: list[str] = []
        self.request = request
        self._contenders, self._rules = contenders, rules
        self._before, self._registry, self._file = before, registry, file
        # What goes into a pipe or onto a terminal cannot be replaced by what is known later.
        self._grows = file is not None and storage.is_replaced(file)
        self._environment = environment(before, registry)
        self._written = time.monotonic()

    def add(self, process: Process) -> int:
        """Take note of a process, and return its place."""
        self.processes.append(process)
        return len(self.processes) - 1

    def measured(self, *, complete: bool = False) -> Measured:
        """Return all of it, as the document has it."""
        return Measured(
            complete,
            self.request,
            self._environment if not complete else environment(self._before, self._registry),
            tuple(self.cases),
            tuple(one.row() for one in self._contenders),
            tuple(self.processes),
            tuple(self.blocks),
            tuple(self.notes),
            self._rules,
        )

    def keep(self, *, complete: bool = False) -> Benchmark:
        """Work out the findings, and write both to the file.

        What cannot be written is tried again the next time; at the end, raises Unwritten with what was measured.
        """
        measured = self.measured(complete=complete)
        found = Benchmark(measured, findings(measured))
        if self._file is not None and (complete or self._grows):
            try:
                storage.write(found, self._file)
            except ConfigError as error:
                if complete:
                    raise storage.Unwritten(error, found) from error
        self._written = time.monotonic()
        return found

    def keep_by_now(self) -> None:
        """Write it, if that was some seconds ago."""
        if self._file is not None and time.monotonic() - self._written > KEEP_EVERY_S:
            self.keep()
