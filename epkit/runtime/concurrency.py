"""Whose turn is it, where a provider bears one thing at a time in the whole process?"""

from __future__ import annotations

from epkit._system import fork

PROCESS = fork.make_lock()
"""Held by whoever opens, runs or closes a session of such a provider."""
