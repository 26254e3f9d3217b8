"""Prefect, and torch's threads, as runs use them, so that nobody has to set anything by hand.

`prepare` must run before the first `import prefect`. It only fills in what the user left open: no
telemetry, no log lines in the terminal, no extra files. `prefect_server` then gives a run its
server: the user's own where `PREFECT_API_URL` or the active profile names one, else a private one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CLIENT_SETTINGS = {
    "OMP_WAIT_POLICY": "PASSIVE",  # torch's threads must not spin on cores that others need
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_SETTINGS_PATH": str(Path(__file__).with_name("prefect_logging.yaml")),
    "PREFECT_LOGGING_COLORS": "false",
}
# A synchronous flow waits a second for its heartbeat to end.
_WITHOUT_HEARTBEAT: dict[str, object] = {"flows.heartbeat_frequency": None}
_LAST_WORDS_SECONDS = 10.0


def prepare() -> None:
    """Fill in Prefect's settings in the environment, where the user left them open."""
    for key, value in _CLIENT_SETTINGS.items():
        os.environ.setdefault(key, value)
    if not _profiles().is_file():  # who has no profile needs no directory of Prefect's either
        os.environ.setdefault("PREFECT_HOME", str(cache_directory() / "prefect"))
        with suppress(OSError):  # Prefect makes its directory, but not those above it
            cache_directory().mkdir(parents=True, exist_ok=True)


def cache_directory() -> Path:
    """Where this project keeps what it can make again, for this user."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "circuit-grid"


def own_server() -> str | None:
    """Where the user keeps a Prefect server that runs should appear in; None for no such server."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    if not _profiles().is_file():
        return None
    from prefect.settings import PREFECT_API_URL

    return str(PREFECT_API_URL.value() or "") or None


def has_own_server() -> bool:
    """Whether the user keeps a Prefect server that runs should appear in."""
    return own_server() is not None


def _profiles() -> Path:
    home = os.environ.get("PREFECT_HOME") or os.path.expanduser("~/.prefect")
    return Path(os.environ.get("PREFECT_PROFILES_PATH") or Path(home) / "profiles.toml")


@contextmanager
def prefect_server() -> Iterator[None]:
    """Run Prefect flows inside: on the user's own server, or on a private one that ends with it.

    ServerError where the one does not answer, or the other does not start.
    """
    from prefect.settings import temporary_settings

    from flows.server import PrivateServer

    if has_own_server():
        _check_own_server()
        with temporary_settings(_WITHOUT_HEARTBEAT):
            yield
        return
    server = PrivateServer()
    try:
        server.wait()
        mine = {"api.url": server.api_url, "logging.to_api.enabled": False}
        with temporary_settings(_WITHOUT_HEARTBEAT | mine):
            try:
                yield
            finally:
                _hand_in_events()
    finally:
        server.stop()


def _check_own_server() -> None:
    """ServerError if nothing answers where the user says that there is a server."""
    from flows.server import ServerError, is_reachable

    url = own_server()
    if not is_reachable(str(url)):
        raise ServerError(
            f"nothing answers at {url}, where PREFECT_API_URL says that your Prefect server is: "
            f"start it (`prefect server start`), or unset PREFECT_API_URL to do without"
        )


def _hand_in_events() -> None:
    """Wait until Prefect has told the server what happened; it would wait for ever afterwards."""
    from prefect.events.worker import EventsWorker

    EventsWorker.drain_all(timeout=_LAST_WORDS_SECONDS)
