"""Numbers and sections as a grid's YAML writes them: sizes, bytes, times, devices.

`Section` is what every mapping of a grid is; a `NamedSection` may be written as its bare name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StrictInt,
    StrictStr,
    ValidationInfo,
    model_validator,
)

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}

Positive = Annotated[StrictInt, Field(ge=1, le=10**9)]
Count = Annotated[StrictInt, Field(ge=1, le=10**6)]  # of examples
Seed = Annotated[StrictInt, Field(ge=0, lt=2**32)]
Word = Annotated[StrictStr, Field(min_length=1, max_length=300)]
Names = Annotated[tuple[Word, ...], Field(min_length=1, max_length=1_000_000)]


def size(value: object) -> int | float:
    """So many units: a whole number of them (≥ 1), or a fraction of all in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a fraction such as 0.05 or a whole number")
    if isinstance(value, int):
        if value < 1:
            raise ValueError("must be at least 1")
    elif not 0 < value <= 1:
        raise ValueError("a fraction lies above 0 and up to 1.0; write units without a point")
    return value


def threshold(value: object) -> float:
    """A finite score; circuits keep the units that reach it."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) < float("inf"):  # type: ignore[arg-type]
        raise ValueError("must be a finite number")
    return float(value)  # type: ignore[arg-type]


def share(value: object) -> float:
    """A number between 0 and 1, neither of them."""
    if isinstance(value, bool) or not isinstance(value, float) or not 0 < value < 1:
        raise ValueError("must be a number between 0 and 1, such as 0.95")
    return value


def byte_count(value: object) -> int:
    """A number of bytes: whole, or text such as `512MiB` or `2 GB`."""
    if isinstance(value, int) and not isinstance(value, bool):
        number, unit = float(value), ""
    elif isinstance(value, str) and (
        match := re.fullmatch(r"([\d.]+)\s*([KMGT]?I?B?)", value.upper())
    ):
        if match[1].count(".") > 1 or match[1] == "." or match[2] not in _UNITS:
            raise ValueError("must be bytes, such as 512MiB or 2GB")
        number, unit = float(match[1]), match[2]
    else:
        raise ValueError("must be bytes, such as 512MiB or 2GB")
    count = number * _UNITS[unit]
    if not 2**20 <= count <= 2**50:
        raise ValueError("must lie between 1MiB and 1024TiB")
    return int(count)


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(value: object) -> float:
    """A length of time: a number with s, m, h or d, such as `90s` or `1.5h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a time such as 90s, 15m, 2h or 1d")
    found = float(match[1]) * _SECONDS[match[2]]
    if not 1 <= found <= 366 * 86400:
        raise ValueError("must lie between 1s and 366d")
    return found


def seconds_as_text(value: float) -> str:
    """A length of time as `seconds` reads it: `90s`, `2h`."""
    for unit in ("d", "h", "m"):
        if value >= _SECONDS[unit] and value % _SECONDS[unit] == 0:
            return f"{value / _SECONDS[unit]:g}{unit}"
    return f"{value:g}s"


def device_name(value: object) -> str:
    """`auto`, `cpu`, `mps`, `cuda` or one CUDA device, `cuda:1`."""
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
        raise ValueError("must be auto, cpu, mps, cuda or cuda:<number>")
    return value


Size = Annotated[int | float, PlainValidator(size)]
Threshold = Annotated[float, PlainValidator(threshold)]
Share = Annotated[float, PlainValidator(share)]
Bytes = Annotated[int, PlainValidator(byte_count)]
Seconds = Annotated[float, PlainValidator(seconds)]
Device = Annotated[str, PlainValidator(device_name)]


class Section(BaseModel):
    """A part of a grid: frozen, with no keys but its own; a bare word may stand for its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NamedSection(Section):
    """A section that a bare word names: `EAP` is `{name: EAP}`."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


def with_options(name: str, *options: object) -> str:
    """A name with those options that say something, for people: `gpt2 (bfloat16)`."""
    said = [str(option) for option in options if option is not None]
    return f"{name} ({', '.join(said)})" if said else name


def base_of(info: ValidationInfo) -> Path:
    """The directory that paths in a grid are relative to."""
    return Path((info.context or {}).get("base", "."))
