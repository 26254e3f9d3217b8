"""How much runs at a time where memory does not hold what the budget allows.

A budget is a plan, and plans err: another process takes memory, a library takes more than it says.
Work that met the end of memory is tried again inside `at_most`, with fewer examples:

    with at_most(n) as cap:
        ...                       # what batches examples batches at most n of them
    cap.half                      # what to try where that failed; None where nothing less is left

What is put together beside examples (copies of a batch, circuits side by side) shrinks with them,
in proportion; at one example, everything else goes one at a time too. No result changes by more
than rounding. Nothing here imports torch.
"""

from __future__ import annotations

import errno
import gc
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_TEXTS = (  # of RuntimeErrors, in lower case
    "out of memory",  # CUDA, MPS, XPU: torch's allocators and the drivers
    "can't allocate memory",  # torch's allocator on the CPU: Linux, macOS
    "not enough memory",  # the same on Windows
    "cannot allocate memory",  # the system, through C libraries
    "status_alloc_failed",  # cuBLAS, cuDNN, cuSPARSE
    "cublas_status_not_initialized",  # cuBLAS without room for its workspace
    "std::bad_alloc",  # C++
    "could not create a primitive",  # oneDNN, without room for its buffers
    "could not create a memory",
)


@dataclass
class AtMost:
    """A cap on how many examples run together (None: as many as the budget holds).

    `largest` is how many there were in the largest batch made so far, and `latest` how many there
    may be in those that are being made; 0 before any.
    """

    n_examples: int | None
    largest: int = 0
    latest: int = 0

    def allow(self, n: int) -> int:
        """How many examples may run together where a plan would put `n` together; noted."""
        self.latest = n if self.n_examples is None else min(n, self.n_examples)
        return self.latest

    @property
    def half(self) -> int | None:
        """The cap to try where memory did not hold this; None where it was 1, or nothing batched.

        A single example without a cap is tried once more under a cap of 1, where nothing runs
        beside it.
        """
        if self.latest == 0 or self.n_examples == 1:
            return None
        return max(1, self.latest // 2)


_CAP: ContextVar[AtMost | None] = ContextVar("at_most", default=None)


@contextmanager
def at_most(n_examples: int | None) -> Iterator[AtMost]:
    """Let no more than so many examples run together inside, whatever the budget says.

    None caps nothing and still notes the largest batch. ValueError for fewer than 1. A cap inside
    another does not lift it: the smaller holds.
    """
    if n_examples is not None and n_examples < 1:
        raise ValueError(f"at least 1 example runs at a time, not {n_examples}")
    outer = _CAP.get()
    asked = (n_examples, None if outer is None else outer.n_examples)
    cap = AtMost(min((n for n in asked if n is not None), default=None))
    token = _CAP.set(cap)
    try:
        yield cap
    finally:
        _CAP.reset(token)
        if outer is not None:
            outer.largest = max(outer.largest, cap.largest)


def cap_at_hand() -> AtMost:
    """The innermost cap around the caller; one that caps nothing where there is none."""
    return _CAP.get() or AtMost(None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says that memory was not enough.

    On the CPU or on an accelerator, whichever library says so.
    """
    link: BaseException | None = error
    while link is not None:
        if _says_so(link):
            return True
        link = link.__cause__
    return False


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError):  # Python, numpy, pyarrow
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


def let_go(error: BaseException) -> None:
    """Free what a failed attempt still holds: the variables of the frames that its error names.

    The error loses its traceback, as does every error that it came of.
    """
    waiting: list[BaseException | None] = [error]
    met: set[int] = set()
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in met:
            continue
        met.add(id(link))
        traceback.clear_frames(link.__traceback__)
        link.__traceback__ = None
        waiting += [link.__cause__, link.__context__]
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
