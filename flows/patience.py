"""Trying again what may pass: a disk that is full for a moment, a network that is gone for one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from data.errors import StoreUnavailableError
from flows.wrapping import counted

FIRST_WAIT, WAIT_FACTOR, LONGEST_WAIT = 1.0, 4.0, 60.0  # seconds before something is tried again
PATIENCE = 120.0  # seconds for which a store may be out of reach
_SECONDS_BETWEEN_TRIALS = 3.0
_SECONDS_BETWEEN_WORDS = 30.0

T = TypeVar("T")


def wait_before(attempt: int) -> float:
    """Seconds to wait after so many attempts that failed, counted from 0: 1, 4, 16, 60, 60, …"""
    return float(min(LONGEST_WAIT, FIRST_WAIT * WAIT_FACTOR ** min(attempt, 8)))


def in_so_long(seconds: float) -> str:
    """When something is tried again, for people."""
    return f"in {seconds:.0f} s" if seconds else "at once"


class Patience:
    """Waits for a store that is out of reach, and tells of it once.

    `tell` is told what is wrong and for how long it will be waited at most, then every half minute
    that it still is, and at last that the store is back.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: str | None = None

    def has_told(self, sentence: str) -> bool:
        """Whether a sentence is what was wrong last: people need not hear it again."""
        return sentence == self._told

    def wait_for(self, action: Callable[[], T]) -> T:
        """What an action on the store gives, tried again for two minutes.

        Raises the last StoreUnavailableError.
        """
        try:
            return action()
        except StoreUnavailableError as error:
            self._told = str(error)
            self._tell(f"{error.complaint}: waiting for it, up to {_in_words(PATIENCE)}")
        began = told = time.monotonic()
        while True:
            time.sleep(_SECONDS_BETWEEN_TRIALS)
            try:
                result = action()
            except StoreUnavailableError:
                now = time.monotonic()
                left = began + PATIENCE - now
                if left <= 0:
                    raise
                if now - told >= _SECONDS_BETWEEN_WORDS:
                    self._tell(f"still waiting for the store, up to {_in_words(left)} more")
                    told = now
            else:
                self._tell("the store is back")
                return result


def _in_words(seconds: float) -> str:
    """A length of time in seconds, or in minutes where it is longer than one and a half."""
    return counted(round(seconds), "second") if seconds <= 90 else f"{seconds / 60:.0f} minutes"
