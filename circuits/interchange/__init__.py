"""The field's published files: circuits and scores, to and from other tools.

- `.json` and `.pt`: the files of EAP-IG (Hanna et al. 2024, arXiv:2403.17806) and of the circuit
  track of the mechanistic interpretability benchmark (arXiv:2504.13151);
- `.graphml`: a circuit for Gephi, Cytoscape, yEd or networkx;
- a folder for the benchmark's leaderboard: see `circuits.interchange.submission`;
- views for networkx and pandas: see `circuits.interchange.views`.

What is saved here loads here exactly, standard errors and all, and loads there as far as those
tools can say it. A file from elsewhere is not trusted: its size is looked at first, no code in it
is ever run, and whatever is wrong with it is said in one sentence. Files are written under a
temporary name and renamed, so that no half file is ever seen.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.circuit import Circuit
from circuits.errors import CircuitError, InterchangeError
from circuits.graph import Graph
from circuits.interchange.cfg import LARGEST_TABLE
from circuits.interchange.content import Imported as Imported
from circuits.interchange.content import content_of, imported
from circuits.interchange.views import to_networkx as to_networkx
from circuits.interchange.views import to_pandas as to_pandas
from circuits.scores import Scores
from circuits.whole_file import write_whole

if TYPE_CHECKING:
    from circuits.interchange.submission import SHARES as SHARES
    from circuits.interchange.submission import Submission as Submission
    from circuits.interchange.submission import load_submission as load_submission
    from circuits.interchange.submission import save_submission as save_submission
    from circuits.interchange.submission import submission_circuits as submission_circuits

_FORMATS = {".json": "json_file", ".pt": "tensor_file", ".graphml": "views"}
_TENSOR_BYTES = 18 + 17 + 1  # of an edge, of a neuron (scores, errors, bits), and to spare
# of a file that is read or written; tensors hold everything about the largest graph
LARGEST_BYTES = {".json": 2**28, ".pt": _TENSOR_BYTES * LARGEST_TABLE, ".graphml": 2**28}
_SMALLER = {
    ".json": "write .pt, which is smaller",
    ".pt": "write a file for each level of scores",
    ".graphml": "write .pt, which is smaller (of an ungrouped graph)",
}
_SUBMISSION = (
    *("SHARES", "Submission", "load_submission", "save_submission", "submission_circuits"),
)


def load_circuit_file(
    path: str | Path, graph: Graph | None = None, d_model: int | None = None
) -> Imported:
    """What a circuit file holds, by its suffix: `.json`, `.pt` or `.graphml`.

    `graph` and `d_model` are those of the model that it should belong to (None: whatever the file
    says). Raises `InterchangeError`, with the file, the place in it and what to do, for a file that
    is malformed, of another model, or larger than `LARGEST_BYTES`.
    """
    path = Path(path)
    try:
        module = _format(path)
        data = _bytes_of(path)
        return imported(module.read(data, graph, d_model))
    except CircuitError as error:
        raise InterchangeError(f"{path}: {error}") from None


def save_circuit_file(
    path: str | Path,
    circuit: Circuit | None = None,
    scores: Scores | Sequence[Scores] | None = None,
    *,
    d_model: int | None = None,
) -> Path:
    """Write a circuit, scores of one or several levels, or both, by the suffix; returns the path.

    Without `scores` those that the circuit was extracted from are written. `.json` and `.pt` name
    the width of the residual stream, `d_model`, which need not be said where neurons tell it.
    Raises `InterchangeError` where the format cannot say it: heads that share keys and values in
    `.json` and `.pt`, scores without a circuit in `.graphml`; and where the file would be larger
    than `LARGEST_BYTES`, more than is read back. Loaded again, a circuit has the scores of its own
    level; those of other levels stand beside it: see `Imported`.
    """
    path = Path(path)
    try:
        module = _format(path)
        data = module.write(content_of(circuit, scores, d_model))
        _refuse_unreadable(path.suffix.lower(), len(data))
        publish(path, data)
    except CircuitError as error:
        raise InterchangeError(f"{path}: {error}") from None
    return path


def to_graphml(
    circuit: Circuit,
    path: str | Path,
    scores: Scores | Sequence[Scores] | None = None,
    *,
    d_model: int | None = None,
) -> Path:
    """Write a circuit as GraphML, with the attributes that `to_networkx` gives; returns the path.

    Raises `InterchangeError` for another suffix than `.graphml`, and as `save_circuit_file`.
    """
    if Path(path).suffix.lower() != ".graphml":
        raise InterchangeError(f"{path}: give a GraphML file the ending .graphml")
    return save_circuit_file(path, circuit, scores, d_model=d_model)


def publish(path: Path, data: bytes) -> None:
    """Write a whole file; `InterchangeError` with the reason if it fails."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise InterchangeError(f"the file cannot be written: {_reason(error)}") from None


def _refuse_unreadable(suffix: str, n_bytes: int) -> None:
    """Raise `InterchangeError` for a file that would be too large to be loaded again."""
    if n_bytes > LARGEST_BYTES[suffix]:
        raise InterchangeError(
            f"the file would have {n_bytes} bytes, and at most {LARGEST_BYTES[suffix]} of a "
            f"{suffix} file are read: {_SMALLER[suffix]}, or raise "
            f"circuits.interchange.LARGEST_BYTES"
        )


def _format(path: Path) -> Any:
    """The module that reads and writes files with this suffix."""
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise InterchangeError(
            f"the ending {suffix!r} is none of a circuit file: use {', '.join(_FORMATS)}"
        )
    return importlib.import_module(f"circuits.interchange.{_FORMATS[suffix]}")


def _bytes_of(path: Path) -> bytes:
    """The content of an ordinary file that is not too large."""
    limit = LARGEST_BYTES[path.suffix.lower()]
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: a pipe would block
            what = "a folder" if path.is_dir() else "no ordinary file"
            raise InterchangeError(f"this is {what}: name a circuit file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size) if size <= limit else None
    except (OSError, ValueError) as error:
        if isinstance(error, InterchangeError):
            raise
        raise InterchangeError(f"the file cannot be read: {_reason(error)}") from None
    if data is None:
        advice = "save it as .pt" if path.suffix.lower() != ".pt" else "check what it is"
        raise InterchangeError(
            f"the file has {size} bytes, and at most {limit} of such a file are "
            f"read: {advice}, or raise circuits.interchange.LARGEST_BYTES"
        )
    if not data:
        raise InterchangeError("the file is empty: get it again")
    return data


def _reason(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) else str(error)
    return said or type(error).__name__


def __getattr__(name: str) -> Any:
    if name not in _SUBMISSION:
        raise AttributeError(f"module 'circuits.interchange' has no attribute {name!r}")
    return getattr(importlib.import_module("circuits.interchange.submission"), name)
