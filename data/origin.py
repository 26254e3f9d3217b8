"""Where an artifact comes from: which stage and cell, on what, how long, with which versions.

Provenance is a JSON object. It is kept in the Parquet metadata and beside the file; it is no part
of the content digest, so the same rows made elsewhere or later are the same artifact.
"""

import os
import platform
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

_DISTRIBUTIONS = ("circuit-grid", "torch", "transformer_lens", "pyarrow")


def provenance(
    stage: str,
    cell: str,
    seconds: float,
    peak_bytes: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    parts: Sequence[str] = (),
    most_examples: int | None = None,
) -> dict[str, object]:
    """The provenance of a stage that has just finished, with versions and the time now.

    `seconds` is the stage's own wall time, `peak_bytes` its peak memory. `parts` are the keys of
    the artifacts whose seconds count as this stage's too: the shards of an attribution.
    `most_examples` is how many examples were held at a time where memory ran out, else None. The
    worker is the process that asks, as `host:pid`.
    """
    return {
        "stage": stage,
        "cell": cell,
        "seconds": float(seconds),
        "peak_bytes": peak_bytes,
        "device": device,
        "dtype": dtype,
        "parts": list(parts),
        "most_examples": most_examples,
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "versions": versions(),
        "finished_at": now(),
    }


def versions() -> dict[str, str]:
    """Versions of what makes the numbers; what is not installed is left out."""
    return dict(_installed())


@lru_cache(maxsize=1)
def _installed() -> tuple[tuple[str, str], ...]:
    """The names and versions, which this process has looked for once: that takes milliseconds."""
    found = [("python", platform.python_version())]
    for name in _DISTRIBUTIONS:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def now() -> str:
    """The time as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def is_time(text: str) -> bool:
    """Whether a text is a time as `now` tells it: one with a zone."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
