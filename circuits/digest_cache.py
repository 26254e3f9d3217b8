"""Digests of large weights files, kept between runs: reading gigabytes takes longer than planning.

A file is known by its place, size, inode, and the times of its last change; whoever changes a byte
changes one of them. What was written a moment ago is not kept: a second change could hide in the
same tick of the clock. The cache is in the user's cache directory, can be deleted at any time, and
where it cannot be written nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_WORTH_KEEPING = 32 << 20  # bytes: smaller files are read in no time
_A_MOMENT = 2 * 10**9  # nanoseconds
_VERSION = 1  # of what a digest is of

Digests = dict[str, str]  # by tensor


def remembered(file: Path, digests_of: Callable[[Path], Digests]) -> Digests:
    """The digests of a file's tensors: those kept, if the file has not changed, or found anew."""
    about = file.stat()
    if about.st_size < _WORTH_KEEPING:
        return digests_of(file)
    text = _state(file)
    place = _folder() / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    kept = _read(place, text)
    if kept is not None:
        return kept
    found = digests_of(file)
    settled = time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) > _A_MOMENT
    if settled and _state(file) == text:
        _write(place, text, found)
    return found


def _state(file: Path) -> str:
    real = file.resolve()
    about = real.stat()
    state = {
        "version": _VERSION,
        "path": str(real),
        "size": about.st_size,
        "mtime": about.st_mtime_ns,
        "ctime": about.st_ctime_ns,
        "inode": about.st_ino,
        "device": about.st_dev,
    }
    return json.dumps(state, sort_keys=True)


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "circuit-grid" / "weights"


def _read(place: Path, text: str) -> Digests | None:
    """What is kept there, if it is whole and of this state."""
    try:
        found = json.loads(place.read_text())
        kept: Digests = found["digests"]
        return kept if found["check"] == _check(text, kept) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(place: Path, text: str, digests: Digests) -> None:
    content = json.dumps({"digests": digests, "check": _check(text, digests)})
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False) as file:
            file.write(content)
        os.replace(file.name, place)


def _check(text: str, digests: Digests) -> str:
    return hashlib.sha256(f"{text}{json.dumps(digests, sort_keys=True)}".encode()).hexdigest()
