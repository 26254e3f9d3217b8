"""What a run leaves in the Prefect UI: its progress, its leaderboard, its failures, its pictures.

Prefect calls these artifacts; their keys begin with the grid's name. They are for a server that
somebody keeps: nobody looks at a private one. Each costs tens of milliseconds, so that progress is
told every few seconds at most. A run neither fails nor waits because one cannot be published: it is
logged, and a server that does not answer, for which Prefect would wait a minute each time, is asked
ever less often.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException

from circuits.errors import CircuitError
from data import Catalog, StoreError
from flows.drawings import draw_best
from flows.leaderboard import Row, rows_of_run
from flows.logs import LOGGER
from flows.server import ServerError, is_reachable
from flows.settings import has_own_server, own_server

if TYPE_CHECKING:
    from flows.run import Run

SECONDS_BETWEEN_UPDATES = 5.0
MOST_SECONDS_BETWEEN_UPDATES = 300.0  # to a server that does not answer
_SECONDS_TO_ANSWER = 2.0
MOST_PICTURES = 6
MOST_BYTES = 1_500_000  # of all pictures: they lie in the server's database

_MAY_FAIL = (ServerError, httpx.HTTPError, PrefectException, StoreError, CircuitError, OSError)
_COLUMNS = ("model", "task", "split", "label", "rule", "level", "metric", "evaluated_under")
_NUMBERS = ("cpr", "cpr_low", "cpr_high", "cmd", "cmd_low", "cmd_high", "seconds")


def announce(run: Run) -> Announcer:
    """What tells Prefect's server of a run, from within its flow."""
    return Announcer(run, has_own_server())


class Announcer:
    """Publishes a run's artifacts; silent where nobody keeps a server."""

    def __init__(self, run: Run, is_heard: bool) -> None:
        self.run = run
        self.is_heard = is_heard
        self._progress: UUID | None = None
        self._told = float("-inf")
        self._rest = SECONDS_BETWEEN_UPDATES

    def update(self, done: float, total: float) -> None:
        """Tell how much work of all is done, unless that was told a moment ago."""
        if self.is_heard and time.monotonic() - self._told >= self._rest:
            self._attempt("the progress", lambda: self._tell(100 * done / total if total else 100))

    def finish(self) -> None:
        """Publish what came of the run."""
        if not self.is_heard:
            return
        self._attempt("the progress", lambda: self._tell(100))
        self._attempt("the failures", self._publish_failures)
        self._attempt("the results", self._publish_results)

    def key(self, what: str) -> str:
        """The key of an artifact: lower-case letters, digits and dashes."""
        name = re.sub(r"[^a-z0-9]+", "-", self.run.config.name.lower()).strip("-")
        return f"{name}-{what}"

    def _tell(self, percent: float) -> None:
        if self._progress is None:
            what = f"How much of the work of grid {self.run.config.name} is done"
            found = create_progress_artifact(min(percent, 100.0), self.key("progress"), what)
            assert isinstance(found, UUID)
            self._progress = found
        else:
            update_progress_artifact(self._progress, min(percent, 100.0))

    def _publish_failures(self) -> None:
        failures = self.run.outcome.failures
        rows = [
            {"cell": one.turn.label, "stage": one.stage, "reason": one.sentence} for one in failures
        ]
        n = len(rows)
        said = f"{n} failed in grid {self.run.config.name}" if n else "Nothing failed."
        create_table_artifact(rows, self.key("failures"), said)

    def _publish_results(self) -> None:
        catalog = Catalog(self.run.bench.store)
        rows = rows_of_run(catalog, self.run.outcome.products.values())
        create_table_artifact(
            [_shown(row) for row in rows],
            self.key("leaderboard"),
            "CPR (more is better) and CMD (less is better) of every method, best first",
        )
        self._attempt("the pictures", lambda: self._publish_pictures(catalog, rows))

    def _publish_pictures(self, catalog: Catalog, rows: list[Row]) -> None:
        paths = draw_best(catalog, rows, self.run.folder("drawings"))
        lines = [f"# Circuits of grid {self.run.config.name}", *_pictures(paths)]
        where = self.run.bench.store.location.name
        lines += [f"All results lie in the store `{where}`; ask them by", ""]
        lines += [f"    circuit-grid query leaderboard --store {where}"]
        create_markdown_artifact("\n\n".join(lines), self.key("circuits"), "The best circuits")

    def _attempt(self, what: str, publish: Callable[[], None]) -> None:
        """Publish something; if that cannot be, log it."""
        self._told = time.monotonic()
        try:
            if not is_reachable(str(own_server()), _SECONDS_TO_ANSWER):
                raise ServerError("it does not answer")
            publish()
        except _MAY_FAIL as error:
            LOGGER.warning("%s cannot be published on the Prefect server: %s", what, error)
            self._rest = min(2 * self._rest, MOST_SECONDS_BETWEEN_UPDATES)
        else:
            self._rest = SECONDS_BETWEEN_UPDATES
        self._told = time.monotonic()


def _shown(row: Row) -> dict[str, Any]:
    """A row of the leaderboard as people see it: three digits will do."""
    words = {name: row[name] for name in _COLUMNS}
    return words | {n: None if row[n] is None else round(row[n], 3) for n in _NUMBERS}


def _pictures(paths: list[Path]) -> Iterator[str]:
    """Markdown with the pictures in it, as many as there is room for, and where the others are."""
    room = MOST_BYTES
    for path in paths[:MOST_PICTURES]:
        content = path.read_bytes()
        room -= len(content)
        if room < 0:
            break
        yield f"## {path.stem}"
        yield f"![{path.stem}](data:image/svg+xml;base64,{base64.b64encode(content).decode()})"
        yield f"`{path}`"
    if paths:
        yield f"{len(paths)} pictures are in `{paths[0].parent}`."
