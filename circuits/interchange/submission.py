"""Folders for the leaderboard of the mechanistic interpretability benchmark's circuit track.

A submission has a folder for every task and model, such as `ioi_gpt2` or `arc-easy_llama3`, and in
it either one file with a score for every unit (`importances.json` or `importances.pt`), or nine
files of membership: a circuit of at most 0.1, 0.2, 0.5, 1, 2, 5, 10, 20 and 50 % of the edges
(Mueller et al. 2025, arXiv:2504.13151). The benchmark puts the nine in order by how many edges
they have, whatever their names; where neurons were chosen, an edge counts as the share of its
writer's neurons that are in. It asks for at least two tasks and two models.

The benchmark's tasks are ioi, mcqa, arithmetic-addition, arithmetic-subtraction, arc-easy and
arc-challenge, its models gpt2, qwen2.5, gemma2, llama3 and interpbench; folders of others are
passed over there.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from circuits.circuit import Circuit
from circuits.errors import CircuitError, InterchangeError
from circuits.extraction import top_n
from circuits.graph import Graph
from circuits.interchange import Imported, load_circuit_file, save_circuit_file
from circuits.interchange.cfg import cfg_of
from circuits.interchange.content import content_of
from circuits.scores import Scores, unit_values

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of the edges, at most
SUFFIXES = (".json", ".pt")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


@dataclass(frozen=True)
class Submission:
    """What was submitted for one task and model: scores, or circuits by their largest share."""

    task: str
    model: str
    imported: Imported | None = None
    circuits: Mapping[float, Circuit] = field(default_factory=dict)


def submission_circuits(scores: Scores, absolute: bool = True) -> dict[float, Circuit]:
    """The circuits of the best edges by |score| for every share, none larger than it may be.

    Raises `InterchangeError` for scores of nodes or neurons: submit those as they are.
    """
    if scores.level != "edge":
        raise InterchangeError(
            f"circuits of a share of the edges need scores of edges, and these are of "
            f"{scores.level}s: submit the scores as they are"
        )
    graph = scores.graph
    nothing = Circuit(graph, np.zeros_like(graph.edge_mask), scores)
    sizes = {share: _most(graph, share) for share in SHARES}
    return {share: top_n(scores, n, absolute) if n else nothing for share, n in sizes.items()}


def save_submission(
    directory: str | Path,
    task: str,
    model: str,
    content: Scores | Sequence[Scores] | Mapping[float, Circuit],
    *,
    d_model: int | None = None,
    suffix: str = ".json",
) -> Path:
    """Write the folder of one task and model into `directory`; returns the folder.

    `content` is either scores (of one level, or of several), or a circuit for each of `SHARES`. It
    is checked before anything is written, and the folder appears whole or not at all. Raises
    `InterchangeError` for unscored edges, circuits of other shares, with more edges than their
    share or of different graphs, and for a folder that is already there.
    """
    folder = Path(directory) / _folder_name(task, model)
    files: dict[str, tuple[Circuit | None, tuple[Scores, ...] | None]]
    if suffix not in SUFFIXES:
        raise InterchangeError(f"a submission has .json or .pt files, and no {suffix!r} files")
    if isinstance(content, Mapping):
        _check_circuits(content)
        files = {f"{100 * s:g}-percent{suffix}": (content[s], None) for s in SHARES}
    else:
        scores = (content,) if isinstance(content, Scores) else tuple(content)
        _check_scored(scores)
        files = {f"importances{suffix}": (None, scores)}
    for circuit, given in files.values():
        written = content_of(circuit, given, d_model)
        cfg_of(written.graph, written.d_model)
    if folder.exists():
        raise InterchangeError(f"{folder} is already there: remove it, or name another directory")
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=directory, prefix=f".{folder.name}."))
    except OSError as error:
        raise InterchangeError(f"{folder} cannot be written: {error.strerror}") from None
    try:
        for name, (circuit, given) in files.items():
            save_circuit_file(draft / name, circuit, given, d_model=d_model)
        draft.chmod(0o755)
        os.rename(draft, folder)
    except OSError as error:
        raise InterchangeError(f"{folder} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def load_submission(directory: str | Path) -> tuple[Submission, ...]:
    """What a directory of submitted folders holds, or one such folder, in the order of their names.

    Raises `InterchangeError` for a folder that is not named `{task}_{model}`, has neither one file
    nor nine, or a circuit with more edges than the benchmark takes.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InterchangeError(f"{directory} is no folder: name the directory of a submission")
    if _circuit_files(directory):
        return (_load_folder(directory),)
    folders = sorted(
        path for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if not folders:
        raise InterchangeError(
            f"{directory} has no circuit files and no folders: a submission has a folder such as "
            f"ioi_gpt2 for every task and model"
        )
    return tuple(map(_load_folder, folders))


def _load_folder(folder: Path) -> Submission:
    task, _, model = folder.name.rpartition("_")
    if not task or not model:
        raise InterchangeError(
            f"{folder} is not named after a task and a model: name it such as ioi_gpt2"
        )
    files = _circuit_files(folder)
    if len(files) not in (1, len(SHARES)):
        raise InterchangeError(
            f"{folder} has {len(files)} circuit files: a submission has one file of scores, or "
            f"{len(SHARES)} circuits"
        )
    read = [load_circuit_file(path) for path in files]
    if len(read) == 1:
        if not read[0].all_scores:
            raise InterchangeError(
                f"{files[0]} has no scores: a single file must have them, or there must be "
                f"{len(SHARES)} circuits"
            )
        return Submission(task, model, read[0])
    circuits = [one.circuit for one in read]
    ranked = []
    for path, circuit in zip(files, circuits, strict=True):
        if circuit is None:
            raise InterchangeError(f"{path} has scores and no circuit: mark which edges are in")
        ranked.append((edge_count(circuit), _first_number(path.name), path.name, circuit))
    ranked.sort(key=lambda one: one[:3])
    by_share = {share: one[-1] for share, one in zip(SHARES, ranked, strict=True)}
    try:
        _check_circuits(by_share)
    except CircuitError as error:
        raise InterchangeError(f"{folder}: {error}") from None
    return Submission(task, model, None, by_share)


def edge_count(circuit: Circuit) -> Fraction:
    """How many edges the benchmark counts: each by the share of its writer's neurons."""
    if circuit.neurons is None:
        return Fraction(circuit.n_edges)
    weighted = (circuit.mask.sum(axis=1) * circuit.neurons.sum(axis=1)).sum()
    return Fraction(int(weighted), circuit.neurons.shape[1])


def _most(graph: Graph, share: float) -> int:
    """The most edges that a circuit of a share may have."""
    return math.floor(Fraction(repr(share)) * graph.n_edges)


def _check_circuits(circuits: Mapping[float, Circuit]) -> None:
    if set(circuits) != set(SHARES):
        odd = sorted(set(circuits) ^ set(SHARES))[0]
        wrong = "is missing" if odd in SHARES else "is none of them"
        raise InterchangeError(
            f"a submission has a circuit for each of the shares {', '.join(map(str, SHARES))}, "
            f"and {odd} {wrong}"
        )
    graphs = {circuit.graph for circuit in circuits.values()}
    if len(graphs) > 1:
        raise InterchangeError("the circuits are of different graphs: give those of one model")
    for share in SHARES:
        count, graph = edge_count(circuits[share]), circuits[share].graph
        if count > Fraction(repr(share)) * graph.n_edges:
            raise InterchangeError(
                f"the circuit of {100 * share:g} % has {float(count):g} edges, and at most "
                f"{_most(graph, share)} of {graph.n_edges} are taken: extract a smaller one, or "
                f"use submission_circuits"
            )


def _check_scored(scores: Sequence[Scores]) -> None:
    if not scores:
        raise InterchangeError("there are no scores to submit: give some, or nine circuits")
    for one in scores:
        values = unit_values(one.graph, one.level, one.values)
        unscored = int(np.isnan(values).sum())
        if unscored and (one.level == "edge" or unscored == len(values)):
            raise InterchangeError(
                f"{unscored} of {len(values)} {one.level}s have no score, and the benchmark would "
                f"take them for 0.0: score every one, or submit circuits"
            )


def _folder_name(task: str, model: str) -> str:
    task = task.replace("_", "-")
    for what, name in (("task", task), ("model", model)):
        if not _NAME.fullmatch(name):
            raise InterchangeError(
                f"the {what} {name!r} cannot be part of a folder's name: use letters, digits, "
                f"dots and hyphens, such as ioi and gpt2"
            )
    return f"{task}_{model}"


def _circuit_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _first_number(name: str) -> float:
    """The first number in a name: what puts circuits of one size in order."""
    found = re.search(r"\d+(\.\d+)?", name)
    return float(found.group()) if found else math.inf
