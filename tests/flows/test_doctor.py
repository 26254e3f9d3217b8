"""The doctor: well where all is well, and the one thing that is wrong, with what to do."""

import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from data import PlannedStage, Store, place_id, provenance
from data.index import FOLDER, Index
from data.schema import TABLES
from flows import doctor
from flows.cli import app
from flows.config import GridConfig
from flows.doctor import Finding, examine
from flows.run import Run
from tests.data.rot import rot, settle
from tests.data.synthetic import build, key_of, members_table
from tests.flows.conftest import SMALL, digests, statuses

OLD = 30 * 86400


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with something of everything, built once."""
    place = tmp_path_factory.mktemp("template") / "store"
    build(Store.open(place))
    return place


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Store:
    shutil.copytree(template, tmp_path / "store")
    return Store.open(tmp_path / "store")


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    """However full the disk is on which the tests run."""
    monkeypatch.setattr(doctor, "_LEAST_BYTES", 0)
    monkeypatch.setattr(doctor, "_LEAST_FILES", 0)


def wrong(store: Store | Path, quick: bool = False) -> list[Finding]:
    place = str(store.location.root if isinstance(store, Store) else store)
    return [one for one in examine(place, quick) if not one.well]


def said(store: Store, quick: bool = False) -> str:
    return "\n".join(one.what for one in examine(store.location.root, quick))


def test_all_is_well_where_it_is(store: Store) -> None:
    number = sum(1 for _ in Path(store.location.root).rglob("*.parquet"))
    found = list(examine(store.location.root))
    assert [one.what for one in found if not one.well] == []
    text = "\n".join(one.what for one in found)
    assert f"{number:,} artifacts, every one read; the index agrees" in text
    for word in ("Python 3", "packages it declares", "Prefect 3", "torch ", "leases work", "free"):
        assert word in text
    assert list((Path(store.location.root) / "leases").iterdir()) == []


def test_store_that_is_not_there_yet_is_no_fault_and_is_not_made(tmp_path: Path) -> None:
    assert wrong(tmp_path / "nowhere") == []
    assert not (tmp_path / "nowhere").exists()


def test_something_that_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    (finding,) = wrong(tmp_path)
    assert "is not a store" in finding.what


def test_damage_is_found_by_reading_all(store: Store) -> None:
    store.save_index()
    paths = sorted(Path(store.location.root).rglob("members/*/*.parquet"))
    paths[0].write_bytes(paths[0].read_bytes()[:-1])
    paths[1].with_suffix(".json").unlink()
    found = wrong(store)
    assert len(found) == 2
    assert paths[0].stem in found[0].what + found[1].what
    assert all("next run rebuilds" in one.advice for one in found)


def test_something_in_the_place_of_a_file_is_to_be_removed_and_the_rest_is_looked_at(
    store: Store,
) -> None:
    paths = sorted(Path(store.location.root).rglob("members/*/*.parquet"))
    paths[0].unlink()
    paths[0].mkdir()
    paths[1].with_suffix(".json").unlink()
    blocked, damaged = sorted(wrong(store), key=lambda one: "remove" not in one.what)
    assert paths[0].stem in blocked.what
    assert blocked.advice == "remove it, then run again"
    assert paths[1].stem in damaged.what
    assert "next run rebuilds" in damaged.advice
    assert "leases work" in said(store)


def test_damage_that_no_state_tells_of_is_found_by_reading_all_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data import states

    path = next(Path(store.location.root).rglob("members/*/*.parquet"))
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    # A failing disk changes no time; here all times but that of the content are left out.
    monkeypatch.setattr(
        states,
        "_state",
        lambda *files: struct.pack("4q", *(n for f in files for n in (0, f.st_size))),
    )
    known = Store.open(store.location.root)
    assert list(known.artifacts("members"))
    known.save_index()
    path.write_bytes(content)
    assert wrong(store, quick=True) == []
    (finding,) = wrong(store)
    assert path.stem in finding.what
    assert "does not match its digest" in finding.what


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.soak
def test_rot_is_healed_by_the_run_that_meets_it_and_after_the_doctor_by_the_next(
    run: Callable[[GridConfig, Path], Run], grid: Callable[..., GridConfig], tmp_path: Path,
    speaker: Path,
) -> None:  # fmt: skip
    place, file = tmp_path / "store", tmp_path / "small.yaml"
    file.write_text(SMALL.format(model=speaker))
    assert not run(grid(), place).outcome.failures
    before = digests(place)
    keys = {kind: sorted(key for one, key in before if one == kind) for kind in TABLES}
    store = Store.open(place)
    store.remove_all(keys["scores"][0], ["scores"])
    rot(place, "shards", keys["shards"][1])

    met = _command("run", str(file), "--store", str(place))
    assert met.returncode == 0, met.stdout + met.stderr
    assert f"shards {keys['shards'][1]} is damaged" in " ".join((met.stdout + met.stderr).split())
    assert "2 stages computed" in met.stdout  # the shard, and the scores that were gone
    assert digests(place) == before

    rot(place, "members", keys["members"][0])
    seen = _command("doctor", "--store", str(place))
    assert seen.returncode == 1
    assert f"{keys['members'][0]}.parquet is damaged" in "".join(seen.stdout.split("\n"))
    again = run(grid(), place)
    assert statuses(again)["computed"] == {"circuits": 1}
    assert digests(place) == before


def test_index_that_says_something_else_is_found(store: Store) -> None:
    key = next(store.artifacts("members")).key
    settle(store)
    index = Index(store.location)
    entry = index._known()["members", key]
    index.put("members", key, entry._replace(digest="0" * 64))
    index.save()
    (finding,) = wrong(Store.open(store.location.root))
    assert "1 artifact not as the index knows them" in finding.what
    assert "index" in finding.advice
    assert wrong(store) == []  # reading put it right


def test_what_is_unneeded_is_told_and_is_no_fault(store: Store) -> None:
    for path in Path(store.location.root).rglob("*.*"):
        os.utime(path, (time.time() - OLD, time.time() - OLD))
    assert "unreferenced" in said(store)
    assert wrong(store) == []


def test_unreadable_note_is_named(store: Store) -> None:
    store.save_grid("demo", [PlannedStage("scores", "ioi", "scores", None, place_id("x"))])
    (Path(store.location.root) / "grids" / "demo.json").write_text("{")
    (finding,) = wrong(store)
    assert finding.what.startswith("grids/demo.json cannot be read (it is damaged): ")
    assert finding.advice == "run that grid again, or remove the file"


def test_prefect_server_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    (finding,) = wrong(tmp_path / "nowhere")
    assert "nothing answers at http://127.0.0.1:9/api" in finding.what
    assert "prefect server start" in finding.advice


def test_versions_that_are_not_those_declared_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = ["pyarrow>=999", "no-such-thing-here>=1", "numpy>=2", 'ray>=999; extra == "none"',
                'no-such-extra; extra == "dev"']  # fmt: skip
    monkeypatch.setattr(doctor, "requires", lambda name: declared)
    found = {one.what.split()[0]: one for one in wrong(tmp_path / "nowhere")}
    found.pop("ray", None)  # an extra counts where it is installed
    assert set(found) == {"pyarrow", "no-such-thing-here"}
    assert found["pyarrow"].advice == "pip install 'pyarrow>=999'"
    assert "is not installed" in found["no-such-thing-here"].what


def test_disk_that_is_full_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LEAST_BYTES", 2**70)
    (finding,) = wrong(store)
    assert "free at the store" in finding.what


def test_clock_that_differs_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(time=lambda: time.time() + 3600, time_ns=time.time_ns)
    monkeypatch.setattr(doctor, "time", clock)
    found = [one.what for one in wrong(store, quick=True)]
    assert len(found) == 1
    skew = re.search(r"clock is (\d+) s from", found[0])
    assert skew is not None
    assert 3600 <= int(skew[1]) < 3900


def test_command_ends_with_one_where_something_is_wrong(store: Store) -> None:
    place = store.location.root
    done = CliRunner().invoke(app, ["doctor", "--store", place])
    assert done.exit_code == 0, done.output
    assert "All is well." in done.output
    assert done.output.count("✓") >= 8
    path = next(Path(place).rglob("members/*/*.parquet"))
    path.unlink()
    done = CliRunner().invoke(app, ["doctor", "--quick", "--store", place])
    assert done.exit_code == 1
    assert "✗" in done.output
    assert path.stem in done.output


def test_cleaning_by_command(store: Store) -> None:
    place = Path(store.location.root)
    key = key_of("lost")
    store.write("members", key, members_table("c", [1]), provenance("circuits", "ioi", 1.0))
    store.save_grid("demo", [PlannedStage("scores", "ioi", "scores", None, place_id("x"))])
    rows = Path(store.path("members", key))
    for path in (rows, rows.with_suffix(".json")):
        os.utime(path, (time.time() - OLD, time.time() - OLD))
    run = CliRunner().invoke
    done = run(app, ["clean", "--dry-run", "--store", str(place)])
    assert done.exit_code == 0, done.output
    assert f"members/{key[:2]}/{key}.parquet" in done.output
    assert "would be removed" in done.output
    assert rows.exists()
    for options, code, word in (
        (["--only", "everything"], 2, "nothing that can be removed"),
        (["--older-than", "soon"], 2, "is no age"),
        (["--grid", "nothing"], 2, "no grid 'nothing'"),
    ):
        done = run(app, ["clean", *options, "--store", str(place)])
        assert (done.exit_code, word in done.output) == (code, True), done.output
    done = run(app, ["clean", "--older-than", "60d", "--store", str(place)])
    assert rows.exists()
    done = run(app, ["clean", "--store", str(place)])
    assert done.exit_code == 0, done.output
    assert "1 artifact, " in done.output
    assert not rows.exists()
    done = run(app, ["clean", "--grid", "demo", "--store", str(place)])
    assert "grid 'demo' is forgotten" in done.output
    assert store.grids() == {}


def test_nothing_is_known_of_a_store_without_its_index(store: Store) -> None:
    list(examine(store.location.root, quick=True))
    assert list((Path(store.location.root) / FOLDER).iterdir())
