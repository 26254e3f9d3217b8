"""A private Prefect server for one run: starts fast, dies with the run, leaves nothing behind.

Prefect needs a server to record a flow in. People who keep one name it in `PREFECT_API_URL`; for
everyone else this module starts one on a free local port, with its database in a directory of its
own, so that runs at the same time do not share a file. Executed as a script, this file *is* that
server's process: it watches the process that started it, and if that one dies, by whatever signal,
it removes its directory and ends within a second.

Making an empty database takes Prefect 10 to 20 seconds, so the first server keeps a copy of its
own, without a run in it, in the user's cache directory; later servers begin with that copy.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

STARTUP_SECONDS = 180.0
_DATABASE = "prefect.db"
_LOG = "server.log"

SERVER_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_UI_ENABLED": "false",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    # With the defaults most task runs are lost when the run ends.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # Nobody schedules, watches or looks back at a server that lives as long as one run.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
    "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_ROOT_LEVEL": "CRITICAL",
}


class ServerError(RuntimeError):
    """The private server did not start."""


class PrivateServer:
    """A Prefect server of this process; making one starts it, `wait` returns when it is up."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="circuit-grid-prefect-"))
        listener = _bound()  # nobody takes the port before the server is up
        self.port = int(listener.getsockname()[1])
        self.api_url = f"http://127.0.0.1:{self.port}/api"
        self._fresh = not _copy_template(self.home)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        environment |= SERVER_SETTINGS | {
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self.home / _DATABASE}",
        }
        descriptor = listener.fileno()
        command = [sys.executable, __file__, str(os.getpid()), str(descriptor), str(self.home)]
        with closing(listener), (self.home / _LOG).open("wb") as log:
            self._process = subprocess.Popen(
                command,
                pass_fds=[descriptor],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is for the run to answer
            )

    def wait(self, seconds: float = STARTUP_SECONDS) -> None:
        """Return once the server answers; ServerError if it ends or takes more than `seconds`."""
        deadline = time.monotonic() + seconds
        while not _answers(f"{self.api_url}/health"):
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                from data.processes import ending  # not for the script that this file is, too

                what = f"is silent for {seconds:.0f} s" if code is None else ending(code)
                lines = (self.home / _LOG).read_text(errors="replace").strip().splitlines()
                said = f": {lines[-1]}" if lines else ""
                self.stop()
                raise ServerError(
                    f"Prefect's private server {what}{said}; "
                    f"start one by `prefect server start` and set PREFECT_API_URL to use it"
                )
            time.sleep(0.1)
        if self._fresh:
            _keep_template(self.home)
            self._fresh = False

    def stop(self) -> None:
        """End the server and remove its directory; does nothing the second time."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def is_reachable(url: str, seconds: float = 20.0) -> bool:
    """Whether something answers at a URL within so many seconds, be it with an error."""
    try:
        urllib.request.urlopen(url, timeout=seconds).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _bound() -> socket.socket:
    """A socket with a port of this machine to itself, which answers once somebody listens."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as r:
            return r.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _template() -> Path:
    from flows.settings import cache_directory

    return cache_directory() / f"prefect-{version('prefect')}.db"


def _copy_template(home: Path) -> bool:
    try:
        shutil.copyfile(_template(), home / _DATABASE)
    except OSError:  # no template yet, or none to be read
        return False
    return True


def _keep_template(home: Path) -> None:
    """Keep a copy of the new, empty database; without one, starting takes longer, no more."""
    with suppress(OSError, sqlite3.Error):
        target = _template()
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
        os.close(handle)
        try:
            with (
                closing(sqlite3.connect(home / _DATABASE)) as source,
                closing(sqlite3.connect(name)) as copy,
            ):
                source.backup(copy)
            os.replace(name, target)
        finally:
            Path(name).unlink(missing_ok=True)


def _serve(parent: int, descriptor: int, home: Path) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        shutil.rmtree(home, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    import uvicorn

    app = "prefect.server.api.server:create_app"
    config = uvicorn.Config(app, factory=True, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    server.run(sockets=[socket.socket(fileno=descriptor)])
    if not server.started:
        sys.exit(1)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
