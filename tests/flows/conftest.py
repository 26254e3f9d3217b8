"""One Prefect server and one small checkpoint for all tests of the flows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.config import GridConfig
from flows.grid import run_grid
from flows.progress import Watcher
from flows.reading import parse_grid
from flows.run import Run
from flows.server import PrivateServer
from flows.workbench import workbench
from tests.flows.checkpoints import grouped_speaker as write_grouped_speaker
from tests.flows.checkpoints import speaker as write_speaker

SMALL = """
name: small
models: [{model}]
tasks: [ioi]
methods: [EAP]
examples: {{train: 6, evaluate: 4}}
sizes: [0.1, 0.5, 1.0, 20]
shard_size: 2
"""


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateServer]:
    """A Prefect server that all runs, in this process and in others, find in the environment."""
    started = PrivateServer()
    settings = {"PREFECT_API_URL": started.api_url, "PREFECT_LOGGING_TO_API_ENABLED": "false"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        started.wait()
        yield started
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        started.stop()


@pytest.fixture(scope="session")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 of two layers and two heads that knows the words of ioi and sva alone."""
    return write_speaker(tmp_path_factory.mktemp("models") / "speaker", ("ioi", "sva"))


@pytest.fixture(scope="session")
def grouped_speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers whose four heads share two keys and values."""
    return write_grouped_speaker(tmp_path_factory.mktemp("models") / "grouped")


@pytest.fixture
def grid(speaker: Path) -> Callable[..., GridConfig]:
    """`grid("ioi", "sva", methods=…)`: a small grid with these keys in place of its own."""

    def parse(**changes: str) -> GridConfig:
        lines = SMALL.format(model=speaker).strip().splitlines()
        kept = [line for line in lines if line.split(":")[0] not in changes]
        text = "\n".join([*kept, *(f"{key}: {value}" for key, value in changes.items())])
        return parse_grid(text, "small.yaml", speaker.parent)

    return parse


@pytest.fixture
def run(server: PrivateServer) -> Callable[[GridConfig, Path], Run]:
    """Run a grid on a store as a new process would: nothing remembered, nothing loaded."""
    return run_afresh


def run_afresh(config: GridConfig, store: Path) -> Run:
    workbench.cache_clear()
    return run_grid(config, str(store), Watcher(), "inline")


def digests(store: Path) -> dict[tuple[str, str], str]:
    """The content digest of every artifact of a store, by kind and key."""
    from data import TABLES, Store

    opened = Store.open(store, create=False)
    return {(kind, one.key): one.digest for kind in TABLES for one in opened.artifacts(kind)}


def statuses(run: Run) -> dict[str, dict[str, int]]:
    """How many stages were computed and reused, by stage; those of which none was are left out."""
    found = {
        how: {name: run.outcome.count(how, name) for name in run.outcome.stage_names}
        for how in ("computed", "reused", "failed")
    }
    return {how: {k: n for k, n in counts.items() if n} for how, counts in found.items()}
