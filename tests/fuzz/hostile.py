"""Values, names and bytes that nobody meant."""

from __future__ import annotations

import random
from typing import Any

NAMES = (
    "", " ", ".", "..", "/", "\\", "-", "--", "--json", "a=b", "=", "x" * 300, "x" * 5000, "\u202egpj", "\x1b[2J",
    "a\nb",
    "\u2028", "\udce8", "\U0001f600", "\u2603", "nul", "%s%n", "{}", "[bold]", "'", '"', "~", "$HOME", "\ufeff",
    "\x7f",
    "../../etc/passwd", "/dev/zero", "/dev/full", "/dev/null", "/proc/self/mem", "/nonexistent/folder/file",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3.5, 1e-320, 1e308, -1e308, 2**31, 2**32, 2**62, 2**63, 2**64, 10**30, 10**400, float("nan"))
TEXTS = (
    "0",
    "-1",
    "1e999",
    "nan",
    "inf",
    "9" * 5000,
    "1,2,,3",
    ",",
    "0x10",
    "1_000",
    "true",
    "auto",
    "exact",
    "images",
)


def value(chance: random.Random, depth: int = 0) -> Any:
    """Return any value that JSON can hold, and some that it cannot."""
    kinds = ("number", "name", "text", "none", "bool", "list", "table", "deep")
    match chance.choice(kinds if depth < 3 else kinds[:5]):
        case "number":
            return chance.choice(NUMBERS)
        case "name":
            return chance.choice(NAMES)
        case "text":
            return chance.choice(TEXTS)
        case "bool":
            return chance.random() < 0.5
        case "list":
            return [value(chance, depth + 1) for _ in range(chance.choice((0, 1, 2, 40)))]
        case "table":
            return {chance.choice(NAMES): value(chance, depth + 1) for _ in range(chance.randrange(4))}
        case "deep":
            deep: Any = 1
            for _ in range(chance.choice((40, 100, 300))):
                deep = [deep] if chance.random() < 0.5 else {"a": deep}
            return deep
    return None


def damaged(contents: bytes, chance: random.Random) -> bytes:
    """Change, cut, repeat or put in a few bytes."""
    found = bytearray(contents)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(len(found) + 1)
        match chance.choice(("flip", "cut", "repeat", "insert", "end", "huge")):
            case "flip" if at < len(found):
                found[at] = chance.randrange(256)
            case "cut":
                del found[at : at + chance.choice((1, 2, 8, 100))]
            case "repeat":
                found[at:at] = found[at : at + chance.choice((1, 10, 200))]
            case "insert":
                found[at:at] = chance.randbytes(chance.choice((1, 4, 50)))
            case "end" if chance.random() < 0.3:
                del found[at:]
            case "huge":
                found[at:at] = b"\xff" * 9 + b"\x01"
    return bytes(found)


def changed(document: Any, chance: random.Random) -> None:
    """Replace, remove or repeat one part of a document, somewhere."""
    at, part = document, document
    while isinstance(part, dict | list) and part and chance.random() < 0.85:
        at = part
        key = chance.choice(list(at)) if isinstance(at, dict) else chance.randrange(len(at))
        part = at[key]
    if not at or at is part:
        return
    match chance.choice(("replace", "replace", "remove", "repeat")):
        case "replace":
            at[key] = value(chance)
        case "remove":
            del at[key]
        case "repeat" if isinstance(at, list):
            at += [at[key]] * chance.choice((1, 30, 3000))
