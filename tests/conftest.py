"""Checkpoints that several rooms' tests share, written once a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 of two layers and three heads, with a word-level tokenizer."""
    from tests.checkpoints import tiny_gpt2

    return tiny_gpt2(tmp_path_factory.mktemp("checkpoint") / "tiny")
