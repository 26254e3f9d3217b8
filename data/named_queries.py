"""Named queries: SQL files that a person can read, copy and change.

A file's first comment line says what the query answers. A line `-- $name: meaning` declares a
parameter that must be given, `-- $name = value: meaning` one with a default (`null` for none).
Every value may be given as text: the queries cast what is a number.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files

from data.errors import StoreError

_PARAMETER = re.compile(r"-- \$(?P<name>\w+)(?: = (?P<default>.+?))?: (?P<meaning>.+)")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a named query: `default` counts only if not `required`."""

    name: str
    meaning: str
    required: bool
    default: str | None


@dataclass(frozen=True)
class NamedQuery:
    """A query by name: what it answers, its SQL, its parameters in order."""

    name: str
    description: str
    sql: str
    parameters: tuple[Parameter, ...]

    @classmethod
    def parse(cls, name: str, sql: str) -> "NamedQuery":
        """The query in a file's text."""
        description, *others = sql.splitlines()
        found = (_PARAMETER.fullmatch(line) for line in others)
        parameters = tuple(_parameter(match) for match in found if match)
        return cls(name, description.removeprefix("-- "), sql, parameters)

    def bind(self, given: Mapping[str, object]) -> dict[str, object]:
        """The values given, and the defaults of the others."""
        values = {one.name: one.default for one in self.parameters if not one.required}
        return values | dict(given)


def named_queries() -> dict[str, NamedQuery]:
    """All queries that ship with the project, by name."""
    folder = files("data").joinpath("queries")
    paths = sorted((path for path in folder.iterdir()), key=lambda path: path.name)
    found = (
        NamedQuery.parse(path.name.removesuffix(".sql"), path.read_text(encoding="utf-8"))
        for path in paths
        if path.name.endswith(".sql")
    )
    return {query.name: query for query in found}


def check_parameters(expected: Iterable[str], given: Iterable[str]) -> None:
    """StoreError unless exactly the expected parameters are given."""
    wanted, here = set(expected), set(given)
    if missing := sorted(wanted - here):
        raise StoreError(f"The query needs a value for ${missing[0]}: give {missing[0]}=VALUE.")
    if unknown := sorted(here - wanted):
        takes = ", ".join(f"${name}" for name in sorted(wanted)) or "none"
        raise StoreError(f"The query has no parameter ${unknown[0]}; its parameters are: {takes}.")


def _parameter(match: re.Match[str]) -> Parameter:
    """A declared parameter."""
    default = match["default"]
    return Parameter(
        match["name"], match["meaning"], default is None, None if default == "null" else default
    )
