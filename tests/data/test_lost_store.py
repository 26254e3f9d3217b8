"""A store that goes away, and a disk that is full: one sentence, and nothing half done."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data import PlannedStage, Store, StoreError
from data.errors import ArtifactLostError, StoreAccessError, StoreUnavailableError
from tests.data.contenders import ABOUT, key_at
from tests.data.synthetic import members_table, rows_of

KEY = key_at(0)
ROWS = members_table(KEY, range(100))
WRITES: dict[str, Callable[[Store], object]] = {
    "an artifact": lambda store: store.write("members", key_at(1), ROWS, ABOUT),
    "a failure": lambda store: store.record_failure(KEY, "circuits", "ioi", "no"),
    "a grid": lambda store: store.save_grid("demo", [PlannedStage("a", "b", "members", KEY)]),
    "a lease": lambda store: store.lease(KEY),
}
LOSSES: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "renamed": lambda root: root.rename(root.with_name("elsewhere")),
    "unmounted": lambda root: [root.rename(root.with_name("elsewhere")), root.mkdir()],
    "being removed": lambda root: (root / "store.json").unlink(),
    "a file": lambda root: [shutil.rmtree(root), root.write_text("x")],
}
FULL = """
import resource, sys
from data import Store
from tests.data.contenders import ABOUT, key_at
from tests.data.synthetic import members_table

store = Store.open(sys.argv[1])
large = members_table(key_at(1), range(200_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    store.write("members", key_at(1), large, ABOUT)
except Exception as error:
    print(type(error).__name__, error, sep=": ")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(store.write("members", key_at(2), large, ABOUT).rows)
"""
WRITER = """
import sys
from data import Store
from tests.data.contenders import ABOUT, key_at
from tests.data.synthetic import members_table

store = Store.open(sys.argv[1])
for index in range(100_000):
    store.write("members", key_at(index), members_table(key_at(index), range(100)), ABOUT)
    print(index, flush=True)
"""


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*") if path.is_file()}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store")
    store.write("members", KEY, ROWS, ABOUT)
    return store


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("what", WRITES)
def test_store_that_is_gone_is_not_made_again_by_halves(
    tmp_path: Path, store: Store, loss: str, what: str
) -> None:
    LOSSES[loss](tmp_path / "store")
    before = files_of(tmp_path), sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreAccessError) as told:
        WRITES[what](store)
    assert (files_of(tmp_path), sorted(tmp_path.rglob("*"))) == before
    if loss != "a file":
        assert isinstance(told.value, StoreUnavailableError)
        assert "is gone" in str(told.value)
        assert "nothing was written" in str(told.value)


def test_store_that_is_back_is_written_to_as_before(tmp_path: Path, store: Store) -> None:
    root = tmp_path / "store"
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailableError):
        store.write("members", key_at(1), ROWS, ABOUT)
    (tmp_path / "elsewhere").rename(root)
    store.write("members", key_at(1), ROWS, ABOUT)
    assert {one.key for one in store.artifacts("members")} == {KEY, key_at(1)}


def test_store_that_goes_away_between_two_files_of_an_artifact_is_not_made_again(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, put = tmp_path / "store", os.link

    def linked(source: str, target: str) -> None:
        put(source, target)
        root.rename(tmp_path / "elsewhere")

    monkeypatch.setattr(os, "link", linked)
    with pytest.raises(StoreUnavailableError):
        store.write("members", key_at(1), ROWS, ABOUT)
    monkeypatch.undo()
    assert not root.exists()
    (tmp_path / "elsewhere").rename(root)
    assert Store.open(root).write("members", key_at(1), ROWS, ABOUT).rows == 100
    assert len(store.location.leftovers(older_than=-3600)) == 1, "its name was gone too"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreUnavailableError),
        (errno.EDQUOT, StoreUnavailableError),
        (errno.EIO, StoreUnavailableError),
        (errno.ESTALE, StoreUnavailableError),
        (errno.EROFS, StoreAccessError),
        (errno.EACCES, StoreAccessError),
    ],
)
@pytest.mark.parametrize("call", ["open", "fsync", "replace", "link", "utime", "stat"])
def test_whatever_the_system_refuses_is_one_sentence_that_says_whether_it_may_pass(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    number: int, kind: type[StoreError], call: str,
) -> None:  # fmt: skip
    if call == "utime":
        lease = store.lease(KEY)
        assert lease is not None
    before = files_of(tmp_path)

    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open" if call == "open" else f"os.{call}", refused)
    if call == "utime":
        lease.beat()
        told = str(lease.trouble)
    else:
        with pytest.raises(StoreAccessError) as caught:
            store.location.put_new("members/00/x", b"x") if call == "link" else (
                store.location.put("members/00/x", b"x")
            )
        assert type(caught.value) is kind
        told = str(caught.value)
    monkeypatch.undo()
    assert os.strerror(number) in told
    assert told.endswith(".")
    assert files_of(tmp_path) == before


def test_file_that_grows_too_large_leaves_nothing_half_written(
    tmp_path: Path, store: Store
) -> None:
    """A real refusal in the middle of a write: the limit on the size of a process's files."""
    root = tmp_path / "store"
    before = files_of(root)
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(root)], capture_output=True, text=True, timeout=300
    )
    said, rows = ran.stdout.splitlines()
    assert said.startswith("StoreAccessError: ")
    assert os.strerror(errno.EFBIG) in said
    assert rows == "200000"
    after = files_of(root)
    assert not [name for name in after if key_at(1) in name or name.endswith(".tmp")]
    assert {name: after[name] for name in before} == before


