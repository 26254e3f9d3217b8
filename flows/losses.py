"""Artifacts that were lost in the middle of a run: how often each was missed, and by whom.

Who reads an artifact and finds it damaged or gone has it made again, at most `retries` times. What
many read is missed by many at once, so each reader (a turn, a stage) has trials of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from flows.errors import Lost, StageError
from flows.wrapping import counted


class Losses:
    """What was lost in a run."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._missed: Counter[tuple[Hashable, str]] = Counter()  # by reader and key
        self._keys: set[str] = set()

    def __contains__(self, key: str) -> bool:
        """Whether something that the stage under a key wrote was lost."""
        return key in self._keys

    def may_be_made_again(self, reader: Hashable, lost: Lost) -> bool:
        """Whether a reader that missed an artifact is to have it made again; noted."""
        if self._missed[reader, lost.key] >= self._retries:
            return False
        self._missed[reader, lost.key] += 1
        self._keys.add(lost.key)
        return True

    def last_word(self, reader: Hashable, lost: Lost, error: Exception) -> Exception:
        """What is said to a reader that has no trial left; the error itself if it had none."""
        n = self._missed[reader, lost.key]
        if not n:
            return error
        return StageError(
            f"{lost.kind} {lost.key} {lost.reason}, and so it was each time that it was built "
            f"again ({counted(n, 'time')}): something damages the store's files; check its disk"
        )
