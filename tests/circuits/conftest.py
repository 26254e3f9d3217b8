"""Loaded models, kept for the session: loading one takes longer than scoring it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from circuits import Model, load_model
from tests.checkpoints import tiny_gpt2

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
