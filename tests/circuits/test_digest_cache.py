"""Digests of weights are kept for as long as a file is the same, and no longer."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from circuits import digest_cache
from circuits.digest_cache import remembered
from circuits.model import fingerprint
from tests.checkpoints import change_parameters, tiny_gpt2


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache that keeps digests of files of any size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digest_cache, "_WORTH_KEEPING", 0)
    return tmp_path / "cache" / "circuit-grid" / "weights"


class Reader:
    def __init__(self):
        self.times = 0

    def __call__(self, file):
        self.times += 1
        return {"content": file.read_text()}


def old(path: Path, text: str) -> Path:
    """A file that was last written ten seconds ago."""
    path.write_text(text)
    then = time.time_ns() - 10 * 10**9
    os.utime(path, ns=(then, then))
    return path


@pytest.fixture
def later(monkeypatch):
    """The clock is ten seconds ahead: inodes cannot be given an older time."""
    clock = SimpleNamespace(time_ns=lambda: time.time_ns() + 10 * 10**9)
    monkeypatch.setattr(digest_cache, "time", clock)


def test_an_unchanged_file_is_read_once(tmp_path, cache, later):
    file, read = old(tmp_path / "file", "one"), Reader()
    assert remembered(file, read) == remembered(file, read) == {"content": "one"}
    assert read.times == 1
    link = tmp_path / "link"
    link.symlink_to(file)
    assert remembered(link, read) == {"content": "one"}
    assert read.times == 1


def test_a_change_is_noticed_though_size_and_time_stay(tmp_path, cache, later):
    file, read = old(tmp_path / "file", "one"), Reader()
    remembered(file, read)
    before = file.stat()
    file.write_text("two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert remembered(file, read) == {"content": "two"}
    other = tmp_path / "other"
    other.write_text("six")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    assert remembered(file, read) == {"content": "six"}


def test_what_was_written_a_moment_ago_is_not_kept(tmp_path, cache, monkeypatch):
    file, read = tmp_path / "file", Reader()
    file.write_text("one")
    written = file.stat().st_ctime_ns
    for nanoseconds, kept in ((2 * 10**9, False), (2 * 10**9 + 1, True)):
        clock = SimpleNamespace(time_ns=lambda then=written + nanoseconds: then)
        monkeypatch.setattr(digest_cache, "time", clock)
        remembered(file, read)
        assert cache.exists() == kept


def test_what_changes_while_it_is_read_is_not_kept(tmp_path, cache, later):
    file = old(tmp_path / "file", "one")

    def read(file):
        file.write_text("longer")
        return {"content": "one"}

    remembered(file, read)
    assert not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"digests": {"content": "two"}, "check": "0"}'])
def test_a_damaged_note_is_found_anew(damage, tmp_path, cache, later):
    file, read = old(tmp_path / "file", "one"), Reader()
    remembered(file, read)
    (note,) = cache.iterdir()
    note.write_bytes(damage)
    assert remembered(file, read) == {"content": "one"}
    assert read.times == 2
    assert remembered(file, read) == {"content": "one"}
    assert read.times == 2


def test_a_cache_that_cannot_be_written_keeps_nothing(tmp_path, cache, later):
    cache.parent.mkdir(parents=True)
    cache.write_text("in the way")
    file, read = old(tmp_path / "file", "one"), Reader()
    assert remembered(file, read) == remembered(file, read) == {"content": "one"}
    assert read.times == 2


def test_one_changed_weight_changes_a_kept_fingerprint(tmp_path, cache, later):
    directory = tiny_gpt2(tmp_path / "model")
    before = fingerprint(directory)
    assert len(list(cache.iterdir())) == 1
    assert fingerprint(directory) == before
    assert len(list(cache.iterdir())) == 1

    def change(name, tensor):
        return tensor * 1.001 if name.endswith("wpe.weight") else None

    change_parameters(directory, change)
    assert fingerprint(directory) != before


def test_small_files_are_not_kept(tmp_path, monkeypatch, later):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fingerprint(tiny_gpt2(tmp_path / "model"))
    assert not (tmp_path / "cache").exists()
