"""Loaded models, kept for the session: loading one takes longer than scoring it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from circuits import Model, load_model
from tests.checkpoints import tiny, tiny_gpt2, transformers_model
from tests.oracle import Oracle

Engine = Callable[..., tuple[Model, Path]]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors here are tiny: a second thread only waits, and on a busy machine waits long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """`engine(dtype, **options of tiny_gpt2)` gives a loaded model and its directory.

    Checkpoints hold float32 weights, so that the same function can be computed in float64.
    """

    @cache
    def directory(**options: object) -> Path:
        place = tmp_path_factory.mktemp("checkpoint") / "model"
        return tiny_gpt2(place, dtype=torch.float32, **options)

    @cache
    def load(dtype: str = "float64", **options: object) -> tuple[Model, Path]:
        place = directory(**options)
        return load_model(place, device="cpu", dtype=dtype), place

    return load


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`checkpoint_of(family)` is the directory of that family's random checkpoint."""

    @cache
    def write(family: str) -> Path:
        return tiny(family, tmp_path_factory.mktemp("family") / "model")

    return write


@pytest.fixture(scope="session")
def model_of(checkpoint_of: Callable[[str], Path]) -> Callable[..., Model]:
    """`model_of(family, kv=…, dtype=…)` as the engine loads it."""

    @cache
    def load(family: str, kv: str = "ungrouped", dtype: str = "float64") -> Model:
        return load_model(checkpoint_of(family), "cpu", dtype, kv=kv)

    return load


@pytest.fixture(scope="session")
def oracle_of(checkpoint_of: Callable[[str], Path]) -> Callable[..., Oracle]:
    """`oracle_of(family, kv=…, dtype=…)`: the definitions on the same weights."""

    @cache
    def load(family: str, kv: str = "ungrouped", dtype: str = "float64") -> Oracle:
        return Oracle.of(transformers_model(checkpoint_of(family), getattr(torch, dtype)), kv)

    return load