def fill(path: Path) -> None:
    """Write until there is no room."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(descriptor, bytes(4096)):
            continue
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(descriptor)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 1 MiB, where this process may mount one."""
    folder = Path(tempfile.mkdtemp())
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = shutil.which("mount") and subprocess.run(command, capture_output=True)
        if not mounted or mounted.returncode:
            pytest.skip("file systems cannot be mounted here")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    finally:
        folder.rmdir()


def test_full_disk_is_one_sentence_and_the_next_write_works_once_there_is_room(
    small_disk: Path,
) -> None:
    root = small_disk / "store"
    store = Store.open(root)
    written = store.write("members", KEY, ROWS, ABOUT)
    ballast = small_disk / "ballast"
    fill(ballast)
    before = files_of(root)
    attempts = [
        lambda: store.write("members", key_at(1), ROWS, ABOUT),
        lambda: store.record_failure(KEY, "circuits", "ioi", "no"),
        lambda: store.lease(KEY),
        lambda: Store.open(small_disk / "another"),
    ]
    for attempt in attempts:
        with pytest.raises(StoreUnavailableError, match=r"No space left.*make room"):
            attempt()
    assert files_of(root) == before
    assert Store.open(root).find("members", KEY) == written
    ballast.unlink()
    store.write("members", key_at(1), ROWS, ABOUT)
    assert store.lease(KEY) is not None
    assert {one.key for one in Store.open(root).artifacts("members")} == {KEY, key_at(1)}
    assert store.damaged == []


def test_temporary_files_of_killed_processes_are_found_once_they_are_old(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = Store.open(root)
    left: list[str] = []
    command = [sys.executable, "-c", WRITER, str(root)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    writer.stdout.readline()
    began = time.monotonic()
    while not left and time.monotonic() - began < 120:
        os.kill(writer.pid, signal.SIGCONT)
        time.sleep(0.001)
        os.kill(writer.pid, signal.SIGSTOP)  # in the middle of a write, sooner or later
        os.waitpid(writer.pid, os.WUNTRACED)  # it stands still
        left = store.location.leftovers(older_than=-3600)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert len(left) == 1
    assert left[0].startswith("members/")
    assert (root / left[0]).is_file()
    assert store.location.leftovers(older_than=60) == []
    os.utime(root / left[0], (time.time() - 61,) * 2)
    assert store.location.leftovers(older_than=60) == left
    (root / "members" / ".mine.tmp").touch()
    os.utime(root / "members" / ".mine.tmp", (0, 0))
    assert store.location.leftovers(older_than=60) == left, "another's hidden file"
    store.location.remove(left[0])
    assert list(store.location.leftovers(older_than=-3600)) == []


def test_rows_that_a_reader_may_not_read_are_one_sentence(store: Store) -> None:
    path = Path(store.path("members", KEY))
    path.unlink()
    path.mkdir()
    with pytest.raises(ArtifactLostError, match=r"is damaged \(members/.*cannot be read \(Is a"):
        store.read("members", KEY)
    with pytest.raises(StoreAccessError):
        store.write("members", KEY, rows_of("members", []), ABOUT)
