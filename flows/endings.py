"""How a command ends: what goes wrong as a sentence and an exit code, signals heard for sure.

A user's mistake ends with 2, a fault of this project's with 1 and a file to report, SIGINT with
130, SIGTERM with 143. Nothing heavy is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

_SECONDS_TO_END = 5.0
_INTERRUPTED = "interrupted: what is finished is kept, and the next run goes on from there"
_OUR_ERRORS = {
    "flows.errors": "GridError",
    "flows.server": "ServerError",
    "data.errors": "StoreError",
    "circuits.errors": "CircuitError",
    "tasks.task": "TaskError",
}


@contextmanager
def plainly(interrupted: str = _INTERRUPTED) -> Iterator[None]:
    """Turn what goes wrong inside into a sentence and an exit code, and other libraries' talk off.

    `interrupted` is what is said of an interruption.
    """
    from flows.quiet import silence_libraries

    silence_libraries()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    except typer.Exit:  # it is a RuntimeError
        raise
    except KeyboardInterrupt as error:
        _end_by(signal.SIGTERM if error.args == (signal.SIGTERM,) else signal.SIGINT, interrupted)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except Exception as error:  # the last boundary: what nobody foresaw becomes a file to report
        from flows.wrapping import complain

        if isinstance(error, _our_errors()):
            complain(str(error))
            raise typer.Exit(2) from None
        complain(f"a fault of circuit-grid: {type(error).__name__}: {error}")
        complain(f"the whole story is in {_traceback_file(error)}; please report it")
        raise typer.Exit(1) from None


@contextmanager
def ending_for_sure() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM end the process within seconds, whatever becomes of them.

    An interruption is an exception, which may be lost where Python has no place for one, as in a
    `__del__`. So a thread is told of the signal itself, and ends what has not ended by then.
    """
    hears, tells = os.pipe()
    os.set_blocking(tells, False)
    before = signal.set_wakeup_fd(tells, warn_on_full_buffer=False)

    def watch() -> None:
        while True:
            (number,) = os.read(hears, 1)
            if number in (signal.SIGINT, signal.SIGTERM):
                time.sleep(_SECONDS_TO_END)
                if sys.stderr.isatty():
                    sys.stderr.write("\x1b[?25h\n")  # the cursor, which a live bar hides
                _end_by(number, _INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()
    sys.unraisablehook = say_of_lost
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sys.unraisablehook = sys.__unraisablehook__


def say_of_lost(what: sys.UnraisableHookArgs) -> None:
    """Say of an error that has no place, as Python does; of an interruption, nothing."""
    if what.exc_type.__name__ not in ("KeyboardInterrupt", "TerminationSignal"):
        sys.__unraisablehook__(what)


def leave(code: int) -> NoReturn:
    """End the process at once with an exit code, once what was printed is out.

    For when all is stored and closed: libraries that are left running, or interrupted in the middle
    of something, would wait, or talk about what they have left behind.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_by(number: int, sentence: str) -> NoReturn:
    """End an interrupted command with a sentence and the exit code that says by which signal."""
    from flows.wrapping import complain

    complain(sentence)
    leave(128 + number)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.SIGTERM)


def _our_errors() -> tuple[type[Exception], ...]:
    """The errors that speak to people, of the rooms that were entered."""
    loaded = [
        (sys.modules[room], name) for room, name in _OUR_ERRORS.items() if room in sys.modules
    ]
    return tuple(getattr(room, name) for room, name in loaded)


def _traceback_file(error: Exception) -> str:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="circuit-grid-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        traceback.print_exception(error, file=log)
    return log.name
