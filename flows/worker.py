"""A worker: a process of its own that does stages, so that whatever befalls one can be survived.

It is started when it is first needed, keeps its models from stage to stage, and ends with the
process that started it, however that ends. A stage that hangs is ended by killing its worker; one
that the system kills for its memory takes nobody with it. Executed as a module, this file *is* the
worker: orders come in and results go out over one socket.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from typing import IO, TYPE_CHECKING

from data.processes import ending
from flows.errors import StageError, WorkerDiedError

if TYPE_CHECKING:
    from flows.runner import Done, Order

_LAST_WORDS = 300  # characters
_SECONDS_TO_DIE = 5.0


class Worker:
    """The owner's end of a worker process; one order at a time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._socket: socket.socket | None = None
        self._closed = False
        self._talk: IO[bytes] | None = None
        self._busy_since: float | None = None
        self._is_ready = False
        self._turn = threading.Lock()

    @property
    def pid(self) -> int | None:
        """The process, if one is running."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def seconds(self) -> float:
        """For how long it has been at its present order; the time to start is not counted.

        Nor is what it takes to import what the order is carried out with.
        """
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def do(self, order: Order) -> Done | None:
        """Have a stage done; None where another process has its lease.

        Raises StageError as `flows.doing.carry_out`, WorkerDiedError if the process ends before it
        answers.
        """
        with self._turn:
            if self._closed:
                raise WorkerDiedError("the run is ending")
            if self.pid is None:
                self._start()
            if self._closed:  # meanwhile
                self.kill()
            process, connection = self._process, self._connection
            assert process is not None
            assert connection is not None
            try:
                if not self._is_ready:
                    connection.recv()
                    self._is_ready = True
                connection.send(order)
                connection.recv()  # what it takes is imported
                self._busy_since = time.monotonic()
                answer: Done | StageError | None = connection.recv()
            except (EOFError, OSError):
                raise WorkerDiedError(self._obituary(process)) from None
            finally:
                self._busy_since = None
        if isinstance(answer, StageError):
            raise answer
        return answer

    def kill(self) -> None:
        """End the process at once; the next order starts another. Works in the middle of one.

        One that the system cannot end (it hangs in a driver, or on a file server) is given up.
        """
        process, socket_ = self._process, self._socket
        if process is None or socket_ is None or process.poll() is not None:
            return
        process.kill()
        try:
            process.wait(_SECONDS_TO_DIE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                socket_.shutdown(socket.SHUT_RDWR)  # whoever waits for its answer need not
            self._process = None

    def close(self) -> None:
        """Kill it for good: further orders are refused."""
        self._closed = True
        self.kill()

    def _start(self) -> None:
        if self._connection is not None and self._socket is not None:
            self._connection.close()
            self._socket.close()
        mine, theirs = socket.socketpair()
        self._talk = tempfile.TemporaryFile()  # noqa: SIM115 - what it says is read when it died
        command = [sys.executable, "-P", "-m", "flows.worker", str(theirs.fileno()), self.name]
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._talk,
            stderr=self._talk,
            start_new_session=True,  # a Ctrl-C in the terminal is for the owner to answer
        )
        theirs.close()
        self._is_ready = False
        self._socket = mine.dup()
        self._connection = Connection(mine.detach())

    def _obituary(self, process: subprocess.Popen[bytes]) -> str:
        """How the process ended, and the last that it said."""
        try:
            code = process.wait(_SECONDS_TO_DIE)
        except subprocess.TimeoutExpired:
            return "the process that did it cannot be ended by the system, and was given up"
        how = ending(code)
        if code == -signal.SIGKILL:
            how += ", as the system does where memory runs out"
        assert self._talk is not None
        size = self._talk.seek(0, os.SEEK_END)
        self._talk.seek(max(0, size - _LAST_WORDS))
        lines = self._talk.read().decode(errors="replace").strip().splitlines()
        said = f": {lines[-1]}" if lines else ""
        return f"the process that did it {how}{said}"


def serve(descriptor: int, name: str) -> None:
    """Do orders until the owner is gone; then end at once, whatever is being done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()

    def listen() -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                orders.put(connection.recv())
        os._exit(0)  # the owner is gone, and nobody waits for what is being done

    threading.Thread(target=listen, daemon=True).start()
    from flows.doing import carry_out
    from flows.quiet import silence_libraries
    from flows.runner import HOST

    silence_libraries()
    if name != HOST:
        import transformer_lens.model_bridge  # noqa: F401

    connection.send("ready")
    while True:
        order = orders.get()
        with contextlib.suppress(Exception):  # who carries it out meets it again, and tells
            order.stage.prepare()
        connection.send("ready")
        answer: Done | StageError | None
        try:
            answer = carry_out(order, in_worker=True)
        except StageError as error:
            answer = error.with_traceback(None)
        connection.send(answer)
        del answer, order  # what a failure held must not outlive it


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
