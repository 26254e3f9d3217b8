"""The heart of a process: one thread that tells others, for all its leases, that it still lives."""

import os
import threading
import time
from typing import Protocol


class Beating(Protocol):
    """What wants a beat every so many seconds, and sooner where the last one failed."""

    beat_every: float
    trouble: str | None

    def beat(self) -> bool:
        """Tell others; False once there is nothing more to tell."""


class Heart:
    """Calls `beat` of all that is kept, each in its own time; the thread ends with the process."""

    def __init__(self) -> None:
        self._due: dict[Beating, float] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def keep(self, lease: Beating) -> None:
        """Beat for a lease from now on."""
        with self._changed:
            self._due[lease] = time.monotonic() + lease.beat_every
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()
            self._changed.notify()

    def forget(self, lease: Beating) -> None:
        """Beat no more for a lease."""
        with self._changed:
            self._due.pop(lease, None)

    def _run(self) -> None:
        while True:
            lease = self._next()
            lives = lease.beat()
            pause = lease.beat_every / 5 if lease.trouble else lease.beat_every
            with self._changed:
                if lives and lease in self._due:
                    self._due[lease] = time.monotonic() + pause
                else:
                    self._due.pop(lease, None)

    def _next(self) -> Beating:
        """Wait for the lease whose beat is due."""
        with self._changed:
            while True:
                if not self._due:
                    self._changed.wait()
                    continue
                lease = min(self._due, key=lambda one: self._due[one])
                pause = self._due[lease] - time.monotonic()
                if pause <= 0:
                    return lease
                self._changed.wait(pause)


HEART = Heart()

if hasattr(os, "register_at_fork"):
    # a forked child has neither the thread nor any lease
    os.register_at_fork(after_in_child=HEART.__init__)  # type: ignore[misc]
