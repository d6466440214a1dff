"""Whose turn is it, where a provider bears one thing at a time in the whole process?"""

from __future__ import annotations

import threading

PROCESS = threading.RLock()
"""Held by whoever opens, runs or closes a session of such a provider."""
