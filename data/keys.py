"""The key of a stage: what it depends on, and nothing else, as one SHA-256.

The key is the digest of a canonical JSON of the stage's name and version, its own parameters and
the content digests of its upstream artifacts. No path, time, host or batch size belongs in it, so
whoever asks the same question of the same inputs finds the same artifact.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from data.errors import StoreError

_HEX = re.compile(r"[0-9a-f]{8,128}")


def stage_key(
    stage: str, version: int, parameters: Mapping[str, object], upstream: Mapping[str, str]
) -> str:
    """SHA-256 (hex) of a stage's name, version, parameters and upstream content digests.

    TypeError for a parameter that is not an int, bool, float, str, None, list or dict with str
    keys; ValueError for a float that is not finite; StoreError for an upstream that is no digest.
    """
    for name, digest in upstream.items():
        if not is_hex(digest):
            raise StoreError(f"Upstream {name!r} of stage {stage!r} is no digest: {digest!r}.")
    content = {
        "stage": stage,
        "version": version,
        "parameters": dict(parameters),
        "upstream": dict(upstream),
    }
    return hashlib.sha256(canonical_json(content).encode("ascii")).hexdigest()


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII, floats by repr.

    TypeError names the place of anything but int, bool, float, str, None, list and dict with str
    keys; ValueError that of a float that is NaN or infinite.
    """
    _refuse_others(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _refuse_others(value: object, place: str) -> None:
    """Raise for anything that has no canonical form, naming where it is."""
    if value is None or type(value) in (bool, int, str):
        return
    if isinstance(value, float) and type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{place} is {value}, which cannot be part of a key.")
    elif isinstance(value, list) and type(value) is list:
        for index, item in enumerate(value):
            _refuse_others(item, f"{place}[{index}]")
    elif isinstance(value, dict) and type(value) is dict:
        for name, item in value.items():
            if type(name) is not str:
                raise TypeError(f"{place} has the key {name!r}, which is not a str.")
            _refuse_others(item, f"{place}[{name!r}]")
    else:
        raise TypeError(f"{place} is a {type(value).__name__}, which cannot be part of a key.")


def is_hex(key: object) -> bool:
    """Whether something is a key or digest: 8 to 128 lower-case hexadecimal digits, no more."""
    return isinstance(key, str) and _HEX.fullmatch(key) is not None


def checked_key(key: str) -> str:
    """The key, if it is one: keys become paths. StoreError for anything else."""
    if not is_hex(key):
        raise StoreError(f"{key!r} is no key: keys are lower-case hexadecimal digits.")
    return key


def parse_json(content: str | bytes) -> Any:
    """JSON as plain values; ValueError for what is none, however deeply it is nested."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
