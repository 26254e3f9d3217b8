"""A store that is out of reach for a while: waited for, told of once, and said to be back."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from data import Store
from data.access import refusal
from data.errors import StoreAccessError, StoreUnavailableError
from flows.patience import Patience


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which goes on as soon as somebody sleeps; what happens at a time is put there."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    mine = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr("flows.patience.time", mine)
    return now


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def coming_back(store: Store, clock: list[float], at: float) -> Callable[[], str]:
    """Ask for a store that was renamed and is there again from a time on."""
    root = Path(store.location.root)
    away = root.with_name("away")
    root.rename(away)

    def ask() -> str:
        if clock[0] >= at and away.exists():
            away.rename(root)
        store.require()
        return "there"

    return ask


def test_store_that_comes_back_is_told_of_once_and_waited_for(
    store: Store, clock: list[float]
) -> None:
    told: list[str] = []
    patience = Patience(told.append)
    assert patience.wait_for(coming_back(store, clock, at=70.0)) == "there"
    assert 70 <= clock[0] < 75
    assert told == [
        f"The store '{store.location.name}' is gone (store.json is not there any more), and"
        " nothing was written: waiting for it, up to 2 minutes",
        "still waiting for the store, up to 90 seconds more",
        "still waiting for the store, up to 60 seconds more",
        "the store is back",
    ]


def test_store_that_stays_away_is_given_up_after_two_minutes_in_a_sentence_that_says_what_to_do(
    store: Store, clock: list[float]
) -> None:
    told: list[str] = []
    with pytest.raises(StoreUnavailableError, match=r"is gone.*bring it back.*run again\.$"):
        Patience(told.append).wait_for(coming_back(store, clock, at=1000.0))
    assert 120 <= clock[0] < 125
    assert sum("is gone" in one for one in told) == 1
    assert told[-1].startswith("still waiting")


def test_sentence_that_was_told_is_known(store: Store, clock: list[float]) -> None:
    patience = Patience(lambda what: None)
    ask = coming_back(store, clock, at=5.0)
    with pytest.raises(StoreUnavailableError) as gone:
        store.require()
    assert not patience.has_told(str(gone.value))
    patience.wait_for(ask)
    assert patience.has_told(str(gone.value))
    assert not patience.has_told("No space left on device")


def test_what_is_there_or_cannot_pass_is_not_waited_for(clock: list[float]) -> None:
    told: list[str] = []

    def forbidden() -> None:
        raise StoreAccessError("permission denied")

    assert Patience(told.append).wait_for(lambda: 3) == 3
    with pytest.raises(StoreAccessError):
        Patience(told.append).wait_for(forbidden)
    assert (told, clock) == ([], [0.0])


@pytest.mark.parametrize("number", [28, 5, 13])
def test_complaint_says_what_and_why_and_not_what_to_do(number: int) -> None:
    error = refusal(OSError(number, "the reason"), "A thing cannot be written")
    assert error.complaint == "A thing cannot be written: the reason"
    assert str(error) == f"{error.complaint}; {error.advice}."


def test_interruption_ends_the_waiting(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def interrupted(seconds: float) -> None:
        slept.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "flows.patience.time", SimpleNamespace(monotonic=lambda: 0.0, sleep=interrupted)
    )
    Path(store.location.root).rename(Path(store.location.root).with_name("away"))
    with pytest.raises(KeyboardInterrupt):
        Patience(lambda what: None).wait_for(store.require)
    assert len(slept) == 1
