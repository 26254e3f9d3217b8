"""Names for things that people add to: attribution methods and quadrature rules."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries by name; asking for an unknown name says which valid one is nearest."""

    def __init__(self, what: str, error: type[Exception]) -> None:
        self.what = what
        self.error = error
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that enters what it decorates under `name`."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise self.error(f"there are two entries for the {self.what} {name!r}")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        if isinstance(name, str) and name in self._entries:
            return self._entries[name]
        name = str(name)
        begun = [known for known in self if known.lower() == name.lower()]
        begun = begun or [known for known in self if known.lower().startswith(f"{name.lower()}-")]
        near = begun or difflib.get_close_matches(name, self._entries, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(self)}"
        raise self.error(f"there is no {self.what} {name!r}: {hint}")

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def names(self) -> tuple[str, ...]:
        """Every valid name."""
        return tuple(self._entries)
