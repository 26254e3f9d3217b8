"""Trying again what may pass: a disk that is full for a moment, a network that is gone for one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from data.errors import StoreUnavailableError

FIRST_WAIT, WAIT_FACTOR, LONGEST_WAIT = 1.0, 4.0, 60.0  # seconds before something is tried again
_ATTEMPTS = 6  # at reaching a store

T = TypeVar("T")


def wait_before(attempt: int) -> float:
    """Seconds to wait after so many attempts that failed, counted from 0: 1, 4, 16, 60, 60, …"""
    return float(min(LONGEST_WAIT, FIRST_WAIT * WAIT_FACTOR ** min(attempt, 8)))


def patiently(action: Callable[[], T], tell: Callable[[str], None]) -> T:
    """What an action on a store gives, tried again for two minutes while it is out of reach.

    Raises the last StoreUnavailableError; `tell` is told of those before it.
    """
    for attempt in range(_ATTEMPTS - 1):
        try:
            return action()
        except StoreUnavailableError as error:
            seconds = wait_before(attempt)
            tell(f"{error} Trying again in {seconds:.0f} s")
            time.sleep(seconds)
    return action()
