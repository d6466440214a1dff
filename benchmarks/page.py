"""How do figures come into a page: between its markers, from a JSON file."""

from __future__ import annotations

import re
from collections.abc import Mapping

MARKER = re.compile(r"(<!-- figure: ([\w-]+) -->).*?(<!-- end -->)")


def filled(page: str, shown: Mapping[str, str]) -> str:
    """Return the page with the text of each figure between its markers."""
    return MARKER.sub(lambda found: f"{found[1]}{shown[found[2]]}{found[3]}", page)
