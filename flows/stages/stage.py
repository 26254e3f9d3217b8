"""What a stage is: a pure function of stored artifacts and parameters, with a key of its own.

A stage's *key* says all that its rows depend on and nothing else: its name and version, its
parameters, and the content digests of the artifacts it reads. Device, batch size, paths and times
are no part of it. While an upstream artifact is missing, the key is not known and is None. Raise a
stage's `version` whenever the same inputs should give other rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar

import pyarrow as pa

from data import Artifact, stage_key
from data.keys import canonical_json
from data.schema import table
from flows.identity import ModelIdentity
from flows.workbench import Workbench

Found = Mapping[str, Artifact]  # a finished stage: its artifacts by kind
Rows = Mapping[str, pa.Table]

_ALWAYS = ("pandas",)  # tables import it to be made of rows
_OF_FILES = {"model", "tokenizer", "content"}  # parameters that are digests of what files hold


@dataclass(frozen=True)
class Stage(ABC):
    """One piece of work; `scope` says for people what it is done for."""

    scope: str
    name: ClassVar[str]
    version: ClassVar[int] = 1
    kinds: ClassVar[tuple[str, ...]]  # the tables it writes, those that others belong to
    modules: ClassVar[tuple[str, ...]] = ()  # what it is built with and takes long to import

    @property
    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """What the rows depend on besides artifacts, as plain JSON values."""

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The content digests of the artifacts it reads; None for one that is missing."""
        return {}

    @property
    def runs(self) -> ModelIdentity | None:
        """The model that the work runs, if it runs one."""
        return None

    @property
    def parts(self) -> tuple[str, ...]:
        """Keys of artifacts whose time counts as this stage's."""
        return ()

    @property
    def label(self) -> str:
        """The stage for people, such as `shard 2 of 4`."""
        return self.name

    @cached_property
    def place(self) -> str:
        """What tells the stage from others of its grid, whatever the files it is made from hold.

        Models stand in it by name: with other weights, or another tokenizer, it is the same place.
        """
        models = [one.name for one in vars(self).values() if isinstance(one, ModelIdentity)]
        said = {name: value for name, value in self.parameters.items() if name not in _OF_FILES}
        return canonical_json([self.name, self.scope, self.label, models, said])

    @cached_property
    def key(self) -> str | None:
        """The stage's key; None while an upstream artifact is missing."""
        known = {name: digest for name, digest in self.upstream.items() if digest is not None}
        if len(known) < len(self.upstream):
            return None
        return stage_key(self.name, self.version, self.parameters, known)

    def prepare(self) -> None:
        """Import what it is built with: that takes seconds once a process, and is not its work."""
        for name in (*_ALWAYS, *self.modules):
            import_module(name)

    @abstractmethod
    def build(self, bench: Workbench) -> Rows:
        """Do the work: the rows of every table the stage writes."""


def digest(found: Found | None, kind: str) -> str | None:
    """The content digest of an artifact of a finished stage; None if the stage is not finished."""
    return None if found is None else found[kind].digest


def rows_of(kind: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table with the schema of its kind."""
    schema = table(kind).schema
    unknown = {name for row in rows for name in row} - set(schema.names)
    assert not unknown, f"{kind} has no column {', '.join(sorted(unknown))}"
    return pa.Table.from_pylist(rows, schema)
