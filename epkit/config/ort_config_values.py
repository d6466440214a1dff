"""Convert the value of a config entry to the text that ONNX Runtime gets for it."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

LARGEST_INT32 = 2**31 - 1
LARGEST_INT64 = 2**63 - 1
LONGEST_KEY = 1024
LONGEST_VALUE = 8192

_PROCESSORS = r"[0-9]{1,9}(-[0-9]{1,9})?"
_THREAD = rf"{_PROCESSORS}(,{_PROCESSORS})*"
_SHAPE = r"[^:;]+:\s*\[[ 0-9,]*\]"
_LAYERS = r"[^()]+\([^()]*\)"


def digits(value: object) -> object:
    """Turn a number into text; whatever else is left to the next check."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def flag(value: object) -> object:
    """Turn yes and no into "1" and "0"; whatever else is left to the next check."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, str):
        return {"true": "1", "false": "0"}.get(value.lower(), value)
    return digits(value)


def whole(least: int, most: int = LARGEST_INT64) -> BeforeValidator:
    """Take a whole number in a range, as a number or as text."""

    def check(value: object) -> str:
        number = digits(value)
        if isinstance(number, str) and re.fullmatch("-?[0-9]{1,20}", number) and least <= int(number) <= most:
            return str(int(number))
        raise ValueError(f"must be a whole number from {least} to {most}, not {value!r}")

    return BeforeValidator(check)


def fraction(value: object) -> str:
    """Take a number from 0 to 1, as a number or as text."""
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        number = str(value)
        if re.fullmatch(r"[0-9]*\.?[0-9]+(e-?[0-9]{1,3})?", number) and 0 <= float(number) <= 1:
            return number
    raise ValueError(f"must be a number from 0 to 1, not {value!r}")


def like(pattern: str, example: str) -> BeforeValidator:
    """Take text of one form."""

    def check(value: object) -> str:
        text = digits(value)
        if isinstance(text, str) and re.fullmatch(pattern, text):
            return text
        raise ValueError(f"must look like {example!r}, not {value!r}")

    return BeforeValidator(check)


def affinities(value: object) -> str:
    """Take the processors of each thread, which ONNX Runtime counts from 1."""
    text = digits(value)
    if not (isinstance(text, str) and re.fullmatch(f"{_THREAD}(;{_THREAD})*", text)):
        raise ValueError(f"must name the processors of each thread, like '1,2;3-4', not {value!r}")
    for first, _, last in (part.partition("-") for part in re.split("[,;]", text)):
        if not 1 <= int(first) <= int(last or first):
            raise ValueError(f"must count processors from 1 and ranges upwards, like '1,2;3-4', not {value!r}")
    return text


Flag: TypeAlias = Annotated[Literal["0", "1"], BeforeValidator(flag)] | None
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=LONGEST_VALUE)] | None
Count: TypeAlias = Annotated[str, whole(0)] | None
Positive: TypeAlias = Annotated[str, whole(1)] | None
SmallCount: TypeAlias = Annotated[str, whole(0, LARGEST_INT32)] | None
SmallPositive: TypeAlias = Annotated[str, whole(1, LARGEST_INT32)] | None
BlockSize: TypeAlias = Annotated[str, whole(-1, LARGEST_INT32)] | None
Fraction: TypeAlias = Annotated[str, BeforeValidator(fraction)] | None
Level2: TypeAlias = Annotated[Literal["0", "1", "2"], BeforeValidator(digits)] | None
Level4: TypeAlias = Annotated[Literal["0", "1", "2", "3", "4"], BeforeValidator(digits)] | None
ModelFormat: TypeAlias = Literal["ONNX", "ORT"] | None
Affinities: TypeAlias = Annotated[str, BeforeValidator(affinities)] | None
Shapes: TypeAlias = Annotated[str, like(f"{_SHAPE}(;{_SHAPE})*", "x:[8,3,224,224];y:[8,16]")] | None
Layers: TypeAlias = Annotated[str, like(f"{_LAYERS}(;{_LAYERS})*;?", "gpu(layers.0,layers.1);cpu(embed)")] | None
MemoryLimit: TypeAlias = Annotated[str, like("[0-9]*,[^,]*", "4000000,stats.csv")] | None
Rows: TypeAlias = Annotated[str, like("[1-9][0-9]*(,[1-9][0-9]*)*", "1,8,64")] | None
