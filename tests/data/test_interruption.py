"""Real processes: killed at any moment, or writing the same key at once."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data import Store
from data.keys import stage_key
from tests.data.synthetic import members_table

WRITER = """
import sys
from data import Store, provenance
from data.keys import stage_key
from tests.data.synthetic import members_table

store, about = Store.open(sys.argv[1]), provenance("write", "x", 1.0)
for index in range(int(sys.argv[2]), 100_000):
    key = stage_key("write", 1, {"index": index}, {})
    artifact = store.write("members", key, members_table(key, range(index % 500)), about)
    print(index, artifact.digest, flush=True)
"""
RIVAL = """
import sys
from data import Store, provenance
from data.keys import stage_key
from tests.data.synthetic import members_table

store, number = Store.open(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for index in range(40):
    key = stage_key("write", 1, {"index": index}, {})
    rows = members_table(key, range(index + int(number)))
    artifact = store.write("members", key, rows, provenance("write", number, 1.0))
    print(index, artifact.digest, artifact.provenance["cell"], flush=True)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def key_at(index: int) -> str:
    return stage_key("write", 1, {"index": index}, {})


@pytest.mark.slow
def test_every_artifact_found_after_a_kill_is_whole(tmp_path: Path) -> None:
    moments = random.Random(0)
    begin, acknowledged = 0, {}
    for _ in range(8):
        writer = start(WRITER, tmp_path, begin)
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(moments.randint(2, 5))]  # it is warm now
        time.sleep(moments.uniform(0.0, 0.1))
        os.kill(writer.pid, signal.SIGKILL)
        rest, _ = writer.communicate()
        lines += rest.splitlines()
        done = [line.split() for line in lines if len(line.split()) == 2]
        acknowledged |= {int(index): digest for index, digest in done if len(digest) == 64}
        begin = max(acknowledged, default=-1) + 1

    store = Store.open(tmp_path, create=False)
    found = {artifact.key: artifact for artifact in store.artifacts("members")}
    assert len(acknowledged) >= 2 * 8
    assert {key_at(index) for index in acknowledged} <= set(found)
    for index in range(begin + 1):
        key = key_at(index)
        rows = members_table(key, range(index % 500))
        if key in found:
            assert store.read("members", key).equals(rows)
        else:
            assert index == begin  # only the last one can have been under way
            store.write("members", key, rows, {})
    assert all(key in {key_at(index) for index in range(begin + 1)} for key in found)
    assert [damage for damage in store.damaged if damage.path.count(key_at(begin)) == 0] == []


@pytest.mark.slow
@pytest.mark.parametrize("second", [0, 1], ids=["same rows", "other rows"])
def test_two_writers_of_one_key_agree_on_what_is_there(tmp_path: Path, second: int) -> None:
    Store.open(tmp_path)
    rivals = [start(RIVAL, tmp_path, number) for number in (0, second, second)]
    assert [rival.stdout.readline() for rival in rivals] == ["ready\n"] * 3
    for rival in rivals:
        rival.stdin.write("go\n")
        rival.stdin.flush()
    told = [rival.communicate()[0].splitlines() for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0, 0, 0]
    assert [len(lines) for lines in told] == [40, 40, 40]
    store = Store.open(tmp_path)
    for index, claims in enumerate(zip(*told, strict=True)):
        artifact = store.find("members", key_at(index))
        assert artifact is not None
        assert len(set(claims)) == 1, "every writer was told of the artifact that stayed"
        assert claims[0].split()[1] == artifact.digest
    assert store.damaged == []
    assert list(tmp_path.rglob("*.tmp")) == []
