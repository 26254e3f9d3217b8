"""Stores of older versions, as their code wrote them: they open, and what still holds is used.

`stores/version_N.tar.gz` is what the last code of schema version N left of a small grid: EAP on
bundled/behaviours and ioi, two shards of two examples.
"""

import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from data import SCHEMA_VERSION, TABLES, Catalog, Store, StoreError, content_digest
from data.marker import version_of
from data.schema import since

STORES = Path(__file__).with_name("stores")
OLD = range(1, SCHEMA_VERSION)
USED = {
    1: {"datasets": 2, "examples": 2},
    2: {"datasets": 2, "examples": 2, "models": 1, "graphs": 1, "edges": 1, "nodes": 1,
        "shards": 2, "baselines": 1, "baseline_values": 1},
}  # fmt: skip


def unpacked(version: int, place: Path) -> Path:
    with tarfile.open(STORES / f"version_{version}.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return place


def marked(place: Path) -> int:
    return json.loads((place / "store.json").read_text())["schema_version"]


def files_in(place: Path) -> Counter[str]:
    return Counter(path.parts[-3] for path in place.rglob("??/*.parquet"))


def distinct_rows(store: Store, kind: str) -> set[str]:
    keys = (one.key for one in store.artifacts(kind) if store.complete(kind, one.key) is not None)
    return {repr(row) for key in keys for row in store.read(kind, key).to_pylist()}


def test_there_is_a_store_of_every_older_version() -> None:
    assert sorted(path.name for path in STORES.iterdir()) == [
        f"version_{version}.tar.gz" for version in OLD
    ]


@pytest.mark.parametrize("version", OLD)
def test_artifacts_whose_tables_are_the_same_are_used(version: int, tmp_path: Path) -> None:
    store = Store.open(unpacked(version, tmp_path))
    there = files_in(tmp_path)
    used = Counter({kind: len(list(store.artifacts(kind))) for kind in TABLES})
    assert +used == Counter(USED.get(version, there))
    for kind in used:
        for artifact in store.artifacts(kind):
            rows = store.read(kind, artifact.key)
            assert rows.schema.equals(TABLES[kind].schema)
            assert (content_digest(rows), rows.num_rows) == (artifact.digest, artifact.rows)
    assert store.damaged == []
    outdated = Counter(one.path.split("/")[0] for one in store.outdated)
    assert outdated == there - used
    assert all(f"version {version}" in one.reason for one in store.outdated)


@pytest.mark.parametrize("version", OLD)
def test_store_is_marked_once_it_is_opened_for_writing(version: int, tmp_path: Path) -> None:
    unpacked(version, tmp_path)
    Store.open(tmp_path, create=False)
    assert marked(tmp_path) == version == version_of(Store.open(tmp_path, create=False).location)
    Store.open(tmp_path)
    assert marked(tmp_path) == SCHEMA_VERSION
    assert Store.open(tmp_path, create=False).grids()


@pytest.mark.parametrize("version", OLD)
def test_everything_that_can_be_asked_is_answered(version: int, tmp_path: Path) -> None:
    store = Store.open(unpacked(version, tmp_path), create=False)
    catalog = Catalog(store)
    used = USED.get(version, files_in(tmp_path))
    for kind in TABLES:
        if kind != "shards":
            assert catalog.query(kind).num_rows == len(distinct_rows(store, kind))
    for name in ("leaderboard", "status", "run-times", "failures"):
        catalog.query(name)
    (stages,) = store.grids().values()
    done = catalog.query("SELECT count(*) AS n FROM grid_stages WHERE status = 'done'")
    assert done["n"].to_pylist() == [sum(stage.kind in used for stage in stages)]


def test_outdated_artifact_is_replaced_by_one_of_now(tmp_path: Path) -> None:
    store = Store.open(unpacked(1, tmp_path))
    (old,) = (tmp_path / "methods").rglob("*.parquet")
    assert store.find("methods", old.stem) is None
    assert len(store.outdated) == 1
    with pytest.raises(StoreError, match="run the grid again"):
        store.read("methods", old.stem)
    row = dict.fromkeys(TABLES["methods"].schema.names) | {"method": "m", "name": "EAP"}
    rows = (
        TABLES["methods"]
        .schema.empty_table()
        .from_pylist([row | {"label": "EAP", "level": "edge"}], TABLES["methods"].schema)
    )
    written = store.write("methods", old.stem, rows, {"stage": "method"})
    assert Store.open(tmp_path).find("methods", old.stem) == written
    assert store.outdated == []


def test_tables_of_one_stage_age_together() -> None:
    for kind, table in TABLES.items():
        assert 1 <= table.since <= since(kind) <= SCHEMA_VERSION
        assert since(kind) == since(table.companion_of or kind)


def test_damaged_marker_of_an_old_store_is_one_sentence(tmp_path: Path) -> None:
    unpacked(1, tmp_path)
    (tmp_path / "store.json").write_bytes((tmp_path / "store.json").read_bytes()[:20])
    for create in (True, False):
        with pytest.raises(StoreError, match=r"store\.json that cannot be read: restore"):
            Store.open(tmp_path, create)
