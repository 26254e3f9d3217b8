"""How many examples at a time fit in memory, where it ran out before."""

from __future__ import annotations

from dataclasses import dataclass

from flows.jobs import Kind

_STREAK = 8  # stages done with few examples at a time, before more are tried again
_ENOUGH = 1 << 16  # examples at a time: no cap


@dataclass
class _Cap:
    """So many examples fit, and that held for so many stages."""

    n_examples: int
    streak: int = 0


class Caps:
    """With how many examples at a time stages begin, by their kind; without a cap, with all."""

    def __init__(self) -> None:
        self._caps: dict[Kind, _Cap] = {}

    def of(self, kind: Kind) -> int | None:
        """What the next stage of a kind begins with; None for as many as its budget holds."""
        cap = self._caps.get(kind)
        return None if cap is None else cap.n_examples

    def learn(self, kind: Kind, tried: int | None, fitted: int | None) -> None:
        """Stages like one begin with what fitted it; with twice as many, after a while.

        `tried` is what that one began with, `fitted` what it came down to; None for no cap.
        """
        if fitted is None:
            return
        cap = self._caps.setdefault(kind, _Cap(fitted))
        if tried is None or fitted < tried:
            cap.n_examples, cap.streak = fitted, 0
        elif cap.streak < _STREAK:
            cap.streak += 1
        else:
            cap.n_examples, cap.streak = 2 * cap.n_examples, 0
            if cap.n_examples > _ENOUGH:
                del self._caps[kind]
