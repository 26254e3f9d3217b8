"""What a user may not do, tried for real: root may do everything, so somebody else has to try."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534
_MAY_BE_ENTERED = 0o011  # by others


@contextmanager
def not_as_root(place: Path) -> Iterator[None]:
    """Within it, this process has a user's rights alone, who owns all that is below a directory.

    Where the tests are not run by root, they have no others anyway.
    """
    if os.geteuid() != 0:
        yield
        return
    for path in (place, *place.rglob("*")):
        os.chown(path, _NOBODY, _NOBODY)
    for folder in place.parents:  # pytest's are closed
        mode = folder.stat().st_mode
        if mode & _MAY_BE_ENTERED != _MAY_BE_ENTERED:
            folder.chmod(mode | _MAY_BE_ENTERED)
    group = os.getegid()
    os.setegid(_NOBODY)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
