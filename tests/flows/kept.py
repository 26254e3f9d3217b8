"""A Prefect server as people keep one, with its scheduler on, that can go away and come back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from flows.server import _template
from tests.flows.ports import free_port

PATIENCE = 240.0


class KeptServer:
    """A server with its database in a directory; making one starts it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        if _template().exists():  # else it takes a while to make one
            shutil.copyfile(_template(), home / "prefect.db")
        self.start()

    def start(self) -> None:
        """Start it, at the address that it had; returns when it answers."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        environment |= {
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui"]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, f"--port={self.port}"],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_for(self.answers, "server")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill it; its database stays."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def answers(self) -> bool:
        try:
            answer = httpx.get(f"{self.url}/health", timeout=5, trust_env=False)
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    def post(self, path: str, **body: Any) -> Any:
        answer = httpx.post(f"{self.url}/{path}", json=body, timeout=120, trust_env=False)
        answer.raise_for_status()
        return answer.json()

    def runs(self) -> list[dict[str, Any]]:
        """The scheduled runs that have started, in order."""
        found = self.post("flow_runs/filter", flows={"name": {"any_": ["scheduled-grid"]}})
        found = [one for one in found if one["deployment_id"] and one["start_time"]]
        begun = [one for one in found if one["state_type"] != "CANCELLED"]
        return sorted(begun, key=lambda one: str(one["start_time"]))

    def deployment(self) -> dict[str, Any]:
        (found,) = self.post("deployments/filter", deployments={"name": {"any_": ["nightly"]}})
        return dict(found)


def wait_for(condition: Callable[[], Any], what: str) -> None:
    """Return once a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still no {what}"
        time.sleep(0.2)


def finished(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in runs if one["state_type"] in ("COMPLETED", "FAILED", "CRASHED")]
