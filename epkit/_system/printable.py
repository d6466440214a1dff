"""Make text from outside fit to print: on one line, and without what a terminal takes for a command."""

from __future__ import annotations


def printable(text: object) -> str:
    r"""Return text on one line. Any space is a plain one; other unprintable characters are written out, as `\x1b`.

    Whatever comes from a model, a document, a config, a path or a library goes through here before it is printed.
    """
    found = str(text)
    return found if found.isprintable() else "".join(map(_printable, found))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    # Half of a surrogate pair stands for a byte of a name that is not UTF-8.
    return " " if character.isspace() else character.encode("unicode_escape").decode()
