"""The store as Arrow tables: what the catalog's views are built on, and nothing beside it.

Each kind becomes one lazy dataset over the rows of its complete artifacts (see data/segments.py);
what the store notes beside them (provenance, failures, grids, damage) becomes tables in memory.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain

import pyarrow as pa
import pyarrow.dataset as ds

from data.artifact import Artifact, Damage
from data.ledger import UnreadableNote
from data.schema import TABLES, companions
from data.segments import dataset
from data.store import Store

_ARTIFACTS = pa.schema(
    [
        ("kind", pa.string()),
        ("key", pa.string()),
        ("digest", pa.string()),
        ("n_rows", pa.int64()),
        ("stage", pa.string()),
        ("cell", pa.string()),
        ("seconds", pa.float64()),
        ("peak_bytes", pa.int64()),
        ("device", pa.string()),
        ("dtype", pa.string()),
        ("parts", pa.list_(pa.string())),
        ("versions", pa.string()),
        ("finished_at", pa.string()),
    ]
)
_TEXT = pa.string()
_FAILURES = pa.schema(dict.fromkeys(("key", "stage", "cell", "sentence", "time"), _TEXT))
_GRIDS = pa.schema(
    {"grid": _TEXT, "position": pa.int64(), "stage": _TEXT, "cell": _TEXT, "kind": _TEXT}
    | {"key": _TEXT, "place": _TEXT, "weight": pa.float64(), "former": pa.list_(_TEXT)}
)
_OF_STAGE = ("stage", "cell", "kind", "key", "place", "weight", "former")
_LEASES = pa.schema({"key": _TEXT, "host": _TEXT, "pid": pa.int64(), "since": _TEXT})
_STALE = pa.schema({"key": _TEXT})
_DAMAGE = pa.schema({"path": _TEXT, "reason": _TEXT})


@dataclass(frozen=True)
class Stored:
    """A table of what a store holds: its columns, and its rows once somebody asks for them."""

    schema: pa.Schema
    rows: Callable[[], pa.Table | ds.Dataset]


def stored_tables(store: Store) -> dict[str, Stored]:
    """All there is in a store now, by the names the views use: `stored_<kind>` and a few more."""
    complete = complete_artifacts(store)
    tables = {
        f"stored_{kind}": Stored(TABLES[kind].schema, partial(dataset, store, TABLES[kind], found))
        for kind, found in complete.items()
    }
    tables["stored_artifacts"] = Stored(_ARTIFACTS, partial(_described, complete))
    noted = {
        "stored_failures": (_FAILURES, [vars(failure) for failure in store.failures()]),
        "stored_grids": (_GRIDS, list(_planned(store))),
        "stored_leases": (_LEASES, list(_leased(store))),
        "stored_stale": (_STALE, [{"key": key} for key in sorted(_stale(store))]),
        "stored_damage": (_DAMAGE, list(_damaged(store))),
    }
    for name, (schema, rows) in noted.items():
        tables[name] = Stored(schema, partial(pa.Table.from_pylist, rows, schema))
    return tables


def _planned(store: Store) -> Iterator[dict[str, object]]:
    """The stages of all grids, each with its place in its grid."""
    for name, stages in store.grids().items():
        for position, stage in enumerate(stages):
            columns = {column: getattr(stage, column) for column in _OF_STAGE}
            yield {"grid": name, "position": position, **columns}


def _leased(store: Store) -> Iterator[dict[str, object]]:
    """The live leases."""
    for lease in store.leases():
        yield {name: getattr(lease, name) for name in _LEASES.names}


def _damaged(store: Store) -> Iterator[dict[str, object]]:
    """The files that count as missing, artifacts and notes of grids."""
    files: Iterable[Damage | UnreadableNote] = chain(store.damaged, store.noted_grids().unreadable)
    for one in files:
        yield {"path": one.path, "reason": one.reason}


def _stale(store: Store) -> set[str]:
    """The keys of what was made from inputs that have changed since, and that no grid needs."""
    notes = store.grid_notes().values()
    stale = {key for note in notes for key in note.stale}
    return stale - {key for note in notes for key in note.needed}


def _described(complete: Mapping[str, Iterable[Artifact]]) -> pa.Table:
    """All artifacts with their provenance in columns."""
    columns: dict[str, list[object]] = {name: [] for name in _ARTIFACTS.names}
    for artifacts in complete.values():
        for artifact in artifacts:
            for name, value in _row(artifact).items():
                columns[name].append(value)
    return pa.table(columns, _ARTIFACTS)


def complete_artifacts(store: Store) -> dict[str, list[Artifact]]:
    """The intact artifacts of each kind whose primary and companions are all intact too."""
    intact = {kind: {one.key: one for one in store.artifacts(kind)} for kind in TABLES}
    complete = {}
    for kind, table in TABLES.items():
        primary = table.companion_of or kind
        group = (primary, *companions(primary))
        keys = set.intersection(*(set(intact[one]) for one in group))
        complete[kind] = [intact[kind][key] for key in sorted(keys)]
    store.save_index()
    return complete


def _row(artifact: Artifact) -> dict[str, object]:
    """An artifact with its provenance in columns; what provenance does not say is null."""
    said = dict(artifact.provenance)
    parts, versions = said.get("parts"), said.get("versions")
    peak = said.get("peak_bytes")
    return {
        "kind": artifact.kind,
        "key": artifact.key,
        "digest": artifact.digest,
        "n_rows": artifact.rows,
        "seconds": _number(said, "seconds"),
        "peak_bytes": int(peak) if isinstance(peak, int | float) else None,
        "parts": [str(part) for part in parts] if isinstance(parts, list) else [],
        "versions": json.dumps(versions, sort_keys=True) if versions else None,
        **{name: _text(said, name) for name in ("stage", "cell", "device", "dtype", "finished_at")},
    }


def _number(said: Mapping[str, object], name: str) -> float | None:
    """A number in a provenance, if there is one."""
    value = said.get(name)
    return float(value) if isinstance(value, int | float) else None


def _text(said: Mapping[str, object], name: str) -> str | None:
    """A text in a provenance, if there is one."""
    value = said.get(name)
    return value if isinstance(value, str) else None
