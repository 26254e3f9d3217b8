"""Which process something belongs to, told so that another process, or another host, can ask of it.

A number alone names no process: numbers are used again, each host has its own, and so has each
container. So a process is its host, that host's current boot, its namespace of numbers, its number
and when it was started. Whether it still exists can be said only where all but the last two are
one's own.
"""

import os
import signal
import socket
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_GONE = ("Z", "X")  # states in /proc of a process that has ended and was not waited for


@dataclass(frozen=True)
class Process:
    """A process: its host, boot and namespace, its number there, and when it was started."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @property
    def can_be_asked_about(self) -> bool:
        """Whether it is one of this host, boot and namespace, so that its number says something."""
        here = this_process()
        return (self.host, self.boot, self.namespace) == (here.host, here.boot, here.namespace)

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended; False of one that cannot be asked about from here."""
        if not self.can_be_asked_about:
            return False
        state, started = _state_and_start(self.pid)
        return state in _GONE or started != self.started


def this_process() -> Process:
    """The process that asks."""
    return _process(os.getpid())


def ending(code: int) -> str:
    """How a process ended, as a predicate; `code` is as `subprocess` has it."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed ({signal.Signals(-code).name})"
    except ValueError:  # one of those without a name
        return f"was killed (signal {-code})"


@lru_cache(maxsize=1)
def _process(pid: int) -> Process:
    """A process of this host, boot and namespace."""
    boot = _text("/proc/sys/kernel/random/boot_id") or f"{uuid.getnode():012x}"
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return Process(socket.gethostname(), boot, namespace, pid, _state_and_start(pid)[1])


def _state_and_start(pid: int) -> tuple[str, str]:
    """The state of a process of this host and when it was started, in the system's own terms.

    State X where there is no such process; where the system does not tell, the start is empty.
    """
    if Path("/proc/self/stat").exists():
        # the name of the program, in parentheses, may hold anything
        fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return (fields[0], fields[19]) if fields else ("X", "")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "X", ""
    except PermissionError:
        return "S", ""
    return "S", ""


def _text(path: str) -> str:
    """What a file of the system says; nothing where there is no such file."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return ""
