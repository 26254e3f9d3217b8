"""Names for tasks, metrics and label rules; plug-ins add theirs through an entry point.

A package offers its own by the entry point group ``circuit_grid.tasks``, each entry naming a
module whose import registers them; in a script or a notebook the decorator alone is enough.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from tasks.task import Pair, Task, TaskError

ENTRY_POINTS = "circuit_grid.tasks"

Entry = TypeVar("Entry")
Pairs = Callable[[], Sequence[Pair | None]]


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the name nearest to a wrong one, or nothing."""
    names = list(names)
    folded = {candidate.lower().replace("_", "-"): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower().replace("_", "-"), folded, n=1, cutoff=0.5)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""


@cache
def _load_plugins() -> None:
    for entry_point in entry_points(group=ENTRY_POINTS):
        try:
            entry_point.load()
        except Exception as error:
            raise TaskError(
                f"the plug-in {entry_point.name!r} ({entry_point.value}) of the entry point group "
                f"{ENTRY_POINTS!r} does not load: {type(error).__name__}: {error}"
            ) from error


class Registry(Generic[Entry]):
    """Entries of one kind by name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        self._origins: dict[str, tuple[str, str]] = {}

    def add(self, name: str, entry: Entry, function: Callable[..., object]) -> None:
        """Register an entry; the function that declares it may do so again, another may not.

        Raises TaskError if the name is taken by another function.
        """
        origin = (function.__module__, function.__qualname__)
        if self._origins.get(name, origin) != origin:
            raise TaskError(
                f"the {self.kind} {name!r} is already registered by "
                f"{'.'.join(self._origins[name])}; give {'.'.join(origin)} another name"
            )
        self._entries[name] = entry
        self._origins[name] = origin

    def get(self, name: str) -> Entry:
        """Return the entry of a name; TaskError with the nearest name if there is none."""
        if name not in self._entries:
            _load_plugins()
        if name not in self._entries:
            names = self.names()
            raise TaskError(
                f"there is no {self.kind} {name!r}{nearest(name, names)} "
                f"(the {self.kind}s are {', '.join(names)})"
            )
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        """All names, those of plug-ins included, in alphabetical order."""
        _load_plugins()
        return tuple(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        if name not in self._entries:
            _load_plugins()
        return name in self._entries


TASKS: Registry[Task] = Registry("task")


def task(name: str, metric: str = "logit-diff") -> Callable[[Pairs], Pairs]:
    """Register a function without arguments, returning a sequence of pairs, as a task.

    The first line of its docstring describes the task. Raises TaskError if the name is taken.
    """

    def register(pairs: Pairs) -> Pairs:
        description = (pairs.__doc__ or "").strip().partition("\n")[0]
        TASKS.add(name, Task(name, metric, pairs, description), pairs)
        return pairs

    return register


def get_task(name: str) -> Task:
    """Return a task by name; TaskError with the nearest name if there is none."""
    return TASKS.get(name)


def task_names() -> tuple[str, ...]:
    """Return the names of all tasks, those of plug-ins included, in alphabetical order."""
    return TASKS.names()
