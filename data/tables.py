"""The store as Arrow tables: what the catalog's views are built on, and nothing beside it.

Each kind becomes one lazy dataset over the Parquet files of its complete artifacts; what the store
notes beside them (provenance, failures, grids, damage) becomes small tables in memory.
"""

import json
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.dataset as ds

from data.artifact import Artifact
from data.schema import TABLES, Table, companions
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
    | {"key": _TEXT}
)
_DAMAGE = pa.schema({"path": _TEXT, "reason": _TEXT})


def stored_tables(store: Store) -> dict[str, pa.Table | ds.Dataset]:
    """All there is in a store now, by the names the views use: `stored_<kind>` and four more."""
    complete = complete_artifacts(store)
    tables: dict[str, pa.Table | ds.Dataset] = {
        f"stored_{kind}": _dataset(store, TABLES[kind], artifacts)
        for kind, artifacts in complete.items()
    }
    described = [_row(artifact) for artifacts in complete.values() for artifact in artifacts]
    failures = [vars(failure) for failure in store.failures()]
    planned = [
        {"grid": name, "position": position, **vars(stage)}
        for name, stages in store.grids().items()
        for position, stage in enumerate(stages)
    ]
    damage = [vars(one) for one in store.damaged]
    tables["stored_artifacts"] = pa.Table.from_pylist(described, _ARTIFACTS)
    tables["stored_failures"] = pa.Table.from_pylist(failures, _FAILURES)
    tables["stored_grids"] = pa.Table.from_pylist(planned, _GRIDS)
    tables["stored_damage"] = pa.Table.from_pylist(damage, _DAMAGE)
    return tables


def complete_artifacts(store: Store) -> dict[str, list[Artifact]]:
    """The intact artifacts of each kind whose primary and companions are all intact too."""
    intact = {kind: {one.key: one for one in store.artifacts(kind)} for kind in TABLES}
    complete = {}
    for kind, table in TABLES.items():
        primary = table.companion_of or kind
        group = (primary, *companions(primary))
        keys = set.intersection(*(set(intact[one]) for one in group))
        complete[kind] = [intact[kind][key] for key in sorted(keys)]
    return complete


def _dataset(store: Store, table: Table, artifacts: Iterable[Artifact]) -> pa.Table | ds.Dataset:
    """One lazy dataset over the files of artifacts; an empty table where there are none."""
    paths = [store.path(table.name, artifact.key) for artifact in artifacts]
    if not paths:
        return table.schema.empty_table()
    text = pa.dictionary(pa.int32(), pa.string())
    fields = [
        field.with_type(text) if field.name in table.text_columns else field
        for field in table.schema
    ]
    options = ds.ParquetReadOptions(dictionary_columns=set(table.text_columns))
    return ds.FileSystemDataset.from_paths(
        paths,
        schema=pa.schema(fields),
        format=ds.ParquetFileFormat(read_options=options),
        filesystem=store.location.filesystem,
    )


def _row(artifact: Artifact) -> dict[str, object]:
    """An artifact with its provenance in columns; what provenance does not say is null."""
    said = artifact.provenance
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
