"""What befalls files of a store while a run goes on, from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from data import Store
from flows.progress import Watcher
from flows.stages import Stage
from flows.walk import Turn


def damaged_by(how: str, path: Path) -> None:
    content = path.read_bytes()
    match how:
        case "deleted":
            path.unlink()
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "one bit flipped":
            middle = len(content) // 2
            path.write_bytes(
                content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            )


class Vandal(Watcher):
    """Damages what stages have just written, each so often; notes what is damaged, what is said.

    `ways` are by the name of the stage and the kind of the artifact.
    """

    def __init__(self, store: Path, ways: Mapping[tuple[str, str], str], times: int = 1) -> None:
        super().__init__()
        self.store, self.ways, self.times = store, ways, times
        self.damaged: list[tuple[str, str]] = []
        self.told: list[str] = []

    def stage_computed(self, turn: Turn, stage: Stage) -> None:
        super().stage_computed(turn, stage)
        for (name, kind), how in self.ways.items():
            if stage.name == name and sum(one == kind for one, _ in self.damaged) < self.times:
                assert stage.key is not None
                damaged_by(how, Path(Store.open(self.store).path(kind, stage.key)))
                self.damaged.append((kind, stage.key))

    def stage_retried(self, turn: Turn, stage: Stage, sentence: str, seconds: float) -> None:
        super().stage_retried(turn, stage, sentence, seconds)
        self.told.append(sentence)

    def waiting(self, what: str) -> None:
        super().waiting(what)
        self.told += [what] if "it is built again first." in what else []


class AtTheEnd(Watcher):
    """Does something once, when a turn of a label is over."""

    def __init__(self, label: str, act: Callable[[], None]) -> None:
        super().__init__()
        self.label, self.act, self.acted = label, act, 0

    def turn_ended(self, turn: Turn) -> None:
        super().turn_ended(turn)
        if turn.label == self.label and not self.acted:
            self.acted += 1
            self.act()
