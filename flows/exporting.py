"""Stored circuits and scores as files that other tools read."""

from __future__ import annotations

from pathlib import Path

from data import Catalog
from flows.errors import GridError
from flows.finding import find_scores_or_circuit, load_circuit, load_scores

_ENDINGS = ("", ".json", ".pt", ".graphml", ".csv")


def export(catalog: Catalog, prefix: str, path: Path) -> tuple[Path, str]:
    """Write what has an id that begins so; returns where, and a title that says what it is.

    By the ending of `path`: `.json` and `.pt` are the field's formats, `.graphml` a circuit for
    graph tools, `.csv` a row a unit. Scores may also go into a directory, without an ending, as a
    submission to the benchmark: a folder named for the task and the model. A circuit is written
    with the scores it was extracted from. Raises GridError for scores of no task as a submission,
    and `circuits.InterchangeError` for another ending and for what a format cannot say.
    """
    from circuits.interchange import publish, save_circuit_file, to_pandas

    kind, key, title = find_scores_or_circuit(catalog, prefix)
    if path.suffix.lower() not in _ENDINGS or (kind == "circuit" and not path.suffix):
        into = "" if kind == "circuit" else ", or be a directory's, for a benchmark submission"
        raise GridError(
            f"{'a circuit' if kind == 'circuit' else 'scores'} cannot be written to {path}: its "
            f"name must end in .json, .pt, .graphml or .csv{into}"
        )
    if kind == "circuit":
        circuit, title = load_circuit(catalog, key)
        (belongs,) = catalog.query(
            "SELECT scores FROM circuits WHERE circuit = $key", key=key
        ).to_pylist()
        scores, space = load_scores(catalog, belongs["scores"])
        table = to_pandas(circuit)
    else:
        circuit, (scores, space) = None, load_scores(catalog, key)
        table = scores.to_pandas()
    if path.suffix.lower() == ".csv":
        publish(path, table.to_csv(index=False).encode())
    elif path.suffix or circuit is not None:
        save_circuit_file(path, circuit, scores if circuit is None else None, d_model=space.d_model)
    else:
        from circuits.interchange import save_submission

        (about,) = catalog.query(
            "SELECT task, models.name AS model FROM attributions"
            " JOIN models ON models.model = attributions.model_id WHERE scores = $key",
            key=key,
        ).to_pylist()
        if about["task"] is None:
            raise GridError(f"{title} belongs to no task: a submission is of a task and a model")
        task, model = (about[name].rpartition("/")[2] for name in ("task", "model"))
        path = save_submission(path, task, model, scores, d_model=space.d_model)
    return path, title
