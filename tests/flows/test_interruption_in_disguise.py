"""An interruption that Prefect turns into another error still interrupts the run."""

from __future__ import annotations

import pytest

from flows.run import pass_on_interruption


def disguised(inner: BaseException) -> ValueError:
    """What Prefect raises when it is interrupted while it sets up a task run."""
    try:
        try:
            raise inner
        except BaseException:
            raise ValueError("Task run is not set")  # noqa: B904
    except ValueError as error:
        return error


def test_a_hidden_interruption_is_raised() -> None:
    with pytest.raises(KeyboardInterrupt):
        pass_on_interruption(disguised(KeyboardInterrupt()))


def test_an_error_with_another_cause_stays_the_stages_own() -> None:
    assert pass_on_interruption(disguised(OSError("disk"))) is None  # type: ignore[func-returns-value]
