"""The index: what was read once is not read again, and no change of a file goes unnoticed."""

import itertools
import multiprocessing
import os
import struct
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyarrow import fs

from data import Store, StoreError, provenance
from data.index import FOLDER, Entry, Index
from data.location import Location
from data.states import seconds_until_settled, state_of
from tests.data.rot import rot, settle, wait
from tests.data.synthetic import key_of, members_table

ABOUT = provenance("circuits", "ioi · EAP", 1.5)
KEYS = [key_of(number) for number in range(40)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path)
    for number, key in enumerate(KEYS):
        store.write("members", key, members_table("c" * 64, [number]), ABOUT)
    settle(store)
    return store


@pytest.fixture
def accesses(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often artifacts are read, and looked for one by one."""
    seen: Counter[str] = Counter()
    read, look = Location._read, Location.look

    def reading(self: Location, relative: str, **options: bool) -> object:
        seen["read"] += relative.startswith("members/")
        return read(self, relative, **options)

    def looking(self: Location, relative: str) -> object:
        seen["looked"] += relative.startswith("members/")
        return look(self, relative)

    monkeypatch.setattr(Location, "_read", reading)
    monkeypatch.setattr(Location, "look", looking)
    return seen


def rows_of(store: Store, key: str) -> Path:
    return Path(store.path("members", key))


def segments(store: Store) -> list[Path]:
    return sorted((Path(store.location.root) / FOLDER).iterdir())


def test_what_was_verified_once_is_found_without_reading(
    store: Store, tmp_path: Path, accesses: Counter[str]
) -> None:
    written = [store.find("members", key) for key in KEYS]
    other = Store.open(tmp_path)
    assert [other.find("members", key) for key in KEYS] == written
    assert list(other.artifacts("members")) == sorted(written, key=lambda one: one.key)
    assert accesses["read"] == 0
    assert dict(other.find("members", KEYS[0]).provenance) == ABOUT


def test_content_is_checked_whenever_it_is_read(
    store: Store, tmp_path: Path, accesses: Counter[str]
) -> None:
    assert Store.open(tmp_path).read("members", KEYS[3])["edge_id"].to_pylist() == [3]
    assert accesses["read"] == 2  # the rows, and what vouches for them


@pytest.mark.parametrize("which", [".parquet", ".json"])
def test_change_that_keeps_time_and_size_is_noticed(
    store: Store, tmp_path: Path, which: str
) -> None:
    path = rows_of(store, KEYS[0]).with_suffix(which)
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    for opened in (store, Store.open(tmp_path)):
        assert opened.find("members", KEYS[0]) is None
        assert len(opened.damaged) == 1
        assert KEYS[0] not in [one.key for one in opened.artifacts("members")]


def test_file_put_in_place_of_another_is_noticed(store: Store, tmp_path: Path) -> None:
    path = rows_of(store, KEYS[0])
    before, other = path.stat(), rows_of(store, KEYS[1])
    copy = tmp_path / "copy"
    copy.write_bytes(other.read_bytes())
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(copy, path)
    assert Store.open(tmp_path).find("members", KEYS[0]) is None


def test_rebuilt_artifact_is_found_with_its_new_digest(store: Store, tmp_path: Path) -> None:
    late = Store.open(tmp_path)
    before = late.find("members", KEYS[0])
    store.remove_all(KEYS[0], ["members"])
    assert late.find("members", KEYS[0]) is None
    again = store.write("members", KEYS[0], members_table("c" * 64, [7, 8]), ABOUT)
    assert late.find("members", KEYS[0]) == again != before


def test_lost_index_loses_nothing(store: Store, tmp_path: Path) -> None:
    written = list(store.artifacts("members"))
    for path in segments(store):
        path.unlink()
    other = Store.open(tmp_path)
    assert list(other.artifacts("members")) == written
    other.save_index()
    assert len(segments(store)) == 1


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "renamed", "of others"])
def test_damaged_index_is_ignored(store: Store, tmp_path: Path, damage: str) -> None:
    written = list(store.artifacts("members"))
    (path,) = segments(store)
    content = path.read_bytes()
    middle = len(content) // 2
    match damage:
        case "flipped":
            flipped = bytes([content[middle] ^ 1])
            path.write_bytes(content[:middle] + flipped + content[middle + 1 :])
        case "truncated":
            path.write_bytes(content[:middle])
        case "emptied":
            path.write_bytes(b"")
        case "renamed":
            path.rename(path.with_name("index.parquet"))
        case "of others":
            (path.parent / "notes.txt").write_text("x")
    assert list(Store.open(tmp_path).artifacts("members")) == written


def test_place_where_no_index_can_be_written_does_without(
    store: Store, tmp_path: Path, accesses: Counter[str]
) -> None:
    for path in segments(store):
        path.unlink()
    (tmp_path / FOLDER).rmdir()
    (tmp_path / FOLDER).write_text("not a folder")
    other = Store.open(tmp_path)
    assert len(list(other.artifacts("members"))) == len(KEYS)
    other.save_index()
    assert other.find("members", KEYS[0]) is not None
    assert accesses["read"] == 2 * len(KEYS)


def test_index_stays_in_few_files_however_often_it_is_saved(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    for number in range(100):
        store.write("members", key_of(number), members_table("c" * 64, [number]), ABOUT)
    wait(store)
    for number in range(100):
        assert store.find("members", key_of(number)) is not None
        store.save_index()
    assert len(segments(store)) <= 7
    assert len(list(Store.open(tmp_path).artifacts("members"))) == 100


def test_index_is_tidied_to_what_is_there(store: Store, tmp_path: Path) -> None:
    store.remove_all(KEYS[0], ["members"])
    store.tidy_index()
    (segment,) = segments(store)
    assert f"-{len(KEYS) - 1}-" in segment.name


def _write_and_save(place: Path, numbers: range) -> None:
    store = Store.open(place)
    for number in numbers:
        store.write("members", key_of(number), members_table("c" * 64, [number]), ABOUT)
    wait(store)
    for number in numbers:
        assert store.find("members", key_of(number)) is not None
        store.save_index()


def test_processes_add_to_the_index_side_by_side(tmp_path: Path, accesses: Counter[str]) -> None:
    Store.open(tmp_path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.data.rot", "tests.data.synthetic"])
    processes = [
        context.Process(target=_write_and_save, args=(tmp_path, range(start, start + 15)))
        for start in (0, 10, 20)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    accesses.clear()
    found = list(Store.open(tmp_path).artifacts("members"))
    assert {one.key for one in found} == {key_of(number) for number in range(35)}
    # Two that join the same segment may each lose what the other added: those are read again.
    assert accesses["read"] <= 2 * 35


def test_many_finds_in_an_object_store_take_one_listing(
    tmp_path: Path, accesses: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(tmp_path)
    elsewhere = fs.SubTreeFileSystem(str(tmp_path.parent), fs.LocalFileSystem())
    place = Location(elsewhere, tmp_path.name, "elsewhere", "elsewhere")
    assert not place.is_local
    monkeypatch.setattr("data.states._A_COARSE_TICK", 0)
    store = Store(place)
    for number in range(100):
        store.write("members", key_of(number), members_table("c" * 64, [number]), ABOUT)
    store.save_index()
    other = Store(place)
    accesses.clear()
    with other.listed():
        assert all(other.find("members", key_of(number)) for number in range(100))
        looked = accesses["looked"]
        assert 0 < looked <= 64  # of 32 artifacts, before all are listed
        assert not any(other.find("members", key_of("none", number)) for number in range(100))
        assert accesses["looked"] == looked
        late = other.write("members", key_of("late"), members_table("c" * 64, [1]), ABOUT)
        assert other.find("members", key_of("late")) == late  # it is not among what is listed
        store.remove_all(key_of(1), ["members"])
    assert other.find("members", key_of(1)) is None
    assert other.find("members", key_of(2)) is not None


def _in_a_process(place: Path, what: str) -> str:
    """What another process says: whether an artifact is found, read, or written again."""
    code = (
        "import sys\nfrom data import Store, StoreError, provenance\n"
        "from tests.data.synthetic import members_table\n"
        "place, what, key = sys.argv[1:]\nstore = Store.open(place)\n"
        "try:\n"
        "    if what == 'write':\n"
        "        about = provenance('circuits', 'ioi · EAP', 1.5)\n"
        "        store.write('members', key, members_table('c' * 64, [0]), about)\n"
        "    found = getattr(store, 'read' if what == 'read' else 'find')('members', key)\n"
        "    if what == 'plan':\n"
        "        store.save_grid('demo', [])\n"
        "    print('there' if found is not None else 'missing')\n"
        "except StoreError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(place), what, KEYS[0]]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, (ran.returncode, ran.stderr)
    return ran.stdout.strip()


def test_rot_that_one_process_meets_is_known_to_all_after_it_and_healed(
    store: Store, tmp_path: Path
) -> None:
    rot(tmp_path, "members", KEYS[0])
    trusting = Store.open(tmp_path)  # a run that goes on meanwhile
    assert trusting.find("members", KEYS[0]) is not None
    assert _in_a_process(tmp_path, "find") == "there"
    assert "is damaged (its .parquet file does not match its digest)" in _in_a_process(
        tmp_path, "read"
    )
    assert _in_a_process(tmp_path, "find") == "missing"
    trusting.write("members", key_of("more"), members_table("c" * 64, [1]), ABOUT)
    settle(trusting)  # it joins segments, and knows nothing of what was met
    assert _in_a_process(tmp_path, "find") == "missing"
    with trusting.listed():
        assert trusting.find("members", KEYS[0]) is None
    assert _in_a_process(tmp_path, "write") == "there"
    assert _in_a_process(tmp_path, "read") == "there"
    assert trusting.find("members", KEYS[0]) is not None


def test_refuted_state_stays_refuted_whoever_joins_and_tidies(store: Store, tmp_path: Path) -> None:
    rot(tmp_path, "members", KEYS[0])
    with pytest.raises(StoreError, match="is damaged"):
        Store.open(tmp_path).read("members", KEYS[0])
    for _ in range(2):
        for path in segments(store):  # as by a clock that is behind
            path.rename(path.with_name(path.name.replace(path.name[:20], "0" * 20)))
        tidy = Store.open(tmp_path)
        tidy.tidy_index()
        assert Store.open(tmp_path).find("members", KEYS[0]) is None
    store.write("members", KEYS[0], members_table("c" * 64, [0]), ABOUT)
    settle(Store.open(tmp_path))
    Store.open(tmp_path).tidy_index()
    (segment,) = segments(store)
    assert f"-{len(KEYS)}-" in segment.name  # no refuted state outlives the file that had it


def test_what_is_young_is_not_kept(
    tmp_path: Path, accesses: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path)
    store.write("members", KEYS[0], members_table("c" * 64, [0]), ABOUT)
    names = [f"members/{KEYS[0][:2]}/{KEYS[0]}{suffix}" for suffix in (".parquet", ".json")]
    state = state_of(store.location, *names)
    assert state is not None
    written = max(path.stat().st_ctime_ns for path in (tmp_path / "members").rglob("*.*"))
    later = 0  # nanoseconds after it was written

    def now() -> int:
        return written + later

    clocks = SimpleNamespace(time_ns=now, monotonic=lambda: now() / 10**9)
    monkeypatch.setattr("data.states.time", clocks)
    monkeypatch.setattr("data.index.time", clocks)
    assert store.find("members", KEYS[0]) is not None
    store.save_index()
    folder = tmp_path / FOLDER
    assert not folder.exists() or segments(store) == []
    assert 0 < seconds_until_settled(state) <= 3.0
    accesses.clear()
    assert store.find("members", KEYS[0]) is not None
    assert accesses["read"] == 0
    later = 4 * 10**9
    assert store.find("members", KEYS[0]) is not None
    assert accesses["read"] == 2
    store.save_index()
    assert len(segments(store)) == 1


@pytest.mark.parametrize(
    ("numbers", "seconds"),
    [
        ((9, 1_000_000_001, 7, 5, 9, 1_000_000_002, 8, 5), 0.05),  # fractions of seconds
        ((9, 10**9, 7, 5, 9, 10**9, 8, 5), 3.0),  # whole seconds alone
        ((1, 5, 1, 9), 3.0),  # an object store's
    ],
)
def test_state_is_young_for_longer_than_the_tick_of_its_clock(
    numbers: tuple[int, ...], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = struct.pack(f"{len(numbers)}q", *numbers)
    now = SimpleNamespace(time_ns=lambda: 10**9)
    monkeypatch.setattr("data.states.time", now)
    assert seconds_until_settled(state) == pytest.approx(seconds)
    now.time_ns = lambda: 10**9 + int(seconds * 10**9) + 2
    assert seconds_until_settled(state) == 0


def test_two_contents_in_one_state_are_never_told_apart_by_it(tmp_path: Path) -> None:
    index = Index(Location.parse(tmp_path))
    state = struct.pack("4q", 1, 5, 1, 9)
    one = Entry(state, "a" * 64, "b" * 64, 1, "{}")
    index.put("members", KEYS[0], one)
    assert index.get("members", KEYS[0], state) == one
    index.put("members", KEYS[0], one._replace(sha256="d" * 64))
    assert index.get("members", KEYS[0], state) is None
    index.put("members", KEYS[0], one)
    assert index.get("members", KEYS[0], state) is None


def test_threads_that_ask_at_once_all_learn_everything(tmp_path: Path) -> None:
    place = Store.open(tmp_path).location
    sizes = (2000, 600, 180, 54, 16)  # each so much smaller than those before that none are joined
    keys = [key_of(number) for number in range(sum(sizes))]
    entry = Entry(struct.pack("4q", 1, 9, 1, 9), "0" * 64, "0" * 64, 1, "{}")
    to_note = iter(keys)
    for size in sizes:
        writer = Index(place)
        for key in itertools.islice(to_note, size):
            writer.put("members", key, entry)
        writer.save()
    assert len(list((tmp_path / FOLDER).iterdir())) == len(sizes)
    index, ready = Index(place), threading.Barrier(8)

    def ask(number: int) -> int:
        ready.wait(300)
        return sum(index.knows("members", key) for key in keys[number::8])

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == len(keys)
    assert all(index.knows("members", key) for key in keys)
