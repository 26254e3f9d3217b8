"""Where bytes lie: what a listing tells while others make folders."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import fs

from data import Store
from data.location import Location

LISTINGS: dict[str, Callable[[Location, str], list[str]]] = {
    "names": Location.entries,
    "files": Location.files,
}


class Churning(fs.LocalFileSystem):
    """A directory in which a folder appears between the two looks that one listing takes."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def get_file_info(self, asked: fs.FileSelector | list[str]) -> fs.FileInfo | list[fs.FileInfo]:
        if isinstance(asked, fs.FileSelector) and self.left:
            self.left -= 1
            raise FileNotFoundError(2, f"Cannot list directory '{asked.base_dir}'")
        return super().get_file_info(asked)


@pytest.fixture
def place(tmp_path: Path) -> Location:
    place = Store.open(tmp_path / "store").location
    place.put("grids/demo.json", b"{}")
    return place


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)
def test_folder_made_while_it_is_listed_is_listed(
    place: Location, listing: Callable[[Location, str], list[str]]
):
    filesystem = Churning(times=2)
    found = listing(replace(place, filesystem=filesystem), "grids")
    assert not filesystem.left
    assert found == listing(place, "grids")
    assert [one.rpartition("/")[2] for one in found] == ["demo.json"]


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)
def test_folder_that_is_not_there_has_nothing_in_it(
    place: Location, listing: Callable[[Location, str], list[str]]
):
    assert listing(place, "circuits") == []
