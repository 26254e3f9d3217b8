"""The store on an S3 server: the same as on a directory, and one sentence where that says no."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from data import Catalog, PlannedStage, Store, StoreError
from data.address import shown
from data.errors import StoreAccessError, StoreUnavailableError
from data.heart import Heart
from data.leases import DEAD_AFTER, Leases
from data.location import Listed, Location
from data.processes import Process
from data.states import state_from, state_of, states_of
from tests.data.clock import Clock
from tests.data.contenders import ABOUT, contend, hold, key_at, publish, told
from tests.data.s3_server import BUCKET, S3Server, s3_server
from tests.data.synthetic import members_table, rows_of

KEY = key_at(0)
ROWS = members_table(KEY, range(100))
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["tests.data.contenders"])


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def store(server: S3Server, tmp_path: Path) -> Store:
    return Store.open(server.url(f"stores/{tmp_path.name}"))


def raw(store: Store, path: str) -> bytes:
    content = store.location.read(path)
    assert content is not None
    return content


def objects(server: S3Server, store: Store) -> list[str]:
    """The objects of a store, folders left out."""
    root = store.location.root.removeprefix(f"{BUCKET}/") + "/"
    keys = (key.removeprefix(root) for key in server.objects() if key.startswith(root))
    return [key for key in keys if key and not key.endswith("/")]


def overwrite(store: Store, path: str, content: bytes) -> None:
    with store.location.filesystem.open_output_stream(store.location.path(path)) as stream:
        stream.write(content)


def test_what_is_written_is_found_and_read_by_all(store: Store) -> None:
    assert store.find("members", KEY) is None
    written = store.write("members", KEY, ROWS, ABOUT)
    again = store.write("members", KEY, members_table(KEY, [2]), {})
    other = Store.open(store.location.address, create=False)
    assert written == again == store.find("members", KEY) == other.find("members", KEY)
    assert other.read("members", KEY).equals(ROWS)
    assert list(other.artifacts("members")) == [written]
    assert other.damaged == []


def test_nothing_but_what_the_store_consists_of_is_put_there(
    server: S3Server, store: Store
) -> None:
    store.write("members", KEY, ROWS, ABOUT)
    stem = f"members/{KEY[:2]}/{KEY}"
    assert objects(server, store) == [f"{stem}.json", f"{stem}.parquet", "store.json"]


def requests(server: S3Server, store: Store, action: Callable[[], object]) -> int:
    """How many an action makes; the hearts of leases on other stores go on beating meanwhile."""
    server.asked.clear()
    action()
    return sum(store.location.root in one for one in server.asked)


def test_each_step_takes_few_requests(
    server: S3Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.states._A_COARSE_TICK", 10**15)  # all is young
    monkeypatch.setattr("data.location._TRUSTED", 10**6)

    def stage(key: str) -> None:
        with store.lease(key) or pytest.fail("it is free"):
            assert store.complete("scores", key) is None
            store.write("scores", key, rows_of("scores", []), ABOUT)

    stage(key_at(50))  # it has looked for the index
    assert 10 < requests(server, store, lambda: stage(key_at(51))) <= 15
    assert requests(server, store, lambda: store.find("scores", key_at(51))) == 2
    assert requests(server, store, lambda: store.find("scores", key_at(52))) == 2
    assert requests(server, store, lambda: store.read("scores", key_at(51))) == 4
    other = Store.open(store.location.address)
    with other.listed():
        for number in range(100):
            other.find("scores", key_at(number))
        looked = requests(
            server, store, lambda: [other.find("scores", key_at(n)) for n in range(100)]
        )
        assert looked <= 8  # of the two that are there, and are too young to be known for good


def test_damage_within_a_second_and_of_the_same_size_is_known_to_all_once_met(
    server: S3Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.states._A_COARSE_TICK", -(10**10))  # as if the second were over
    store.write("members", KEY, ROWS, ABOUT)
    path = store.path("members", KEY).removeprefix(f"{store.location.root}/")
    inside = store.path("members", KEY).removeprefix(f"{BUCKET}/")
    known = Store.open(store.location.address)
    assert known.find("members", KEY) is not None
    known.save_index()
    content = bytearray(raw(store, path))
    content[20] ^= 1
    before = server.changed(inside)
    overwrite(store, path, bytes(content))
    server.changed(inside, at=before.replace(microsecond=999_999 - before.microsecond))
    assert Store.open(store.location.address).find("members", KEY) is not None
    with pytest.raises(StoreError, match="damaged"):
        Store.open(store.location.address).read("members", KEY)
    other = Store.open(store.location.address)
    assert other.find("members", KEY) is None
    other.write("members", KEY, ROWS, ABOUT)
    assert Store.open(store.location.address).read("members", KEY).equals(ROWS)


def test_times_as_listed_and_as_asked_for_one_by_one_make_one_state(store: Store) -> None:
    store.write("members", KEY, ROWS, ABOUT)
    stem = f"members/{KEY[:2]}/{KEY}"
    one = state_of(store.location, f"{stem}.parquet", f"{stem}.json")
    assert one is not None
    assert states_of(store.location, "members") == {KEY: one}
    seconds, milliseconds = (
        state_from(*(Listed(name, time, 9) for name in (f"{stem}.parquet", f"{stem}.json")))
        for time in (1_700_000_000 * 10**9, 1_700_000_000_123 * 10**6)
    )
    assert seconds == milliseconds != one


@pytest.mark.parametrize("what", ["rows", "note", "rows gone", "note gone"])
def test_damage_is_found_reported_and_rebuilt(store: Store, what: str) -> None:
    store.write("members", KEY, ROWS, ABOUT)
    path = store.path("members", KEY).removeprefix(f"{store.location.root}/")
    path = path.replace(".parquet", ".json") if "note" in what else path
    if "gone" in what:
        store.location.remove(path)
    else:
        content = bytearray(raw(store, path))
        content[len(content) // 2] ^= 1
        overwrite(store, path, bytes(content[:-1]))
    other = Store.open(store.location.address)
    assert other.find("members", KEY) is None
    assert [damage.path.split(".")[0] for damage in other.damaged] == [path.split(".")[0]]
    with pytest.raises(StoreError, match="run the grid again"):
        other.read("members", KEY)
    other.write("members", KEY, ROWS, ABOUT)
    assert other.read("members", KEY).equals(ROWS)
    assert other.damaged == []


def test_failures_and_grids_are_noted(store: Store) -> None:
    failure = store.record_failure(KEY, "circuits", "ioi · EAP", "The metric is NaN.")
    stages = (PlannedStage("circuits", "ioi", "circuits", KEY),)
    store.save_grid("demo", stages)
    other = Store.open(store.location.address)
    assert other.failures() == [failure]
    assert other.grids() == {"demo": stages}
    other.write("circuits", KEY, rows_of("circuits", []), ABOUT)
    assert store.failures() == []


def test_catalog_answers_from_there(store: Store) -> None:
    tables = {
        "circuits": rows_of("circuits", []),
        "members": ROWS,
        "extractions": rows_of("extractions", []),
        "member_neurons": rows_of("member_neurons", []),
    }
    store.write_all(KEY, tables, ABOUT)
    found = Catalog(Store.open(store.location.address, create=False)).query(
        "SELECT count(*) AS n, max(edge_id) AS last FROM members"
    )
    assert found.to_pylist() == [{"n": 100, "last": 99}]


def test_lease_is_taken_once_and_leaves_nothing_behind(server: S3Server, store: Store) -> None:
    other = Store.open(store.location.address)
    lease = store.lease(KEY)
    assert lease is not None
    with lease:
        assert other.lease(KEY) is None
        assert [(live.key, live.pid, live.mine) for live in other.leases()] == [
            (KEY, os.getpid(), True)
        ]
        assert lease.beat()
    assert objects(server, store) == ["store.json"]
    assert other.leases() == []
    assert other.lease(KEY) is not None


def test_lease_that_was_taken_away_is_not_put_back_by_its_owner(store: Store) -> None:
    lease = Leases(store.location, heart=None).take(KEY)
    assert lease is not None
    store.location.remove(lease.path)
    assert not lease.beat()
    assert lease.lost
    assert store.leases() == []


def test_claim_of_a_dead_host_counts_until_it_has_not_changed_for_long(
    server: S3Server, store: Store
) -> None:
    elsewhere, clock = Process("elsewhere", "another boot", "", 1, "0"), Clock()
    dead = Leases(store.location, process=lambda: elsewhere, heart=None).take(KEY)
    assert dead is not None
    observer = Leases(store.location, clock=clock, heart=None)
    for seconds in range(5):
        assert dead.beat()  # its file is put again, with a later time
        path = store.location.path(dead.path).removeprefix(f"{BUCKET}/")
        server.changed(path, at=server.changed(path) + timedelta(seconds=seconds))
        assert observer.take(KEY) is None
        clock.seconds += DEAD_AFTER - 1
    assert observer.take(KEY) is None
    clock.seconds += 1
    lease = observer.take(KEY)
    assert lease is not None
    lease.release()


def processes_of(target: Callable[..., None], *arguments: object) -> multiprocessing.Process:
    process = SPAWN.Process(target=target, args=arguments)
    process.start()
    return process


def test_processes_take_turns_and_the_lease_of_a_killed_one_is_free_at_once(
    store: Store, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.touch()
    victim = processes_of(hold, store.location.address, str(log), 5.0, 30.0, False)
    while not told(log):
        assert victim.is_alive()
        time.sleep(0.02)
    assert store.lease(KEY) is None
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    with Leases(store.location, clock=Clock(), heart=None).take(KEY) or pytest.fail("it is free"):
        pass
    rivals = [
        processes_of(contend, store.location.address, str(log), 4, 5.0, 30.0) for _ in range(2)
    ]
    for rival in rivals:
        rival.join(200)
        assert rival.exitcode == 0
    _, *turns = [(line[0], line[-1]) for line in told(log)]
    assert len(turns) == 16
    for (begin, one), (end, other) in zip(turns[::2], turns[1::2], strict=True):
        assert (begin, end) == ("begin", "end")
        assert one == other
    assert store.leases() == []


def test_two_processes_that_write_the_same_keys_leave_each_once_and_whole(store: Store) -> None:
    rivals = [processes_of(publish, store.location.address, 8) for _ in range(2)]
    for rival in rivals:
        rival.join(200)
        assert rival.exitcode == 0
    artifacts = list(store.artifacts("members"))
    assert {one.key for one in artifacts} == {key_at(index) for index in range(8)}
    assert all(store.read("members", one.key).num_rows == one.rows for one in artifacts)
    assert store.damaged == []


def test_store_that_is_gone_is_not_made_again_by_halves(server: S3Server, store: Store) -> None:
    store.location.remove("store.json")
    with pytest.raises(StoreUnavailableError, match=r"is gone.*nothing was written"):
        store.write("members", KEY, ROWS, ABOUT)
    with pytest.raises(StoreUnavailableError, match="is gone"):
        store.lease(KEY)
    assert objects(server, store) == []


@pytest.mark.parametrize(
    ("address", "secrets"),
    [
        ("s3://KEYID:hush77@bucket/x?region=r", ["KEYID", "hush77"]),
        ("s3://KEYID:hush%2F77@bucket/x?region=r", ["KEYID", "hush%2F77", "hush/77"]),
        ("s3://KEYID:hush/77@bucket/x?region=r", ["KEYID", "hush/77"]),
        ("s3://KEYID:hush@77@bucket/x?region=r", ["KEYID", "hush@77", "77@"]),
        ("s3://bucket/x?secret_key=hush77&region=r", ["hush77"]),
        ("s3://bucket/x?region=r&Session-Token=hush77#y", ["hush77"]),
        ("gs://bucket/x?access_token=hush77", ["hush77"]),
        ("abfss://account@bucket/x?account_key=hush77", ["hush77"]),
        ("nonsense://KEYID:hush77@bucket/x?password=hush77", ["KEYID", "hush77"]),
    ],
)
def test_secrets_of_a_url_are_never_shown(address: str, secrets: list[str]) -> None:
    texts = [shown(address)]
    assert "bucket" in texts[0]
    try:
        location = Location.parse(address)
        texts += [location.name, repr(location)]
    except StoreError as error:
        texts += [str(error), repr(error), str(error.__cause__)]
    for secret in secrets:
        assert [text for text in texts if secret in text] == []


def test_name_is_for_people_and_address_opens_the_store_again(store: Store) -> None:
    assert "secret-word" in store.location.address
    assert "secret-word" not in store.location.name + repr(store.location)
    assert Store.open(store.location.address).location.root == store.location.root


def refused(attempt: Callable[[], object], kind: type[StoreError], *words: str) -> None:
    """It is refused in seconds, in one sentence that has these words, and no secret."""
    began = time.monotonic()
    with pytest.raises(kind) as told_why:
        attempt()
    assert time.monotonic() - began < 60
    sentence = str(told_why.value)
    assert [word for word in words if word not in sentence] == []
    assert "secret-word" not in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    again = pickle.loads(pickle.dumps(told_why.value))
    assert (type(again), str(again)) == (kind, sentence)


def test_bucket_that_is_not_there_is_one_sentence(server: S3Server) -> None:
    url = server.url("x", bucket="no-such-bucket")
    refused(lambda: Store.open(url), StoreAccessError, "bucket does not exist", "make the bucket")
    refused(lambda: Store.open(url, create=False), StoreError, "There is no store")


def test_credentials_that_are_refused_are_one_sentence(server: S3Server, store: Store) -> None:
    store.write("members", KEY, ROWS, ABOUT)
    attempts = [
        lambda: Store.open(store.location.address),
        lambda: store.read("members", KEY),
        lambda: list(store.artifacts("members")),
        lambda: store.write("members", key_at(1), ROWS, ABOUT),
        lambda: store.record_failure(KEY, "circuits", "ioi", "no"),
        lambda: store.lease(KEY),
        lambda: store.leases(),
    ]
    with server.guarded():
        for attempt in attempts:
            refused(attempt, StoreAccessError, "AWS_ACCESS_KEY_ID")


@pytest.mark.slow
def test_server_that_goes_away_is_one_sentence_in_seconds_and_may_come_back() -> None:
    with s3_server() as own:
        store = Store.open(own.url("here"))
        clock = Clock()
        lease = Leases(store.location, 0.2, clock=clock, heart=Heart()).take(KEY)
        assert lease is not None
        own.stop()
        words = ("cannot be", "reached")
        refused(lambda: store.write("members", KEY, ROWS, ABOUT), StoreUnavailableError, *words)
        assert not lease.lost
        clock.seconds += DEAD_AFTER * 2 / 3 + 1
        assert lease.lost


def test_server_and_credentials_may_be_given_by_the_environment(server: S3Server) -> None:
    code = "import sys; from data import Store; print(Store.open(sys.argv[1]).location.root)"
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "name",
        "AWS_SECRET_ACCESS_KEY": "secret-word",
        "AWS_REGION": "us-east-1",
    }
    ran = subprocess.run(
        [sys.executable, "-c", code, f"s3://{BUCKET}/by-environment"],
        env=os.environ | environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.stdout.strip() == f"{BUCKET}/by-environment", ran.stderr
    assert "by-environment/store.json" in server.objects()
