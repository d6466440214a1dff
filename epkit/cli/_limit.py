"""Limit the time of a command (`--timeout`)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

import click

from epkit.cli import _edge
from epkit.errors import RunTimeout

GRACE_S = 3.0
"""The time for a command to remove its files and end its processes."""


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise `Expired` in the main thread after `seconds`; if it does not end then, exit the process.

    A library call that does not return cannot be interrupted: opening a model, or running one of its nodes.
    """
    over = threading.Event()
    watching = threading.Thread(target=_watch, args=(seconds, over), daemon=True)
    error = _too_long(seconds)
    with _interruptible(_edge.Expired(error)):
        watching.start()
        try:
            yield
        finally:
            over.set()


def limited(context: click.Context, param: click.Parameter, value: float | None) -> None:  # noqa: ARG001
    """Limit the command; the callback of an option."""
    if value is not None:
        if not 0 < value < threading.TIMEOUT_MAX:
            raise click.BadParameter(f"{value} is not a number of seconds above 0")
        context.with_resource(limit(value))


@contextlib.contextmanager
def _interruptible(expired: BaseException) -> Iterator[None]:
    """Raise `expired` in the main thread on SIGALRM (not on Windows)."""
    if sys.platform == "win32":
        yield
        return

    def interrupt(*_: object) -> None:
        raise expired

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


def _watch(seconds: float, over: threading.Event) -> None:
    if over.wait(seconds):
        return
    if sys.platform != "win32":
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        if over.wait(GRACE_S):
            return
    code = _edge.report(_too_long(seconds))
    _edge.flush_or_discard()
    os._exit(code)


def _too_long(seconds: float) -> RunTimeout:
    return RunTimeout(f"the command took longer than {seconds:g} s", hint="give it more with --timeout SECONDS")
