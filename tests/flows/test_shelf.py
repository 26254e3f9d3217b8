"""How many models a process keeps: loaded once, let go of in time, loaded ahead where they fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.config import ModelChoice
from flows.errors import GridError
from flows.identity import Identities, ModelIdentity
from flows.shelf import Shelf, weight_bytes
from tests.flows.checkpoints import speaker as write_speaker


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[ModelIdentity]:
    """Three models of one size."""
    folder = tmp_path_factory.mktemp("models")
    paths = [write_speaker(folder / name, ("ioi",)) for name in "abc"]
    known = Identities()
    return [known.model(ModelChoice(name=str(path)), "cpu") for path in paths]


def test_a_model_stays_until_another_needs_its_place(identities: list[ModelIdentity]):
    a, b, _ = identities
    shelf = Shelf()
    model = shelf.get(a)
    assert shelf.get(a) is model
    other = shelf.get(b)
    assert shelf.held == (b,)
    assert other is not model
    assert shelf.get(a) is not model


def test_the_model_used_least_lately_goes_first(identities: list[ModelIdentity]):
    a, b, c = identities
    shelf = Shelf(max_models=2)
    model = shelf.get(a)
    shelf.get(b)
    shelf.get(a)
    shelf.get(c)
    assert shelf.held == (a, c)
    assert shelf.get(a) is model


def test_devices_have_room_of_their_own(identities: list[ModelIdentity]):
    a, b, _ = identities
    shelf = Shelf()
    shelf.get(a)
    shelf.get(replace(b, device="auto"))
    assert len(shelf.held) == 2


def test_weights_are_counted_in_the_dtype_they_are_held_in(identities: list[ModelIdentity]):
    a, *_ = identities
    n_parameters = Shelf().get(a).n_parameters
    assert weight_bytes(a) == 4 * n_parameters
    assert weight_bytes(replace(a, dtype="bfloat16")) == 2 * n_parameters


def test_bytes_bound_what_is_held(identities: list[ModelIdentity]):
    a, b, c = identities
    two = 2 * weight_bytes(a)
    shelf = Shelf(max_models=3, max_bytes=two)
    for one in (a, b, c):
        shelf.get(one)
    assert shelf.held == (b, c)
    with pytest.raises(GridError, match=r"take [\d,]+ bytes, more than max_bytes \([\d,]+\)"):
        Shelf(max_bytes=weight_bytes(a) - 1).get(a)


def test_a_model_is_loaded_ahead_only_beside_those_in_use(identities: list[ModelIdentity]):
    a, b, c = identities
    narrow = Shelf()
    narrow.get(a)
    narrow.expect(b)
    assert narrow.held == (a,)
    wide = Shelf(max_models=2)
    wide.get(a)
    wide.expect(b)
    wide.expect(c)
    assert set(wide.held) == {a, b}
    ahead = wide.get(b)  # waits for the one being loaded
    assert wide.get(b) is ahead
    assert wide.held == (a, b)


def test_a_model_that_cannot_be_loaded_is_tried_again(
    identities: list[ModelIdentity], tmp_path: Path
):
    a, *_ = identities
    changed = replace(a, fingerprint="0" * 64)
    shelf = Shelf(max_models=2)
    shelf.expect(changed)
    with pytest.raises(GridError, match="changed while the grid was running"):
        shelf.get(changed)
    assert changed not in shelf.held
    assert shelf.get(a).fingerprint == a.fingerprint
