"""Names that are given never become paths elsewhere, and what is in a path's way is no bridge."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data import PlannedStage, Store, StoreError
from tests.data.contenders import ABOUT, key_at
from tests.data.synthetic import members_table

KEY = key_at(0)
ROWS = members_table(KEY, range(3))
KEYS = {
    "a newline after it": KEY + "\n",
    "a NUL in it": KEY[:8] + "\0" + KEY[9:],
    "digits of another script": "\uff10\uff11\uff12\uff13" * 4,
    "letters that look like others": "\u0430" * 16,
    "dots that are no dots": "\u2024\u2024/" * 8,
    "a drive": "c:" + KEY[:20],
    "bytes": KEY.encode(),
}
GRIDS = {
    "a NUL in it": "demo\0.json",
    "dots that are no dots": "\u2025/demo",
    "a full-width solidus": "a\uff0fb",
    "right to left": "\u202egrid",
    "a newline after it": "demo\n",
    "an absolute path": "/tmp/demo",
    "a backslash": "..\\demo",
    "a stream": "demo:x",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_only_hexadecimal_digits_are_keys(tmp_path: Path, key: str) -> None:
    store = Store.open(tmp_path / "store")
    attempts: list[Callable[[], object]] = [
        lambda: store.find("members", key),
        lambda: store.write("members", key, ROWS, ABOUT),
        lambda: store.record_failure(key, "circuits", "ioi", "no"),
        lambda: store.lease(key),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match="no key"):
            attempt()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["store", "store.json"]


@pytest.mark.parametrize("name", GRIDS.values(), ids=GRIDS)
def test_only_plain_names_are_names_of_grids(tmp_path: Path, name: str) -> None:
    store = Store.open(tmp_path / "store")
    with pytest.raises(StoreError, match="cannot name a grid"):
        store.save_grid(name, [PlannedStage("a", "b", "members", KEY)])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["store", "store.json"]


def test_place_with_a_nul_in_it_is_one_sentence() -> None:
    with pytest.raises(StoreError, match="NUL"):
        Store.open("arti\0facts")


@pytest.mark.parametrize("place", ["", "  "])
def test_place_that_is_not_named_is_one_sentence(place: str) -> None:
    with pytest.raises(StoreError, match="is empty: name a directory or a URL"):
        Store.open(place)


def test_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    outside = tmp_path / "outside"
    outside.write_text("mine")
    for path in (
        tmp_path / "store" / "members" / KEY[:2] / f"{KEY}.parquet",
        tmp_path / "store" / "grids" / "demo.json",
        tmp_path / "store" / "failures" / f"{KEY}.json",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(outside)
    assert store.find("members", KEY) is None
    store.write("members", KEY, ROWS, ABOUT)
    store.save_grid("demo", [PlannedStage("a", "b", "members", KEY)])
    store.record_failure(KEY, "circuits", "ioi", "no")
    store.clear_failure(KEY)
    assert outside.read_text() == "mine"
    assert store.read("members", KEY).equals(ROWS)
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_symlink()]
